//! Where requests go: clusters, their endpoints, and who of them gets the next one.
//!
//! | file | job |
//! |---|---|
//! | `config`, `discovery`, `assignment`, `sockets` | Envoy's messages, compiled |
//! | `names` | endpoints given by name, resolved again and again |
//! | `cluster` | settings and endpoints of one cluster, changed under way |
//! | `endpoint`, `load`, `outcome` | one endpoint: attempts under way, latency, how they ended |
//! | `balance/` | the choice: round robin, random, least request, peak EWMA |
//! | `outlier` | who is kept out for a while |
//! | `breaker`, `budget` | how much may be in use at once |
//! | `pool/` | connections |
//!
//! Everything but `pool/` is shared by all workers, in atomics and swapped snapshots: no lock is taken to pick, begin or finish.
//! Time is an argument, or tokio's clock.

pub mod breaker;
pub mod budget;
pub mod names;
pub mod pool;

mod assignment;
mod balance;
mod cluster;
mod config;
mod discovery;
mod endpoint;
mod fields;
mod load;
mod outcome;
mod outlier;
mod sockets;

#[cfg(test)]
mod tests;

pub use assignment::{Assignment, Health};
pub use balance::{Member, PickContext, PickError, Policy};
pub use cluster::{Cluster, Protocol};
pub use config::{ClusterConfig, Http2Settings, UpstreamProtocol};
pub use discovery::{Discovery, DnsSettings};
pub use endpoint::{Endpoint, EndpointId, EndpointIdentity, InFlight};
pub use outcome::Outcome;
pub use outlier::{Detector, OutlierSettings};
pub use sockets::SocketTls;

/// Endpoints that a request's earlier attempts went to.
pub type Tried = smallvec::SmallVec<[EndpointId; 4]>;
