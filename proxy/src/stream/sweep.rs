//! Deadlines without a timer per request.
//!
//! Arming a tokio timer costs 9–14 µs per request at low rates. Here a deadline is an entry in a slab; one sweep per
//! worker wakes every [`RESOLUTION`] while there are entries, and not at all otherwise. Deadlines are therefore up to
//! [`RESOLUTION`] late, never early.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How late a deadline may be noticed.
pub const RESOLUTION: Duration = Duration::from_millis(10);

/// The deadlines of one worker.
#[derive(Clone, Default)]
pub struct Sweep {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    slots: RefCell<Slots>,
    armed: Notify,
}

#[derive(Default)]
struct Slots {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

struct Entry {
    at: Instant,
    passed: bool,
    waker: Option<Waker>,
}

impl Sweep {
    /// Watches over the deadlines; runs as a task of the worker, for ever.
    pub async fn run(self) {
        loop {
            if self.is_idle() {
                self.shared.armed.notified().await;
                continue;
            }
            tokio::time::sleep(RESOLUTION).await;
            self.wake_passed(Instant::now());
        }
    }

    /// A deadline at `at`.
    pub fn deadline(&self, at: Instant) -> Deadline {
        let mut slots = self.shared.slots.borrow_mut();
        let entry = Some(Entry { at, passed: false, waker: None });
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.entries[slot] = entry;
                slot
            }
            None => {
                slots.entries.push(entry);
                slots.entries.len() - 1
            }
        };
        if slots.entries.len() - slots.free.len() == 1 {
            self.shared.armed.notify_one();
        }
        drop(slots);
        Deadline { sweep: self.clone(), slot }
    }

    /// A deadline `after` from now.
    pub fn after(&self, after: Duration) -> Deadline {
        self.deadline(Instant::now() + after)
    }

    fn is_idle(&self) -> bool {
        let slots = self.shared.slots.borrow();
        slots.entries.len() == slots.free.len()
    }

    fn wake_passed(&self, now: Instant) {
        let mut woken = Vec::new();
        for entry in self.shared.slots.borrow_mut().entries.iter_mut().flatten() {
            if !entry.passed && entry.at <= now {
                entry.passed = true;
                woken.extend(entry.waker.take());
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A point in time on a worker; dropping it disarms it.
pub struct Deadline {
    sweep: Sweep,
    slot: usize,
}

/// The deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed;

impl Deadline {
    /// Runs `future` until it ends or the deadline passes. The future is asked first, so one that is done in time is
    /// never reported as late.
    pub async fn race<F: Future>(&self, future: F) -> Result<F::Output, Passed> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_passed(cx).map(Err)
        })
        .await
    }

    /// Whether the deadline has passed.
    pub fn has_passed(&self) -> bool {
        self.sweep.shared.slots.borrow().entries[self.slot].as_ref().is_some_and(|entry| entry.passed)
    }

    /// Ready when the deadline has passed.
    pub fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<Passed> {
        let mut slots = self.sweep.shared.slots.borrow_mut();
        let Some(entry) = &mut slots.entries[self.slot] else {
            return Poll::Pending;
        };
        if entry.passed {
            return Poll::Ready(Passed);
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Moves the deadline, also one that has passed.
    pub fn reset(&self, at: Instant) {
        if let Some(entry) = &mut self.sweep.shared.slots.borrow_mut().entries[self.slot] {
            entry.at = at;
            entry.passed = false;
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.sweep.shared.slots.borrow_mut();
        slots.entries[self.slot] = None;
        slots.free.push(self.slot);
    }
}

/// As [`Deadline::race`], for a deadline that may not exist.
pub async fn race<F: Future>(deadline: Option<&Deadline>, future: F) -> Result<F::Output, Passed> {
    match deadline {
        Some(deadline) => deadline.race(future).await,
        None => Ok(future.await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    async fn with_sweep<F: Future>(test: impl FnOnce(Sweep) -> F) -> F::Output {
        let sweep = Sweep::default();
        let set = LocalSet::new();
        set.spawn_local(sweep.clone().run());
        set.run_until(test(sweep)).await
    }

    #[tokio::test(start_paused = true)]
    async fn passes_never_early_and_at_most_one_resolution_late() {
        with_sweep(|sweep| async move {
            let started = Instant::now();
            let deadline = sweep.after(Duration::from_millis(73));
            assert_eq!(deadline.race(std::future::pending::<()>()).await, Err(Passed));
            let elapsed = started.elapsed();
            assert!(elapsed >= Duration::from_millis(73), "early: {elapsed:?}");
            assert!(elapsed <= Duration::from_millis(73) + RESOLUTION, "late: {elapsed:?}");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_ends_in_time_wins() {
        with_sweep(|sweep| async move {
            let deadline = sweep.after(Duration::from_secs(1));
            let work = tokio::time::sleep(Duration::from_millis(500));
            assert_eq!(deadline.race(work).await, Ok(()));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_reused() {
        with_sweep(|sweep| async move {
            for _ in 0..100 {
                drop(sweep.after(Duration::from_secs(60)));
            }
            assert_eq!(sweep.shared.slots.borrow().entries.len(), 1);
            assert!(sweep.is_idle());
        })
        .await;
    }
}
