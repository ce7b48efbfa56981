//! Replicas that crash or say goodbye, in every protocol of requests.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use weft_e2e::Mesh;
use weft_e2e::yaml::{policy, service};
use weft_local_mesh::client::Call;
use weft_local_mesh::{Endpoint, Error, Load, MeshPod, Programs, Sidecar, Spec, wait};
use weft_sandbox::testing::{self, Failure, TestResult};

use super::sidecars::Sidecars;
use super::sockets::{ask, connect, connect_http2};

/// How long something may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// Calls per second to each service.
const RATE: f64 = 50.0;

/// Role, port, protocol, and a call.
const KINDS: [(&str, u16, &str, &str); 3] = [
    ("reviews", 8080, "http", "http://reviews:8080/reviews"),
    ("catalog", 8080, "kubernetes.io/h2c", "h2c://catalog:8080/products"),
    ("cart", 50051, "grpc", "grpc://cart:50051/cart"),
];

pub(crate) async fn a_crashing_replica_is_hidden_by_retries_in_every_protocol_of_requests() -> TestResult {
    let shop = Shop::start(Sidecar::Weft).await?;
    let on = "[5xx, unavailable, reset, connect-failure, refused-stream]";
    shop.traffic(&format!(
        "retries: {{ attempts: 3, conditions: {on}, budget: {{ percent: 100, minConcurrency: 20 }} }}"
    ))
    .await?;
    let loads = shop.loads().await?;
    for replicas in &shop.replicas {
        shop.mesh.keep_running(&replicas[0])?;
    }
    try_join_all(shop.replicas.iter().map(async |replicas| replicas[0].app()?.crash(0.2, 3, LIMIT).await)).await?;
    let metrics = shop.client.metrics().await?;
    for (load, (role, ..)) in loads.iter().zip(KINDS) {
        let total = load.total().await?;
        assert_eq!(total.failed, 0, "{role}: {}", total.describe_failures());
        let service = format!("mesh/{role}");
        let retried = [("destination_service", &*service), ("outcome", "success")];
        assert!(metrics.sum("weft_request_retries_total", &retried) >= 1.0, "{role}: they were hidden by retries");
    }

    shop.traffic("retries: { attempts: 0 }").await?;
    for ((load, replicas), (role, ..)) in loads.iter().zip(&shop.replicas).zip(KINDS) {
        load.mark("visible").await?;
        wait::until(LIMIT, &format!("counter-proof: without retries callers of {role} notice"), async || {
            // Fails while the process is down.
            let _ = replicas[0].app()?.fail("mode=crash&rate=0.5").await;
            Ok((load.since("visible").await?.failed > 0).then_some(()))
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn a_rolling_restart_loses_no_call() -> TestResult {
    rolling_restart_loses_no_call(Sidecar::Weft).await
}

pub(crate) async fn an_envoy_loses_no_call_by_a_rolling_restart() -> TestResult {
    rolling_restart_loses_no_call(Sidecars::envoy_calls()?.caller).await
}

async fn rolling_restart_loses_no_call(caller: Sidecar) -> TestResult {
    let shop = Shop::start(caller).await?;
    // A failure that had reached an application would show. The budget is for what befalls a pod's network on its last way.
    shop.traffic("retries: { attempts: 0, budget: { percent: 100, minConcurrency: 20 } }").await?;
    let loads = shop.loads().await?;
    let rolls = loads.iter().zip(&shop.replicas).zip(KINDS);
    try_join_all(rolls.map(|((load, replicas), (role, ..))| roll(&shop.mesh, load, role, replicas))).await?;
    for (load, (role, ..)) in loads.iter().zip(KINDS) {
        let counts = load.next(50, LIMIT).await?;
        let old = [0, 1].map(|number| counts.replica(&format!("{role}-{number}")));
        assert_eq!(old, [0, 0], "{role}: the old ones are gone");
        let total = load.total().await?;
        assert_eq!(total.failed, 0, "{role}: {}", total.describe_failures());
    }
    Ok(())
}

pub(crate) async fn a_drained_sidecar_says_goodbye_and_goes_on_serving() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[
        service("reviews", "app: reviews", 8080, 8080, "http"),
        service("catalog", "app: catalog", 8080, 8080, "kubernetes.io/h2c"),
    ])
    .await?;
    let reviews = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let catalog = mesh.add(Spec::server("catalog-0", "catalog", "v1")).await?;
    // Without a sidecar of its own, it sees what the other's says.
    let caller = mesh.add_outsider("caller").await?;
    let (mut http1, mut http2) = (Vec::new(), Vec::new());
    for address in reviews.pod().addresses().both() {
        let mut connection = connect(&caller, SocketAddr::new(address, 8080)).await?;
        let head = head(&mut connection).await?;
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("connection: close"), "{head}");
        http1.push((address, connection));
    }
    for address in catalog.pod().addresses().both() {
        http2.push((address, connect_http2(&caller, SocketAddr::new(address, 8080)).await?));
    }

    for pod in [&reviews, &catalog] {
        let mut command = Command::new(Programs::find()?.proxy);
        command.args(["drain", "-c", "/run/bootstrap.json"]);
        let drain = pod.pod().spawn("drain", command).await?;
        let status = tokio::time::timeout(LIMIT, drain.wait()).await?;
        assert_eq!(status.code(), Some(0), "{}", drain.log()?);
    }
    for (address, mut connection) in http1 {
        let head = head(&mut connection).await?;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close"), "{address}: {head}");
        let ended = tokio::time::timeout(LIMIT, connection.read(&mut [0])).await??;
        assert_eq!(ended, 0, "{address}: and it is closed");
        let answer = Call::get("/reviews").inside(&caller, SocketAddr::new(address, 8080)).await?;
        assert_eq!(answer.status, 200, "who does not know yet is served");
    }
    for (address, requests) in http2 {
        // GOAWAY (RFC 9113 §6.8) ends a connection without streams.
        wait::until(LIMIT, &format!("{address} takes leave"), async || Ok(requests.clone().ready().await.err()))
            .await?;
        connect_http2(&caller, SocketAddr::new(address, 8080)).await?;
    }
    for pod in [&reviews, &catalog] {
        assert_eq!(pod.stop_sidecar(LIMIT).await.code(), Some(0), "{} ends in order", pod.name());
    }
    Ok(())
}

/// Replaces replicas one after the other, each as Kubernetes does: the successor serves first; then the sidecar is told to drain and the
/// application to end; others hear of it later.
async fn roll(mesh: &Mesh, load: &Load, role: &str, replicas: &[MeshPod]) -> Result<(), Error> {
    for (number, old) in replicas.iter().enumerate() {
        let name = format!("{role}-{}", number + replicas.len());
        mesh.add(Spec::server(&name, role, "v1")).await?;
        load.until(&format!("{name} serves"), 20, LIMIT, |counts| counts.replica(&name) > 0).await?;
        old.admin(Call::post("/drain")).await?.text()?;
        old.app()?.terminate();
        // About a second of calls by those who do not know yet.
        load.next(RATE as u64, LIMIT).await?;
        mesh.declare(old, Endpoint::Terminating).await?;
        old.app()?.ended().await;
        let status = old.stop_sidecar(LIMIT).await;
        if !status.success() {
            return Err(Error::unexpected(format!("the sidecar of {}", old.name()), status.to_string()));
        }
        mesh.remove(old).await?;
    }
    Ok(())
}

/// Two replicas of each kind, and their caller.
struct Shop {
    mesh: Mesh,
    client: MeshPod,
    /// By kind.
    replicas: Vec<Vec<MeshPod>>,
}

impl Shop {
    async fn start(caller: Sidecar) -> Result<Self, Failure> {
        let mesh = Mesh::start(testing::sandbox().await?).await?;
        let services = KINDS.map(|(role, port, kind, _)| service(role, &format!("app: {role}"), port, port, kind));
        mesh.serve(&services).await?;
        let replicas = KINDS.map(|(role, ..)| {
            let replicas = [0, 1].map(|number| mesh.add(Spec::server(&format!("{role}-{number}"), role, "v1")));
            try_join_all(replicas)
        });
        let replicas = try_join_all(replicas).await?;
        let client = mesh.add(Spec::client("client").with(caller)).await?;
        Ok(Self { mesh, client, replicas })
    }

    /// Treats all services alike. Every replica gets its turn: by default the balancer itself avoids one that fails.
    async fn traffic(&self, spec: &str) -> TestResult {
        let spec = format!("loadBalancing: {{ algorithm: RoundRobin }}\n{spec}");
        let policies = KINDS.map(|(role, ..)| policy("TrafficPolicy", role, &spec));
        Ok(self.mesh.apply("traffic.yaml", &policies.concat()).await?)
    }

    /// A load on each kind, by IPv4 and by IPv6, that has reached both replicas.
    async fn loads(&self) -> Result<Vec<Load>, Failure> {
        let mut loads = Vec::new();
        for (role, .., call) in KINDS {
            let load = self.client.load(&self.mesh.by_address(role, &[call]).await?, RATE).await?;
            load.until("both replicas answer", 20, LIMIT, |counts| counts.replicas.len() == 2).await?;
            loads.push(load);
        }
        Ok(loads)
    }
}

/// One request on an open connection: the head of its answer, in lower case but for the first line.
async fn head(connection: &mut TcpStream) -> Result<String, Failure> {
    let answer = tokio::time::timeout(LIMIT, ask(connection)).await??;
    let (first, rest) = answer.split_once("\r\n").unwrap_or((&answer, ""));
    Ok(format!("{first}\r\n{}", rest.to_ascii_lowercase()))
}
