//! The control plane: a process in a pod of its own, so that it dies with the sandbox and keeps its address when it is killed and
//! started again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use weft_sandbox::{Pod, Process};

use crate::client::{Answer, Call};
use crate::{Error, Folder, Samples, wait};

/// Where sidecars connect.
pub const XDS_PORT: u16 = 15012;

/// Where it serves its metrics to everybody.
const METRICS_PORT: u16 = 15021;

/// Where it says how it is, on its pod's loopback.
const STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15014);

/// How long it may take to be ready, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// What may be chosen about a control plane.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long certificates are valid.
    pub certificate_lifetime: Duration,
    /// How long a new root is trusted before it signs.
    pub root_overlap: Duration,
}

impl Default for Settings {
    /// Certificates that nothing outlives.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { certificate_lifetime: day, root_overlap: day }
    }
}

/// A control plane that reads a folder.
#[derive(Debug)]
pub struct ControlPlane {
    pod: Pod,
    program: PathBuf,
    folder: Folder,
    process: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// A control plane that does not run yet, with an empty folder.
    pub(crate) fn new(pod: Pod, program: PathBuf) -> Result<Self, Error> {
        let folder = Folder::create(pod.run_dir().join("folder"))?;
        Ok(Self { pod, program, folder, process: Mutex::new(None) })
    }

    /// The folder to edit.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The pod it runs in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Where sidecars find it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), XDS_PORT)
    }

    /// Where Prometheus finds its `/metrics`.
    pub fn metrics_address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), METRICS_PORT)
    }

    /// Starts the process, which must not run; waits until it serves the folder.
    ///
    /// # Errors
    /// If it ends, or is not ready in time.
    pub async fn run(&self, settings: &Settings) -> Result<(), Error> {
        let Settings { certificate_lifetime, root_overlap } = settings;
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--folder", "/run/folder", "--state", "/run/state"])
            // The address is in its certificate, by which gRPC clients know it.
            .args(["--listen", &self.address().to_string()])
            .args(["--health", &format!("0.0.0.0:{METRICS_PORT}")])
            .args(["--certificate-lifetime", &format!("{}s", certificate_lifetime.as_secs())])
            .args(["--root-overlap", &format!("{}s", root_overlap.as_secs())]);
        let process = self.pod.spawn("control-plane", command).await?;
        *self.lock() = Some(process.clone());
        wait::until(START, "the control plane is ready", async || {
            alive(&process, &self.pod)?;
            Ok(self.get("/ready").await.and_then(Answer::text).ok())
        })
        .await?;
        Ok(())
    }

    /// Kills the process as a crash would, and waits until it has gone.
    pub async fn kill(&self) {
        let process = self.lock().take();
        if let Some(process) = process {
            process.kill();
            process.wait().await;
        }
    }

    /// The certificates of the trusted roots, as PEM.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn roots(&self) -> Result<String, Error> {
        self.get("/ca").await?.text()
    }

    /// A join token for a pod, made as an operator would make it.
    ///
    /// # Errors
    /// What the program said.
    pub async fn token(&self, namespace: &str, pod: &str) -> Result<String, Error> {
        let state = self.pod.run_dir().join("state");
        let mut command = tokio::process::Command::new(&self.program);
        command.arg("token").arg("--state").arg(state).args(["--namespace", namespace, "--pod", pod]);
        let output = command.output().await.map_err(Error::io(format!("run {}", self.program.display())))?;
        if !output.status.success() {
            let found = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::unexpected("no join token", found));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Makes a new root, as an operator would order it.
    ///
    /// # Errors
    /// If it refuses.
    pub async fn rotate_root(&self) -> Result<(), Error> {
        let call = Call::post("/rotate-root").header("x-weft-request", "rotate-root");
        call.inside(&self.pod, STATUS).await?.text().map(drop)
    }

    /// `/status`, which `weft status` shows.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self) -> Result<Value, Error> {
        self.get("/status").await?.json()
    }

    /// What is wrong in the folder, one line each.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn problems(&self) -> Result<Vec<String>, Error> {
        Ok(problems(&self.status().await?))
    }

    /// `/metrics`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self) -> Result<Samples, Error> {
        Ok(Samples::parse(&self.get("/metrics").await?.text()?))
    }

    /// How many resources it has sent since its start, by type: LDS, RDS, CDS, EDS, SDS.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn resources_sent(&self) -> Result<[f64; 5], Error> {
        let metrics = self.metrics().await?;
        let sent = |kind| metrics.sum("weft_control_plane_resources_sent_total", &[("type", kind)]);
        Ok(["LDS", "RDS", "CDS", "EDS", "SDS"].map(sent))
    }

    async fn get(&self, path: &str) -> Result<Answer, Error> {
        Call::get(path).inside(&self.pod, STATUS).await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong in the folder, one line each, given `/status`.
pub fn problems(status: &Value) -> Vec<String> {
    let problems = status["source"]["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    problems.iter().map(|problem| problem["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// An error with the end of its log if the process has ended.
///
/// # Errors
/// If it has.
pub fn alive(process: &Process, pod: &Pod) -> Result<(), Error> {
    if process.exit_status().is_none() {
        return Ok(());
    }
    let log = process.log().unwrap_or_default();
    let mut last: Vec<_> = log.lines().rev().take(5).collect();
    last.reverse();
    Err(Error::Ended { process: format!("{} of {}", process.name(), pod.name()), log: last.join(" | ") })
}
