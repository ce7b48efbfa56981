//! The program `e2e/go-control-plane` in a pod.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weft_local_mesh::control_plane::alive;
use weft_local_mesh::wait;
use weft_sandbox::testing::{self, Failure};
use weft_sandbox::{Pod, Process};

use super::LIMIT;

/// Where the first listener of its configurations is.
pub(crate) const BASE_PORT: u16 = 9000;
/// Where it serves xDS, and takes configurations.
const XDS_PORT: u16 = 18000;
const CONTROL_PORT: u16 = 18001;

/// One of the ways of xDS.
pub(crate) struct Way {
    /// As go-control-plane calls it.
    pub(crate) mode: &'static str,
    /// As a bootstrap calls the dialect.
    pub(crate) api_type: &'static str,
    /// Whether one stream carries everything.
    pub(crate) aggregated: bool,
}

impl Way {
    /// As go-control-plane's samples for Envoy are.
    pub(crate) fn bootstrap(&self) -> String {
        let api_type = self.api_type;
        let api = format!(
            "{{api_type: {api_type}, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{{envoy_grpc: \
             {{cluster_name: xds_cluster}}}}]}}"
        );
        let (ads, source) = match self.aggregated {
            true => (format!("  ads_config: {api}\n"), "{resource_api_version: V3, ads: {}}".to_owned()),
            false => (String::new(), format!("{{resource_api_version: V3, api_config_source: {api}}}")),
        };
        format!(
            "admin: {{access_log_path: /dev/null, address: {{socket_address: {{address: 127.0.0.1, port_value: 19000}}}}}}\n\
             node: {{cluster: test-cluster, id: test-id}}\n\
             dynamic_resources:\n{ads}  cds_config: {source}\n  lds_config: {source}\n\
             static_resources:\n  clusters:\n  - connect_timeout: 1s\n    name: xds_cluster\n    http2_protocol_options: {{}}\n    \
             load_assignment: {{cluster_name: xds_cluster, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: \
             127.0.0.1, port_value: {XDS_PORT}}}}}}}}}]}}]}}\n"
        )
    }
}

/// What it is to serve; see `configuration` in its `main.go`.
#[derive(Clone, Copy)]
pub(crate) struct Configuration {
    pub(crate) version: &'static str,
    pub(crate) names: &'static str,
    pub(crate) upstream: u16,
    pub(crate) http: u16,
    pub(crate) tcp: u16,
    pub(crate) broken: &'static [&'static str],
}

/// One that runs.
pub(crate) struct ControlPlane {
    pod: Pod,
    process: Process,
}

/// The program; skips the test where there is none.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    match std::env::var_os("WEFT_GO_CONTROL_PLANE").map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        _ => Err(testing::skip(
            "there is no control plane made of go-control-plane: WEFT_GO_CONTROL_PLANE=\"$(scripts/go-control-plane.sh)\" builds and names one",
        )),
    }
}

impl ControlPlane {
    pub(crate) async fn start(pod: &Pod, program: &Path, way: &Way) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(["-mode", way.mode, "-base", &BASE_PORT.to_string()]);
        let process = pod.spawn("go-control-plane", command).await?;
        let this = Self { pod: pod.clone(), process };
        wait::until(LIMIT, "the control plane takes configurations", async || {
            alive(&this.process, pod)?;
            let connects = || TcpStream::connect(("127.0.0.1", CONTROL_PORT)).is_ok();
            Ok(pod.run(connects).await?.then_some(()))
        })
        .await?;
        Ok(this)
    }

    /// Replaces what it serves.
    pub(crate) async fn put(&self, configuration: &Configuration) -> Result<(), Failure> {
        let Configuration { version, names, upstream, http, tcp, broken } = *configuration;
        let body = json!({
            "version": version, "names": names, "upstream": upstream, "http": http, "tcp": tcp, "broken": broken
        });
        let body = body.to_string();
        let answer = self.pod.run(move || post(&body)).await??;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(Failure::Error(answer)) }
    }

    /// What it was told to be refused, in the order of that.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let refused = |event: Value| event["refused"].as_str().map(str::to_owned);
        self.events().into_iter().filter_map(refused).collect()
    }

    /// Fails unless every kind of resource was asked for, and all over such streams.
    pub(crate) fn was_asked_as(&self, way: &Way) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = self.events();
        let kinds: BTreeSet<_> = events.iter().map(|event| text(&event["type"])).collect();
        let streams: BTreeSet<_> = events.iter().map(|event| text(&event["stream"])).collect();
        assert!(kinds.iter().eq(["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"]), "{kinds:?}");
        let expected = if way.aggregated { "aggregated" } else { "separate" };
        assert!(streams.iter().eq([expected]), "{streams:?}");
    }

    fn events(&self) -> Vec<Value> {
        let log = self.process.log().unwrap_or_default();
        // The last line may be half written, and others are the program's log.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }
}

fn post(body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", CONTROL_PORT))?;
    let length = body.len();
    write!(stream, "POST / HTTP/1.1\r\nhost: control\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
