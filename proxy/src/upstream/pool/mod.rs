//! Connections to endpoints: made, shared, kept for the next request, and let go.
//!
//! Pools belong to one worker and are keyed by everything that makes a connection what it is: the endpoint (which carries
//! the peer's identity), the HTTP version and the generation of this workload's own certificate. A warm checkout is a pop.

mod connect;
mod http1;
mod http2;
mod life;
mod socket;
mod target;

pub use connect::{ConnectError, Connected, LocalFuture, Network, TcpNetwork, connect, connect_tcp, tune};
pub use http1::Http1Connection;
pub use http2::Http2Connection;
pub use target::{Target, TargetId};

use crate::worker::Worker;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often idle connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A connection for one request (or, with HTTP/2, a share of one).
pub enum Lease {
    /// To be used alone, then given back.
    Http1(Box<Http1Connection>),
    /// One of many streams.
    Http2(Http2Connection),
}

/// What makes two connections interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Where it leads, and to whom.
    pub target: TargetId,
    /// Generation of our own certificate and trust bundle; connections of an older one are not used again.
    pub generation: u64,
}

/// One worker's connections.
#[derive(Default)]
pub struct Pools {
    #[allow(clippy::vec_box)] // A connection moves between its pool and requests; the box makes that a pointer's copy.
    http1: RefCell<HashMap<PoolKey, Vec<Box<Http1Connection>>>>,
    http2: RefCell<HashMap<PoolKey, Rc<http2::Slot>>>,
}

impl Pools {
    /// Lets idle connections go, for as long as the worker lives.
    pub async fn run(worker: Weak<Worker>) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let Some(worker) = worker.upgrade() else { return };
            worker.pools.sweep(Instant::now(), worker.shared.identity.generation());
        }
    }

    /// Takes an HTTP/1.1 connection that is still quiet, the most recently used first.
    fn take_http1(&self, key: &PoolKey) -> Option<Box<Http1Connection>> {
        let mut pools = self.http1.borrow_mut();
        let idle = pools.get_mut(key)?;
        let now = Instant::now();
        while let Some(mut connection) = idle.pop() {
            if !connection.life.is_spent(now) && connection.wire.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps an HTTP/1.1 connection for the next request, unless it has carried its last.
    pub fn give_back(&self, mut connection: Box<Http1Connection>) {
        connection.wire.shrink();
        connection.life.rest();
        if connection.life.is_spent(Instant::now()) {
            return;
        }
        self.http1.borrow_mut().entry(connection.key).or_default().push(connection);
    }

    fn slot(&self, key: PoolKey) -> Rc<http2::Slot> {
        self.http2.borrow_mut().entry(key).or_default().clone()
    }

    fn sweep(&self, now: Instant, generation: u64) {
        self.http1.borrow_mut().retain(|key, idle| {
            idle.retain_mut(|connection| {
                key.generation == generation
                    && connection.is_wanted()
                    && !connection.life.is_stale(now)
                    && !connection.life.is_spent(now)
                    && connection.wire.is_quiet()
            });
            !idle.is_empty()
        });
        self.http2.borrow_mut().retain(|key, slot| slot.sweep(now, key.generation == generation));
    }

    /// Connections at hand: idle ones with HTTP/1.1, all with HTTP/2.
    pub fn len(&self) -> usize {
        let http2: usize = self.http2.borrow().values().map(|slot| slot.len()).sum();
        self.http1.borrow().values().map(Vec::len).sum::<usize>() + http2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
