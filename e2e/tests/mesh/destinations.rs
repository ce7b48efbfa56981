//! Destinations that are oneself, nobody the mesh knows, or the sidecar; and one that sends more than is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_e2e::yaml::service;
use weft_e2e::{Mesh, identity};
use weft_local_mesh::client::Call;
use weft_local_mesh::{MeshPod, Programs, Spec, wait};
use weft_sandbox::Pod;
use weft_sandbox::testing::{self, TestResult};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn a_pod_calls_itself_through_its_service() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    for address in mesh.service_addresses("reviews").await? {
        let outcome = server.probe(&format!("http://{}/reviews", SocketAddr::new(address, 80)), &[]).await?;
        assert!(outcome.ok && outcome.header("x-replica") == "reviews-0", "{address}: {outcome:?}");
    }
    let metrics = server.metrics().await?;
    let served = |direction| metrics.sum("weft_requests_total", &[("direction", direction), ("response_class", "2xx")]);
    assert_eq!((served("outbound"), served("inbound")), (2.0, 2.0), "it passes both directions' rules");
    let peer = identity("reviews");
    assert_eq!(metrics.sum("weft_requests_total", &[("direction", "inbound"), ("peer", &peer)]), 2.0);
    Ok(())
}

pub(crate) async fn a_destination_outside_the_mesh_passes_through_as_it_is() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    let mut command = std::process::Command::new(Programs::find()?.shop);
    command.args(["reviews", "--admin", "unix:/run/app.sock"]);
    outsider.spawn("app", command).await?;
    let bridge = mesh.sandbox().capture().await?;
    for address in outsider.addresses().both() {
        let target = format!("http://{}/reviews", SocketAddr::new(address, 8080));
        wait::until(LIMIT, &format!("{target} is served"), async || {
            Ok(client.probe(&target, &[]).await?.ok.then_some(()))
        })
        .await?;
    }
    assert!(bridge.stop().contains(b"weft-shop-plaintext-reviews"), "nobody there could decrypt it");
    let metrics = client.metrics().await?;
    let connections = [("direction", "outbound"), ("tls", "none")];
    assert!(metrics.sum("weft_connections_total", &connections) >= 2.0, "it did pass the sidecar");
    Ok(())
}

pub(crate) async fn the_sidecars_own_ports_are_no_destination() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let outsider = mesh.add_outsider("outsider").await?;
    for address in server.pod().addresses().both() {
        let answer = Call::get("/reviews").inside(&outsider, SocketAddr::new(address, 8080)).await?;
        assert_eq!(answer.status, 200, "counter-proof: the application's port is served");
        for port in [15001, 15006] {
            let said = knock(&outsider, SocketAddr::new(address, port)).await?;
            assert_eq!(said, b"", "{address} port {port} from another pod");
            // Without a redirect the destination is the port itself: a sidecar that connected there would call itself for ever.
            let said = knock(server.pod(), SocketAddr::new(address, port)).await?;
            assert_eq!(said, b"", "{address} port {port} from inside");
        }
    }
    let outcome = server.probe("http://reviews/reviews", &[]).await?;
    assert!(outcome.ok, "the sidecar goes on: {outcome:?}");
    Ok(())
}

pub(crate) async fn a_stalled_reader_costs_no_memory_and_pauses_its_sender() -> TestResult {
    const SIZE: u64 = 1 << 30;
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("giant", "app: giant", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::client("giant")).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let sent = Arc::new(AtomicU64::new(0));
    let (pod, counter) = (server.pod().clone(), sent.clone());
    tokio::spawn(async move { pod.run_async(move || serve_a_giant(SIZE, counter)).await });

    let address = SocketAddr::new(mesh.service_addresses("giant").await?[0], 80);
    let sidecars = [&client, &server];
    // The first call makes connections, sessions and buffers that stay.
    wait::until(LIMIT, "the giant serves", async || {
        let read = read_some(client.pod(), address, 8 << 20).await;
        Ok(read.is_ok_and(|read| read >= 8 << 20).then_some(()))
    })
    .await?;
    let before = sidecars.map(resident);
    sent.store(0, Ordering::Relaxed);

    let (resume, resumed) = tokio::sync::oneshot::channel::<()>();
    let pod = client.pod().clone();
    let reader = tokio::spawn(async move { pod.run_async(move || stall(address, resumed, 64 << 20)).await });
    let mut last = (0, Instant::now());
    let stalled = wait::until(LIMIT, "the sender is paused", async || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(now))
    })
    .await?;
    // What the kernel's socket buffers take on the way.
    assert!(stalled < 64 << 20, "{stalled} bytes of {SIZE} were sent to nobody");
    for ((sidecar, before), after) in sidecars.iter().zip(before).zip(sidecars.map(resident)) {
        let growth = after.saturating_sub(before);
        assert!(growth < 1 << 20, "the sidecar of {} grew by {growth} bytes from {before}", sidecar.name());
    }
    resume.send(()).unwrap();
    let read = reader.await???;
    assert!(read >= 64 << 20, "it goes on where it was: {read}");
    assert!(sent.load(Ordering::Relaxed) > stalled);
    Ok(())
}

/// What comes back for an HTTP request on a fresh connection, up to its end or 2 s of silence.
async fn knock(pod: &Pod, address: SocketAddr) -> Result<Vec<u8>, weft_sandbox::Error> {
    pod.run_async(move || async move {
        let mut said = Vec::new();
        let conversation = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /reviews HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n").await?;
            stream.read_to_end(&mut said).await
        };
        // An error is a refusal, as silence is.
        let _ = tokio::time::timeout(Duration::from_secs(2), conversation).await;
        said
    })
    .await
}

/// Answers every request with a body of that size; counts what it has sent.
async fn serve_a_giant(size: u64, sent: Arc<AtomicU64>) -> std::io::Result<()> {
    let listener = TcpListener::bind("[::]:8080").await?;
    let chunk = vec![b'x'; 64 << 10];
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        // A reader that leaves ends only its own answer.
        while let Ok(()) = stream.write_all(&chunk).await {
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Reads at least so much of an answer, and leaves.
async fn read_some(pod: &Pod, address: SocketAddr, enough: u64) -> std::io::Result<u64> {
    let (now, wait) = tokio::sync::oneshot::channel();
    let _ = now.send(());
    pod.run_async(move || stall(address, wait, enough)).await.map_err(std::io::Error::other)?
}

/// Asks, reads one byte, and no more until it may; then at least `enough`.
async fn stall(address: SocketAddr, resumed: tokio::sync::oneshot::Receiver<()>, enough: u64) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: giant\r\n\r\n").await?;
    stream.read_exact(&mut [0]).await?;
    // Its sender being dropped is a failed test, which ends this as well.
    let _ = resumed.await;
    let (mut read, mut buffer) = (1, vec![0; 64 << 10]);
    while read < enough {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => read += length as u64,
        }
    }
    Ok(read)
}

/// The sidecar's resident memory in bytes.
fn resident(pod: &MeshPod) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.sidecar().id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.expect("a running process has resident memory") << 10
}
