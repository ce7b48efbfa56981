//! Steady load from inside a pod, by `weft-shop loadgen`, steered and read over a Unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use weft_sandbox::{Pod, Process};

use crate::client::Call;
use crate::control_plane::alive;
use crate::{Error, wait};

/// How long it may take to listen, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

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
    /// Time since the mark, in seconds.
    pub seconds: f64,
    /// Calls that ended.
    pub sent: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that did not.
    pub failed: u64,
    /// The longest time between two successes, in milliseconds.
    pub largest_gap_ms: f64,
    /// Failures by class.
    pub failures: BTreeMap<String, u64>,
    /// The first failures in full.
    pub first_failures: Vec<FirstFailure>,
    /// Answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// Answers by the replica that gave them, failures of its own included.
    pub replicas: BTreeMap<String, u64>,
    /// The median of the calls' durations, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the calls' durations, in milliseconds.
    pub p99_ms: f64,
}

/// One failure in full.
#[derive(Debug, Clone, Deserialize)]
pub struct FirstFailure {
    /// What was called.
    pub target: String,
    /// A short stable word, such as `refused` or `http_503_NC`.
    pub class: String,
    /// What it says about it.
    pub message: String,
}

impl Counts {
    /// Calls per second that ended.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Answers of a version.
    pub fn version(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or_default()
    }

    /// Answers of a replica.
    pub fn replica(&self, replica: &str) -> u64 {
        self.replicas.get(replica).copied().unwrap_or_default()
    }

    /// "none", or the classes with their numbers and the first one of each in full.
    pub fn describe_failures(&self) -> String {
        if self.failures.is_empty() {
            return "none".to_owned();
        }
        let describe = |(class, count): (&String, &u64)| {
            let first = self.first_failures.iter().find(|failure| &failure.class == class);
            let first = first.map(|failure| format!(" (first: {}: {})", failure.target, failure.message));
            format!("{count} × {class}{}", first.unwrap_or_default())
        };
        self.failures.iter().map(describe).collect::<Vec<_>>().join(", ")
    }
}

impl Load {
    /// Starts it in `pod` with the program `shop`; the targets take turns.
    pub(crate) async fn start(
        pod: &Pod,
        shop: &Path,
        targets: &[impl AsRef<str>],
        per_second: f64,
    ) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("load-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(shop);
        command.args(["loadgen", "--quiet", "--connections", "16"]);
        command.args(["--rate", &per_second.to_string(), "--control", &format!("unix:/run/{name}.sock")]);
        for target in targets {
            command.args(["--target", target.as_ref()]);
        }
        let process = pod.spawn(&name, command).await?;
        let load = Self { pod: pod.clone(), socket: pod.run_dir().join(format!("{name}.sock")), process };
        wait::until(START, "the load generator listens", async || {
            alive(&load.process, &load.pod)?;
            Ok(Call::get("/healthz").unix(&load.socket).await.ok())
        })
        .await?;
        Ok(load)
    }

    /// Changes the calls per second.
    ///
    /// # Errors
    /// If the generator does not answer.
    pub async fn set_rate(&self, per_second: f64) -> Result<(), Error> {
        Call::post(format!("/rate?rps={per_second}")).unix(&self.socket).await?.text().map(drop)
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

    /// Waits until the counters since a mark satisfy `enough`; they are returned.
    ///
    /// # Errors
    /// If they do not within the limit.
    pub async fn reach(
        &self,
        mark: &str,
        limit: Duration,
        what: &str,
        enough: impl Fn(&Counts) -> bool,
    ) -> Result<Counts, Error> {
        wait::until(limit, what, async || {
            let counts = self.since(mark).await?;
            Ok(enough(&counts).then_some(counts))
        })
        .await
    }

    /// Waits until that many more calls have been made: their counters.
    ///
    /// # Errors
    /// If they are not within the limit.
    pub async fn next(&self, calls: u64, limit: Duration) -> Result<Counts, Error> {
        self.mark("next").await?;
        self.reach("next", limit, &format!("{calls} calls"), |counts| counts.sent >= calls).await
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
