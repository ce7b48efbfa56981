//! The cluster under test: what is in it, and what happens inside its pods.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_local_mesh::{Outcome, Samples};

/// How often conditions are looked at: each look is a request to the API server.
const POLL: Duration = Duration::from_millis(200);

/// How long the cluster may take for what it does within seconds, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The container of an application in our own manifests.
pub(crate) const APPLICATION: &str = "shop";

/// A connection to the API server, with the rights of `$KUBECONFIG`.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
}

impl Cluster {
    /// Connects as `kubectl` would.
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let client = Client::try_default().await.context("connect to the cluster of $KUBECONFIG")?;
        client.apiserver_version().await.context("ask the API server its version")?;
        Ok(Self { client })
    }

    /// The objects of a kind in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of a kind that have no namespace.
    pub(crate) fn global<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Runs `kubectl` as users do; its output.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        run("kubectl", arguments, input).await
    }

    /// Applies manifests.
    pub(crate) async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        self.kubectl(&["apply", "-f", "-"], yaml).await.map(drop)
    }

    /// Deletes what manifests name, and waits until it has gone.
    pub(crate) async fn delete(&self, yaml: &str) -> anyhow::Result<()> {
        self.kubectl(&["delete", "--ignore-not-found", "--wait", "-f", "-"], yaml).await.map(drop)
    }

    /// The pods that a selector such as `app=web` chooses, without those that have begun to go.
    pub(crate) async fn pods(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Pod>> {
        let pods = self.all_pods(namespace, selector).await?;
        Ok(pods.into_iter().filter(|pod| pod.meta().deletion_timestamp.is_none()).collect())
    }

    /// The pods that a selector chooses, with those that have begun to go.
    pub(crate) async fn all_pods(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Pod>> {
        Ok(self.api::<Pod>(namespace).list(&ListParams::default().labels(selector)).await?.items)
    }

    /// One of those pods.
    pub(crate) async fn pod(&self, namespace: &str, selector: &str) -> anyhow::Result<Pod> {
        let pods = self.pods(namespace, selector).await?;
        pods.into_iter().next().with_context(|| format!("no pod in {namespace} has {selector}"))
    }

    /// Waits until a Deployment has only ready pods of its newest template.
    pub(crate) async fn rolled_out(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let api = self.api::<Deployment>(namespace);
        until(PATIENCE, &format!("deployment {namespace}/{name} is rolled out"), async || {
            let deployment = api.get(name).await?;
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let Some(status) = deployment.status.as_ref() else { return Ok(None) };
            let current = status.observed_generation >= deployment.metadata.generation;
            let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
            Ok((current && counts.iter().all(|count| count.unwrap_or(0) == wanted)).then_some(()))
        })
        .await
    }

    /// Begins to replace a Deployment's pods as `kubectl rollout restart` does.
    pub(crate) async fn restart_only(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.api::<Deployment>(namespace).restart(name).await.map(drop).context("restart a deployment")
    }

    /// Replaces a Deployment's pods as `kubectl rollout restart` does, and waits until the old ones have gone.
    pub(crate) async fn restart(&self, namespace: &str, name: &str, selector: &str) -> anyhow::Result<()> {
        let old: Vec<String> = self.pods(namespace, selector).await?.iter().map(|pod| pod.name_any()).collect();
        ensure!(!old.is_empty(), "deployment {namespace}/{name} has no pods to replace");
        self.restart_only(namespace, name).await?;
        self.rolled_out(namespace, name).await?;
        for pod in old {
            self.gone::<Pod>(namespace, &pod).await?;
        }
        Ok(())
    }

    /// Sets a Deployment's number of pods, and waits until it has just those.
    pub(crate) async fn scale(&self, namespace: &str, name: &str, replicas: u32) -> anyhow::Result<()> {
        let (deployment, replicas) = (format!("deployment/{name}"), format!("--replicas={replicas}"));
        self.kubectl(&["-n", namespace, "scale", &deployment, &replicas], "").await?;
        self.rolled_out(namespace, name).await
    }

    /// Waits until an object does not exist any more.
    pub(crate) async fn gone<K>(&self, namespace: &str, name: &str) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api = self.api::<K>(namespace);
        until(PATIENCE, &format!("{} {namespace}/{name} has gone", K::kind(&())), async || {
            Ok(api.get_metadata_opt(name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Deletes a namespace with all that is in it, and waits until it has gone.
    pub(crate) async fn delete_namespace(&self, name: &str) -> anyhow::Result<()> {
        let api = self.global::<k8s_openapi::api::core::v1::Namespace>();
        if api.get_metadata_opt(name).await?.is_none() {
            return Ok(());
        }
        api.delete(name, &DeleteParams::default()).await?;
        until(PATIENCE, &format!("namespace {name} has gone"), async || {
            Ok(api.get_metadata_opt(name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Runs a command in a container: its output, and what else it and the kubelet said.
    pub(crate) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> anyhow::Result<(String, String)> {
        let what = || format!("run {command:?} in {namespace}/{pod}, container {container}");
        let parameters = AttachParams::default().container(container).stdout(true).stderr(true);
        let mut process =
            self.api::<Pod>(namespace).exec(pod, command.iter().copied(), &parameters).await.with_context(what)?;
        let status = process.take_status().context("no status was asked for")?;
        let (mut out, mut err) = (String::new(), String::new());
        let mut stdout = process.stdout().context("no output was asked for")?;
        let mut stderr = process.stderr().context("no errors were asked for")?;
        let (read_out, read_err) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        read_out.with_context(what)?;
        read_err.with_context(what)?;
        let status = status.await.with_context(|| format!("{}: no status came back", what()))?;
        Ok((out, format!("{err}{}", status.message.unwrap_or_default())))
    }

    /// Makes one call from a pod's application, with the options of `weft-shop probe`.
    pub(crate) async fn probe(
        &self,
        namespace: &str,
        pod: &str,
        target: &str,
        options: &[&str],
    ) -> anyhow::Result<Outcome> {
        let mut command = vec!["/weft-shop", "probe", target];
        command.extend(options);
        let (output, said) = self.exec(namespace, pod, APPLICATION, &command).await?;
        let line = output.lines().next().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("probe of {target} from {pod}: {output}{said}"))
    }

    /// What a pod's sidecar counts.
    pub(crate) async fn sidecar_metrics(&self, namespace: &str, pod: &str) -> anyhow::Result<Samples> {
        self.scrape(namespace, pod, 15020, "/stats/prometheus").await
    }

    /// What a pod counts, read through the API server.
    pub(crate) async fn scrape(&self, namespace: &str, pod: &str, port: u16, path: &str) -> anyhow::Result<Samples> {
        let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        let request = http::Request::get(&uri).body(Vec::new())?;
        let text = self.client.request_text(request).await.with_context(|| format!("read {uri}"))?;
        Ok(Samples::parse(&text))
    }
}

/// Runs a program; its output if it exits 0.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let what = || format!("run {program} {}", arguments.join(" "));
    let mut process = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(what)?;
    let mut stdin = process.stdin.take().context("standard input is piped")?;
    let (written, output) = tokio::join!(
        async {
            // A program that does not read has its reasons, which its exit status tells.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        },
        process.wait_with_output(),
    );
    let () = written;
    let output = output.with_context(what)?;
    if !output.status.success() {
        bail!("{}: {}: {}", what(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Looks at `condition` until it yields a value; an error is kept for the end, since a busy API server may refuse a look.
pub(crate) async fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let why = last.map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s: {what}{why}", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}
