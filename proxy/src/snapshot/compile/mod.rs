//! Envoy's messages into compiled configuration.
//!
//! Unset means Envoy's default. What is not implemented is refused with the field's path; what only names, counts or logs is skipped.
//!
//! - `listener`: a listener, its filter chains and their conditions.
//! - `http`: `HttpConnectionManager`. `tcp`: `TcpProxy`.
//! - `fields`: wrappers, durations, addresses.

pub(crate) mod fields;
mod http;
mod listener;
mod tcp;

use std::sync::Arc;

pub(crate) use http::clusters_of;
pub use listener::{CompiledListener, compile_listener};

/// What a compiled listener needs from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Route configurations (RDS).
    pub routes: Vec<Arc<str>>,
    /// Clusters.
    pub clusters: Vec<Arc<str>>,
}

#[cfg(test)]
mod tests;
