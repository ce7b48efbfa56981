//! Replicas that die, fail or leave, and callers that do not notice.

use std::time::Duration;

use weft_e2e::Mesh;
use weft_e2e::yaml::{policy, service};
use weft_local_mesh::{Counted, Endpoint, Error, MeshPod, Spec, wait};
use weft_sandbox::testing::{self, TestResult};

use super::sidecars::Sidecars;

const LIMIT: Duration = Duration::from_secs(60);

/// Calls per second.
const RATE: f64 = 100.0;

const CALL: &str = "http://reviews/reviews";

pub(crate) async fn a_dead_endpoint_is_retried_away() -> TestResult {
    dead_endpoint_is_retried_away(Sidecars::WEFT).await
}

pub(crate) async fn envoys_retry_a_dead_endpoint_away() -> TestResult {
    dead_endpoint_is_retried_away(Sidecars::envoys()?).await
}

async fn dead_endpoint_is_retried_away(sidecars: Sidecars) -> TestResult {
    let (mesh, client, replicas) = with_replicas(2, sidecars).await?;
    // On a machine that is busy, all that comes in a moment is sent again at once.
    let retries =
        "retries: { attempts: 2, conditions: [connect-failure], budget: { percent: 100, minConcurrency: 20 } }";
    mesh.apply("traffic.yaml", &policy("TrafficPolicy", "reviews", retries)).await?;
    let load = client.load(&mesh.by_address("reviews", &[CALL]).await?, RATE).await?;
    load.until("both replicas answer", 20, LIMIT, |counts| counts.replicas.len() == 2).await?;
    // As when a machine dies: nobody tells the control plane.
    replicas[0].sidecar().kill();
    replicas[0].app()?.kill().await;
    let counts = load.next(200, LIMIT).await?;
    assert_eq!(
        counts.replica("reviews-1"),
        counts.sent,
        "the other one answers all, but {}",
        counts.describe_failures()
    );
    let total = load.total().await?;
    assert_eq!(total.failed, 0, "{}", total.describe_failures());
    assert!(client.count(Counted::Retried).await? >= 1.0, "it was called, and another was called in its place");
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn a_failing_replica_is_hidden_by_retries_and_ejected_by_outlier_detection() -> TestResult {
    failing_replica_is_hidden_and_ejected(Sidecars::WEFT).await
}

pub(crate) async fn envoys_hide_a_failing_replica_by_retries_and_eject_it() -> TestResult {
    failing_replica_is_hidden_and_ejected(Sidecars::envoys()?).await
}

async fn failing_replica_is_hidden_and_ejected(sidecars: Sidecars) -> TestResult {
    let (mesh, client, replicas) = with_replicas(3, sidecars).await?;
    // By default the balancer itself avoids a replica that fails; here every one gets its turn.
    let traffic =
        |spec: &str| policy("TrafficPolicy", "reviews", &format!("loadBalancing: {{ algorithm: RoundRobin }}\n{spec}"));
    let retries = "retries: { attempts: 3, budget: { percent: 100, minConcurrency: 20 } }";
    mesh.apply("traffic.yaml", &traffic(retries)).await?;
    let load = client.load(&mesh.by_address("reviews", &[CALL]).await?, RATE).await?;
    load.until("all replicas answer", 30, LIMIT, |counts| counts.replicas.len() == 3).await?;

    replicas[0].app()?.fail("mode=error&status=500").await?;
    let counts = load.next(200, LIMIT).await?;
    assert_eq!(counts.failed, 0, "retries hide it: {}", counts.describe_failures());
    assert!(client.count(Counted::Retried).await? >= 1.0);

    mesh.apply("traffic.yaml", &traffic("retries: { attempts: 0 }")).await?;
    load.until("without retries its failures show", 50, LIMIT, |counts| counts.failed >= 5).await?;

    let outliers = "retries: { attempts: 0 }\n\
                    outlierDetection: { consecutiveErrors: 3, interval: 1s, baseEjectionTime: 1s, maxEjectionPercent: 50 }";
    mesh.apply("traffic.yaml", &traffic(outliers)).await?;
    let ejected = async || client.count(Counted::Ejected).await;
    wait::until(LIMIT, "outlier detection ejects it", async || Ok((ejected().await? == 1.0).then_some(()))).await?;
    load.until("no call reaches it", 40, LIMIT, |counts| counts.failed == 0).await?;

    replicas[0].app()?.recover().await?;
    load.until("it is let back in", 40, LIMIT, |counts| counts.replica("reviews-0") > 0 && counts.failed == 0).await?;
    wait::until(LIMIT, "none is ejected", async || Ok((ejected().await? == 0.0).then_some(()))).await?;
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn a_failing_replica_is_ejected_in_every_protocol() -> TestResult {
    is_ejected_in_every_protocol(Sidecars::WEFT).await
}

pub(crate) async fn envoys_eject_a_failing_replica_in_every_protocol() -> TestResult {
    is_ejected_in_every_protocol(Sidecars::envoys()?).await
}

async fn is_ejected_in_every_protocol(Sidecars { caller, called }: Sidecars) -> TestResult {
    // How the application fails; in bytes nobody sees that, but that its pod has gone.
    const SERVICES: [(&str, u16, &str, &str, Option<&str>); 3] = [
        ("catalog", 8080, "kubernetes.io/h2c", "h2c://catalog:8080/products", Some("mode=error&status=500")),
        // As `UNAVAILABLE` with the HTTP status 200.
        ("cart", 50051, "grpc", "grpc://cart:50051/cart", Some("mode=error&status=503")),
        ("queue", 4222, "tcp", "tcp://queue:4222", None),
    ];
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&SERVICES.map(|(name, port, kind, ..)| service(name, &format!("app: {name}"), port, port, kind)))
        .await?;
    let policies = SERVICES.map(|(name, ..)| {
        let spec = "loadBalancing: { algorithm: RoundRobin }\nretries: { attempts: 0 }\n\
                    outlierDetection: { consecutiveErrors: 3, interval: 1s, baseEjectionTime: 300s, maxEjectionPercent: 50 }";
        policy("TrafficPolicy", name, spec)
    });
    mesh.apply("traffic.yaml", &policies.concat()).await?;
    let client = mesh.add(Spec::client("client").with(caller)).await?;
    for (ejected_before, (name, _, _, target, failure)) in SERVICES.into_iter().enumerate() {
        let replicas = [format!("{name}-0"), format!("{name}-1")];
        let failing = mesh.add(Spec::server(&replicas[0], name, "v1").with(called)).await?;
        let _other = mesh.add(Spec::server(&replicas[1], name, "v1").with(called)).await?;
        // What is sent as bytes stays with the replica it was connected to.
        let calls = async || {
            let mut outcomes = Vec::new();
            for _ in 0..4 {
                outcomes.extend(client.probes(target, &["--repeat", "5"]).await?);
            }
            Ok::<_, Error>(outcomes)
        };
        wait::until(LIMIT, &format!("both replicas answer by {target}"), async || {
            let outcomes = calls().await?;
            let answered = |replica: &String| outcomes.iter().any(|outcome| outcome.header("x-replica") == replica);
            Ok(replicas.iter().all(answered).then_some(()))
        })
        .await?;

        match failure {
            Some(how) => failing.app()?.fail(how).await?,
            None => {
                failing.sidecar().kill();
                failing.app()?.kill().await;
            }
        }
        let mut failed = 0;
        wait::until(LIMIT, &format!("outlier detection ejects {}", replicas[0]), async || {
            failed += calls().await?.iter().filter(|outcome| !outcome.ok).count();
            let ejected = client.count(Counted::Ejected).await?;
            Ok((ejected == ejected_before as f64 + 1.0).then_some(()))
        })
        .await?;
        // A connection that could not be made is made to another.
        assert_eq!(failed >= 3, failure.is_some(), "{failed} failures by {target}");
        for outcome in calls().await? {
            assert!(outcome.ok && outcome.header("x-replica") == replicas[1], "{target}: {outcome:?}");
        }
    }
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn a_sidecar_that_is_asked_to_end_finishes_what_it_has() -> TestResult {
    let (mesh, client, replicas) = with_replicas(3, Sidecars::WEFT).await?;
    // Nothing may be hidden that had reached an application.
    mesh.apply("traffic.yaml", &policy("TrafficPolicy", "reviews", "retries: { attempts: 0 }")).await?;
    for replica in &replicas {
        // So that every replica has calls under way at any moment: one that has none ends at once.
        replica.app()?.fail("mode=delay&delay_ms=300").await?;
    }
    let load = client.load(&mesh.by_address("reviews", &[CALL]).await?, RATE).await?;
    load.until("all replicas answer", 30, LIMIT, |counts| counts.replicas.len() == 3).await?;

    replicas[0].sidecar().terminate();
    // It still accepts: callers learn only now that they shall not call.
    let before = load.next(10, LIMIT).await?;
    mesh.declare(&replicas[0], Endpoint::Terminating).await?;
    let status = tokio::time::timeout(LIMIT, replicas[0].sidecar().wait()).await?;
    assert_eq!(status.code(), Some(0), "it ended by itself, after {before:?}");
    let counts = load.next(50, LIMIT).await?;
    assert_eq!(counts.replica("reviews-0"), 0);
    let total = load.total().await?;
    assert_eq!(total.failed, 0, "{}", total.describe_failures());

    // A call whose connection broke is not made again if it may have had an effect.
    let load = client.load(&mesh.by_address("reviews", &["POST http://reviews/reviews"]).await?, RATE).await?;
    load.until("both others answer", 20, LIMIT, |counts| counts.replicas.len() == 2).await?;
    replicas[1].sidecar().kill();
    let fails = async || Ok((load.total().await?.failed > 0).then_some(()));
    wait::until(LIMIT, "counter-proof: one that is killed breaks what it has", fails).await?;
    Ok(())
}

async fn with_replicas(
    count: usize,
    Sidecars { caller, called }: Sidecars,
) -> Result<(Mesh, MeshPod, Vec<MeshPod>), testing::Failure> {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let mut replicas = Vec::new();
    for number in 0..count {
        replicas.push(mesh.add(Spec::server(&format!("reviews-{number}"), "reviews", "v1").with(called)).await?);
    }
    let client = mesh.add(Spec::client("client").with(caller)).await?;
    Ok((mesh, client, replicas))
}
