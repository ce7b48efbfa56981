//! The applications: `server.py` and `client.py` beside this file, run by a Python that has grpcio.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use weft_local_mesh::control_plane::alive;
use weft_local_mesh::proxyless::BOOTSTRAP;
use weft_local_mesh::{Error, Proxyless, wait};
use weft_sandbox::testing::{self, Failure};
use weft_sandbox::{Pod, Process};

/// Where servers listen.
pub(crate) const PORT: u16 = 50051;

/// How long a Python may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(120);

/// A Python that has grpcio.
pub(crate) struct Python(PathBuf);

/// How calls went, and what the client made of what it was sent.
#[derive(Debug)]
pub(crate) struct Calls {
    calls: Vec<Call>,
    resources: Vec<Resource>,
}

#[derive(Debug, Clone, Deserialize)]
struct Call {
    code: String,
    replica: String,
    message: String,
}

/// A resource as CSDS shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Resource {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(rename = "name")]
    _name: String,
    status: u32,
}

#[derive(Deserialize)]
struct Status {
    resources: Vec<Resource>,
}

/// A client that calls until its input file says that it is enough.
pub(crate) struct Load {
    process: Process,
    enough: PathBuf,
}

impl Python {
    /// Finds it; skips the test where there is none.
    pub(crate) fn find() -> Result<Self, Failure> {
        match std::env::var_os("WEFT_GRPC_PYTHON").map(PathBuf::from) {
            Some(path) if path.is_file() => Ok(Self(path)),
            _ => Err(testing::skip(
                "there is no grpcio: WEFT_GRPC_PYTHON=\"$(scripts/grpcio.sh)\" names a Python that has it",
            )),
        }
    }

    /// Starts a server of a kind that `server.py` knows.
    pub(crate) async fn serve(&self, pod: &Pod, name: &str, kind: &str, failures: u32) -> Result<(), Error> {
        let mut command = self.script("server.py");
        command.args([name, &format!("0.0.0.0:{PORT}"), kind, &failures.to_string()]);
        let server = pod.spawn("server", command).await?;
        wait::until(START, &format!("the server of {name} is started"), async || {
            alive(&server, pod)?;
            Ok(server.log().unwrap_or_default().contains("started").then_some(()))
        })
        .await
    }

    /// Makes calls one after the other, each with these headers, on a channel of their own.
    pub(crate) async fn calls(
        &self,
        client: &Proxyless,
        target: &str,
        method: &str,
        calls: u32,
        headers: &[&str],
    ) -> Result<Calls, Error> {
        let mut command = self.script("client.py");
        command.args([target, method, &calls.to_string()]).args(headers);
        let process = client.pod().spawn(&name("calls"), command).await?;
        finish(&process).await
    }

    /// Makes calls until [`Load::end`].
    pub(crate) async fn load(&self, client: &Proxyless, target: &str, method: &str) -> Result<Load, Error> {
        let name = name("load");
        let enough = client.pod().run_dir().join(format!("{name}.enough"));
        let mut command = self.script("client.py");
        command.args([target, method, &format!("until:/run/{name}.enough")]);
        let process = client.pod().spawn(&name, command).await?;
        wait::until(START, "the first call succeeds", async || {
            alive(&process, client.pod())?;
            Ok(process.log().unwrap_or_default().contains("\"OK\"").then_some(()))
        })
        .await?;
        Ok(Load { process, enough })
    }

    fn script(&self, script: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc/").to_owned() + script);
        command.env("GRPC_XDS_BOOTSTRAP", BOOTSTRAP).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

impl Load {
    /// Ends it: how all its calls went.
    pub(crate) async fn end(self) -> Result<Calls, Error> {
        std::fs::write(&self.enough, "").map_err(|error| Error::unexpected("end a load", error.to_string()))?;
        finish(&self.process).await
    }
}

impl Calls {
    /// The status of each call.
    pub(crate) fn codes(&self) -> Vec<String> {
        self.calls.iter().map(|call| call.code.clone()).collect()
    }

    /// How many ended with this status.
    pub(crate) fn code(&self, code: &str) -> usize {
        self.calls.iter().filter(|call| call.code == code).count()
    }

    pub(crate) fn succeeded(&self) -> usize {
        self.code("OK")
    }

    /// How many a replica answered.
    pub(crate) fn replica(&self, replica: &str) -> usize {
        self.calls.iter().filter(|call| call.replica == replica).count()
    }

    /// What those said that failed.
    pub(crate) fn failures(&self) -> Vec<(&str, &str)> {
        let failed = self.calls.iter().filter(|call| call.code != "OK");
        failed.map(|call| (call.code.as_str(), call.message.as_str())).collect()
    }

    pub(crate) fn resources(&self) -> &[Resource] {
        &self.resources
    }
}

impl Resource {
    /// Whether the client accepted it (`envoy.admin.v3.ClientResourceStatus`).
    pub(crate) fn is_acked(&self) -> bool {
        self.status == 3
    }
}

/// Logs are appended to, so each process has its own.
fn name(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn finish(process: &Process) -> Result<Calls, Error> {
    process.wait().await;
    let log = process.log().unwrap_or_default();
    // gRPC logs to the same place, in words of its own.
    let lines = || log.lines().filter(|line| line.starts_with('{'));
    let calls = lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    match lines().find_map(|line| serde_json::from_str::<Status>(line).ok()) {
        Some(status) => Ok(Calls { calls, resources: status.resources }),
        None => Err(Error::unexpected("calls of a gRPC client", log)),
    }
}
