//! The agent as the DaemonSet runs it: the program, a node's folders, and an API server that answers what it asks.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_cni::agent::{Answer, Question, ask};
use weft_cni::injection::REDIRECT;
use weft_cni::redirect::Redirect;

const LIMIT: Duration = Duration::from_secs(120);
const LIST: &str =
    "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    { \"type\": \"bridge\" }\n  ]\n}\n";

#[tokio::test]
async fn an_agent_installs_the_plugin_and_answers_it() {
    let node = Node::new().await;
    let agent = node.agent(&[]).await;
    agent.ready(|code, text| code == 503 && text.contains("there is no CNI configuration")).await;
    assert_eq!(fs::read_to_string(node.bin().join("weft-cni")).unwrap(), "program");
    node.configure(LIST);
    agent.ready(|code, _| code == 200).await;
    let list: Value = serde_json::from_str(&node.configuration()).unwrap();
    let entry = &list["plugins"][1];
    assert_eq!(entry["type"], "weft-cni");
    assert_eq!(entry["excludeNamespaces"], json!(["kube-system", "kube-public", "kube-node-lease", "weft-system"]));
    let socket = PathBuf::from(entry["agentSocket"].as_str().unwrap());
    let question = Question { namespace: "shop".into(), name: "web".into(), uid: Some("1".into()) };
    let answer = tokio::task::spawn_blocking(move || ask(&socket, &question, LIMIT)).await.unwrap().unwrap();
    assert_eq!(answer, Answer::Redirect(Box::new(redirect())));
    let (_, metrics) = agent.get("/metrics").await;
    assert!(metrics.contains("weft_cni_answers_total{answer=\"redirect\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_upgrade_leaves_the_plugin_and_the_next_agent_changes_nothing() {
    let node = Node::new().await;
    node.configure(LIST);
    let agent = node.agent(&[]).await;
    agent.ready(|code, _| code == 200).await;
    let with_plugin = node.configuration();
    assert_ne!(with_plugin, LIST);
    assert!(agent.terminate().await.success());
    assert_eq!(node.configuration(), with_plugin);
    assert!(node.bin().join("weft-cni").exists());
    let next = node.agent(&[]).await;
    next.ready(|code, _| code == 200).await;
    assert_eq!(node.configuration(), with_plugin);
    let (_, metrics) = next.get("/metrics").await;
    assert!(metrics.contains("weft_cni_configuration_writes_total 0"), "{metrics}");
}

#[tokio::test]
async fn a_deleted_daemonset_leaves_the_node_as_it_was() {
    let node = Node::new().await;
    node.configure(LIST);
    let agent = node.agent(&[]).await;
    agent.ready(|code, _| code == 200).await;
    node.has_daemonset.store(false, Ordering::SeqCst);
    assert!(agent.terminate().await.success());
    assert_eq!(node.configuration(), LIST);
    assert_eq!(fs::read_dir(node.bin()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(node.conf()).unwrap().count(), 1);
}

#[tokio::test]
async fn an_agent_told_never_to_uninstall_does_not_and_the_command_does() {
    let node = Node::new().await;
    node.configure(LIST);
    let agent = node.agent(&["--uninstall-on-exit=never"]).await;
    agent.ready(|code, _| code == 200).await;
    node.has_daemonset.store(false, Ordering::SeqCst);
    assert!(agent.terminate().await.success());
    assert_ne!(node.configuration(), LIST);
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-cni-node"));
    command.arg("uninstall").arg("--bin-dir").arg(node.bin()).arg("--conf-dir").arg(node.conf());
    assert!(command.status().unwrap().success());
    assert_eq!(node.configuration(), LIST);
    assert!(!node.bin().join("weft-cni").exists());
}

/// A node's folders, and the API server.
struct Node {
    directory: TempDir,
    has_daemonset: Arc<AtomicBool>,
}

impl Node {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["bin", "conf", "run", "proc"] {
            fs::create_dir(directory.path().join(folder)).unwrap();
        }
        fs::write(directory.path().join("program"), "program").unwrap();
        let has_daemonset = Arc::new(AtomicBool::new(true));
        let server = serve_api(Arc::clone(&has_daemonset)).await;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{server}") } }],
            "users": [{ "name": "c", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
        });
        fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { directory, has_daemonset }
    }

    fn bin(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    fn conf(&self) -> PathBuf {
        self.directory.path().join("conf")
    }

    fn configure(&self, text: &str) {
        fs::write(self.conf().join("10-net.conflist"), text).unwrap();
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.conf().join("10-net.conflist")).unwrap()
    }

    async fn agent(&self, options: &[&str]) -> Agent {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-cni-node"));
        command.arg("run").args(["--node-name=n1", "--listen=127.0.0.1:0"]).args(options);
        for (option, name) in [
            ("--bin-dir", "bin"),
            ("--conf-dir", "conf"),
            ("--run-dir", "run"),
            ("--proc-dir", "proc"),
            ("--program", "program"),
        ] {
            command.arg(option).arg(path(name));
        }
        command.env("KUBECONFIG", path("kubeconfig")).env("RUST_LOG", "info").stderr(Stdio::piped());
        Agent::start(command).await
    }
}

/// The running program. Dropping it kills it.
struct Agent {
    process: Option<Child>,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Agent {
    async fn start(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (send, address) = tokio::sync::oneshot::channel();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut send = Some(send);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let address =
                    line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
                if let Some((send, address)) = address.and_then(|address: SocketAddr| Some((send.take()?, address))) {
                    let _ = send.send(address);
                }
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let address = tokio::time::timeout(LIMIT, address).await.unwrap();
        let address = address.unwrap_or_else(|_| panic!("the agent ended: {}", log.lock().unwrap()));
        Self { process: Some(process), address, log }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let client: Client<_, String> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.get(format!("http://{}{path}", self.address).parse().unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// Waits until `/ready` answers so.
    async fn ready(&self, is_so: impl Fn(u16, &str) -> bool) {
        let look = async {
            loop {
                let (code, text) = self.get("/ready").await;
                if is_so(code, &text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LIMIT, look).await.is_err() {
            panic!("/ready says {:?}; the agent's log:\n{}", self.get("/ready").await, self.log.lock().unwrap());
        }
    }

    async fn terminate(mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Serves one injected pod, and the DaemonSet as long as there is one.
async fn serve_api(has_daemonset: Arc<AtomicBool>) -> SocketAddr {
    let router = Router::new()
        .route("/api/v1/pods", get(pods))
        .route("/apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni", get(daemonset))
        .with_state(has_daemonset);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn pods(RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    assert!(query.contains("fieldSelector=spec.nodeName%3Dn1"), "only of the node: {query}");
    if query.contains("watch=true") {
        // Nothing changes.
        return Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()).into_response();
    }
    let pod = json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "1", "resourceVersion": "1",
            "annotations": { REDIRECT: serde_json::to_string(&redirect()).unwrap() },
        },
        "spec": { "containers": [] },
    });
    let list = json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "1" }, "items": [pod] });
    axum::Json(list).into_response()
}

async fn daemonset(State(has_daemonset): State<Arc<AtomicBool>>) -> Response {
    if has_daemonset.load(Ordering::SeqCst) {
        let metadata = json!({ "name": "weft-cni", "namespace": "weft-system" });
        let object = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata });
        return axum::Json(object).into_response();
    }
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no" });
    (StatusCode::NOT_FOUND, axum::Json(status)).into_response()
}

fn redirect() -> Redirect {
    Redirect { exclude_uid: Some(1337), ..Redirect::default() }
}
