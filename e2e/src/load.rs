//! Steady load from inside a pod, by `weft-shop loadgen`, steered and read over a Unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use weft_sandbox::{Pod, Process};

use crate::client::Call;
use crate::control_plane::alive;
use crate::{Error, wait};

/// A running load.
#[derive(Debug)]
pub struct Load {
    pod: Pod,
    socket: PathBuf,
    process: Process,
}

/// Counters since a mark.
#[derive(Debug, Clone, Deserialize)]
pub struct Counts {
    /// Calls that ended.
    pub sent: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that did not.
    pub failed: u64,
    /// Failures by class.
    pub failures: BTreeMap<String, u64>,
    /// The first failures in full.
    pub first_failures: Vec<Value>,
    /// Answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// Answers by the replica that gave them.
    pub replicas: BTreeMap<String, u64>,
    /// The 99th percentile of the calls' durations, in milliseconds.
    pub p99_ms: f64,
}

impl Counts {
    /// Answers of a version.
    pub fn version(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or_default()
    }

    /// Answers of a replica.
    pub fn replica(&self, replica: &str) -> u64 {
        self.replicas.get(replica).copied().unwrap_or_default()
    }
}

impl Load {
    pub(crate) async fn start(pod: &Pod, shop: &Path, target: &str, rate: f64) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("load-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(shop);
        command.args(["loadgen", "--quiet", "--connections", "8", "--target", target]);
        command.args(["--rate", &rate.to_string(), "--control", &format!("unix:/run/{name}.sock")]);
        let process = pod.spawn(&name, command).await?;
        let load = Self { pod: pod.clone(), socket: pod.run_dir().join(format!("{name}.sock")), process };
        wait::until(Duration::from_secs(10), "the load generator listens", async || {
            alive(&load.process, &load.pod)?;
            Ok(Call::get("/healthz").unix(&load.socket).await.ok())
        })
        .await?;
        Ok(load)
    }

    /// Begins to count calls under a name.
    ///
    /// # Errors
    /// If the generator does not answer.
    pub async fn mark(&self, mark: &str) -> Result<(), Error> {
        Call::post(format!("/mark?name={mark}")).unix(&self.socket).await?.text().map(drop)
    }

    /// Counters of the calls begun since the mark.
    ///
    /// # Errors
    /// If the generator does not answer.
    pub async fn since(&self, mark: &str) -> Result<Counts, Error> {
        self.counts(&format!("/since?name={mark}")).await
    }

    /// Counters of all calls.
    ///
    /// # Errors
    /// If the generator does not answer.
    pub async fn total(&self) -> Result<Counts, Error> {
        self.counts("/stats").await
    }

    /// Waits until that many more calls have been made: their counters.
    ///
    /// # Errors
    /// If they are not within the limit.
    pub async fn next(&self, calls: u64, limit: Duration) -> Result<Counts, Error> {
        self.mark("next").await?;
        wait::until(limit, &format!("{calls} calls"), async || {
            let counts = self.since("next").await?;
            Ok((counts.sent >= calls).then_some(counts))
        })
        .await
    }

    /// Looks at batches of calls until one is as wanted.
    ///
    /// # Errors
    /// If none is within the limit.
    pub async fn until(
        &self,
        what: &str,
        batch: u64,
        limit: Duration,
        wanted: impl Fn(&Counts) -> bool,
    ) -> Result<Counts, Error> {
        wait::until(limit, what, async || {
            let counts = self.next(batch, limit).await?;
            Ok(wanted(&counts).then_some(counts))
        })
        .await
    }

    async fn counts(&self, path: &str) -> Result<Counts, Error> {
        let answer = Call::get(path).unix(&self.socket).await?.json()?;
        serde_json::from_value(answer).map_err(|error| Error::unexpected("a load's counters", error.to_string()))
    }
}
