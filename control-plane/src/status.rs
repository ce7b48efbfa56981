//! `/status`: what the control plane knows, for `weft status`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::ServiceStatus;
use crate::sources::WatchState;
use crate::xds::ProxyStatus;

/// The answer of `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The control plane's version.
    pub version: String,
    /// Whether `/ready` says yes.
    pub ready: bool,
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// The trusted roots, oldest first.
    pub roots: Vec<RootStatus>,
    /// Where the configuration comes from.
    pub source: SourceStatus,
    /// The services, with the addresses that clients call.
    pub services: Vec<ServiceStatus>,
    /// The connected proxies.
    pub proxies: Vec<ProxyStatus>,
}

/// A trusted root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStatus {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Whether it signs now.
    pub signs: bool,
}

/// Where the configuration comes from: a folder, or an API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its path, or `kubernetes`.
    pub folder: String,
    /// Whether there has ever been a good configuration.
    pub loaded: bool,
    /// Good configurations so far.
    pub generation: u64,
    /// What the folder held when it was last read, good or not: SHA-256 in hexadecimal over every manifest in the order of their paths
    /// (path below the folder, a zero byte, text, a zero byte). Whoever writes the folder can tell by it whether an edit was read.
    #[serde(default)]
    pub digest: String,
    /// Whether the folder as it is now was refused; the last good configuration is served.
    pub refused: bool,
    /// Everything wrong with it now.
    pub problems: Vec<ProblemStatus>,
    /// The watches of an API server; none of a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<WatchStatus>,
}

/// How the watch of one kind is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// The kind.
    pub kind: String,
    /// Whether all its objects have been listed once.
    pub synced: bool,
    /// Whether the API server does not have the kind.
    pub absent: bool,
    /// Complete lists: the first, and one after each watch that expired.
    pub lists: u64,
    /// Times that the API server could not be asked.
    pub failures: u64,
    /// Why it cannot be asked now; the last good configuration is served.
    pub error: Option<String>,
    /// When the API server last told something of the kind, in seconds of Unix time. A quiet kind tells nothing.
    pub last_event: Option<u64>,
}

impl From<&WatchState> for WatchStatus {
    fn from(watch: &WatchState) -> Self {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            kind: watch.kind.to_owned(),
            synced: watch.synced,
            absent: watch.absent,
            lists: watch.lists,
            failures: watch.failures,
            error: watch.error.clone(),
            last_event: watch.last_event.map(seconds),
        }
    }
}

/// The answer of `/resource?type=RDS&name=…&namespace=…`: a resource as a sidecar of that namespace would get it now, `null` if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedResource {
    /// Its version, as streams have it.
    pub version: String,
    /// The message, encoded, in hexadecimal.
    pub message: String,
}

impl RenderedResource {
    /// The message, encoded. What is no hexadecimal number is left out.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let digits: Vec<_> = self.message.chars().filter_map(|digit| digit.to_digit(16)).collect();
        // Two digits of four bits.
        digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }
}

/// One thing wrong with one field of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemStatus {
    /// `error` (the folder is refused) or `warning`.
    pub severity: String,
    /// The file.
    pub file: String,
    /// 1-based.
    pub line: u32,
    /// `Kind namespace/name`.
    pub object: String,
    /// The field's path.
    pub field: String,
    /// Everything in one line.
    pub message: String,
}

impl From<&weft_api::Problem> for ProblemStatus {
    fn from(problem: &weft_api::Problem) -> Self {
        Self {
            severity: if problem.is_error() { "error" } else { "warning" }.to_owned(),
            file: problem.file.clone(),
            line: problem.line,
            object: problem.object.clone(),
            field: problem.field.clone(),
            message: problem.to_string(),
        }
    }
}
