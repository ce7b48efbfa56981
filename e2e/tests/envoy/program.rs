//! A program that takes such a file, in a pod of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use weft_local_mesh::control_plane::alive;
use weft_local_mesh::{Programs, wait};
use weft_sandbox::testing::{self, Failure};
use weft_sandbox::{Pod, PodSpec, Process, Sandbox};

use super::application;
use super::case::{Case, PORT};
use super::certificates::Certificates;

/// How long it may take to listen, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// One that can be started.
pub(crate) struct Program {
    pod: Pod,
    path: PathBuf,
    arguments: &'static [&'static str],
    certificates: Certificates,
    _sandbox: Arc<Sandbox>,
}

/// One that runs.
pub(crate) struct Running<'a> {
    program: &'a Program,
    process: Process,
}

/// The Envoy to compare with; skips the test where there is none.
pub(crate) fn find_envoy() -> Result<PathBuf, Failure> {
    match std::env::var_os("WEFT_ENVOY").map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        _ => Err(testing::skip("there is no Envoy to compare with: WEFT_ENVOY=\"$(scripts/envoy.sh)\" names one")),
    }
}

/// The proxy that was built.
pub(crate) fn find_weft() -> Result<PathBuf, Failure> {
    Ok(Programs::find()?.proxy)
}

impl Program {
    pub(crate) async fn new(
        sandbox: Arc<Sandbox>,
        name: &'static str,
        path: PathBuf,
        certificates: &Certificates,
    ) -> Result<Self, Failure> {
        let pod = sandbox.add_pod(PodSpec::named(name)).await?;
        certificates.write(&pod.run_dir().join("tls"))?;
        application::serve(&pod, certificates).await?;
        // Nothing of Envoy's is shared with another one on this machine.
        let envoys: &[_] = &["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"];
        let arguments = if name == "envoy" { envoys } else { &[] };
        Ok(Self { pod, path, arguments, certificates: certificates.clone(), _sandbox: sandbox })
    }

    /// Starts it with a file; waits until it listens.
    pub(crate) async fn run(&self, bootstrap: &str, case: &Case) -> Result<Running<'_>, Failure> {
        let file = format!("{}.{}", case.name, case.extension);
        std::fs::write(self.pod.run_dir().join(&file), bootstrap)?;
        let mut command = Command::new(&self.path);
        command.args(["-c", &format!("/run/{file}")]).args(self.arguments);
        let process = self.pod.spawn(&case.name, command).await?;
        let what = format!("{} listens with {file}", self.pod.name());
        wait::until(LIMIT, &what, async || {
            alive(&process, &self.pod)?;
            let connects = move || std::net::TcpStream::connect(("127.0.0.1", PORT)).is_ok();
            Ok(self.pod.run(connects).await?.then_some(()))
        })
        .await?;
        Ok(Running { program: self, process })
    }
}

impl Running<'_> {
    pub(crate) fn name(&self) -> &str {
        self.program.pod.name()
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.program.pod
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        &self.program.certificates
    }

    /// Ends it; waits until it has gone.
    pub(crate) async fn stop(self) {
        self.process.kill();
        self.process.wait().await;
    }
}
