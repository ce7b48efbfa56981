//! The control plane goes away and comes back; certificates and roots are replaced.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_e2e::Mesh;
use weft_e2e::yaml::{mesh_tls, service};
use weft_local_mesh::{Error, MeshPod, Settings, Spec, wait};
use weft_sandbox::testing::{self, TestResult};

use super::pair::strict_pair;
use super::sidecars::Sidecars;

const LIMIT: Duration = Duration::from_secs(60);

/// Calls per second.
const RATE: f64 = 100.0;

pub(crate) async fn known_traffic_survives_the_control_plane_and_nothing_is_resent_when_it_is_back() -> TestResult {
    let Everything { mesh, client, servers, targets } = Everything::start(&Settings::default(), Sidecars::WEFT).await?;
    let (known, new): (Vec<_>, Vec<_>) = targets.iter().partition(|target| !target.starts_with("h2c://"));
    let load = client.load(&known, RATE).await?;
    load.next(100, LIMIT).await?;

    mesh.control_plane().kill().await;
    // Nobody here has called the catalog before.
    let outcome = client.probe(new[0], &[]).await?;
    assert_eq!(outcome.class(), "http_503_NC", "{outcome:?}");
    assert!(
        (1_500.0..4_000.0).contains(&outcome.ms),
        "it waits for an answer about two seconds, not {} ms",
        outcome.ms
    );
    load.next(100, LIMIT).await?;

    mesh.control_plane().run(&Settings::default()).await?;
    let served = async || {
        let outcome = client.probe(new[0], &[]).await?;
        Ok(outcome.ok.then_some(()))
    };
    wait::until(LIMIT, "the new destination is served", served).await?;
    wait::until(LIMIT, "every sidecar is back", async || {
        let status = mesh.control_plane().status().await?;
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        Ok((proxies.len() == servers.len() + 1 && proxies.iter().all(|proxy| proxy["state"] == "SYNCED")).then_some(()))
    })
    .await?;
    let sent = mesh.control_plane().resources_sent().await?;
    assert_eq!(sent, [1.0, 1.0, 1.0, 1.0, 0.0], "only what the new destination needs: LDS, RDS, CDS, EDS, SDS");
    let total = load.total().await?;
    assert_eq!(total.failed, 0, "{}", total.describe_failures());
    Ok(())
}

pub(crate) async fn envoys_survive_the_control_plane_and_are_resent_nothing_when_it_is_back() -> TestResult {
    let Everything { mesh, client, servers, targets } =
        Everything::start(&Settings::default(), Sidecars::envoys()?).await?;
    let load = client.load(&targets, RATE).await?;
    load.next(100, LIMIT).await?;
    mesh.control_plane().kill().await;
    load.next(100, LIMIT).await?;
    mesh.control_plane().run(&Settings::default()).await?;
    wait::until(LIMIT, "every Envoy is back", async || {
        let status = mesh.control_plane().status().await?;
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        let envoys =
            proxies.iter().filter(|proxy| proxy["user_agent"].as_str().unwrap_or_default().starts_with("envoy"));
        Ok((envoys.clone().count() == servers.len() + 1 && envoys.clone().all(|envoy| envoy["state"] == "SYNCED"))
            .then_some(()))
    })
    .await?;
    let [lds, rds, cds, eds, _] = mesh.control_plane().resources_sent().await?;
    assert_eq!([lds, rds, cds, eds], [0.0; 4], "LDS, RDS, CDS, EDS");
    load.next(100, LIMIT).await?;
    let total = load.total().await?;
    assert_eq!(total.failed, 0, "{}", total.describe_failures());
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn sidecars_start_again_without_the_control_plane() -> TestResult {
    let service = service("reviews", "app: reviews", 80, 8080, "http");
    let (mesh, client, server) = strict_pair(Spec::server("reviews-0", "reviews", "v1"), service).await?;
    let outcome = client.probe("http://reviews/reviews", &[]).await?;
    assert!(outcome.ok, "{outcome:?}");
    // Configuration is written down within a second, so that a storm of changes costs little.
    for (pod, name) in [(&client, "service/mesh/reviews/80"), (&server, "inbound/mesh/reviews-v1")] {
        wait::until(LIMIT, &format!("{} has kept {name}", pod.name()), async || {
            let kept = std::fs::read(pod.pod().run_dir().join("proxy/configuration")).unwrap_or_default();
            Ok(String::from_utf8_lossy(&kept).contains(name).then_some(()))
        })
        .await?;
    }
    mesh.control_plane().kill().await;
    server.restart_sidecar().await?;
    client.restart_sidecar().await?;
    let outcome = client.probe("http://reviews/reviews", &[]).await?;
    assert!(outcome.ok, "the last good configuration, key and certificate are in force: {outcome:?}");
    let mutual = [("tls", "mutual"), ("response_class", "2xx")];
    assert_eq!(server.metrics().await?.sum("weft_requests_total", &mutual), 1.0);
    Ok(())
}

pub(crate) async fn certificates_rotate_under_load_without_a_failure() -> TestResult {
    certificates_rotate(Sidecars::WEFT).await
}

pub(crate) async fn envoys_certificates_rotate_under_load_without_a_failure() -> TestResult {
    certificates_rotate(Sidecars::envoys()?).await
}

async fn certificates_rotate(sidecars: Sidecars) -> TestResult {
    let settings = Settings { certificate_lifetime: Duration::from_secs(6), ..Settings::default() };
    let Everything { mesh, client, servers, targets } = Everything::start(&settings, sidecars).await?;
    let load = client.load(&targets, RATE).await?;
    let pods: Vec<_> = servers.iter().chain([&client]).collect();
    let mut seen = vec![BTreeSet::new(); pods.len()];
    wait::until(LIMIT * 2, "every sidecar's certificate has been rotated three times", async || {
        for (pod, seen) in pods.iter().zip(&mut seen) {
            seen.extend(pod.certificates().await?);
        }
        Ok(seen.iter().all(|seen| seen.len() > 3).then_some(()))
    })
    .await?;
    // New connections prove the new certificates; those of before go on.
    for target in &targets {
        let outcome = client.probe(target, &[]).await?;
        assert!(outcome.ok, "{target}: {outcome:?}");
    }
    let total = load.total().await?;
    assert!(total.sent > 0 && total.failed == 0, "{}", total.describe_failures());
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn the_root_rotates_under_load_without_a_failure() -> TestResult {
    root_rotates(Sidecars::WEFT).await
}

pub(crate) async fn the_root_rotates_under_envoys_without_a_failure() -> TestResult {
    root_rotates(Sidecars::envoys()?).await
}

async fn root_rotates(sidecars: Sidecars) -> TestResult {
    let settings = Settings { certificate_lifetime: Duration::from_secs(6), root_overlap: Duration::from_secs(2) };
    let Everything { mesh, client, targets, .. } = Everything::start(&settings, sidecars).await?;
    let load = client.load(&targets, RATE).await?;
    load.next(20, LIMIT).await?;
    let old = roots(&mesh).await?;
    assert_eq!(old.len(), 1);
    mesh.control_plane().rotate_root().await?;
    let both = roots(&mesh).await?;
    assert_eq!((both.len(), both[0].0 == old[0].0, both[0].1), (2, true, true), "the old one signs for a while");
    let new = &both[1].0;
    wait::until(LIMIT, "the new root signs", async || {
        Ok(roots(&mesh).await?.contains(&(new.clone(), true)).then_some(()))
    })
    .await?;
    wait::until(LIMIT, "the old root is trusted no more", async || Ok((roots(&mesh).await?.len() == 1).then_some(())))
        .await?;
    load.next(100, LIMIT).await?;
    for target in &targets {
        let outcome = client.probe(target, &[]).await?;
        assert!(outcome.ok, "a new connection to {target}, under the new root only: {outcome:?}");
    }
    let total = load.total().await?;
    assert_eq!(total.failed, 0, "{}", total.describe_failures());
    Ok(())
}

/// A server of every protocol, none of which accepts anything but mutual TLS, and their caller.
struct Everything {
    mesh: Mesh,
    client: MeshPod,
    servers: Vec<MeshPod>,
    /// A call of each, by IPv4 and by IPv6.
    targets: Vec<String>,
}

impl Everything {
    async fn start(settings: &Settings, Sidecars { caller, called }: Sidecars) -> Result<Self, testing::Failure> {
        let kinds = [
            ("reviews", 80, 8080, "http", "http://reviews/reviews"),
            ("catalog", 80, 8080, "kubernetes.io/h2c", "h2c://catalog/products"),
            ("payments", 50051, 50051, "grpc", "grpc://payments:50051/settle"),
            ("notifications", 80, 8080, "kubernetes.io/ws", "ws://notifications/ws"),
            ("queue", 4222, 4222, "tcp", "tcp://queue:4222"),
        ];
        let mesh = Mesh::start_with(testing::sandbox().await?, settings).await?;
        let services =
            kinds.map(|(role, port, target, kind, _)| service(role, &format!("app: {role}"), port, target, kind));
        mesh.serve(&services).await?;
        mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
        let servers = kinds.map(|(role, ..)| mesh.add(Spec::server(&format!("{role}-0"), role, "v1").with(called)));
        let servers = futures_util::future::try_join_all(servers).await?;
        let client = mesh.add(Spec::client("client").with(caller)).await?;
        let mut targets = Vec::new();
        for (role, .., target) in kinds {
            targets.extend(mesh.by_address(role, &[target]).await?);
        }
        Ok(Self { mesh, client, servers, targets })
    }
}

/// The trusted roots, oldest first: fingerprint, and whether it signs.
async fn roots(mesh: &Mesh) -> Result<Vec<(String, bool)>, Error> {
    let status = mesh.control_plane().status().await?;
    let roots = status["roots"].as_array().cloned().unwrap_or_default();
    let root = |root: &serde_json::Value| (root["fingerprint"].to_string(), root["signs"] == true);
    Ok(roots.iter().map(root).collect())
}
