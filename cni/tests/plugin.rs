//! The CNI plugin as a container runtime calls it: the program, its environment and stdin, and real network namespaces.

// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_cni::agent::{Answer, Question};
use weft_cni::injection::REDIRECT;
use weft_cni::redirect::Redirect;
use weft_sandbox::testing::{self, Failure, TestResult};
use weft_sandbox::{Pod, PodSpec, Sandbox};

weft_sandbox::tests! {
    an_injected_pod_is_redirected_in_every_version,
    connections_of_an_added_pod_arrive_at_the_sidecar,
    adding_twice_and_deleting_twice_are_no_errors,
    other_pods_are_passed_through,
    without_annotations_from_the_runtime_the_agent_decides,
    without_an_agent_an_injected_pod_has_to_wait,
    without_an_agent_other_pods_start,
    a_pod_the_agent_does_not_know_has_to_wait,
    check_notices_what_somebody_changed,
    check_of_a_pod_added_before_the_plugin_decides_anew,
    deleting_needs_no_namespace,
    one_of_two_interfaces_keeps_the_pod_redirected,
    garbage_is_what_the_runtime_no_longer_has,
    status_is_good_without_an_agent,
    a_version_without_a_command_refuses_it,
    versions_are_told_whatever_else_is_wrong,
    what_makes_no_sense_is_refused_by_its_code,
    the_nodes_own_namespace_is_never_redirected,
}

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

async fn an_injected_pod_is_redirected_in_every_version() -> TestResult {
    let node = Node::start().await?;
    for version in VERSIONS {
        let result = result(version);
        let mut configuration = node.injected(&wanted());
        configuration["cniVersion"] = version.into();
        configuration["prevResult"] = result.clone();
        assert_eq!(node.call("ADD", &configuration), Ok(result), "the result is passed on in {version}");
        assert!(node.pod.redirection().await?.unwrap().matches(&wanted()));
        if !version.starts_with("0.3") {
            assert_eq!(node.call("CHECK", &configuration), Ok(Value::Null), "CHECK in {version}");
        }
        assert_eq!(node.call("DEL", &configuration), Ok(Value::Null), "DEL in {version}");
        assert_eq!(node.pod.redirection().await?, None, "{version}");
    }
    Ok(())
}

async fn connections_of_an_added_pod_arrive_at_the_sidecar() -> TestResult {
    let node = Node::start().await?;
    node.call("ADD", &node.injected(&wanted())).unwrap();
    for (listen, destination) in [("127.0.0.1:15001", "198.19.4.5:8080"), ("[::1]:15001", "[fd00:198:18:1::45]:8080")] {
        let destination: SocketAddr = destination.parse()?;
        let sidecar = node.pod.run(move || TcpListener::bind(listen)).await??;
        let _client = node.pod.run(move || TcpStream::connect_timeout(&destination, Duration::from_secs(60))).await??;
        let (accepted, peer) = sidecar.accept()?;
        let socket = socket2::SockRef::from(&accepted);
        let original = if peer.is_ipv4() { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
        assert_eq!(original.as_socket(), Some(destination));
    }
    Ok(())
}

async fn adding_twice_and_deleting_twice_are_no_errors() -> TestResult {
    let node = Node::start().await?;
    let configuration = node.injected(&wanted());
    for _ in 0..2 {
        node.call("ADD", &configuration).unwrap();
        assert!(node.pod.redirection().await?.unwrap().matches(&wanted()));
    }
    for _ in 0..2 {
        node.call("DEL", &configuration).unwrap();
        assert_eq!(node.pod.redirection().await?, None);
    }
    Ok(())
}

async fn other_pods_are_passed_through() -> TestResult {
    let node = Node::start().await?;
    let mut excluded = node.injected(&wanted());
    excluded["excludeNamespaces"] = json!(["kube-system", "shop"]);
    for configuration in [node.annotated(&json!({ "app": "web" })), excluded] {
        assert_eq!(node.call("ADD", &configuration), Ok(result("1.1.0")));
        assert_eq!(node.call("CHECK", &configuration), Ok(Value::Null));
        assert_eq!(node.pod.redirection().await?, None);
    }
    // Not Kubernetes'.
    let mut call = node.prepare("ADD");
    call.env_remove("CNI_ARGS");
    assert_eq!(finish(call, &node.injected(&wanted()).to_string()), Ok(result("1.1.0")));
    assert_eq!(node.pod.redirection().await?, None);
    Ok(())
}

async fn without_annotations_from_the_runtime_the_agent_decides() -> TestResult {
    let node = Node::start().await?;
    let agent = node.agent(vec![Answer::Leave("not injected".into()), Answer::Redirect(Box::new(wanted()))]);
    assert_eq!(node.call("ADD", &node.plain()), Ok(result("1.1.0")));
    assert_eq!(node.pod.redirection().await?, None);
    assert_eq!(node.call("ADD", &node.plain()), Ok(result("1.1.0")));
    assert!(node.pod.redirection().await?.unwrap().matches(&wanted()));
    let question = Question { namespace: "shop".into(), name: "web-1".into(), uid: Some("0a-7".into()) };
    assert_eq!(agent.join().unwrap(), [question.clone(), question]);
    Ok(())
}

async fn without_an_agent_an_injected_pod_has_to_wait() -> TestResult {
    let node = Node::start().await?;
    node.mount_volume("kubernetes.io~projected/weft-token");
    let (code, message) = node.call("ADD", &node.plain()).unwrap_err();
    assert_eq!(code, 11, "{message}");
    assert!(message.contains("pod shop/web-1 may be injected"), "{message}");
    assert!(message.contains("see the DaemonSet weft-cni"), "{message}");
    assert_eq!(node.pod.redirection().await?, None);
    Ok(())
}

async fn without_an_agent_other_pods_start() -> TestResult {
    let node = Node::start().await?;
    let (code, _) = node.call("ADD", &node.plain()).unwrap_err();
    assert_eq!(code, 11, "nothing at all is known of the pod");
    node.mount_volume("kubernetes.io~projected/kube-api-access-1");
    assert_eq!(node.call("ADD", &node.plain()), Ok(result("1.1.0")));
    Ok(())
}

async fn a_pod_the_agent_does_not_know_has_to_wait() -> TestResult {
    let node = Node::start().await?;
    node.mount_volume("kubernetes.io~projected/weft-token");
    let agent = node.agent(vec![Answer::Unknown("the API server does not answer".into())]);
    let (code, message) = node.call("ADD", &node.plain()).unwrap_err();
    assert_eq!(code, 11);
    assert!(message.ends_with("the API server does not answer"), "{message}");
    agent.join().unwrap();
    Ok(())
}

async fn check_notices_what_somebody_changed() -> TestResult {
    let node = Node::start().await?;
    let configuration = node.injected(&wanted());
    node.call("ADD", &configuration).unwrap();
    node.pod.redirect(&Redirect { outbound_port: 16001, ..wanted() }).await?;
    let (code, message) = node.call("CHECK", &configuration).unwrap_err();
    assert_eq!(code, 102);
    assert!(message.contains("somebody changed the table"), "{message}");
    node.pod.remove_redirect().await?;
    let (code, message) = node.call("CHECK", &configuration).unwrap_err();
    assert_eq!(code, 102);
    assert!(message.contains("is missing"), "{message}");
    Ok(())
}

async fn check_of_a_pod_added_before_the_plugin_decides_anew() -> TestResult {
    let node = Node::start().await?;
    assert_eq!(node.call("CHECK", &node.annotated(&json!({}))), Ok(Value::Null));
    assert_eq!(node.call("CHECK", &node.injected(&wanted())).unwrap_err().0, 102);
    node.pod.redirect(&wanted()).await?;
    assert_eq!(node.call("CHECK", &node.injected(&wanted())), Ok(Value::Null));
    Ok(())
}

async fn deleting_needs_no_namespace() -> TestResult {
    let node = Node::start().await?;
    let configuration = node.injected(&wanted());
    node.call("ADD", &configuration).unwrap();
    let ordinary_file = node.directory.path().join("netns");
    std::fs::write(&ordinary_file, "")?;
    for netns in ["/run/netns/gone", ordinary_file.to_str().unwrap(), ""] {
        let mut call = node.prepare("DEL");
        call.env("CNI_NETNS", netns);
        assert_eq!(finish(call, &configuration.to_string()), Ok(Value::Null), "{netns:?}");
    }
    let mut call = node.prepare("DEL");
    call.env_remove("CNI_NETNS").env_remove("CNI_ARGS");
    let mut bare = configuration;
    bare.as_object_mut().unwrap().remove("prevResult");
    assert_eq!(finish(call, &bare.to_string()), Ok(Value::Null));
    Ok(())
}

async fn one_of_two_interfaces_keeps_the_pod_redirected() -> TestResult {
    let node = Node::start().await?;
    let configuration = node.injected(&wanted());
    let second = |command: &str| {
        let mut call = node.prepare(command);
        call.env("CNI_IFNAME", "net1");
        let mut configuration = configuration.clone();
        configuration["name"] = "other".into();
        finish(call, &configuration.to_string()).unwrap();
    };
    node.call("ADD", &configuration).unwrap();
    second("ADD");
    second("DEL");
    assert!(node.pod.redirection().await?.is_some_and(|installed| installed.matches(&wanted())));
    node.call("DEL", &configuration).unwrap();
    assert_eq!(node.pod.redirection().await?, None);
    Ok(())
}

async fn garbage_is_what_the_runtime_no_longer_has() -> TestResult {
    let node = Node::start().await?;
    let configuration = node.injected(&wanted());
    node.call("ADD", &configuration).unwrap();
    let records = || std::fs::read_dir(node.directory.path().join("state/net")).unwrap().count();
    let mut collect = configuration.clone();
    for (valid, left) in [(json!([{ "containerID": "c-1", "ifname": "eth0" }]), 1), (json!([]), 0)] {
        collect["cni.dev/valid-attachments"] = valid;
        assert_eq!(node.call_node("GC", &collect), Ok(Value::Null));
        assert_eq!(records(), left);
    }
    assert!(node.pod.redirection().await?.is_some(), "what a namespace has is the namespace's");
    let (code, message) = node.call_node("GC", &configuration).unwrap_err();
    assert_eq!(code, 7, "{message}");
    assert_eq!(node.call_node("GC", &collect), Ok(Value::Null), "nothing is left to collect");
    Ok(())
}

async fn status_is_good_without_an_agent() -> TestResult {
    let node = Node::start().await?;
    assert_eq!(node.call_node("STATUS", &node.plain()), Ok(Value::Null));
    Ok(())
}

async fn a_version_without_a_command_refuses_it() -> TestResult {
    let node = Node::start().await?;
    for version in VERSIONS {
        let mut configuration = node.plain();
        configuration["cniVersion"] = version.into();
        configuration["cni.dev/valid-attachments"] = json!([]);
        for (command, since) in [("GC", "1.1.0"), ("STATUS", "1.1.0"), ("CHECK", "0.4.0")] {
            let refusal = node.call(command, &configuration).err();
            let is_version = refusal.as_ref().is_some_and(|(code, message)| *code == 1 && message.contains(since));
            assert_eq!(is_version, version < since, "{command} in {version}: {refusal:?}");
        }
    }
    Ok(())
}

async fn versions_are_told_whatever_else_is_wrong() -> TestResult {
    let node = Node::start().await?;
    for (input, answered) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":"9.0.0"}"#, "1.1.0"),
        ("", "1.1.0"),
        ("{", "1.1.0"),
    ] {
        let mut call = node.prepare("VERSION");
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            call.env_remove(name);
        }
        let expected = json!({ "cniVersion": answered, "supportedVersions": VERSIONS });
        assert_eq!(finish(call, input), Ok(expected), "{input}");
    }
    Ok(())
}

async fn what_makes_no_sense_is_refused_by_its_code() -> TestResult {
    let node = Node::start().await?;
    let good = node.injected(&wanted());
    let with = |key: &str, value: Value| {
        let mut configuration = good.clone();
        configuration[key] = value;
        configuration.to_string()
    };
    let text = good.to_string();
    let without_previous = {
        let mut configuration = good.clone();
        configuration.as_object_mut().unwrap().remove("prevResult");
        configuration.to_string()
    };
    let bad_annotation = node.annotated(&json!({ REDIRECT: "{\"outbound_port\": 0}" })).to_string();
    let cases = [
        ("ADD", ("", ""), String::new(), 6, "is no JSON"),
        ("ADD", ("", ""), "{\"cniVersion\": \"1.0.0\",".into(), 6, "is no JSON"),
        ("ADD", ("", ""), "[]".into(), 1, "cniVersion"),
        ("ADD", ("", ""), with("cniVersion", Value::Null), 1, "use one of 0.3.0"),
        ("ADD", ("", ""), with("cniVersion", "0.2.0".into()), 1, "\"0.2.0\" is not supported"),
        ("ADD", ("", ""), with("cniVersion", "2.0.0".into()), 1, "\"2.0.0\" is not supported"),
        ("ADD", ("", ""), with("name", "../../etc".into()), 7, "is no network's name"),
        ("ADD", ("", ""), with("runtimeConfig", "x".into()), 7, "makes no sense"),
        ("ADD", ("", ""), without_previous.clone(), 7, "prevResult is missing"),
        ("CHECK", ("", ""), without_previous, 7, "prevResult is missing"),
        ("ADD", ("", ""), bad_annotation, 100, "pod shop/web-1: annotation weft.mesh/redirect"),
        ("ADD", ("CNI_CONTAINERID", ""), text.clone(), 4, "CNI_CONTAINERID is missing"),
        ("DEL", ("CNI_CONTAINERID", ""), text.clone(), 4, "CNI_CONTAINERID is missing"),
        ("ADD", ("CNI_CONTAINERID", "../x"), text.clone(), 4, "CNI_CONTAINERID: \"../x\""),
        ("ADD", ("CNI_IFNAME", ""), text.clone(), 4, "CNI_IFNAME is missing"),
        ("DEL", ("CNI_IFNAME", ""), text.clone(), 4, "CNI_IFNAME is missing"),
        ("ADD", ("CNI_IFNAME", "a/b"), text.clone(), 4, "CNI_IFNAME: \"a/b\""),
        ("ADD", ("CNI_NETNS", ""), text.clone(), 4, "CNI_NETNS is missing"),
        ("CHECK", ("CNI_NETNS", ""), text.clone(), 4, "CNI_NETNS is missing"),
        ("ADD", ("CNI_NETNS", "/run/netns/gone"), text.clone(), 4, "no network namespace at /run/netns/gone"),
        ("CHECK", ("CNI_NETNS", "/run/netns/gone"), text.clone(), 3, "no network namespace at /run/netns/gone"),
        ("ADD", ("CNI_ARGS", "K8S_POD_NAME"), text.clone(), 4, "CNI_ARGS: \"K8S_POD_NAME\""),
        ("add", ("", ""), text.clone(), 4, "CNI_COMMAND: \"add\""),
        ("", ("", ""), text, 4, "CNI_COMMAND"),
    ];
    for (command, (name, value), input, code, complaint) in cases {
        let mut call = node.prepare(command);
        if !name.is_empty() {
            call.env(name, value);
        }
        let (got, message) = finish(call, &input).unwrap_err();
        assert_eq!(got, code, "{command} {name}={value} {input}: {message}");
        assert!(message.contains(complaint), "{command} {name}={value} {input}: {message}");
        assert_eq!(node.pod.redirection().await?, None, "{command} {name}={value} {input}");
    }
    Ok(())
}

async fn the_nodes_own_namespace_is_never_redirected() -> TestResult {
    let node = Node::start().await?;
    let own = format!("/proc/{}/ns/net", std::process::id());
    for command in ["ADD", "CHECK"] {
        let mut call = node.prepare(command);
        call.env("CNI_NETNS", &own);
        let (code, message) = finish(call, &node.injected(&wanted()).to_string()).unwrap_err();
        assert_eq!(code, 4);
        assert!(message.contains("is the node's own network namespace"), "{message}");
    }
    let mut call = node.prepare("DEL");
    call.env("CNI_NETNS", &own);
    finish(call, &node.injected(&wanted()).to_string()).unwrap();
    Ok(())
}

/// A node with one pod, whose network is being made.
struct Node {
    _sandbox: Sandbox,
    pod: Pod,
    /// Keeps the namespace, and is the path to it.
    netns: File,
    directory: TempDir,
}

impl Node {
    async fn start() -> Result<Self, Failure> {
        let sandbox = testing::sandbox().await?;
        let pod = sandbox.add_pod(PodSpec::named("web")).await?;
        let netns = pod.run(|| File::open("/proc/thread-self/ns/net")).await??;
        Ok(Self { _sandbox: sandbox, pod, netns, directory: tempfile::tempdir()? })
    }

    /// The configuration as a runtime without the capability passes it.
    fn plain(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "weft-cni",
            "agentSocket": self.socket(),
            "agentPatienceSeconds": 0,
            "kubeletDir": self.directory.path().join("kubelet"),
            "stateDir": self.directory.path().join("state"),
            "somebodyElses": { "field": true },
            "prevResult": result("1.1.0"),
        })
    }

    fn annotated(&self, annotations: &Value) -> Value {
        let mut configuration = self.plain();
        configuration["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": annotations });
        configuration
    }

    fn injected(&self, redirect: &Redirect) -> Value {
        self.annotated(&json!({ "app": "web", REDIRECT: serde_json::to_string(redirect).unwrap() }))
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn mount_volume(&self, path: &str) {
        std::fs::create_dir_all(self.directory.path().join("kubelet/pods/0a-7/volumes").join(path)).unwrap();
    }

    /// An agent that gives these answers, and returns the questions.
    fn agent(&self, answers: Vec<Answer>) -> std::thread::JoinHandle<Vec<Question>> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let serve = |answer: Answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                writeln!(stream, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
                serde_json::from_str(&line).unwrap()
            };
            answers.into_iter().map(serve).collect()
        })
    }

    /// The plugin, with the environment of a call for the pod.
    fn prepare(&self, command: &str) -> Command {
        let mut call = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
        call.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "c-1")
            .env("CNI_NETNS", format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=0a-7");
        call
    }

    fn call(&self, command: &str, configuration: &Value) -> Result<Value, (u64, String)> {
        finish(self.prepare(command), &configuration.to_string())
    }

    /// A call that is about no container.
    fn call_node(&self, command: &str, configuration: &Value) -> Result<Value, (u64, String)> {
        let mut call = self.prepare(command);
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            call.env_remove(name);
        }
        finish(call, &configuration.to_string())
    }
}

fn wanted() -> Redirect {
    Redirect { exclude_uid: Some(1337), exclude_outbound_ports: vec![3306], ..Redirect::default() }
}

/// What a bridge plugin answers, in the shape of the version.
fn result(version: &str) -> Value {
    let mut result = json!({
        "cniVersion": version,
        "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/var/run/netns/cni-1" }],
        "ips": [
            { "address": "198.18.0.2/24", "gateway": "198.18.0.1", "interface": 0 },
            { "address": "fd00:198:18::2/64", "interface": 0 },
        ],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": {},
    });
    if version.starts_with("0.") {
        result["ips"][0]["version"] = "4".into();
        result["ips"][1]["version"] = "6".into();
    }
    if version == "1.1.0" {
        result["interfaces"][0]["mtu"] = 1500.into();
    }
    result
}

/// What the plugin printed (null for nothing), or the code and message of its error.
fn finish(mut call: Command, input: &str) -> Result<Value, (u64, String)> {
    let mut plugin = call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    plugin.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = plugin.wait_with_output().unwrap();
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    if output.status.success() {
        return Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() });
    }
    let error: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("no JSON: {text:?} {}", String::from_utf8_lossy(&output.stderr)));
    assert!(error["cniVersion"].is_string(), "{error}");
    Err((error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned()))
}
