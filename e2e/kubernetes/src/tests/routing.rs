//! Gateway API's routes on Kubernetes: what users write, and what callers see of it.

use anyhow::ensure;
use kube::ResourceExt;

use crate::cluster::{PATIENCE, until};
use crate::load::Load;
use crate::manifests::{self, Application};
use crate::mesh::Mesh;
use crate::report::Test;
use crate::tests::tests;

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        #[essential]
        runs_two_versions,
        splits_requests_by_weight,
        ends_a_request_at_its_routes_timeout,
        retries_what_a_route_says,
        ends_the_versions,
    ]
}

const NAMESPACE: &str = "weft-routing";

async fn runs_two_versions(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    let version = |name, version| {
        let arguments = ["reviews", "--app-version", version];
        Application { namespace: NAMESPACE, name, arguments: &arguments, replicas: 1, annotations: "" }.yaml()
            + &manifests::service(NAMESPACE, name, "http", 80, 8080)
    };
    let all = manifests::meshed_namespace(NAMESPACE)
        + &version("v1", "v1")
        + &version("v2", "v2")
        + &manifests::client(NAMESPACE, "client", 50, "http://v1/reviews");
    mesh.cluster.apply(&all).await?;
    for name in ["v1", "v2", "client"] {
        mesh.cluster.rolled_out(NAMESPACE, name).await?;
    }
    load(mesh).await?.settled().await
}

async fn splits_requests_by_weight(mesh: &Mesh) -> anyhow::Result<()> {
    let rule = "backendRefs: [{ name: v1, port: 80, weight: 3 }, { name: v2, port: 80, weight: 1 }]";
    mesh.cluster.apply(&route(rule)).await?;
    let load = load(mesh).await?;
    until(PATIENCE, "the second version gets requests", async || {
        let counts = load.next(50).await?;
        Ok((counts.version("v2") > 0).then_some(()))
    })
    .await?;
    let counts = load.next(1000).await?;
    ensure!(counts.failed == 0, "{} calls failed: {:?}", counts.failed, counts.failures);
    // A quarter of 1,000 draws; one in ten billion runs is outside.
    let share = counts.version("v2") as f64 / counts.sent as f64;
    ensure!((0.16..0.34).contains(&share), "{share} of the requests went to v2, not a quarter: {:?}", counts.versions);
    Ok(())
}

async fn ends_a_request_at_its_routes_timeout(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.apply(&route("timeouts: { request: 300ms }\n      backendRefs: [{ name: v2, port: 80 }]")).await?;
    fail(mesh, "v2", "mode=delay&rate=1&delay_ms=3000").await?;
    let client = mesh.cluster.pod(NAMESPACE, "app=client").await?.name_any();
    let answer = until(PATIENCE, "a slow request is ended with 504", async || {
        let answer = mesh.cluster.probe(NAMESPACE, &client, "http://v1/reviews", &["--timeout", "30"]).await?;
        ensure!(answer.status == Some(504), "{answer:?}");
        Ok(Some(answer))
    })
    .await?;
    ensure!(answer.ms < 2900.0, "it took {} ms", answer.ms);
    recover(mesh, "v2").await
}

async fn retries_what_a_route_says(mesh: &Mesh) -> anyhow::Result<()> {
    let rule = "retry: { attempts: 10, codes: [503], backoff: 5ms }\n      backendRefs: [{ name: v2, port: 80 }]";
    mesh.cluster.apply(&route(rule)).await?;
    fail(mesh, "v2", "mode=error&status=503&rate=0.1").await?;
    let load = load(mesh).await?;
    until(PATIENCE, "of 1,000 calls fewer than 50 fail, though 100 would without retries", async || {
        let counts = load.next(1000).await?;
        // Not none: the budget forbids a retry where too many are under way.
        ensure!(counts.failed * 20 < counts.sent, "{} of {}: {:?}", counts.failed, counts.sent, counts.failures);
        Ok((counts.version("v1") == 0).then_some(()))
    })
    .await?;
    let client = mesh.cluster.pod(NAMESPACE, "app=client").await?.name_any();
    let metrics = mesh.cluster.sidecar_metrics(NAMESPACE, &client).await?;
    ensure!(metrics.sum("weft_request_retries_total", &[]) > 0.0, "the client's sidecar has counted no retry");
    recover(mesh, "v2").await
}

async fn ends_the_versions(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// A route of what is sent to v1.
fn route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: route, namespace: {NAMESPACE} }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: v1, port: 80 }}]
  rules:
    - {rule}
"
    )
}

async fn fail(mesh: &Mesh, app: &str, how: &str) -> anyhow::Result<()> {
    let pod = mesh.cluster.pod(NAMESPACE, &format!("app={app}")).await?.name_any();
    let target = format!("POST http://127.0.0.1:9000/control/fail?{how}");
    let answer = mesh.cluster.probe(NAMESPACE, &pod, &target, &[]).await?;
    ensure!(answer.ok, "{pod} was told to fail: {answer:?}");
    Ok(())
}

async fn recover(mesh: &Mesh, app: &str) -> anyhow::Result<()> {
    let pod = mesh.cluster.pod(NAMESPACE, &format!("app={app}")).await?.name_any();
    mesh.cluster.probe(NAMESPACE, &pod, "POST http://127.0.0.1:9000/control/recover", &[]).await.map(drop)
}

async fn load(mesh: &Mesh) -> anyhow::Result<Load<'_>> {
    Load::of(&mesh.cluster, NAMESPACE, "client").await
}
