//! A route's timeout (`RouteAction.timeout`): from the end of the request to the end of its response.

use crate::stream::sweep::{Deadline, Sweep};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any request is waited for while its timeout has not begun.
const NOT_YET: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A timeout that begins when the request has been received whole: an upload may take as long as it likes. Further attempts
/// share it.
pub struct RouteTimeout {
    deadline: Deadline,
    after: Duration,
    began: Cell<bool>,
}

impl RouteTimeout {
    /// A timeout that has not begun.
    pub fn new(sweep: &Sweep, after: Duration) -> Self {
        Self { deadline: sweep.after(NOT_YET), after, began: Cell::new(false) }
    }

    /// The request is complete. Only the first call counts.
    pub fn begin(&self) {
        if !self.began.replace(true) {
            self.deadline.reset(Instant::now() + self.after);
        }
    }

    /// Passes when the time is over.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }
}
