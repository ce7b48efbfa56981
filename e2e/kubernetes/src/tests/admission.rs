//! What the API server asks Weft before it stores an object: what pods get, and what is refused.

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use weft_local_mesh::identity;

use crate::cluster::{PATIENCE, until};
use crate::manifests::{self, Application, VERSION};
use crate::mesh::Mesh;
use crate::report::Test;
use crate::tests::tests;

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        #[essential]
        runs_a_namespace_that_accepts_mutual_tls_only,
        keeps_probes_of_every_kind_working_under_strict_mutual_tls,
        runs_the_sidecar_as_an_ordinary_container_where_a_pod_asks,
        refuses_pods_whose_sidecar_could_not_work,
        refuses_policies_and_routes_that_make_no_sense,
        ends_the_strict_namespace,
    ]
}

const NAMESPACE: &str = "weft-strict";

async fn runs_a_namespace_that_accepts_mutual_tls_only(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    let strict = format!(
        "---
apiVersion: weft.mesh/v1alpha1
kind: MeshTLS
metadata: {{ name: strict, namespace: {NAMESPACE} }}
spec: {{ mode: Strict }}
"
    );
    let client = |name, annotations| {
        let arguments = ["loadgen", "--rate=0", "--control=127.0.0.1:9100", "--quiet", "--target=http://server"];
        Application { namespace: NAMESPACE, name, arguments: &arguments, replicas: 1, annotations }.yaml()
    };
    let all = manifests::meshed_namespace(NAMESPACE)
        + &strict
        + &client("client", "")
        + &client("container-client", "weft.mesh/sidecar: container")
        + &client("outsider", "weft.mesh/inject: disabled");
    mesh.cluster.apply(&all).await?;
    for name in ["client", "container-client", "outsider"] {
        mesh.cluster.rolled_out(NAMESPACE, name).await?;
    }
    Ok(())
}

async fn keeps_probes_of_every_kind_working_under_strict_mutual_tls(mesh: &Mesh) -> anyhow::Result<()> {
    let container = manifests::container(&["reviews"]);
    let server = format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{ name: server, namespace: {NAMESPACE}, labels: {{ app: server }} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
        - {container}
          ports: [{{ name: web, containerPort: 8080 }}]
          startupProbe: {{ httpGet: {{ path: /healthz, port: web }}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 100 }}
          livenessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1, timeoutSeconds: 10 }}
          readinessProbe: {{ httpGet: {{ path: /reviews, port: 8080 }}, periodSeconds: 1, timeoutSeconds: 10 }}
"
    );
    mesh.cluster.apply(&(server + &manifests::service(NAMESPACE, "server", "http", 80, 8080))).await?;
    until(PATIENCE, "the server is ready", async || Ok(is_ready(mesh).await?.then_some(()))).await?;

    let refused = call(mesh, "outsider").await?;
    ensure!(!refused.ok, "a caller without a certificate was served: {refused:?}");
    let served = call(mesh, "client").await?;
    ensure!(served.ok, "{served:?}");

    // The probes reach the application, and not just something that says yes.
    control(mesh, "fail?mode=error&status=503&rate=1").await?;
    until(PATIENCE, "the server is not ready, as it says itself", async || Ok((!is_ready(mesh).await?).then_some(())))
        .await?;
    control(mesh, "recover").await?;
    until(PATIENCE, "the server is ready again", async || Ok(is_ready(mesh).await?.then_some(()))).await
}

async fn runs_the_sidecar_as_an_ordinary_container_where_a_pod_asks(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.cluster.pod(NAMESPACE, "app=container-client").await?;
    let containers: Vec<_> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|found| &*found.name).collect();
    ensure!(containers == ["weft-proxy", "shop"], "the containers are {containers:?}");
    let served = call(mesh, "container-client").await?;
    ensure!(served.ok, "{served:?}");
    let metrics = mesh.cluster.sidecar_metrics(NAMESPACE, "server").await?;
    let caller = identity(NAMESPACE, "container-client");
    let labels = [("direction", "inbound"), ("tls", "mutual"), ("peer", &*caller)];
    ensure!(metrics.sum("weft_requests_total", &labels) > 0.0, "the server has not seen {caller}");
    mesh.cluster.restart(NAMESPACE, "container-client", "app=container-client").await
}

async fn refuses_pods_whose_sidecar_could_not_work(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = |annotations: &str, context: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: wrong, namespace: {NAMESPACE}, annotations: {{ {annotations} }} }}
spec:
  containers:
    - {{ name: shop, image: 'weft/shop:{VERSION}', args: [reviews], securityContext: {{ {context} }} }}
"
        )
    };
    let proxys = format!("runAsUser: {}", weft_inject::names::PROXY_UID);
    is_refused(mesh, &pod("", &proxys), "spec.containers[0].securityContext.runAsUser").await?;
    is_refused(mesh, &pod("weft.mesh/drain-time: soon", ""), "weft.mesh/drain-time").await?;
    is_refused(mesh, &pod("weft.mesh/opaque-port: '25'", ""), "weft.mesh/opaque-port").await
}

async fn refuses_policies_and_routes_that_make_no_sense(mesh: &Mesh) -> anyhow::Result<()> {
    let path = "matches: [{ path: { type: RegularExpression, value: '/(' } }]";
    let route = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: wrong, namespace: {NAMESPACE} }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: server }}]
  rules: [{{ {path}, backendRefs: [{{ name: server, port: 80 }}] }}]
"
    );
    is_refused(mesh, &route, "spec.rules[0].matches[0].path.value").await?;
    let mode = format!(
        "apiVersion: weft.mesh/v1alpha1
kind: MeshTLS
metadata: {{ name: wrong, namespace: {NAMESPACE} }}
spec: {{ mode: Sometimes }}
"
    );
    is_refused(mesh, &mode, "spec.mode").await
}

async fn ends_the_strict_namespace(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// Sees that an object is not stored, and that the answer names the field.
async fn is_refused(mesh: &Mesh, object: &str, field: &str) -> anyhow::Result<()> {
    let Err(refusal) = mesh.cluster.apply(object).await else { bail!("this was accepted:\n{object}") };
    let refusal = format!("{refusal:#}");
    ensure!(refusal.contains(field), "the refusal does not name {field}: {refusal}");
    Ok(())
}

async fn is_ready(mesh: &Mesh) -> anyhow::Result<bool> {
    let status = mesh.cluster.api::<Pod>(NAMESPACE).get("server").await?.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

async fn call(mesh: &Mesh, app: &str) -> anyhow::Result<weft_local_mesh::Outcome> {
    let pod = mesh.cluster.pod(NAMESPACE, &format!("app={app}")).await?.name_any();
    mesh.cluster.probe(NAMESPACE, &pod, "http://server/reviews", &["--timeout", "30"]).await
}

/// Tells the server how to behave.
async fn control(mesh: &Mesh, order: &str) -> anyhow::Result<()> {
    let target = format!("POST http://127.0.0.1:9000/control/{order}");
    let answer = mesh.cluster.probe(NAMESPACE, "server", &target, &[]).await?;
    ensure!(answer.ok, "{order}: {answer:?}");
    Ok(())
}
