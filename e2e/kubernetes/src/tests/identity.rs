//! Who calls whom, who is let in, and what a wire shows.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::cluster::{PATIENCE, until};
use crate::manifests;
use crate::mesh::{Mesh, SYSTEM};
use crate::report::Test;
use crate::tests::tests;

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        gives_no_certificate_for_a_token_that_means_something_else,
        gives_no_certificate_to_an_account_that_was_deleted,
    ]
}

/// A namespace for pods that show tokens which are not theirs.
const NAMESPACE: &str = "weft-impostors";

async fn gives_no_certificate_for_a_token_that_means_something_else(mesh: &Mesh) -> anyhow::Result<()> {
    fresh_namespace(mesh).await?;
    let account = manifests::service_account(NAMESPACE, "impostor");
    mesh.cluster.apply(&account).await?;
    let create = ["-n", NAMESPACE, "create", "token", "impostor"];
    let audience = mesh.cluster.kubectl(&[&create[..], &["--audience=somebody"]].concat(), "").await?;
    let no_pod = mesh.cluster.kubectl(&[&create[..], &["--audience=weft"]].concat(), "").await?;
    for (name, token) in [("garbage", "not.a.token"), ("audience", &audience), ("no-pod", &no_pod)] {
        is_refused(mesh, name, token).await?;
    }
    mesh.cluster.delete_namespace(NAMESPACE).await
}

async fn gives_no_certificate_to_an_account_that_was_deleted(mesh: &Mesh) -> anyhow::Result<()> {
    fresh_namespace(mesh).await?;
    let account = manifests::service_account(NAMESPACE, "gone");
    mesh.cluster.apply(&account).await?;
    let token = mesh.cluster.kubectl(&["-n", NAMESPACE, "create", "token", "gone", "--audience=weft"], "").await?;
    mesh.cluster.delete(&account).await?;
    is_refused(mesh, "deleted", &token).await?;
    mesh.cluster.delete_namespace(NAMESPACE).await
}

async fn fresh_namespace(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.cluster.delete_namespace(NAMESPACE).await?;
    // Without the label: the pods bring their sidecars along.
    mesh.cluster.apply(&manifests::namespace(NAMESPACE, "test: weft")).await?;
    until(PATIENCE, "the mesh's roots are published in a new namespace", async || {
        let get = ["-n", NAMESPACE, "get", "configmap", "weft-trust", "-o", "name", "--ignore-not-found"];
        Ok((!mesh.cluster.kubectl(&get, "").await?.is_empty()).then_some(()))
    })
    .await
}

/// Starts a pod whose sidecar shows `token` instead of its own, and sees that the control plane says no.
async fn is_refused(mesh: &Mesh, name: &str, token: &str) -> anyhow::Result<()> {
    let refused = async || {
        let metrics = mesh.control_plane_metrics().await?;
        let refused = metrics
            .iter()
            .map(|replica| replica.sum("weft_control_plane_certificates_total", &[("result", "refused")]));
        Ok::<_, anyhow::Error>(refused.sum::<f64>())
    };
    let before = refused().await?;
    let injected = mesh.inject(&pod(name)).await?;
    mesh.cluster.apply(&with_token(&injected, name, token)?).await?;
    until(PATIENCE, &format!("the control plane ({SYSTEM}) refuses a certificate to {name}"), async || {
        Ok((refused().await? > before).then_some(()))
    })
    .await?;
    let running = mesh.cluster.pod(NAMESPACE, &format!("app={name}")).await?;
    let status = running.status.unwrap_or_default().container_statuses.unwrap_or_default();
    ensure!(status.iter().all(|container| !container.ready), "the application of {name} has started");
    mesh.cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", name, "--grace-period=1"], "").await.map(drop)
}

/// A pod whose sidecar comes from a file, as there is no label that would ask the webhook for one.
fn pod(name: &str) -> String {
    let container = manifests::container(&["reviews"]);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {NAMESPACE}, labels: {{ app: {name} }} }}
spec:
  serviceAccountName: default
  terminationGracePeriodSeconds: 1
  containers:
        - {container}
"
    )
}

/// The manifest with a Secret in place of the token that the kubelet would provide, and the Secret.
fn with_token(manifest: &str, name: &str, token: &str) -> anyhow::Result<String> {
    let mut pod: Value = serde_yaml_ng::from_str(manifest)?;
    let volumes = pod["spec"]["volumes"].as_array_mut().context("an injected pod has volumes")?;
    let volume = volumes.iter_mut().find(|volume| volume["name"] == "weft-token").context("no volume weft-token")?;
    *volume = json!({ "name": "weft-token", "secret": { "secretName": name } });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": NAMESPACE },
        "stringData": { "token": token.trim() },
    });
    Ok(format!("{secret}\n---\n{pod}\n"))
}
