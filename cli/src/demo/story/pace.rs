//! What is asked of the machine that the story is told on.

use std::time::Duration;

use weft_local_mesh::Counts;

/// How fast the story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Rates and latencies are part of what is to be observed.
    Full,
    /// A fraction of the load; rates and latencies are told, and nothing is asked of them.
    Slow,
}

/// The least rate that counts as load during a disturbance, in requests per second.
const LEAST_RATE: f64 = 100.0;

/// How many times less load, and more patience, at a slow pace.
const SLOWDOWN: u32 = 6;

impl Pace {
    /// Requests per second in place of those of the full pace.
    pub(super) fn rate(self, per_second: f64) -> f64 {
        per_second / f64::from(self.slowdown())
    }

    /// The longest that something may take which takes at most `limit` at the full pace.
    pub(super) fn patience(self, limit: Duration) -> Duration {
        limit * self.slowdown()
    }

    /// The share of the requests that has to fail, so that as many fail in a second as at the full pace.
    pub(super) fn share(self, share: f64) -> f64 {
        (share * f64::from(self.slowdown())).min(1.0)
    }

    /// Whether these calls were enough to count as load during a disturbance.
    pub(super) fn is_load(self, counts: &Counts) -> bool {
        self == Self::Slow || counts.rate() >= LEAST_RATE
    }

    /// Whether something took as little time as it has to.
    pub(super) fn is_prompt(self, took: Duration, limit: Duration) -> bool {
        self == Self::Slow || took <= limit
    }

    fn slowdown(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Slow => SLOWDOWN,
        }
    }
}
