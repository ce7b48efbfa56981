//! Pods as their users see them: real namespaces, processes and connections.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use weft_sandbox::testing::{self, TestResult, eventually};
use weft_sandbox::{Error, HostEntry, Pod, PodSpec, Process, Sandbox, User};

weft_sandbox::tests! {
    two_pods_talk_over_ipv4_and_ipv6,
    the_host_reaches_a_pod_and_a_pod_the_host,
    services_names_resolve_and_change_while_processes_run,
    an_address_outside_the_sandbox_is_refused_at_once,
    a_removed_pods_address_serves_its_successor_at_once,
    a_taken_name_or_address_is_refused_with_the_reason,
    a_process_is_logged_signalled_and_waited_for,
    a_process_runs_as_another_user_in_its_directory,
    a_missing_program_is_an_error_that_names_it,
    the_bridge_sees_plaintext_between_pods_and_no_loopback,
    redirected_connections_arrive_at_the_sidecars_port,
    two_sandboxes_have_different_subnets,
    a_published_port_of_the_host_leads_to_a_pod,
}

const LIMIT: Duration = Duration::from_secs(10);

async fn two_pods_talk_over_ipv4_and_ipv6() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let (a, b) = (sandbox.add_pod(PodSpec::named("a")).await?, sandbox.add_pod(PodSpec::named("b")).await?);
    for address in b.addresses().both() {
        serve_once(&b, address, "hello from b").await?;
        assert_eq!(fetch(&a, SocketAddr::new(address, 80)).await??, "hello from b");
    }
    Ok(())
}

async fn the_host_reaches_a_pod_and_a_pod_the_host() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("web")).await?;
    for address in pod.addresses().both() {
        serve_once(&pod, address, "hello host").await?;
        assert_eq!(read_all(SocketAddr::new(address, 80))?, "hello host");
    }
    for address in sandbox.host_addresses().both() {
        let listener = TcpListener::bind((address, 0))?;
        let port = listener.local_addr()?.port();
        let peer = pod.run(move || TcpStream::connect((address, port))?.local_addr()).await??;
        let (_, caller) = listener.accept()?;
        assert_eq!(caller.ip(), peer.ip(), "the host sees the pod's own address");
    }
    Ok(())
}

async fn services_names_resolve_and_change_while_processes_run() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("web")).await?;
    let cart = |v4: &str| -> Result<HostEntry, std::net::AddrParseError> {
        let names = vec!["cart.shop.svc.cluster.local".into(), "cart.shop".into(), "cart".into()];
        Ok(HostEntry { addresses: vec![v4.parse()?, "fd00:198:18:1::c".parse()?], names })
    };
    sandbox.set_hosts(&[cart("198.19.7.7")?])?;
    assert_eq!(resolve(&pod, "cart").await?, ["198.19.7.7", "fd00:198:18:1::c"]);
    assert_eq!(resolve(&pod, "cart.shop.svc.cluster.local").await?, ["198.19.7.7", "fd00:198:18:1::c"]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "while ! grep -q 198.19.8.8 /etc/hosts; do sleep 0.02; done"]);
    let watcher = pod.spawn("watcher", command).await?;
    sandbox.set_hosts(&[cart("198.19.8.8")?])?;
    assert!(finish(&watcher).await?.success());
    assert_eq!(resolve(&pod, "cart").await?, ["198.19.8.8", "fd00:198:18:1::c"]);
    // A pod made later knows the names too, and its own.
    let later = sandbox.add_pod(PodSpec::named("later")).await?;
    assert_eq!(resolve(&later, "cart").await?, ["198.19.8.8", "fd00:198:18:1::c"]);
    assert_eq!(resolve(&later, "later").await?, later.addresses().both().map(|address| address.to_string()));
    assert!(resolve(&later, "nowhere").await?.is_empty());
    sandbox.set_hosts(&[])?;
    assert!(resolve(&pod, "cart").await?.is_empty(), "a name that is gone no longer resolves");
    Ok(())
}

async fn an_address_outside_the_sandbox_is_refused_at_once() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    for outside in ["198.19.0.1:80", "[fd00:198:18:1::1]:80"] {
        let outside: SocketAddr = outside.parse()?;
        let error = pod.run(move || TcpStream::connect_timeout(&outside, LIMIT)).await?.unwrap_err();
        let refused = [std::io::ErrorKind::NetworkUnreachable, std::io::ErrorKind::HostUnreachable];
        assert!(refused.contains(&error.kind()), "{outside}: {error}");
    }
    Ok(())
}

async fn a_removed_pods_address_serves_its_successor_at_once() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let (client, old) =
        (sandbox.add_pod(PodSpec::named("client")).await?, sandbox.add_pod(PodSpec::named("old")).await?);
    let addresses = old.addresses();
    for address in addresses.both() {
        serve_once(&old, address, "old").await?;
        assert_eq!(fetch(&client, SocketAddr::new(address, 80)).await??, "old");
    }
    sandbox.remove_pod(&old).await?;
    assert!(sandbox.pod("old").is_none());
    let new = sandbox.add_pod(PodSpec { name: "new".into(), addresses: Some(addresses) }).await?;
    let started = std::time::Instant::now();
    for address in addresses.both() {
        serve_once(&new, address, "new").await?;
        assert_eq!(fetch(&client, SocketAddr::new(address, 80)).await??, "new");
    }
    // A neighbour entry that had to expire first would take seconds.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    Ok(())
}

async fn a_taken_name_or_address_is_refused_with_the_reason() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    assert!(matches!(sandbox.add_pod(PodSpec::named("a")).await, Err(Error::PodExists { .. })));
    assert!(matches!(sandbox.add_pod(PodSpec::named("../a")).await, Err(Error::PodName { .. })));
    let taken = PodSpec { name: "b".into(), addresses: Some(pod.addresses()) };
    assert!(sandbox.add_pod(taken).await.unwrap_err().to_string().contains("pod a has it"));
    let mut outside = pod.addresses();
    outside.v4 = "198.19.0.1".parse()?;
    let outside = PodSpec { name: "b".into(), addresses: Some(outside) };
    assert!(sandbox.add_pod(outside).await.unwrap_err().to_string().contains("outside the sandbox's subnet"));
    let host = PodSpec { name: "b".into(), addresses: Some(sandbox.host_addresses()) };
    assert!(sandbox.add_pod(host).await.unwrap_err().to_string().contains("the host's"));
    sandbox.add_pod(PodSpec::named("b")).await?;
    Ok(())
}

async fn a_process_is_logged_signalled_and_waited_for() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap 'echo bye; exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.02; done"]);
    let polite = pod.spawn("polite", command).await?;
    eventually("it writes to both streams", LIMIT, async || polite.log().unwrap() == "out\nerr\n").await;
    assert_eq!(polite.exit_status(), None);
    assert_eq!(polite.stop(LIMIT).await.code(), Some(7));
    assert_eq!(polite.log()?, "out\nerr\nbye\n");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done"]);
    let stubborn = pod.spawn("stubborn", command).await?;
    eventually("it runs", LIMIT, async || stubborn.log().unwrap() == "ready\n").await;
    let status = stubborn.stop(Duration::from_millis(50)).await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    // Signals to what has ended go nowhere.
    stubborn.kill();
    Ok(())
}

async fn a_process_runs_as_another_user_in_its_directory() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    let command = || {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "id -u; id -g; id -G; pwd; echo $FLAVOUR"]).current_dir("/usr").env("FLAVOUR", "lemon");
        command
    };
    let root = pod.spawn("root", command()).await?;
    assert!(finish(&root).await?.success());
    assert!(root.log()?.starts_with("0\n0\n") && root.log()?.ends_with("/usr\nlemon\n"), "{}", root.log()?);
    let user = User { uid: 1337, gid: 1338 };
    if weft_sandbox::is_rootless() {
        let error = pod.spawn_as("user", command(), user).await.unwrap_err();
        assert!(error.to_string().contains("exclude its traffic by mark"), "{error}");
        return Ok(());
    }
    let process = pod.spawn_as("user", command(), user).await?;
    assert!(finish(&process).await?.success());
    assert_eq!(process.log()?, "1337\n1338\n1338\n/usr\nlemon\n");
    Ok(())
}

async fn a_missing_program_is_an_error_that_names_it() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    let error = pod.spawn("ghost", Command::new("/no/such/program")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start ghost (/no/such/program) in pod a: No such file or directory (os error 2)"
    );
    assert!(pod.processes().is_empty());
    Ok(())
}

async fn the_bridge_sees_plaintext_between_pods_and_no_loopback() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let (a, b) = (sandbox.add_pod(PodSpec::named("a")).await?, sandbox.add_pod(PodSpec::named("b")).await?);
    let (bridge, inside) = (sandbox.capture().await?, b.capture().await?);
    serve_once(&b, b.v6(), "card number 4111").await?;
    assert_eq!(fetch(&a, SocketAddr::new(b.v6(), 80)).await??, "card number 4111");
    let loopback: IpAddr = "127.0.0.1".parse()?;
    serve_once(&b, loopback, "inside the pod").await?;
    assert_eq!(fetch(&b, SocketAddr::new(loopback, 80)).await??, "inside the pod");
    let (bridge, inside) = (bridge.stop(), inside.stop());
    assert_eq!((bridge.dropped(), inside.dropped()), (0, 0));
    assert!(bridge.contains(b"card number 4111") && inside.contains(b"card number 4111"));
    assert!(inside.contains(b"inside the pod") && !bridge.contains(b"inside the pod"));
    let once = bridge.frames().filter(|frame| frame.windows(16).any(|part| part == b"card number 4111")).count();
    assert_eq!(once, 1, "the bridge's capture holds each frame once");
    Ok(())
}

async fn redirected_connections_arrive_at_the_sidecars_port() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let (a, b) = (sandbox.add_pod(PodSpec::named("a")).await?, sandbox.add_pod(PodSpec::named("b")).await?);
    let rules = weft_cni::redirect::Redirect { exclude_mark: Some(1), ..Default::default() };
    a.redirect(&rules).await?;
    assert!(a.redirection().await?.is_some_and(|installed| installed.matches(&rules)));
    assert_eq!(b.redirection().await?, None, "the other pod's namespace is its own");
    let sidecar = a.run(|| TcpListener::bind("127.0.0.1:15001")).await??;
    let answer = std::thread::spawn(move || sidecar.accept()?.0.write_all(b"sidecar"));
    assert_eq!(fetch(&a, SocketAddr::new(b.v4(), 80)).await??, "sidecar");
    answer.join().unwrap()?;
    a.remove_redirect().await?;
    assert_eq!(a.redirection().await?, None);
    serve_once(&b, b.v4(), "direct").await?;
    assert_eq!(fetch(&a, SocketAddr::new(b.v4(), 80)).await??, "direct");
    Ok(())
}

async fn two_sandboxes_have_different_subnets() -> TestResult {
    let (one, other) = (testing::sandbox().await?, testing::sandbox().await?);
    assert_ne!(one.name(), other.name());
    assert_ne!(one.subnets(), other.subnets());
    let (a, b) = (one.add_pod(PodSpec::named("a")).await?, other.add_pod(PodSpec::named("a")).await?);
    for pod in [a, b] {
        serve_once(&pod, pod.v6(), "hello").await?;
        assert_eq!(read_all(SocketAddr::new(pod.v6(), 80))?, "hello");
    }
    one.stop().await;
    other.stop().await;
    Ok(())
}

async fn a_published_port_of_the_host_leads_to_a_pod() -> TestResult {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("web")).await?;
    serve_once(&pod, pod.v4(), "front page").await?;
    let published = sandbox.publish("127.0.0.1:0".parse()?, SocketAddr::new(pod.v4(), 80))?;
    let address = published.address();
    if weft_sandbox::is_rootless() {
        return Err(testing::skip(
            "the port is the host's, and this test is not there: lifecycle.rs looks from outside",
        ));
    }
    assert_eq!(tokio::task::spawn_blocking(move || read_all(address)).await??, "front page");
    drop(published);
    eventually("the port is closed", LIMIT, async || TcpStream::connect(address).is_err()).await;
    Ok(())
}

/// Answers one connection to port 80 of `address` inside the pod; listening when this returns.
async fn serve_once(pod: &Pod, address: IpAddr, answer: &'static str) -> TestResult {
    let listener = pod.run(move || TcpListener::bind((address, 80))).await??;
    std::thread::spawn(move || listener.accept()?.0.write_all(answer.as_bytes()));
    Ok(())
}

async fn fetch(pod: &Pod, address: SocketAddr) -> Result<std::io::Result<String>, Error> {
    pod.run(move || read_all(address)).await
}

fn read_all(address: SocketAddr) -> std::io::Result<String> {
    let mut text = String::new();
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What the C library makes of a name inside the pod; empty if nothing.
async fn resolve(pod: &Pod, name: &str) -> Result<Vec<String>, Error> {
    let name = name.to_owned();
    let look_up = move || {
        let found =
            (name.as_str(), 80).to_socket_addrs().map(|found| found.map(|address| address.ip().to_string()).collect());
        let mut addresses: Vec<String> = found.unwrap_or_default();
        addresses.sort();
        addresses.dedup();
        addresses
    };
    pod.run(look_up).await
}

async fn finish(process: &Process) -> Result<std::process::ExitStatus, tokio::time::error::Elapsed> {
    tokio::time::timeout(LIMIT, process.wait()).await
}

#[allow(dead_code)]
fn sandbox_and_pod_can_be_shared_between_threads(sandbox: Sandbox, pod: Pod) -> impl Send + Sync {
    (sandbox, pod)
}
