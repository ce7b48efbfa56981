//! What the proxy tells about itself: metrics and the access log.
//!
//! - `labels`: the label values, all of them bounded.
//! - `metrics`: the metric families and the handles the data path holds.
//! - `process`: memory and descriptors; `clusters`: outlier detection and circuit breakers; both read when scraped.
//! - `access`: one line per request or connection.
//!
//! Invariant: recording hashes no label and takes no lock. Handles are resolved once per route and peer, and held.

pub mod access;
mod clusters;
pub mod labels;
pub mod metrics;
mod process;

pub use access::AccessRecord;
pub use labels::{Direction, Flag, LookupOutcome, Protocol, RequestKey, ResponseClass, RetryOutcome, Text, Tls, Way};
pub use metrics::{ActiveGuard, ClusterMetrics, ConnectionMetrics, Metrics, RequestMetrics};
