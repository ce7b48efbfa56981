//! `/status`: what the control plane knows, for `weft status`.

use serde::{Deserialize, Serialize};

use crate::ServiceStatus;
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
    /// The configuration folder.
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

/// The configuration folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its path.
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
