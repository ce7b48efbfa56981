//! CNI mode: the node redirects pods, which need no privileges for it.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;
use weft_local_mesh::identity;

use crate::cluster::{PATIENCE, until};
use crate::load::Load;
use crate::manifests;
use crate::mesh::{Mesh, SYSTEM};
use crate::report::Test;
use crate::tests::{smoke, tests};

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        #[essential]
        installs_with_the_cni_plugin,
        runs_meshed_pods_in_a_restricted_namespace,
        fails_no_call_during_a_restart_of_the_nodes_agent,
        repairs_pods_that_started_before_the_plugin,
        ends_the_restricted_namespace,
        uninstalls_cni_mode_without_a_trace,
    ]
}

const NAMESPACE: &str = "weft-restricted";
const AGENT: &str = "weft-cni";

async fn installs_with_the_cni_plugin(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    mesh.install(&["--cni"]).await?;
    agent_is_ready(mesh).await
}

async fn runs_meshed_pods_in_a_restricted_namespace(mesh: &Mesh) -> anyhow::Result<()> {
    let labels = "weft.mesh/inject: enabled, pod-security.kubernetes.io/enforce: restricted";
    let all = manifests::namespace(NAMESPACE, labels)
        + &manifests::server(NAMESPACE, "server", 2)
        + &manifests::client(NAMESPACE, "client", 20, "POST http://server/reviews");
    mesh.cluster.apply(&all).await?;
    mesh.cluster.rolled_out(NAMESPACE, "server").await?;
    mesh.cluster.rolled_out(NAMESPACE, "client").await?;
    Load::of(&mesh.cluster, NAMESPACE, "client").await?.settled().await?;
    let server = mesh.cluster.pod(NAMESPACE, "app=server").await?.name_any();
    let metrics = mesh.cluster.sidecar_metrics(NAMESPACE, &server).await?;
    let caller = identity(NAMESPACE, "client");
    let labels = [("direction", "inbound"), ("tls", "mutual"), ("peer", &*caller)];
    ensure!(metrics.sum("weft_requests_total", &labels) > 0.0, "{server} has not seen {caller}");
    Ok(())
}

async fn fails_no_call_during_a_restart_of_the_nodes_agent(mesh: &Mesh) -> anyhow::Result<()> {
    let load = Load::of(&mesh.cluster, NAMESPACE, "client").await?;
    load.undisturbed_by("a restart of the node's agent while pods are replaced", async {
        mesh.cluster.api::<DaemonSet>(SYSTEM).restart(AGENT).await.context("restart the agent")?;
        mesh.cluster.restart(NAMESPACE, "server", "app=server").await?;
        agent_is_ready(mesh).await
    })
    .await
    .map(drop)
}

async fn repairs_pods_that_started_before_the_plugin(mesh: &Mesh) -> anyhow::Result<()> {
    // Deleted alone: nobody runs the agent any more, and so it takes the plugin off the node.
    mesh.cluster.kubectl(&["-n", SYSTEM, "delete", "daemonset", AGENT, "--wait"], "").await?;
    until(PATIENCE, "the agents have gone", async || {
        Ok(mesh.cluster.all_pods(SYSTEM, "app.kubernetes.io/name=weft-cni").await?.is_empty().then_some(()))
    })
    .await?;
    mesh.cluster.restart_only(NAMESPACE, "client").await?;
    mesh.cluster.apply(&manifests::server(NAMESPACE, "early", 1)).await?;
    until(PATIENCE, "a pod waits in its validator", async || {
        let pod = mesh.cluster.pod(NAMESPACE, "app=early").await?;
        let containers = pod.status.and_then(|status| status.init_container_statuses).unwrap_or_default();
        let running = |name: &str| {
            containers.iter().any(|c| c.name == name && c.state.as_ref().is_some_and(|state| state.running.is_some()))
        };
        Ok(running("weft-validate").then_some(()))
    })
    .await?;
    mesh.install(&["--cni"]).await?;
    mesh.cluster.rolled_out(NAMESPACE, "early").await?;
    mesh.cluster.rolled_out(NAMESPACE, "client").await?;
    Load::of(&mesh.cluster, NAMESPACE, "client").await?.settled().await
}

async fn ends_the_restricted_namespace(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await
}

async fn uninstalls_cni_mode_without_a_trace(mesh: &Mesh) -> anyhow::Result<()> {
    smoke::uninstalls_without_a_trace(mesh).await
}

async fn agent_is_ready(mesh: &Mesh) -> anyhow::Result<()> {
    let api = mesh.cluster.api::<DaemonSet>(SYSTEM);
    until(PATIENCE, "the node's agent is ready", async || {
        let set = api.get(AGENT).await?;
        let Some(status) = set.status else { return Ok(None) };
        let current = status.observed_generation >= set.metadata.generation;
        let wanted = status.desired_number_scheduled;
        let ready = status.number_ready == wanted && status.updated_number_scheduled == Some(wanted);
        Ok((current && wanted > 0 && ready).then_some(()))
    })
    .await
}
