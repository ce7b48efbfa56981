//! The application in a pod: one role of the shop, which can be told to fail, and which is started again when it ends by itself.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_sandbox::{Pod, Process};

use crate::client::Call;
use crate::control_plane::alive;
use crate::{Error, wait};

/// How long it may take to serve, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// How soon an application that ended by itself is started again, as a kubelet would.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// An application.
#[derive(Debug)]
pub struct App {
    pod: Pod,
    program: PathBuf,
    role: String,
    version: String,
    process: Mutex<Process>,
    /// Cancelled when its end is wanted.
    stopping: CancellationToken,
    restarts: AtomicU64,
}

impl App {
    /// Starts it; waits until it serves.
    pub(crate) async fn start(pod: Pod, program: PathBuf, role: String, version: String) -> Result<Self, Error> {
        let process = spawn(&pod, &program, &role, &version).await?;
        let app = Self {
            pod,
            program,
            role,
            version,
            process: Mutex::new(process.clone()),
            stopping: CancellationToken::new(),
            restarts: AtomicU64::new(0),
        };
        wait::until(START, &format!("the application of {} serves", app.pod.name()), async || {
            alive(&process, &app.pod)?;
            Ok(Call::get("/healthz").unix(&app.socket()).await.ok())
        })
        .await?;
        Ok(app)
    }

    /// Its process.
    pub fn process(&self) -> Process {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it ended by itself and was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Tells it to fail: `mode=error&status=503&rate=0.5`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn fail(&self, how: &str) -> Result<(), Error> {
        Call::post(format!("/control/fail?{how}")).unix(&self.socket()).await?.text().map(drop)
    }

    /// Takes back [`App::fail`].
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn recover(&self) -> Result<(), Error> {
        Call::post("/control/recover").unix(&self.socket()).await?.text().map(drop)
    }

    /// Lets it crash on this share of its requests until it has done so `times`, and waits until it runs and is told to no
    /// more; returns how often it did. Somebody has to start it again whenever it ends, as [`crate::Mesh::keep_running`] does.
    ///
    /// # Errors
    /// If it has not crashed as often, or does not run again, within the limit.
    pub async fn crash(&self, rate: f64, times: u64, limit: Duration) -> Result<u64, Error> {
        let how = format!("mode=crash&rate={rate}");
        let before = self.restarts();
        // A started process has forgotten the order to crash: it is given again.
        wait::until(limit, &format!("the application of {} crashes", self.pod.name()), async || {
            if self.restarts() - before >= times {
                return Ok(Some(()));
            }
            // Fails while the process is down.
            let _ = self.fail(&how).await;
            Ok(None)
        })
        .await?;
        // Whether it has just been started or is about to be.
        let again = format!("the application of {} runs again", self.pod.name());
        wait::until(limit, &again, async || Ok(self.recover().await.ok())).await?;
        Ok(self.restarts() - before)
    }

    /// Ends it at once and for good, and waits until it has gone.
    pub async fn kill(&self) {
        self.stopping.cancel();
        let process = self.process();
        process.kill();
        process.wait().await;
    }

    /// Asks it to end; it is started no more.
    pub fn terminate(&self) {
        self.stopping.cancel();
        self.process().terminate();
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        let process = self.process();
        process.wait().await;
    }

    /// Starts it again whenever it ends, until its end is wanted or `ending` is cancelled.
    pub(crate) async fn keep_running(self: Arc<Self>, ending: CancellationToken) {
        loop {
            let process = self.process();
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = ending.cancelled() => return,
                _ = process.wait() => {}
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = ending.cancelled() => return,
                () = tokio::time::sleep(RESTART_DELAY) => {}
            }
            // Fails only if the pod has gone, which ends this as well.
            let Ok(process) = spawn(&self.pod, &self.program, &self.role, &self.version).await else { return };
            *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn socket(&self) -> PathBuf {
        self.pod.run_dir().join("app.sock")
    }
}

async fn spawn(pod: &Pod, program: &PathBuf, role: &str, version: &str) -> Result<Process, Error> {
    let mut command = Command::new(program);
    command.args([role, "--app-version", version, "--admin", "unix:/run/app.sock"]);
    Ok(pod.spawn("app", command).await?)
}
