//! Pods that started before the plugin was there, in real network namespaces.

// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};

use kube::Client;
use kube::client::Body;
use tempfile::TempDir;
use weft_cni::redirect::Redirect;
use weft_cni_node::Metrics;
use weft_cni_node::pods::Injected;
use weft_cni_node::repair::{Mode, Repairs};
use weft_sandbox::testing::{self, Failure, TestResult};
use weft_sandbox::{Pod, PodSpec, Sandbox};

weft_sandbox::tests! {
    a_pod_without_its_redirection_gets_it,
    a_pod_with_another_redirection_gets_its_own,
    a_pod_that_does_not_run_yet_is_looked_at_again,
    a_pod_that_was_seen_is_looked_at_when_its_validator_complains,
    a_pod_without_its_redirection_is_deleted_if_that_is_wanted,
    without_repairs_a_pod_is_complained_about_once,
    the_nodes_own_namespace_is_never_redirected,
    a_pod_whose_annotation_makes_no_sense_is_left,
}

const UID: &str = "0b1f3a52-7c55-4b6e-9d3c-0a1b2c3d4e5f";

async fn a_pod_without_its_redirection_gets_it() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, &node.netns());
    let mut repairs = node.repairs(Mode::Install);
    assert_eq!(repairs.look(vec![injected()], false).await, 0);
    assert!(node.pod.redirection().await?.unwrap().matches(&wanted()));
    node.assert_counted("weft_cni_repairs_total{outcome=\"installed\"} 1");
    node.assert_counted("weft_cni_pods_redirected 1");
    Ok(())
}

async fn a_pod_with_another_redirection_gets_its_own() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, &node.netns());
    let mut repairs = node.repairs(Mode::Install);
    repairs.look(vec![injected()], false).await;
    node.pod.redirect(&Redirect { outbound_port: 16001, ..wanted() }).await?;
    assert_eq!(repairs.look(vec![injected()], true).await, 0);
    assert!(node.pod.redirection().await?.unwrap().matches(&wanted()));
    node.assert_counted("weft_cni_repairs_total{outcome=\"installed\"} 2");
    Ok(())
}

async fn a_pod_that_does_not_run_yet_is_looked_at_again() -> TestResult {
    let node = Node::start().await?;
    let mut repairs = node.repairs(Mode::Install);
    assert_eq!(repairs.look(vec![injected()], false).await, 1);
    node.runs("11111111-2222-3333-4444-555555555555", &node.netns());
    assert_eq!(repairs.look(vec![injected()], false).await, 1, "another pod's process");
    assert_eq!(node.pod.redirection().await?, None);
    node.runs(UID, &node.netns());
    assert_eq!(repairs.look(vec![injected()], false).await, 0);
    assert!(node.pod.redirection().await?.is_some());
    Ok(())
}

async fn a_pod_that_was_seen_is_looked_at_when_its_validator_complains() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, &node.netns());
    let mut repairs = node.repairs(Mode::Install);
    repairs.look(vec![injected()], false).await;
    node.pod.remove_redirect().await?;
    repairs.look(vec![injected()], false).await;
    assert_eq!(node.pod.redirection().await?, None, "it was seen, and nobody complains");
    repairs.look(vec![Injected { is_invalid: true, ..injected() }], false).await;
    assert!(node.pod.redirection().await?.is_some());
    Ok(())
}

async fn a_pod_without_its_redirection_is_deleted_if_that_is_wanted() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, &node.netns());
    node.repairs(Mode::Delete).look(vec![injected()], false).await;
    assert_eq!(node.pod.redirection().await?, None);
    let requests = node.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 1);
    let (line, body) = &requests[0];
    assert!(line.starts_with("DELETE /api/v1/namespaces/shop/pods/web"), "{line}");
    assert!(body.contains(UID), "only this one of the name: {body}");
    node.assert_counted("weft_cni_repairs_total{outcome=\"deleted\"} 1");
    node.pod.redirect(&wanted()).await?;
    node.repairs(Mode::Delete).look(vec![injected()], false).await;
    assert_eq!(node.requests.lock().unwrap().len(), 1, "a redirected pod stays");
    Ok(())
}

async fn without_repairs_a_pod_is_complained_about_once() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, &node.netns());
    let mut repairs = node.repairs(Mode::Off);
    for _ in 0..3 {
        assert_eq!(repairs.look(vec![injected()], false).await, 1);
    }
    assert_eq!(node.pod.redirection().await?, None);
    node.assert_counted("weft_cni_repairs_total{outcome=\"left\"} 1");
    Ok(())
}

async fn the_nodes_own_namespace_is_never_redirected() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, "/proc/self/ns/net");
    let mut repairs = node.repairs(Mode::Install);
    assert_eq!(repairs.look(vec![injected()], false).await, 1);
    assert_eq!(weft_cni::redirect::installed()?, None);
    node.assert_counted("weft_cni_repairs_total{outcome=\"failed\"} 1");
    Ok(())
}

async fn a_pod_whose_annotation_makes_no_sense_is_left() -> TestResult {
    let node = Node::start().await?;
    node.runs(UID, &node.netns());
    let odd = Injected { redirect: Err("annotation".into()), ..injected() };
    assert_eq!(node.repairs(Mode::Install).look(vec![odd], false).await, 1);
    assert_eq!(node.pod.redirection().await?, None);
    Ok(())
}

/// A node whose only pod has a process, as `/proc` shows it.
struct Node {
    _sandbox: Sandbox,
    pod: Pod,
    netns: File,
    proc: TempDir,
    metrics: Arc<Metrics>,
    /// What the API server was asked: method and path, body.
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Node {
    async fn start() -> Result<Self, Failure> {
        let sandbox = testing::sandbox().await?;
        let pod = sandbox.add_pod(PodSpec::named("web")).await?;
        let netns = pod.run(|| File::open("/proc/thread-self/ns/net")).await??;
        let (proc, metrics, requests) = (tempfile::tempdir()?, Arc::default(), Arc::default());
        fs::create_dir(proc.path().join("sys"))?;
        Ok(Self { _sandbox: sandbox, pod, netns, proc, metrics, requests })
    }

    fn netns(&self) -> String {
        format!("/proc/self/fd/{}", self.netns.as_raw_fd())
    }

    /// Lets a process of the pod run.
    fn runs(&self, uid: &str, netns: &str) {
        let number = 100 + fs::read_dir(self.proc.path()).unwrap().count();
        let process = self.proc.path().join(number.to_string());
        fs::create_dir_all(process.join("ns")).unwrap();
        fs::write(process.join("cgroup"), format!("0::/kubepods/burstable/pod{uid}/4f2a\n")).unwrap();
        symlink(netns, process.join("ns/net")).unwrap();
    }

    fn repairs(&self, mode: Mode) -> Repairs {
        let requests = Arc::clone(&self.requests);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let requests = Arc::clone(&requests);
            async move {
                let line = format!("{} {}", request.method(), request.uri().path());
                let body = request.into_body().collect_bytes().await.unwrap();
                requests.lock().unwrap().push((line, String::from_utf8_lossy(&body).into_owned()));
                let answer = r#"{"kind":"Status","status":"Success","code":200}"#;
                http::Response::builder().body(Body::from(answer.as_bytes().to_vec()))
            }
        });
        Repairs::new(mode, self.proc.path().into(), Client::new(service, "default"), Arc::clone(&self.metrics))
    }

    fn assert_counted(&self, line: &str) {
        let text = self.metrics.text();
        assert!(text.lines().any(|counted| counted == line), "{line} is not in:\n{text}");
    }
}

fn wanted() -> Redirect {
    Redirect { exclude_uid: Some(1337), ..Redirect::default() }
}

fn injected() -> Injected {
    Injected {
        namespace: "shop".into(),
        name: "web".into(),
        uid: UID.into(),
        redirect: Ok(wanted()),
        is_invalid: false,
    }
}
