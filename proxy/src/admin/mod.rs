//! The admin side of the process: readiness, drain, the log, and the servers that show what the proxy knows.
//!
//! - `readiness`: guards for what is not ready yet. `drain`: the signal to leave, and what is still at work.
//! - `server`: sockets, on a thread with a runtime of its own; `routes`: the answers; `dump`, `show`: their contents.
//! - `probes`: the application's probes, asked on its behalf.
//! - `logging`: what is logged. `request`: telling a running proxy to drain, and waiting until it is ready.
//!
//! Invariant: what all addresses can reach (port 15020) changes nothing and shows no configuration.

pub mod drain;
pub mod probes;
pub mod readiness;

mod dump;
mod logging;
mod request;
mod routes;
mod server;
mod show;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::ads;
use crate::bootstrap::{Bootstrap, Mode};
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::tls::LocalIdentity;

pub use drain::{Busy, Drain, DrainTrigger};
pub use logging::{LogError, log_to_stderr};
pub use probes::Probes;
pub use readiness::{Readiness, ReadyGuard};
pub use request::{drain_running, wait_until_ready};
pub use server::{AdminError, PUBLIC_PORT};

/// What the admin server shows and steers.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The bootstrap: says where to listen, and is part of the dump.
    pub bootstrap: &'a Bootstrap,
    /// The configuration in force.
    pub store: Arc<Store>,
    /// Certificate and trust bundle.
    pub identity: Arc<LocalIdentity>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is not ready yet.
    pub readiness: Readiness,
    /// Raised by `POST /drain`.
    pub drain: DrainTrigger,
    /// The stream's task, if there is a control plane.
    pub configuration: Option<ads::Handle>,
    /// The application's probes.
    pub probes: Probes,
}

/// Binds the admin server's sockets and serves them on a thread of their own until the process ends.
///
/// A sidecar also listens on [`PUBLIC_PORT`] of all addresses, with `/ready`, `/stats/prometheus` and the application's probes only, and on its Unix socket.
///
/// # Errors
/// When an address is taken, or no thread can be had.
pub fn serve(parts: Parts<'_>) -> Result<(), AdminError> {
    let sidecar = match &parts.bootstrap.mode {
        Mode::Sidecar(sidecar) => Some(sidecar),
        Mode::Static(_) => None,
    };
    let unix = sidecar.and_then(|sidecar| sidecar.admin_socket.as_deref());
    let sockets = server::Sockets::bind(parts.bootstrap.admin, unix, sidecar.is_some())?;
    sockets.serve(routes::Admin {
        bootstrap: parts.bootstrap.message.clone(),
        store: parts.store,
        identity: parts.identity,
        metrics: parts.metrics,
        readiness: parts.readiness,
        drain: parts.drain,
        configuration: parts.configuration,
        probes: parts.probes,
    })
}
