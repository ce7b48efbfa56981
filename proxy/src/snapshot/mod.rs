//! Compiled, immutable configuration: what a connection or a request is decided by.
//!
//! xDS messages (or the static part of a bootstrap) are compiled once, when they arrive, into the types here; the data path
//! only ever reads them. [`Store`] publishes a whole [`Snapshot`] at a time, so a reader never sees half an update, and a
//! resource that does not compile changes nothing.
//!
//! - `listener` and `chain`: the types a connection walks through, top down.
//! - `select`: which filter chain takes a connection (Envoy's order of criteria).
//! - `compile`: Envoy's messages into those types.
//! - `store`: the published snapshot.

pub mod chain;
pub mod cidr;
pub mod compile;
pub mod listener;
pub mod select;
pub mod store;

pub use chain::{Codec, Http2Options, HttpChain, HttpFilter, RouteSource, TcpChain, TcpTarget, Upgrades};
pub use cidr::Cidr;
pub use listener::{ChainBody, Direction, FilterChain, Inspection, LastUsed, Listener, MeshScope, UnknownDestination};
pub use select::{ChainMatch, Criteria, SourceType, Transport};
pub use store::{Snapshot, Store};
