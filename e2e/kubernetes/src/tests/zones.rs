//! Calls stay in the caller's zone where a Service asks for it.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::cluster::{PATIENCE, until};
use crate::load::Load;
use crate::manifests::{self, Application};
use crate::mesh::Mesh;
use crate::report::Test;
use crate::tests::tests;

/// They say where the node is, which is nobody's business on a cluster of somebody else.
pub(crate) fn tests_of_the_node() -> Vec<Test<Mesh>> {
    tests![keeps_calls_in_the_zone_of_the_callers_node]
}

const NAMESPACE: &str = "weft-zones";
const ZONE: &str = "topology.kubernetes.io/zone";

async fn keeps_calls_in_the_zone_of_the_callers_node(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    let server = |name| {
        let arguments = ["reviews", "--app-version", name];
        Application { namespace: NAMESPACE, name, arguments: &arguments, replicas: 1, annotations: "" }.yaml()
    };
    let servers = manifests::meshed_namespace(NAMESPACE) + &server("east") + &server("west");
    mesh.cluster.apply(&servers).await?;
    for name in ["east", "west"] {
        mesh.cluster.rolled_out(NAMESPACE, name).await?;
    }
    let pods = [mesh.cluster.pod(NAMESPACE, "app=east").await?, mesh.cluster.pod(NAMESPACE, "app=west").await?];
    mesh.cluster.apply(&service_of_zones(&[("east", &pods[0]), ("west", &pods[1])])?).await?;
    mesh.cluster.apply(&manifests::client(NAMESPACE, "client", 50, "http://both/reviews")).await?;
    mesh.cluster.rolled_out(NAMESPACE, "client").await?;
    let load = Load::of(&mesh.cluster, NAMESPACE, "client").await?;
    load.settled().await?;

    for (here, other) in [("east", "west"), ("west", "east")] {
        move_nodes(mesh, &format!("{ZONE}={here}")).await?;
        until(PATIENCE, &format!("calls from {here} stay there"), async || {
            let counts = load.next(100).await?;
            ensure!(counts.failed == 0, "{} calls failed: {}", counts.failed, counts.describe_failures());
            ensure!(counts.version(other) == 0, "of 100 calls these went where: {:?}", counts.versions);
            Ok((counts.version(here) == counts.sent).then_some(()))
        })
        .await?;
    }
    move_nodes(mesh, &format!("{ZONE}-")).await?;
    until(PATIENCE, "calls from no zone go everywhere", async || {
        let counts = load.next(100).await?;
        Ok((counts.version("east") > 0 && counts.version("west") > 0).then_some(()))
    })
    .await?;
    mesh.cluster.delete_namespace(NAMESPACE).await
}

async fn move_nodes(mesh: &Mesh, label: &str) -> anyhow::Result<()> {
    mesh.cluster.kubectl(&["label", "nodes", "--all", "--overwrite", label], "").await.map(drop)
}

/// A Service whose endpoints are written by hand, each meant for a zone of its own. Kubernetes hints at zones only where they have nodes.
fn service_of_zones(pods: &[(&str, &Pod)]) -> anyhow::Result<String> {
    let mut endpoints = String::new();
    for (zone, pod) in pods {
        let name = pod.name_any();
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let address = address.with_context(|| format!("{name} has no address"))?;
        endpoints += &format!(
            "
  - addresses: ['{address}']
    conditions: {{ ready: true }}
    zone: {zone}
    hints: {{ forZones: [{{ name: {zone} }}] }}
    targetRef: {{ kind: Pod, namespace: {NAMESPACE}, name: {name}, uid: {} }}",
            pod.uid().with_context(|| format!("{name} has no uid"))?
        );
    }
    Ok(format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: both, namespace: {NAMESPACE} }}
spec:
  ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: both, namespace: {NAMESPACE}, labels: {{ kubernetes.io/service-name: both }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080, protocol: TCP }}]
endpoints:{endpoints}
"
    ))
}
