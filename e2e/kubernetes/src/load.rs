//! Steady load from a pod whose application is `weft-shop loadgen --control=127.0.0.1:9100`.

use anyhow::{Context, ensure};
use kube::ResourceExt;
use weft_local_mesh::Counts;

use crate::cluster::{Cluster, PATIENCE, until};

const CONTROL: &str = "http://127.0.0.1:9100";

/// A running load, by its pod.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    pod: String,
}

impl<'a> Load<'a> {
    /// The load that the pod with the label `app=<app>` makes.
    pub(crate) async fn of(cluster: &'a Cluster, namespace: &'a str, app: &str) -> anyhow::Result<Self> {
        let pod = cluster.pod(namespace, &format!("app={app}")).await?.name_any();
        Ok(Self { cluster, namespace, pod })
    }

    /// Begins to count calls under a name.
    pub(crate) async fn mark(&self, name: &str) -> anyhow::Result<()> {
        let target = format!("POST {CONTROL}/mark?name={name}");
        let answer = self.cluster.probe(self.namespace, &self.pod, &target, &[]).await?;
        ensure!(answer.ok, "the load generator refused a mark: {answer:?}");
        Ok(())
    }

    /// Counters of the calls begun since the mark.
    pub(crate) async fn since(&self, name: &str) -> anyhow::Result<Counts> {
        let target = format!("{CONTROL}/since?name={name}");
        let answer = self.cluster.probe(self.namespace, &self.pod, &target, &[]).await?;
        serde_json::from_str(&answer.body).with_context(|| format!("a load's counters: {answer:?}"))
    }

    /// Waits until that many more calls have been made: their counters.
    pub(crate) async fn next(&self, calls: u64) -> anyhow::Result<Counts> {
        self.mark("next").await?;
        self.calls_since("next", calls).await
    }

    async fn calls_since(&self, name: &str, calls: u64) -> anyhow::Result<Counts> {
        until(PATIENCE, &format!("{calls} calls of {}", self.pod), async || {
            let counts = self.since(name).await?;
            Ok((counts.sent >= calls).then_some(counts))
        })
        .await
    }

    /// Waits until calls succeed: the load begins before everything that it calls is ready.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        until(PATIENCE, &format!("20 calls of {} in a row succeed", self.pod), async || {
            let counts = self.next(20).await?;
            Ok((counts.failed == 0).then_some(()))
        })
        .await
    }

    /// Waits until each of these replicas has answered. A sidecar learns of a destination with the first call, for which it needs the
    /// control plane; and a balancer may leave out a slow newcomer for a while.
    pub(crate) async fn reaches(&self, replicas: &[String]) -> anyhow::Result<()> {
        self.mark("reaches").await?;
        until(PATIENCE, &format!("calls of {} have reached {replicas:?}", self.pod), async || {
            let counts = self.since("reaches").await?;
            Ok(replicas.iter().all(|replica| counts.replica(replica) > 0).then_some(()))
        })
        .await
    }

    /// Does something while the load goes on, and sees that calls were made and none failed.
    pub(crate) async fn undisturbed_by(
        &self,
        what: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Counts> {
        self.mark("undisturbed").await?;
        work.await.with_context(|| what.to_owned())?;
        // Some calls more: those that were under way count too, and so does what comes late.
        let before = self.since("undisturbed").await?.sent;
        let counts = self.calls_since("undisturbed", before + 20).await?;
        ensure!(
            counts.failed == 0,
            "{} of {} calls failed during {what}: {}",
            counts.failed,
            counts.sent,
            counts.describe_failures()
        );
        Ok(counts)
    }
}
