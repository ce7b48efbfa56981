//! What ends a request whose time is over, whoever is to blame.
//!
//! | limit | runs from | and is answered, while there is no head yet |
//! |---|---|---|
//! | route's `timeout` | the end of the request | 504 |
//! | `per_try_timeout` | the end of the request, or the attempt's begin if that is later | 504, or another attempt |
//! | `per_try_idle_timeout` | the last byte of a body, either way | 504, or another attempt |
//! | `stream_idle_timeout` | the last byte of a body, either way | 408, or 504 if the request is complete |
//! | a route's `max_stream_duration`, or the client's `grpc-timeout` | the begin of the stream | 408, or 504 if the request is complete |
//! | a cluster's `max_stream_duration` | the begin of the attempt | 408, or 504 if the request is complete |

use super::local::Flag;
use crate::stream::sweep::{Deadline, Passed, Sweep};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use weft_rules::RetryPolicy;

/// Longer than any request is waited for while a limit has not begun.
const NOT_YET: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The route's.
    Route,
    /// The attempt's own.
    PerTry,
    /// Nothing moved for too long.
    Idle,
    /// Nothing moved for longer than an attempt may take for it.
    PerTryIdle,
    /// The stream lived longer than its route allows.
    Duration,
    /// The attempt lived longer than its cluster allows a stream to.
    UpstreamDuration,
}

impl Over {
    /// The flag that tells the operator.
    pub fn flag(self) -> Flag {
        match self {
            Self::Route | Self::PerTry => Flag::Timeout,
            Self::Idle | Self::PerTryIdle => Flag::StreamIdle,
            Self::Duration => Flag::StreamDuration,
            Self::UpstreamDuration => Flag::UpstreamDuration,
        }
    }
}

/// The limits of one request.
pub struct Clock {
    complete: Cell<bool>,
    route: Option<FromTheEnd>,
    idle: Idle,
    began: Instant,
    longest: Option<Deadline>,
    attempt: RefCell<AttemptLimits>,
}

/// The limits of one attempt.
#[derive(Default)]
struct AttemptLimits {
    timeout: Option<FromTheEnd>,
    longest: Option<Deadline>,
    idle: Option<Idle>,
}

impl Clock {
    /// A request that has just begun, and of whose route nothing is known yet: only `idle`, the longest time without a byte in either
    /// direction, limits it.
    pub fn new(sweep: &Sweep, idle: Option<Duration>) -> Self {
        Self {
            complete: Cell::new(false),
            route: None,
            idle: Idle::new(sweep, idle),
            began: Instant::now(),
            longest: None,
            attempt: RefCell::default(),
        }
    }

    /// The route's own limit to idleness, in the place of the listener's.
    pub fn set_idle(&mut self, sweep: &Sweep, idle: Option<Duration>) {
        self.idle = Idle::new(sweep, idle);
    }

    /// The route's timeout. It begins when the request has been received whole: an upload may take as long as it likes. All attempts
    /// share it.
    pub fn set_timeout(&mut self, sweep: &Sweep, timeout: Option<Duration>) {
        self.route = timeout.map(|after| FromTheEnd::new(sweep, after));
    }

    /// The longest life of the whole stream.
    pub fn set_longest(&mut self, sweep: &Sweep, longest: Option<Duration>) {
        self.longest = longest.map(|longest| sweep.deadline(self.began + longest));
    }

    /// An attempt begins, at a cluster whose streams live no longer than `longest`, and with the limits of this policy.
    pub fn begin_attempt(&self, sweep: &Sweep, longest: Option<Duration>, policy: Option<&RetryPolicy>) {
        let timeout = policy.and_then(|policy| policy.per_try_timeout);
        let timeout = timeout.map(|after| FromTheEnd::new(sweep, after));
        if self.is_complete() {
            timeout.iter().for_each(FromTheEnd::begin);
        }
        let idle = policy.and_then(|policy| policy.per_try_idle_timeout);
        *self.attempt.borrow_mut() = AttemptLimits {
            timeout,
            longest: longest.map(|longest| sweep.after(longest)),
            idle: idle.map(|idle| Idle::new(sweep, Some(idle))),
        };
    }

    /// The attempt has failed: its limits do not count for what comes after it.
    pub fn end_attempt(&self) {
        *self.attempt.borrow_mut() = AttemptLimits::default();
    }

    /// The request has been received whole. Only the first call counts.
    pub fn request_complete(&self) {
        if !self.complete.replace(true) {
            self.route.iter().chain(&self.attempt.borrow().timeout).for_each(FromTheEnd::begin);
        }
    }

    /// Whether the request has been received whole.
    pub fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Something moved, one way or the other.
    pub fn moved(&self) {
        let now = Instant::now();
        self.idle.last.set(now);
        if let Some(idle) = &self.attempt.borrow().idle {
            idle.last.set(now);
        }
    }

    /// Runs `future` until it ends or one of the limits is reached. The future is asked first, so one that is done in time is never
    /// reported as late.
    pub async fn race<F: Future>(&self, future: Pin<&mut F>) -> Result<F::Output, Over> {
        until(future, |cx| self.poll_over(cx)).await
    }

    /// As [`Clock::race`], without the route's timeout: for a tunnel, whose bytes have no end that it could wait for.
    pub async fn race_stream<F: Future>(&self, future: Pin<&mut F>) -> Result<F::Output, Over> {
        until(future, |cx| self.poll_stream_over(cx)).await
    }

    /// As [`Clock::race`], for an answer that is ours: it may tell of a limit that is over, which must not cut it. The request's other
    /// limits hold, those of its attempts do not.
    pub async fn race_answer<F: Future>(&self, future: Pin<&mut F>) -> Result<F::Output, Over> {
        self.end_attempt();
        let longest = self.longest.as_ref().filter(|longest| !longest.has_passed());
        until(future, |cx| {
            if longest.is_some_and(|longest| longest.poll_passed(cx).is_ready()) {
                return Poll::Ready(Over::Duration);
            }
            self.idle.poll_passed(cx).map(|Passed| Over::Idle)
        })
        .await
    }

    /// As [`Clock::race`], for an attempt: its own timeout, too, is a limit as long as there is no head.
    pub async fn race_attempt<F: Future>(&self, future: Pin<&mut F>) -> Result<F::Output, Over> {
        until(future, |cx| self.poll_attempt(cx)).await
    }

    fn poll_attempt(&self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.attempt.borrow().timeout.as_ref().is_some_and(|timeout| timeout.deadline.poll_passed(cx).is_ready()) {
            return Poll::Ready(Over::PerTry);
        }
        self.poll_over(cx)
    }

    fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.route.as_ref().is_some_and(|route| route.deadline.poll_passed(cx).is_ready()) {
            return Poll::Ready(Over::Route);
        }
        self.poll_stream_over(cx)
    }

    fn poll_stream_over(&self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.longest.as_ref().is_some_and(|longest| longest.poll_passed(cx).is_ready()) {
            return Poll::Ready(Over::Duration);
        }
        let attempt = self.attempt.borrow();
        if attempt.longest.as_ref().is_some_and(|longest| longest.poll_passed(cx).is_ready()) {
            return Poll::Ready(Over::UpstreamDuration);
        }
        if attempt.idle.as_ref().is_some_and(|idle| idle.poll_passed(cx).is_ready()) {
            return Poll::Ready(Over::PerTryIdle);
        }
        self.idle.poll_passed(cx).map(|Passed| Over::Idle)
    }
}

/// Runs `future` until it ends or `over` is ready. The future is asked first.
async fn until<F: Future>(
    mut future: Pin<&mut F>,
    mut over: impl FnMut(&mut Context<'_>) -> Poll<Over>,
) -> Result<F::Output, Over> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => over(cx).map(Err),
    })
    .await
}

/// A limit that begins when the request has been received whole.
struct FromTheEnd {
    deadline: Deadline,
    after: Duration,
}

impl FromTheEnd {
    /// A limit that has not begun.
    fn new(sweep: &Sweep, after: Duration) -> Self {
        Self { deadline: sweep.after(NOT_YET), after }
    }

    /// The request is complete.
    fn begin(&self) {
        self.deadline.reset(Instant::now() + self.after);
    }
}

/// The longest time without a byte.
struct Idle {
    deadline: Option<Deadline>,
    after: Duration,
    last: Cell<Instant>,
}

impl Idle {
    fn new(sweep: &Sweep, after: Option<Duration>) -> Self {
        let now = Instant::now();
        let deadline = after.map(|after| sweep.deadline(now + after));
        Self { deadline, after: after.unwrap_or_default(), last: Cell::new(now) }
    }

    /// A byte that moves only leaves its time behind; the deadline is moved when it passes.
    fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<Passed> {
        let Some(deadline) = &self.deadline else { return Poll::Pending };
        while deadline.poll_passed(cx).is_ready() {
            let due = self.last.get() + self.after;
            if due <= Instant::now() {
                return Poll::Ready(Passed);
            }
            deadline.reset(due);
        }
        Poll::Pending
    }
}
