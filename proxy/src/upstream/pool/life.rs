//! How long a connection is used.

use crate::upstream::ClusterConfig;
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// A cluster's limits to the life of its connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Longest time without a request.
    idle: Option<Duration>,
    /// Longest life (`max_connection_duration`).
    duration: Option<Duration>,
    /// Most requests (`max_requests_per_connection`).
    requests: Option<u32>,
}

impl Limits {
    pub(super) fn of(config: &ClusterConfig) -> Self {
        Self {
            idle: config.idle_timeout,
            duration: config.max_connection_duration,
            requests: config.max_requests_per_connection,
        }
    }

    /// Most requests on a connection.
    pub(super) fn requests(&self) -> usize {
        self.requests.map_or(usize::MAX, |most| most as usize)
    }
}

/// One connection's life so far. A spent connection takes no further request, and is closed when those under way have ended.
#[derive(Debug)]
pub(super) struct Life {
    limits: Limits,
    ends: Option<Instant>,
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
}

impl Life {
    pub(super) fn begin(limits: Limits) -> Self {
        let now = Instant::now();
        // A duration past the clock's end is none.
        let ends = limits.duration.and_then(|duration| now.checked_add(duration));
        Self { limits, ends, requests: Cell::new(0), idle_since: Cell::new(now) }
    }

    /// One more request is sent on it.
    pub(super) fn count_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }

    /// No request is under way on it.
    pub(super) fn rest(&self) {
        self.idle_since.set(Instant::now());
    }

    /// Whether it must take no further request.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.limits.requests.is_some_and(|most| self.requests.get() >= most) || self.ends.is_some_and(|end| end <= now)
    }

    /// Whether it has rested for too long.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.limits.idle.is_some_and(|idle| now.duration_since(self.idle_since.get()) >= idle)
    }
}
