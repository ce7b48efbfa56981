//! Who may call what, and faults on purpose.

use std::time::Duration;

use weft_e2e::Mesh;
use weft_e2e::yaml::{policy, service};
use weft_local_mesh::{Counted, Error, MeshPod, Sidecar, Spec, wait};
use weft_sandbox::testing::{self, TestResult};

use super::sidecars::Sidecars;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn an_access_policy_denies_by_identity_and_by_path() -> TestResult {
    denies_by_identity_and_by_path(Sidecars::WEFT).await
}

pub(crate) async fn envoys_deny_by_identity_and_by_path() -> TestResult {
    denies_by_identity_and_by_path(Sidecars::envoys()?).await
}

async fn denies_by_identity_and_by_path(Sidecars { caller, called }: Sidecars) -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1").with(called)).await?;
    let friend = mesh.add(Spec::client("friend").with(caller)).await?;
    let stranger = mesh.add(Spec::client("stranger").with(caller)).await?;
    for caller in [&friend, &stranger] {
        assert_eq!(status(caller, "/reviews").await?, Some(200), "without a policy everyone may call");
    }

    let rules = "action: Allow\nrules: [{ from: [{ serviceAccounts: [mesh/friend] }], to: [{ paths: [/reviews] }] }]";
    mesh.apply("access.yaml", &policy("AccessPolicy", "reviews", rules)).await?;
    let refused = async || Ok((status(&stranger, "/reviews").await? == Some(403)).then_some(()));
    wait::until(LIMIT, "another identity is refused", refused).await?;
    assert_eq!(status(&friend, "/healthz").await?, Some(403), "another path is refused");
    assert_eq!(status(&friend, "/reviews").await?, Some(200), "what the policy allows is served");
    let refused = server.count(Counted::ReceivedClientErrors).await?;
    assert!(refused >= 2.0, "the called side counts what it refused: {refused}");
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn a_fault_policy_delays_and_aborts() -> TestResult {
    delays_and_aborts(Sidecars::WEFT).await
}

pub(crate) async fn envoys_delay_and_abort_by_a_fault_policy() -> TestResult {
    delays_and_aborts(Sidecars::envoys()?).await
}

async fn delays_and_aborts(Sidecars { caller, called }: Sidecars) -> TestResult {
    // Only our own proxy says why it answered itself.
    let aborted = if caller == Sidecar::Weft { "http_418_FI" } else { "http_418" };
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1").with(called)).await?;
    let client = mesh.add(Spec::client("client").with(caller)).await?;
    assert_eq!(status(&client, "/reviews").await?, Some(200));

    mesh.apply("fault.yaml", &policy("FaultPolicy", "reviews", "abort: { httpStatus: 418 }")).await?;
    let is_aborted = async || {
        let outcome = client.probe("http://reviews/reviews", &[]).await?;
        Ok((outcome.class() == aborted).then_some(()))
    };
    wait::until(LIMIT, "calls are answered with the error", is_aborted).await?;
    let before = server.count(Counted::Received).await?;
    assert_eq!(status(&client, "/reviews").await?, Some(418));
    assert_eq!(server.count(Counted::Received).await?, before, "the called side sees nothing of it");

    mesh.apply("fault.yaml", &policy("FaultPolicy", "reviews", "delay: { duration: 700ms }")).await?;
    let delayed = async || {
        let outcome = client.probe("http://reviews/reviews", &[]).await?;
        Ok((outcome.ok && outcome.ms >= 700.0).then_some(()))
    };
    wait::until(LIMIT, "calls are delayed, and then served", delayed).await?;

    mesh.withdraw("fault.yaml").await?;
    let served = async || {
        let outcome = client.probe("http://reviews/reviews", &[]).await?;
        Ok((outcome.ok && outcome.ms < 700.0).then_some(()))
    };
    wait::until(LIMIT, "without the policy they are served at once", served).await?;
    Ok(mesh.none_rejected().await?)
}

async fn status(caller: &MeshPod, path: &str) -> Result<Option<u16>, Error> {
    Ok(caller.probe(&format!("http://reviews{path}"), &[]).await?.status)
}
