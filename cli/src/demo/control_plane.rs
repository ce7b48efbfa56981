//! The control plane of the demo: a process in a pod of its own, so that it dies with the sandbox and has an address
//! that stays when it is killed and started again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::Value;
use weft_sandbox::{Pod, Process};

use super::folder::Folder;
use super::observe::Samples;
use super::{client, wait};

/// Where sidecars connect.
pub(crate) const XDS_PORT: u16 = 15012;

/// How long a new root is trusted before it signs: every sidecar hears of it within milliseconds.
const ROOT_OVERLAP: Duration = Duration::from_secs(4);

/// Where it says how it is, on its pod's loopback.
const STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15014);

/// Longer than it takes the control plane to notice an edit.
const NOTICED: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct ControlPlane {
    pod: Pod,
    binary: PathBuf,
    folder: Folder,
    process: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// Starts it, and waits until it serves the folder.
    pub(crate) async fn start(pod: Pod, binary: PathBuf, lifetime: Duration) -> anyhow::Result<Self> {
        let folder = Folder::create(pod.run_dir().join("shop"))?;
        let control_plane = Self { pod, binary, folder, process: Mutex::new(None) };
        control_plane.run(lifetime).await?;
        Ok(control_plane)
    }

    /// The folder to edit.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Where sidecars find it.
    pub(crate) fn address(&self) -> IpAddr {
        self.pod.v4()
    }

    /// Starts the process with this lifetime of certificates; waits until it is ready.
    pub(crate) async fn run(&self, lifetime: Duration) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--folder", "/run/shop", "--state", "/run/state"])
            .args(["--listen", &format!("0.0.0.0:{XDS_PORT}")])
            .args(["--certificate-lifetime", &format!("{}s", lifetime.as_secs())])
            .args(["--root-overlap", &format!("{}s", ROOT_OVERLAP.as_secs())]);
        let process = self.pod.spawn("control-plane", command).await?;
        *self.lock() = Some(process.clone());
        wait::until(Duration::from_secs(10), "the control plane to be ready", || async {
            if process.exit_status().is_some() {
                bail!("the control plane ended: {}", tail(&process));
            }
            Ok(self.get("/ready").await.and_then(client::Answer::text).ok())
        })
        .await?;
        Ok(())
    }

    /// Kills the process as a crash would, and waits until it has gone.
    pub(crate) async fn kill(&self) {
        let process = self.lock().take();
        if let Some(process) = process {
            process.kill();
            process.wait().await;
        }
    }

    /// The certificates of the trusted roots, for the pods' bootstrap.
    pub(crate) async fn root_bundle(&self) -> anyhow::Result<String> {
        self.get("/ca").await?.text()
    }

    /// A join token for a pod, made as an operator would make it.
    pub(crate) async fn token(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.arg("token").arg("--state").arg(self.state()).args(["--namespace", namespace, "--pod", pod]);
        output(command).await
    }

    /// Makes a new root, as an operator would order it; the old one stays trusted for a while.
    pub(crate) async fn rotate_root(&self) -> anyhow::Result<()> {
        // A header that no web page may send.
        let headers = [("x-weft-request", "rotate-root")];
        client::inside(&self.pod, STATUS, Method::POST, "/rotate-root", &headers).await?.text().map(drop)
    }

    /// What `weft status` shows.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        self.get("/status").await?.json()
    }

    pub(crate) async fn metrics(&self) -> anyhow::Result<Samples> {
        Ok(Samples::parse(&self.get("/metrics").await?.text()?))
    }

    /// What is wrong in the folder, one line each.
    pub(crate) async fn problems(&self) -> anyhow::Result<Vec<String>> {
        let status = self.status().await?;
        let problems = status["source"]["problems"].as_array().cloned().unwrap_or_default();
        Ok(problems.iter().map(message).collect())
    }

    /// Waits until the folder as it is now is in force in every sidecar.
    pub(crate) async fn in_step(&self) -> anyhow::Result<()> {
        // An edit is noticed within the folder's quiet time; a sidecar is stale from then until it has acknowledged.
        tokio::time::sleep(NOTICED).await;
        wait::until(Duration::from_secs(10), "every sidecar to have the folder's configuration", || async {
            let status = self.status().await?;
            if let Some(problem) = status["source"]["problems"].as_array().and_then(|problems| problems.first()) {
                bail!("the folder has a problem: {}", message(problem));
            }
            let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
            Ok(proxies.iter().all(|proxy| proxy["state"] == "SYNCED").then_some(()))
        })
        .await
    }

    async fn get(&self, path: &str) -> anyhow::Result<client::Answer> {
        client::inside(&self.pod, STATUS, Method::GET, path, &[]).await
    }

    fn state(&self) -> PathBuf {
        self.pod.run_dir().join("state")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A problem in the folder as one line.
fn message(problem: &Value) -> String {
    problem["message"].as_str().unwrap_or_default().to_owned()
}

/// The last lines a process wrote.
pub(crate) fn tail(process: &Process) -> String {
    let log = process.log().unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(5).collect();
    let path = process.log_path().display();
    format!("{} (all of it in {path})", lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
}

/// A command's output without the line end; its messages become the error.
async fn output(mut command: tokio::process::Command) -> anyhow::Result<String> {
    let output = command.output().await.with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The programs of the demo, next to this one.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) control_plane: PathBuf,
    pub(crate) proxy: PathBuf,
    pub(crate) shop: PathBuf,
}

impl Binaries {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                bail!("{} is missing: build everything with `make build`, or use `make demo`", path.display())
            }
        };
        Ok(Self { control_plane: find("weft-control-plane")?, proxy: find("weft-proxy")?, shop: find("weft-shop")? })
    }
}
