//! The application's probes, asked on its behalf.
//!
//! A kubelet has no certificate of the mesh, so a workload that accepts mutual TLS only would never be ready. Injection points the pod's
//! probes to this proxy's port 15020 instead and says in `--probes` what they were; here they are asked locally, past the redirect.
//!
//! Invariant: only paths that the pod itself declares are asked, and nothing of a caller's request reaches the application.

mod ask;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

/// What the path of every such probe begins with.
pub const PREFIX: &str = "/probe/";

/// The longest that a probe may take, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(600);

/// The probes of a pod, by the path that asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Probes(HashMap<String, Probe>);

/// A probe as it was, with its port by number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    port: u16,
    #[serde(default = "a_second")]
    timeout_seconds: u64,
    #[serde(flatten)]
    how: How,
}

fn a_second() -> u64 {
    1
}

/// The three kinds that go over the network, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum How {
    HttpGet(HttpGet),
    TcpSocket(TcpSocket),
    Grpc(Grpc),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Scheme {
    #[default]
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct TcpSocket {}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Grpc {
    #[serde(default)]
    service: String,
}

/// What an application said: a status as the kubelet takes it, and words for the pod's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: http::StatusCode,
    pub(super) text: String,
}

impl Probes {
    /// Reads the value of `--probes`.
    ///
    /// # Errors
    /// If it is not what injection writes.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Asks the application on the address that the kubelet came to, which is the pod's. `None` if there is no such probe.
    pub(super) async fn ask(&self, path: &str, address: IpAddr) -> Option<Said> {
        let probe = self.0.get(path)?;
        let limit = Duration::from_secs(probe.timeout_seconds).min(LONGEST);
        let said = match tokio::time::timeout(limit, ask::ask(&probe.how, (address, probe.port).into())).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => refused(format!("port {}: {error}\n", probe.port)),
            Err(_) => refused(format!("port {}: no answer within {} s\n", probe.port, limit.as_secs())),
        };
        Some(said)
    }
}

fn refused(text: String) -> Said {
    Said { status: http::StatusCode::SERVICE_UNAVAILABLE, text }
}

#[cfg(test)]
mod tests;
