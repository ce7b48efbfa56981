//! Which tokens get a certificate: a pod's own, and no other.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weft_local_mesh::Samples;

use crate::cluster::{PATIENCE, until};
use crate::manifests;
use crate::mesh::{CONTROL_PLANE, Mesh, SYSTEM};
use crate::report::Test;
use crate::tests::tests;

pub(crate) fn tests() -> Vec<Test<Mesh>> {
    tests![
        gives_a_certificate_for_a_pods_own_token_alone,
        gives_no_certificate_to_an_account_that_was_deleted,
        gives_a_workload_outside_the_cluster_a_certificate_for_its_join_token,
    ]
}

/// A namespace for pods that show tokens which are not theirs.
const NAMESPACE: &str = "weft-impostors";

async fn gives_a_certificate_for_a_pods_own_token_alone(mesh: &Mesh) -> anyhow::Result<()> {
    fresh_namespace(mesh).await?;
    mesh.cluster.apply(&manifests::service_account(NAMESPACE, "impostor")).await?;
    for name in ["garbage", "no-pod", "audience", "own"] {
        waits_for_a_token(mesh, name, "impostor").await?;
    }
    is_refused(mesh, "garbage", "not.a.token").await?;
    is_refused(mesh, "no-pod", &token(mesh, "impostor", &["--audience=weft"]).await?).await?;
    is_refused(mesh, "audience", &pods_token(mesh, "audience", "impostor", "somebody").await?).await?;
    // What differs from the one before is the audience alone.
    is_admitted(mesh, "own", &pods_token(mesh, "own", "impostor", "weft").await?).await?;
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// Of an account that is there, such a token gets a certificate: see the test before.
async fn gives_no_certificate_to_an_account_that_was_deleted(mesh: &Mesh) -> anyhow::Result<()> {
    fresh_namespace(mesh).await?;
    let account = manifests::service_account(NAMESPACE, "gone");
    mesh.cluster.apply(&account).await?;
    waits_for_a_token(mesh, "deleted", "gone").await?;
    let token = pods_token(mesh, "deleted", "gone", "weft").await?;
    mesh.cluster.delete(&account).await?;
    is_refused(mesh, "deleted", &token).await?;
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// The process outside is a pod that Kubernetes' own token says nothing of: its sidecar calls itself by the Workload's name.
async fn gives_a_workload_outside_the_cluster_a_certificate_for_its_join_token(mesh: &Mesh) -> anyhow::Result<()> {
    fresh_namespace(mesh).await?;
    let legacy = outside("legacy");
    mesh.cluster.apply(&legacy).await?;
    for name in ["former", "joined"] {
        let injected = mesh.inject(&pod(name, "default")).await?;
        let renamed = calls_itself("legacy", name, &with_secret_for_token(&injected, name)?)?;
        mesh.cluster.apply(&renamed).await?;
    }
    let former = join_token(mesh, "legacy").await?;
    mesh.cluster.delete(&legacy).await?;
    mesh.cluster.apply(&legacy).await?;
    is_refused(mesh, "former", &former).await?;
    is_admitted(mesh, "joined", &join_token(mesh, "legacy").await?).await?;
    mesh.cluster.delete_namespace(NAMESPACE).await
}

/// A process on a machine of its own, as users write it.
fn outside(name: &str) -> String {
    format!(
        "apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec:
  addresses: [198.18.250.1]
  ports: [{{ name: http, port: 8080, appProtocol: http }}]
"
    )
}

/// The manifest of an injected pod, which takes itself for its own workload, with a sidecar that takes itself for another.
fn calls_itself(workload: &str, pod: &str, manifest: &str) -> anyhow::Result<String> {
    let of_its_own = format!(r#"\"workload\":\"{pod}\""#);
    ensure!(manifest.contains(&of_its_own), "no bootstrap with {of_its_own}");
    let manifest = manifest.replace(&of_its_own, &format!(r#"\"workload\":\"{workload}\""#));
    let mut pod: Value = serde_json::from_str(&manifest)?;
    let containers = pod["spec"]["initContainers"].as_array_mut().context("an injected pod has init containers")?;
    let variables = containers.iter_mut().filter_map(|container| container["env"].as_array_mut()).flatten();
    let mut changed = 0;
    for variable in variables.filter(|variable| variable["name"] == "WEFT_POD") {
        *variable = json!({ "name": "WEFT_POD", "value": workload });
        changed += 1;
    }
    ensure!(changed == 1, "{changed} variables WEFT_POD");
    Ok(pod.to_string())
}

/// What an administrator makes for a process outside, by the command of the documentation.
async fn join_token(mesh: &Mesh, workload: &str) -> anyhow::Result<String> {
    let control_plane = format!("deploy/{CONTROL_PLANE}");
    let exec = ["-n", SYSTEM, "exec", &control_plane, "--"];
    let make =
        ["/weft-control-plane", "token", "--admin", "127.0.0.1:15014", "--namespace", NAMESPACE, "--pod", workload];
    mesh.cluster.kubectl(&[&exec[..], &make].concat(), "").await
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

/// Makes a pod whose sidecar will show what [`hand_over`] gives it, and starts no sooner.
async fn waits_for_a_token(mesh: &Mesh, name: &str, account: &str) -> anyhow::Result<()> {
    let injected = mesh.inject(&pod(name, account)).await?;
    mesh.cluster.apply(&with_secret_for_token(&injected, name)?).await
}

/// A token of an account, as `kubectl create token` makes it.
async fn token(mesh: &Mesh, account: &str, options: &[&str]) -> anyhow::Result<String> {
    mesh.cluster.kubectl(&[&["-n", NAMESPACE, "create", "token", account], options].concat(), "").await
}

/// A token that is bound to a pod of the account, as those are which the kubelet provides.
async fn pods_token(mesh: &Mesh, pod: &str, account: &str, audience: &str) -> anyhow::Result<String> {
    let (audience, pod) = (format!("--audience={audience}"), format!("--bound-object-name={pod}"));
    token(mesh, account, &[&audience, "--bound-object-kind=Pod", &pod]).await
}

/// Lets a waiting pod's sidecar show `token`, and sees that the control plane says no.
async fn is_refused(mesh: &Mesh, name: &str, token: &str) -> anyhow::Result<()> {
    let before = certificates(mesh, "refused").await?;
    hand_over(mesh, name, token).await?;
    until(PATIENCE, &format!("the control plane ({SYSTEM}) refuses a certificate to {name}"), async || {
        Ok((certificates(mesh, "refused").await? > before).then_some(()))
    })
    .await?;
    ensure!(!has_started(mesh, name).await?, "the application of {name} has started");
    end(mesh, name).await
}

/// Lets a waiting pod's sidecar show `token`, and sees that it gets its certificate.
async fn is_admitted(mesh: &Mesh, name: &str, token: &str) -> anyhow::Result<()> {
    let before = certificates(mesh, "issued").await?;
    hand_over(mesh, name, token).await?;
    until(PATIENCE, &format!("the application of {name} starts"), async || {
        Ok(has_started(mesh, name).await?.then_some(()))
    })
    .await?;
    ensure!(certificates(mesh, "issued").await? > before, "{name} has started without a certificate");
    end(mesh, name).await
}

/// How many signing requests the control plane's replicas have answered so.
async fn certificates(mesh: &Mesh, result: &str) -> anyhow::Result<f64> {
    let metrics = mesh.control_plane_metrics().await?;
    let of_replica = |replica: &Samples| replica.sum("weft_control_plane_certificates_total", &[("result", result)]);
    Ok(metrics.iter().map(of_replica).sum())
}

/// Whether the pod's application runs, which waits for its sidecar to have certificate and configuration.
async fn has_started(mesh: &Mesh, name: &str) -> anyhow::Result<bool> {
    let pod = mesh.cluster.pod(NAMESPACE, &format!("app={name}")).await?;
    let status = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
    Ok(status.iter().any(|container| container.ready))
}

async fn end(mesh: &Mesh, name: &str) -> anyhow::Result<()> {
    mesh.cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", name, "--grace-period=1"], "").await.map(drop)
}

/// A pod whose sidecar comes from a file, as there is no label that would ask the webhook for one.
fn pod(name: &str, account: &str) -> String {
    let container = manifests::container(&["reviews"]);
    // No token for the API server: the kubelet would wait for that of an account which has gone.
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {NAMESPACE}, labels: {{ app: {name} }} }}
spec:
  serviceAccountName: {account}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
        - {container}
"
    )
}

/// The manifest with a Secret, which is not there yet, in place of the token that the kubelet would provide.
fn with_secret_for_token(manifest: &str, name: &str) -> anyhow::Result<String> {
    let mut pod: Value = serde_yaml_ng::from_str(manifest)?;
    let volumes = pod["spec"]["volumes"].as_array_mut().context("an injected pod has volumes")?;
    let volume = volumes.iter_mut().find(|volume| volume["name"] == "weft-token").context("no volume weft-token")?;
    *volume = json!({ "name": "weft-token", "secret": { "secretName": name } });
    Ok(pod.to_string())
}

/// Makes the Secret for which a pod waits.
async fn hand_over(mesh: &Mesh, name: &str, token: &str) -> anyhow::Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": NAMESPACE },
        "stringData": { "token": token.trim() },
    });
    mesh.cluster.apply(&secret.to_string()).await
}
