//! The shop's load generators: processes in a meshed pod, steered and read over Unix sockets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde::Deserialize;
use weft_sandbox::{Pod, Process};

use super::{client, wait};

/// A running load generator.
#[derive(Debug)]
pub(crate) struct Load {
    name: &'static str,
    socket: PathBuf,
    process: Process,
}

/// Counters since a mark, as the load generator reports them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Counts {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) largest_gap_ms: f64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) first_failures: Vec<FirstFailure>,
    pub(crate) versions: BTreeMap<String, u64>,
    pub(crate) replicas: BTreeMap<String, u64>,
}

/// One failure, word for word.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FirstFailure {
    target: String,
    class: String,
    message: String,
}

impl Counts {
    /// Requests per second that were sent.
    pub(crate) fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Requests answered by a replica, failures of its own included.
    pub(crate) fn by_replica(&self, replica: &str) -> u64 {
        self.replicas.get(replica).copied().unwrap_or_default()
    }

    pub(crate) fn by_version(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or_default()
    }

    /// How many failed, of how many, how fast, and how.
    pub(crate) fn verdict(&self) -> String {
        format!(
            "{} of {} at {:.0}/s, longest gap between two successes {:.0} ms{}",
            self.failed,
            self.sent,
            self.rate(),
            self.largest_gap_ms,
            if self.failed == 0 { String::new() } else { format!(" ({})", self.describe_failures()) }
        )
    }

    /// "none", or the kinds with their numbers and the first one in full.
    pub(crate) fn describe_failures(&self) -> String {
        let Some(first) = self.first_failures.first() else { return "none".to_owned() };
        let kinds: Vec<_> = self.failures.iter().map(|(class, count)| format!("{count} × {class}")).collect();
        format!("{} (first: {} {}: {})", kinds.join(", "), first.target, first.class, first.message)
    }
}

impl Load {
    /// Starts a load generator in `pod` with a rate of 0.
    pub(crate) async fn start(
        pod: &Pod,
        binary: &std::path::Path,
        name: &'static str,
        targets: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["loadgen", "--rate", "0", "--connections", "16", "--quiet"]);
        command.args(["--control", &format!("unix:/run/{name}.sock")]);
        for target in targets {
            command.args(["--target", target]);
        }
        let process = pod.spawn(name, command).await?;
        let load = Self { name, socket: pod.run_dir().join(format!("{name}.sock")), process };
        wait::until(Duration::from_secs(5), "the load generator to listen", || async {
            if load.process.exit_status().is_some() {
                anyhow::bail!("load generator {name} ended: {}", load.process.log()?);
            }
            Ok(client::unix(&load.socket, Method::GET, "/healthz").await.ok().map(drop))
        })
        .await?;
        Ok(load)
    }

    /// Sets the requests per second.
    pub(crate) async fn rate(&self, per_second: f64) -> anyhow::Result<()> {
        self.post(&format!("/rate?rps={per_second}")).await
    }

    /// Begins to count under a name.
    pub(crate) async fn mark(&self, mark: &str) -> anyhow::Result<()> {
        self.post(&format!("/mark?name={mark}")).await
    }

    /// Counters of the requests begun since the mark.
    pub(crate) async fn since(&self, mark: &str) -> anyhow::Result<Counts> {
        let answer = client::unix(&self.socket, Method::GET, &format!("/since?name={mark}")).await?;
        serde_json::from_value(answer.json()?)
            .with_context(|| format!("load generator {} speaks another version", self.name))
    }

    /// Waits until the counters since a mark satisfy `enough`; returns them.
    pub(crate) async fn until(
        &self,
        mark: &str,
        limit: Duration,
        what: &str,
        enough: impl Fn(&Counts) -> bool,
    ) -> anyhow::Result<Counts> {
        wait::until(limit, what, || async {
            let counts = self.since(mark).await?;
            Ok(enough(&counts).then_some(counts))
        })
        .await
    }

    async fn post(&self, path: &str) -> anyhow::Result<()> {
        client::unix(&self.socket, Method::POST, path).await?.text().map(drop)
    }
}
