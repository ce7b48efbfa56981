//! A request's life.
//!
//! - [`server_http1`], [`server_http2`]: a connection's requests, one by one or as streams, handed to
//! - [`life::serve`]: match → authorize → pick → send → record, the whole of it in one function, whichever codec asks;
//! - `prepare`: the head to send;
//! - `send`: attempts, until one has an answer that is good enough;
//! - [`attempt`]: one try at one endpoint, up to the response's head;
//! - [`failure`]: why there is none, and whether another attempt may follow;
//! - [`relay`]: both bodies, at the same time, to their ends;
//! - [`filters`]: what may answer in the upstream's place;
//! - [`reply`], [`local`]: the way back, and the answers that are the proxy's own;
//! - [`record`]: what is counted when it is over.

pub mod attempt;
mod edge;
pub mod failure;
pub mod filters;
pub mod life;
pub mod local;
mod prepare;
pub mod record;
pub mod relay;
pub mod reply;
mod send;
pub mod server_http1;
pub mod server_http2;
pub mod timeout;

use crate::admin::drain::Drain;
pub use crate::observe::Direction;
use crate::observe::{RequestMetrics, Tls};
use crate::tls::PeerIdentity;
use crate::worker::Worker;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

/// The connection a request came on.
#[derive(Clone)]
pub struct Downstream {
    /// Which side of the application it is on.
    pub direction: Direction,
    /// Who connected.
    pub source: SocketAddr,
    /// Where the connection was going before it was redirected.
    pub destination: SocketAddr,
    /// Who the peer proved to be, by mutual TLS.
    pub peer: Option<Arc<PeerIdentity>>,
    /// Whether TLS was terminated here.
    pub is_tls: bool,
    /// How many times the connection was handed on inside this process; an endpoint may be this very workload.
    pub hops: u8,
    /// The drain signal of the connection, where its listener can leave before the process does.
    pub drain: Option<Arc<Drain>>,
    /// Metric handles of the kinds of request seen on this connection.
    pub handles: RefCell<Handles>,
}

/// A few metric handles; a connection rarely carries more kinds of request than these.
pub type Handles = SmallVec<[Arc<RequestMetrics>; 4]>;

impl Downstream {
    /// A connection of which no more is known than where it comes from and goes to.
    pub fn plain(direction: Direction, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            direction,
            source,
            destination,
            peer: None,
            is_tls: false,
            hops: 0,
            drain: None,
            handles: RefCell::default(),
        }
    }

    /// Says when to close the connection after what is under way on it.
    pub fn drain<'a>(&'a self, worker: &'a Worker) -> &'a Drain {
        self.drain.as_deref().unwrap_or(&worker.drain)
    }

    /// Whether the application behind this connection may be ending. Whoever ends a pod tells its application and its sidecar at the same
    /// time, and those who call it only later: so connections to the application that are kept for further requests are not to be trusted.
    pub fn leads_to_leaving(&self, worker: &Worker) -> bool {
        self.direction == Direction::Inbound && worker.drain.is_draining()
    }

    /// How the connection is protected, for metrics.
    pub fn tls(&self) -> Tls {
        if self.peer.is_some() { Tls::Mutual } else { Tls::None }
    }
}

#[cfg(test)]
mod tests;
