//! What runs as a pod's sidecar: our own proxy, or an unmodified Envoy with `weft agent` beside it, both behind the same redirection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use weft_sandbox::{Pod, Process};

use crate::control_plane::alive;
use crate::pod::{MARK, Spec, hand_in};
use crate::programs::{ENVOY, Programs};
use crate::{Error, Samples, TRUST_DOMAIN, wait};

/// Environment variable with the log level of all sidecars, for finding out why something fails.
pub const LOG: &str = "WEFT_SIDECAR_LOG";

/// Where an Envoy's admin server listens.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// How long the first certificate may take, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// The agent's folder in the pod, and the file that it writes last.
const FOLDER: &str = "/run/agent";
const LAST: &str = "agent/identity.json";

/// What runs as a pod's sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sidecar {
    /// `weft-proxy`.
    #[default]
    Weft,
    /// The Envoy of [`ENVOY`], which speaks this variant of xDS.
    Envoy(Dialect),
}

/// A variant of the xDS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Only what changed is sent.
    Delta,
    /// Every answer repeats everything.
    StateOfTheWorld,
}

/// Something that every sidecar counts, by a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Requests that came for the pod's application.
    Received,
    /// Those of them that were answered with 4xx.
    ReceivedClientErrors,
    /// Requests of the pod's application that were sent again, with success.
    Retried,
    /// Endpoints that are left out at the moment.
    Ejected,
    /// Connections that came with mutual TLS.
    MutualTls,
}

impl Counted {
    /// Its count among what such a sidecar counts.
    pub(crate) fn of(self, sidecar: Sidecar, samples: &Samples) -> f64 {
        match sidecar {
            Sidecar::Weft => self.of_weft(samples),
            Sidecar::Envoy(_) => self.of_envoy(samples),
        }
    }

    fn of_weft(self, samples: &Samples) -> f64 {
        let inbound = ("direction", "inbound");
        match self {
            Self::Received => samples.sum("weft_requests_total", &[inbound]),
            Self::ReceivedClientErrors => samples.sum("weft_requests_total", &[inbound, ("response_class", "4xx")]),
            Self::Retried => samples.sum("weft_request_retries_total", &[("outcome", "success")]),
            Self::Ejected => samples.sum("weft_outlier_ejected", &[]),
            Self::MutualTls => samples.sum("weft_connections_total", &[inbound, ("tls", "mutual")]),
        }
    }

    fn of_envoy(self, samples: &Samples) -> f64 {
        const MANAGER: &str = "envoy_http_conn_manager_prefix";
        let of_inbound = |name: &str, more: &[(&str, &str)]| -> f64 {
            samples.of(name, more).filter(|s| s.label(MANAGER).starts_with("inbound/")).map(|s| s.value).sum()
        };
        match self {
            Self::Received => of_inbound("envoy_http_downstream_rq_total", &[]),
            Self::ReceivedClientErrors => {
                of_inbound("envoy_http_downstream_rq_xx", &[("envoy_response_code_class", "4")])
            }
            Self::Retried => samples.sum("envoy_cluster_upstream_rq_retry_success", &[]),
            Self::Ejected => samples.sum("envoy_cluster_outlier_detection_ejections_active", &[]),
            Self::MutualTls => samples.sum("envoy_listener_ssl_handshake", &[]),
        }
    }
}

/// Writes the sidecar's start-up file; for an Envoy, starts the agent and waits for its files.
pub(crate) async fn prepare(
    spec: &Spec,
    namespace: &str,
    pod: &Pod,
    programs: &Programs,
    control_plane: SocketAddr,
) -> Result<Option<Process>, Error> {
    let dialect = match spec.sidecar {
        Sidecar::Weft => {
            hand_in(pod, "bootstrap.json", bootstrap(spec, namespace, control_plane).to_string().as_bytes())?;
            return Ok(None);
        }
        Sidecar::Envoy(Dialect::Delta) => "delta",
        Sidecar::Envoy(Dialect::StateOfTheWorld) => "sotw",
    };
    with_agent(spec, namespace, pod, programs, control_plane, &["--for", "envoy", "--dialect", dialect]).await.map(Some)
}

/// Starts the agent, writes the start-up file of a program that uses its files (`/run/bootstrap.json`), and waits for the first of them.
pub(crate) async fn with_agent(
    spec: &Spec,
    namespace: &str,
    pod: &Pod,
    programs: &Programs,
    control_plane: SocketAddr,
    bootstrap_for: &[&str],
) -> Result<Process, Error> {
    if !programs.weft.is_file() {
        return Err(Error::MissingProgram(programs.weft.clone()));
    }
    let common = [
        ("--control-plane", control_plane.to_string()),
        ("--namespace", namespace.to_owned()),
        ("--pod", spec.name.clone()),
        ("--workload", spec.workload.clone()),
        ("--folder", FOLDER.to_owned()),
        ("--mark", MARK.to_string()),
    ];
    let common = common.iter().flat_map(|(flag, value)| [*flag, value.as_str()]);
    let mut agent = Command::new(&programs.weft);
    agent.arg("agent").args(common.clone()).args(["--roots", "/run/root.pem", "--token", "/run/token"]);
    let agent = pod.spawn("agent", agent).await?;
    let mut bootstrap = tokio::process::Command::new(&programs.weft);
    bootstrap.args(["agent", "bootstrap"]).args(bootstrap_for).args(common);
    let output = bootstrap.output().await.map_err(Error::io(format!("run {}", programs.weft.display())))?;
    if !output.status.success() {
        return Err(Error::unexpected("no bootstrap", String::from_utf8_lossy(&output.stderr)));
    }
    hand_in(pod, "bootstrap.json", &output.stdout)?;
    wait::until(START, &format!("the agent of {} has a certificate", pod.name()), async || {
        alive(&agent, pod)?;
        Ok(pod.run_dir().join(LAST).exists().then_some(()))
    })
    .await?;
    Ok(agent)
}

/// Starts the sidecar's process.
pub(crate) async fn spawn(sidecar: Sidecar, pod: &Pod, programs: &Programs) -> Result<Process, Error> {
    let mut command = match sidecar {
        Sidecar::Weft => Command::new(&programs.proxy),
        Sidecar::Envoy(_) => {
            let envoy = Programs::find_envoy().ok_or_else(|| Error::MissingProgram(ENVOY.into()))?;
            let mut command = Command::new(envoy);
            // Nothing of it is shared with another one on this machine.
            command.args(["--disable-hot-restart", "--concurrency", "1"]);
            command
        }
    };
    command.args(["-c", "/run/bootstrap.json"]);
    match std::env::var(LOG) {
        Ok(level) => drop(command.args(["-l", &level])),
        Err(_) if sidecar != Sidecar::Weft => drop(command.args(["-l", "warning"])),
        Err(_) => {}
    }
    Ok(pod.spawn("sidecar", command).await?)
}

/// The workload's certificates in an Envoy's `/certs`.
pub(crate) fn serial_numbers(certs: &serde_json::Value) -> Vec<String> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let chains = list(&certs["certificates"]).into_iter().flat_map(|certificate| list(&certificate["cert_chain"]));
    chains.filter_map(|certificate| certificate["serial_number"].as_str().map(str::to_owned)).collect()
}

/// Our own sidecar's start-up file, in Envoy's format.
fn bootstrap(spec: &Spec, namespace: &str, control_plane: SocketAddr) -> serde_json::Value {
    json!({
        "node": {
            "id": format!("{namespace}/{}", spec.name),
            "cluster": format!("{namespace}/{}", spec.workload),
            "metadata": { "weft.mesh": {
                "namespace": namespace,
                "workload": spec.workload,
                "pod": spec.name,
                "service_account": spec.service_account,
                "token_file": "/run/token",
                "state_dir": "/run/proxy",
                "trust_domain": TRUST_DOMAIN,
                "admin_socket": "/run/proxy.sock",
                "mark": MARK,
            } },
        },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 15000 } } },
        "dynamic_resources": { "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "control-plane" } }],
        } },
        "static_resources": { "clusters": [{
            "name": "control-plane",
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": { "cluster_name": "control-plane", "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": { "socket_address": {
                    "address": control_plane.ip().to_string(), "port_value": control_plane.port(),
                } } },
            }] }] },
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "weft-control-plane",
                "common_tls_context": { "validation_context": { "trusted_ca": { "filename": "/run/root.pem" } } },
            } },
        }] },
    })
}
