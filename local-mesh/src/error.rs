//! What goes wrong around a mesh, as opposed to inside it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a mesh could not be made, changed or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program has not been built.
    #[error(
        "{} is missing: build everything with `make build` (or `cargo build --workspace --bins`), or name the programs' folder in {}",
        .0.display(), crate::programs::FOLDER
    )]
    MissingProgram(PathBuf),
    /// The sandbox could not do what it was asked.
    #[error(transparent)]
    Sandbox(#[from] weft_sandbox::Error),
    /// A file or a connection.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// An exchange that broke.
    #[error("{what}: {source}")]
    Http {
        /// The request.
        what: String,
        /// Why it broke.
        source: hyper::Error,
    },
    /// Something answered, and with something else than expected.
    #[error("{what}: {found}")]
    Unexpected {
        /// What was asked.
        what: String,
        /// What came back.
        found: String,
    },
    /// The control plane does not take over the folder.
    #[error("the control plane refuses the folder: {}", .problems.join("; "))]
    Refused {
        /// What is wrong, one line each.
        problems: Vec<String>,
    },
    /// A process that should run has ended.
    #[error("{process} ended; the last it wrote: {log}")]
    Ended {
        /// Its name and pod.
        process: String,
        /// The end of its log.
        log: String,
    },
    /// A condition that did not come true.
    #[error("not within {limit:?}: {what}{}", .last.as_ref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    Waited {
        /// The condition.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// Why the last look failed, if it did.
        last: Option<Box<Error>>,
    },
}

impl Error {
    /// Something that answered with something else than expected.
    pub fn unexpected(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unexpected { what: what.into(), found: found.into() }
    }

    /// What to make of an input or output error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
