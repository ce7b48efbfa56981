//! The shortest proof that the mesh works on a cluster.

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use weft_local_mesh::identity;

use crate::cluster::{PATIENCE, until};
use crate::load::Load;
use crate::manifests;
use crate::mesh::Mesh;
use crate::report::Test;
use crate::tests::tests;

const NAMESPACE: &str = "weft-smoke";

/// What every suite begins with.
pub(crate) fn begin() -> Vec<Test<Mesh>> {
    tests![
        #[essential]
        installs,
        #[essential]
        gives_pods_a_sidecar_by_the_namespaces_label_alone,
        authenticates_a_call_with_the_callers_identity,
        fails_no_call_during_a_rolling_restart_of_the_server,
    ]
}

/// What every suite ends with.
pub(crate) fn end() -> Vec<Test<Mesh>> {
    tests![uninstalls_without_a_trace]
}

async fn installs(mesh: &Mesh) -> anyhow::Result<()> {
    // What an earlier run that was interrupted has left.
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    mesh.install(&[]).await
}

async fn gives_pods_a_sidecar_by_the_namespaces_label_alone(mesh: &Mesh) -> anyhow::Result<()> {
    // POST: what fails after a byte has reached the server is repeated by nobody.
    let load = manifests::client(NAMESPACE, "client", 20, "POST http://server/reviews");
    let all = manifests::meshed_namespace(NAMESPACE) + &manifests::server(NAMESPACE, "server", 2) + &load;
    mesh.cluster.apply(&all).await?;
    for name in ["server", "client"] {
        mesh.cluster.rolled_out(NAMESPACE, name).await?;
        for pod in mesh.cluster.pods(NAMESPACE, &format!("app={name}")).await? {
            ensure!(has_native_sidecar(&pod), "{} has no sidecar that its application waits for", pod.name_any());
        }
    }
    Ok(())
}

async fn authenticates_a_call_with_the_callers_identity(mesh: &Mesh) -> anyhow::Result<()> {
    let client = mesh.cluster.pod(NAMESPACE, "app=client").await?.name_any();
    let answer = mesh.cluster.probe(NAMESPACE, &client, "http://server/reviews", &[]).await?;
    ensure!(answer.ok, "the call failed: {answer:?}");

    let caller = identity(NAMESPACE, "client");
    let mut seen = 0.0;
    for server in mesh.cluster.pods(NAMESPACE, "app=server").await? {
        let metrics = mesh.cluster.sidecar_metrics(NAMESPACE, &server.name_any()).await?;
        seen += metrics.sum("weft_requests_total", &[("direction", "inbound"), ("tls", "mutual"), ("peer", &caller)]);
        let all = metrics.of("weft_requests_total", &[("direction", "inbound")]);
        let others: Vec<_> = all.filter(|sample| sample.labels.get("peer") != Some(&caller)).collect();
        ensure!(others.is_empty(), "{} was called by others than {caller}: {others:?}", server.name_any());
    }
    ensure!(seen > 0.0, "no server's sidecar has seen {caller}");
    Ok(())
}

async fn fails_no_call_during_a_rolling_restart_of_the_server(mesh: &Mesh) -> anyhow::Result<()> {
    let load = Load::of(&mesh.cluster, NAMESPACE, "client").await?;
    load.settled().await?;
    let old: Vec<_> = mesh.cluster.pods(NAMESPACE, "app=server").await?.iter().map(ResourceExt::name_any).collect();
    let counts =
        load.undisturbed_by("a rolling restart", mesh.cluster.restart(NAMESPACE, "server", "app=server")).await?;
    let new = counts.replicas.keys().filter(|replica| !old.contains(replica)).count();
    ensure!(new > 0, "no new pod has answered: {:?}", counts.replicas);
    Ok(())
}

pub(crate) async fn uninstalls_without_a_trace(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    mesh.uninstall().await?;
    // Owned objects are collected a moment later.
    until(PATIENCE, "nothing is left of the installation", async || {
        for (kind, selector) in [
            ("namespaces,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations", PART),
            ("configmaps", "metadata.name=weft-trust"),
        ] {
            let flag = if selector == PART { "--selector" } else { "--field-selector" };
            let found = mesh.cluster.kubectl(&["get", kind, "-A", "-o", "name", flag, selector], "").await?;
            if !found.trim().is_empty() {
                bail!("{}", found.trim().replace('\n', ", "));
            }
        }
        let crds = mesh.cluster.kubectl(&["get", "customresourcedefinitions", "-o", "name"], "").await?;
        if let Some(ours) = crds.lines().find(|name| name.ends_with(".weft.mesh")) {
            bail!("{ours}");
        }
        Ok(Some(()))
    })
    .await
}

/// The label of everything that is installed.
const PART: &str = "app.kubernetes.io/part-of=weft";

fn has_native_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    containers
        .iter()
        .any(|container| container.name == "weft-proxy" && container.restart_policy.as_deref() == Some("Always"))
}
