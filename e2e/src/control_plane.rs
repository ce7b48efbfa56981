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

/// Where it says how it is, on its pod's loopback.
const STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15014);

/// How long it may take to be ready, on a machine that is busy.
const START: Duration = Duration::from_secs(20);

/// A control plane that reads a folder.
#[derive(Debug)]
pub struct ControlPlane {
    pod: Pod,
    program: PathBuf,
    arguments: Vec<String>,
    folder: Folder,
    process: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// Starts it with these arguments besides those about its places; waits until it serves the folder.
    ///
    /// # Errors
    /// If it ends, or is not ready in time.
    pub async fn start(pod: Pod, program: PathBuf, arguments: Vec<String>) -> Result<Self, Error> {
        let folder = Folder::create(pod.run_dir().join("folder"))?;
        let control_plane = Self { pod, program, arguments, folder, process: Mutex::new(None) };
        control_plane.run().await?;
        Ok(control_plane)
    }

    /// The folder to edit.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where sidecars find it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), XDS_PORT)
    }

    /// Starts the process again after [`ControlPlane::kill`]; waits until it is ready.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn run(&self) -> Result<(), Error> {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--folder", "/run/folder", "--state", "/run/state"])
            .args(["--listen", &format!("0.0.0.0:{XDS_PORT}")])
            .args(&self.arguments);
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

    /// `/metrics`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self) -> Result<Samples, Error> {
        Ok(Samples::parse(&self.get("/metrics").await?.text()?))
    }

    async fn get(&self, path: &str) -> Result<Answer, Error> {
        Call::get(path).inside(&self.pod, STATUS).await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with the end of its log if the process has ended.
pub(crate) fn alive(process: &Process, pod: &Pod) -> Result<(), Error> {
    if process.exit_status().is_none() {
        return Ok(());
    }
    Err(Error::Ended { process: format!("{} of {}", process.name(), pod.name()), log: tail(process, 5) })
}

/// The last lines a process wrote.
pub(crate) fn tail(process: &Process, lines: usize) -> String {
    let log = process.log().unwrap_or_default();
    let mut last: Vec<_> = log.lines().rev().take(lines).collect();
    last.reverse();
    last.join("\n")
}
