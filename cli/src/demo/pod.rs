//! One pod of the shop: application, sidecar, redirection, and the Workload file that makes it known.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_cni::redirect::Redirect;
use weft_sandbox::{Pod, PodSpec, Process, Sandbox};

use super::control_plane::{Binaries, ControlPlane, XDS_PORT, tail};
use super::{client, wait};

/// The namespace of everything in the shop.
pub(crate) const NAMESPACE: &str = "shop";

/// The trust domain of the demo's identities.
pub(crate) const TRUST_DOMAIN: &str = "weft.local";

/// How long a pod may take from nothing to serving.
const START: Duration = Duration::from_secs(15);

/// How soon an application that ended by itself is started again, as a kubelet would.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// A set of replicas: what a Deployment is in Kubernetes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    /// `reviews-v1`; pods are named after it.
    pub(crate) name: &'static str,
    /// The shop's role, the `app` label and the service account; `loadgen` has no application of its own.
    pub(crate) role: &'static str,
    pub(crate) version: &'static str,
    pub(crate) replicas: usize,
}

/// A meshed pod.
#[derive(Debug)]
pub(crate) struct MeshPod {
    pub(crate) workload: Workload,
    pub(crate) pod: Pod,
    proxy: Process,
    app: Arc<App>,
}

/// The application's process, started again whenever it ends by itself.
#[derive(Debug, Default)]
struct App {
    process: Mutex<Option<Process>>,
    /// Cancelled when the end is wanted.
    stopping: CancellationToken,
    restarts: AtomicU64,
}

/// What making a pod needs.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) control_plane: Arc<ControlPlane>,
    pub(crate) binaries: Binaries,
    /// Those that keep applications running.
    pub(crate) supervisors: TaskTracker,
}

/// Whether a Service sends requests to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Ready,
    NotReady,
    /// On its way out: it finishes what it has.
    Terminating,
}

impl Maker {
    /// Makes a pod and waits until its sidecar is ready and its application answers; then it becomes an endpoint.
    pub(crate) async fn make(&self, workload: Workload, name: String) -> anyhow::Result<MeshPod> {
        let pod = self.sandbox.add_pod(PodSpec::named(&name)).await?;
        // Before the sidecar asks for its certificate: the control plane signs only for pods it knows.
        self.declare(&pod, workload, Endpoint::NotReady)?;
        self.hand_in(&pod, workload).await.with_context(|| format!("cannot prepare pod {name}"))?;
        pod.redirect(&redirect()).await?;
        let mut command = Command::new(&self.binaries.proxy);
        command.args(["-c", "/run/bootstrap.json"]);
        let proxy = pod.spawn("proxy", command).await?;
        let mesh_pod = MeshPod { workload, pod, proxy, app: Arc::default() };
        wait::until(START, &format!("the sidecar of {name} to be ready"), || mesh_pod.sidecar_ready()).await?;
        if workload.role != "loadgen" {
            mesh_pod.start_app(&self.binaries, &self.supervisors).await?;
        }
        self.declare(&mesh_pod.pod, workload, Endpoint::Ready)?;
        Ok(mesh_pod)
    }

    /// Writes the pod's Workload file, which the control plane reads as it reads pods in Kubernetes.
    pub(crate) fn declare(&self, pod: &Pod, workload: Workload, endpoint: Endpoint) -> anyhow::Result<()> {
        let Workload { name: owner, role, version, .. } = workload;
        let name = pod.name();
        let (v4, v6) = (pod.v4(), pod.v6());
        let ready = endpoint == Endpoint::Ready;
        let terminating = endpoint == Endpoint::Terminating;
        let text = format!(
            "apiVersion: weft.mesh/v1alpha1\n\
             kind: Workload\n\
             metadata:\n  name: {name}\n  namespace: {NAMESPACE}\n  labels: {{ app: {role}, version: {version} }}\n\
             spec:\n  addresses: [\"{v4}\", \"{v6}\"]\n  serviceAccount: {role}\n  workload: {owner}\n  \
             ready: {ready}\n  terminating: {terminating}\n"
        );
        self.control_plane.folder().write(&workload_file(name), &text).map(drop)
    }

    /// Takes the pod out of the folder.
    pub(crate) fn withdraw(&self, pod: &Pod) -> anyhow::Result<()> {
        self.control_plane.folder().remove(&workload_file(pod.name()))
    }

    /// Puts bootstrap, join token and root certificate into the pod's /run.
    async fn hand_in(&self, pod: &Pod, workload: Workload) -> anyhow::Result<()> {
        let run = pod.run_dir();
        let token = self.control_plane.token(NAMESPACE, pod.name()).await?;
        let bootstrap = bootstrap(pod.name(), workload, self.control_plane.address());
        std::fs::write(run.join("token"), token)?;
        std::fs::write(run.join("root.pem"), self.control_plane.root_bundle().await?)?;
        std::fs::write(run.join("bootstrap.json"), serde_json::to_vec_pretty(&bootstrap)?)?;
        Ok(())
    }
}

/// The file in which a pod is declared.
pub(crate) fn workload_file(pod: &str) -> String {
    format!("workload-{pod}.yaml")
}

/// Everything but the sidecar's own connections, which its mark tells: a rootless sandbox has only one user.
fn redirect() -> Redirect {
    Redirect { exclude_mark: Some(SIDECAR_MARK), ..Redirect::default() }
}

/// The mark that the sidecar sets on its connections.
const SIDECAR_MARK: u32 = 0x57ef;

/// A sidecar's start-up file, in Envoy's format.
fn bootstrap(pod: &str, workload: Workload, control_plane: std::net::IpAddr) -> Value {
    let id = format!("{NAMESPACE}/{pod}");
    json!({
        "node": {
            "id": id,
            "cluster": format!("{NAMESPACE}/{}", workload.name),
            "metadata": { "weft.mesh": {
                "namespace": NAMESPACE,
                "workload": workload.name,
                "pod": pod,
                "service_account": workload.role,
                "token_file": "/run/token",
                "state_dir": "/run/proxy",
                "trust_domain": TRUST_DOMAIN,
                "admin_socket": "/run/proxy.sock",
                "mark": SIDECAR_MARK,
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
                    "address": control_plane.to_string(), "port_value": XDS_PORT,
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

impl MeshPod {
    pub(crate) fn name(&self) -> &str {
        self.pod.name()
    }

    /// How often the application ended by itself and was started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.app.restarts.load(Ordering::Relaxed)
    }

    /// Tells the application to fail: `mode=crash&rate=0.5`.
    pub(crate) async fn fail(&self, how: &str) -> anyhow::Result<()> {
        self.app_admin(&format!("/control/fail?{how}")).await
    }

    /// Takes back [`MeshPod::fail`].
    pub(crate) async fn recover(&self) -> anyhow::Result<()> {
        self.app_admin("/control/recover").await
    }

    /// What the sidecar answers on its admin socket.
    pub(crate) async fn sidecar(&self, method: Method, path: &str) -> anyhow::Result<client::Answer> {
        client::unix(&self.pod.run_dir().join("proxy.sock"), method, path).await
    }

    /// Does not start the application again when it ends.
    pub(crate) fn forget_app(&self) {
        self.app.stopping.cancel();
    }

    /// Ends the application at once, and for good.
    pub(crate) async fn kill_app(&self) {
        self.forget_app();
        let process = self.app.current();
        if let Some(process) = process {
            process.kill();
            process.wait().await;
        }
    }

    /// Asks the application to end, and starts it no more.
    pub(crate) fn terminate_app(&self) {
        self.forget_app();
        if let Some(process) = self.app.current() {
            process.terminate();
        }
    }

    /// Waits until the application has ended.
    pub(crate) async fn app_ended(&self) {
        let process = self.app.current();
        if let Some(process) = process {
            process.wait().await;
        }
    }

    /// Asks the sidecar to end, and waits for it, at most `grace`.
    pub(crate) async fn stop_sidecar(&self, grace: Duration) -> std::process::ExitStatus {
        self.proxy.stop(grace).await
    }

    async fn sidecar_ready(&self) -> anyhow::Result<Option<()>> {
        if self.proxy.exit_status().is_some() {
            bail!("the sidecar of {} ended: {}", self.name(), tail(&self.proxy));
        }
        let ready = client::tcp(std::net::SocketAddr::new(self.pod.v4(), 15020), Method::GET, "/ready").await;
        ready.and_then(client::Answer::text).map(|_| Some(()))
    }

    async fn start_app(&self, binaries: &Binaries, supervisors: &TaskTracker) -> anyhow::Result<()> {
        let (pod, binary, workload) = (self.pod.clone(), binaries.shop.clone(), self.workload);
        let spawn = move || {
            let mut command = Command::new(&binary);
            command.args([workload.role, "--app-version", workload.version, "--admin", "unix:/run/app.sock"]);
            let pod = pod.clone();
            async move { pod.spawn("app", command).await }
        };
        let process = spawn().await?;
        self.app.set(process);
        wait::until(START, &format!("the application of {} to answer", self.name()), || async {
            match self.app.current() {
                Some(process) if process.exit_status().is_some() => {
                    bail!("the application of {} ended: {}", self.name(), tail(&process))
                }
                _ => Ok(client::unix(&self.app_socket(), Method::GET, "/healthz").await.ok().map(drop)),
            }
        })
        .await?;
        supervisors.spawn(keep_running(self.app.clone(), spawn));
        Ok(())
    }

    async fn app_admin(&self, path: &str) -> anyhow::Result<()> {
        client::unix(&self.app_socket(), Method::POST, path).await?.text().map(drop)
    }

    fn app_socket(&self) -> PathBuf {
        self.pod.run_dir().join("app.sock")
    }
}

/// The SPIFFE identity of a service account of the shop.
pub(crate) fn identity(service_account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{service_account}")
}

impl App {
    fn current(&self) -> Option<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, process: Process) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }
}

/// Starts the application again whenever it ends, until its end is wanted.
async fn keep_running<F>(app: Arc<App>, spawn: impl Fn() -> F)
where
    F: Future<Output = Result<Process, weft_sandbox::Error>>,
{
    while let Some(process) = app.current() {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            _ = process.wait() => {}
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(RESTART_DELAY) => {}
        }
        // Fails only if the pod has gone, which ends this as well.
        let Ok(process) = spawn().await else { return };
        app.restarts.fetch_add(1, Ordering::Relaxed);
        app.set(process);
    }
}
