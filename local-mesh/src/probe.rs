//! One call of any protocol from inside a pod, by `weft-shop probe`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use weft_sandbox::Pod;

use crate::Error;

/// How a call went, as the program tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    /// Whether it was answered with success.
    pub ok: bool,
    /// `HTTP/1.1`, `HTTP/2`, `gRPC`, `TCP` or `WebSocket`; empty without an answer.
    pub protocol: String,
    /// HTTP's status, or gRPC's.
    pub status: Option<u16>,
    headers: Vec<(String, String)>,
    /// The body, or what stands for it.
    pub body: String,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// Why a call failed.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// A short stable word, such as `refused` or `http_503_NC`.
    pub class: String,
    /// What it says about it.
    pub message: String,
}

impl Outcome {
    /// A header's value; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The failure's class; empty if it was none.
    pub fn class(&self) -> &str {
        self.error.as_ref().map(|failure| failure.class.as_str()).unwrap_or_default()
    }
}

/// Makes calls in any pod with the program `shop` and its options; at least one outcome.
///
/// # Errors
/// If they could not be attempted; their own failures are in the outcomes.
pub async fn probe(pod: &Pod, shop: &Path, target: &str, options: &[&str]) -> Result<Vec<Outcome>, Error> {
    // Logs are appended to, so each call has its own.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("probe-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut command = Command::new(shop);
    command.args(["probe", target]).args(options);
    let process = pod.spawn(&name, command).await?;
    process.wait().await;
    let log = process.log().map_err(Error::io("read a probe's log"))?;
    let parsed: Result<Vec<_>, _> = log.lines().map(serde_json::from_str).collect();
    match parsed {
        Ok(outcomes) if !outcomes.is_empty() => Ok(outcomes),
        _ => Err(Error::unexpected(format!("probe of {target} in {}", pod.name()), log)),
    }
}
