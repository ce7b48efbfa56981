//! Who may call what, and faults on purpose.

use std::time::Duration;

use weft_e2e::Mesh;
use weft_e2e::yaml::{policy, service};
use weft_local_mesh::{Error, MeshPod, Spec, wait};
use weft_sandbox::testing::{self, TestResult};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn an_access_policy_denies_by_identity_and_by_path() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let friend = mesh.add(Spec::client("friend")).await?;
    let stranger = mesh.add(Spec::client("stranger")).await?;
    for caller in [&friend, &stranger] {
        assert_eq!(status(caller, "/reviews").await?, Some(200), "without a policy everyone may call");
    }

    let rules = "action: Allow\nrules: [{ from: [{ serviceAccounts: [mesh/friend] }], to: [{ paths: [/reviews] }] }]";
    mesh.apply("access.yaml", &policy("AccessPolicy", "reviews", rules)).await?;
    let refused = async || Ok((status(&stranger, "/reviews").await? == Some(403)).then_some(()));
    wait::until(LIMIT, "another identity is refused", refused).await?;
    assert_eq!(status(&friend, "/healthz").await?, Some(403), "another path is refused");
    assert_eq!(status(&friend, "/reviews").await?, Some(200), "what the policy allows is served");
    let metrics = server.metrics().await?;
    let refused = metrics.sum("weft_requests_total", &[("direction", "inbound"), ("response_class", "4xx")]);
    assert!(refused >= 2.0, "the called side counts what it refused: {refused}");
    Ok(())
}

pub(crate) async fn a_fault_policy_delays_and_aborts() -> TestResult {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service("reviews", "app: reviews", 80, 8080, "http")]).await?;
    let server = mesh.add(Spec::server("reviews-0", "reviews", "v1")).await?;
    let client = mesh.add(Spec::client("client")).await?;
    assert_eq!(status(&client, "/reviews").await?, Some(200));

    mesh.apply("fault.yaml", &policy("FaultPolicy", "reviews", "abort: { httpStatus: 418 }")).await?;
    let aborted = async || {
        let outcome = client.probe("http://reviews/reviews", &[]).await?;
        Ok((outcome.class() == "http_418_FI").then_some(()))
    };
    wait::until(LIMIT, "calls are answered with the error", aborted).await?;
    let before = server.metrics().await?.sum("weft_requests_total", &[]);
    assert_eq!(status(&client, "/reviews").await?, Some(418));
    assert_eq!(server.metrics().await?.sum("weft_requests_total", &[]), before, "the called side sees nothing of it");

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
    Ok(())
}

async fn status(caller: &MeshPod, path: &str) -> Result<Option<u16>, Error> {
    Ok(caller.probe(&format!("http://reviews{path}"), &[]).await?.status)
}
