//! Leaving without failing anybody: the signal to drain, and the count of what is still at work.
//!
//! `POST /drain` (Kubernetes' preStop, by `weft-proxy drain`) and SIGTERM raise the same signal. While it is up, HTTP/2
//! connections get GOAWAY, HTTP/1.1 responses carry `connection: close`, and new connections are still accepted: the
//! endpoint may not be withdrawn yet. The application may be ending too, so no connection to it is used twice. After SIGTERM the
//! process exits when [`DrainTrigger::idle`] resolves or the drain time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// Makes a drain signal: the side that raises it and the side that obeys.
pub fn channel() -> (DrainTrigger, Drain) {
    let (announce, announced) = watch::channel(false);
    let shared = Arc::new(Shared::default());
    (DrainTrigger { shared: shared.clone(), announce: Arc::new(announce) }, Drain { shared, announced, entrance: None })
}

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    busy: AtomicUsize,
    became_idle: Notify,
}

/// The side that decides. Clones raise the same signal.
#[derive(Clone, Debug)]
pub struct DrainTrigger {
    shared: Arc<Shared>,
    announce: Arc<watch::Sender<bool>>,
}

impl DrainTrigger {
    /// Starts to drain. There is no way back; a second call changes nothing.
    pub fn start(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.announce.send_replace(true);
    }

    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// How many [`Busy`] guards live.
    pub fn busy(&self) -> usize {
        self.shared.busy.load(Ordering::Acquire)
    }

    /// Resolves when no [`Busy`] guard lives.
    pub async fn idle(&self) {
        loop {
            let became_idle = self.shared.became_idle.notified();
            tokio::pin!(became_idle);
            // Listen before looking, or the last guard's drop between the two is missed.
            became_idle.as_mut().enable();
            if self.busy() == 0 {
                return;
            }
            became_idle.await;
        }
    }
}

/// The side that obeys. Cheap to clone; each task that waits needs its own.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
    announced: watch::Receiver<bool>,
    /// What the connection came in by, where that can go before the process does.
    entrance: Option<watch::Receiver<Phase>>,
}

/// How far a listener is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Phase {
    /// In force.
    #[default]
    Serving,
    /// Replaced or removed: its connections say goodbye.
    Leaving,
    /// Its time is over: its connections are cut.
    Over,
}

/// Resolves once what is announced is as wanted; never if it is not and nobody is left to announce more.
pub async fn when<T>(announced: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    if announced.wait_for(wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Drain {
    /// A signal that is never raised, for tests and tools.
    pub fn never() -> Self {
        channel().1
    }

    /// Raised as well when what the connection came in by leaves.
    #[must_use]
    pub fn or(&self, entrance: watch::Receiver<Phase>) -> Self {
        Self { entrance: Some(entrance), ..self.clone() }
    }

    /// Whether to say goodbye with the next response. One atomic load, and a lock without contention for a listener that can leave.
    pub fn is_draining(&self) -> bool {
        let leaves = || self.entrance.as_ref().is_some_and(|phase| *phase.borrow() != Phase::Serving);
        self.shared.draining.load(Ordering::Acquire) || leaves()
    }

    /// Resolves when the drain starts, at once if it has; never if nobody is left to start it.
    pub async fn started(&mut self) {
        let process = when(&mut self.announced, |draining| *draining);
        let Some(entrance) = &mut self.entrance else { return process.await };
        tokio::select! {
            () = process => {}
            () = when(entrance, |phase| *phase != Phase::Serving) => {}
        }
    }

    /// Counts as work (a request, an opaque relay) until dropped. An idle keep-alive connection holds none.
    pub fn busy(&self) -> Busy {
        self.shared.busy.fetch_add(1, Ordering::AcqRel);
        Busy { shared: self.shared.clone() }
    }
}

/// Work that a drain waits for.
#[derive(Debug)]
pub struct Busy {
    shared: Arc<Shared>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.shared.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.became_idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn every_listener_hears_the_signal_even_one_that_asks_late() {
        let (trigger, mut early) = channel();
        assert!(early.started().now_or_never().is_none());
        trigger.start();
        early.started().await;
        early.clone().started().await;
        assert!(early.is_draining());
    }

    #[tokio::test]
    async fn a_listener_that_leaves_takes_only_its_own_connections_along() {
        let (_trigger, mut other) = channel();
        let (phase, entrance) = watch::channel(Phase::Serving);
        let mut own = other.or(entrance);
        assert!(own.started().now_or_never().is_none() && !own.is_draining());
        phase.send_replace(Phase::Leaving);
        own.started().await;
        assert!(own.is_draining());
        assert!(other.started().now_or_never().is_none() && !other.is_draining());
    }

    #[tokio::test]
    async fn is_idle_only_when_the_last_work_is_done() {
        let (trigger, drain) = channel();
        let (first, second) = (drain.busy(), drain.busy());
        let mut idle = Box::pin(trigger.idle());
        assert!(idle.as_mut().now_or_never().is_none());
        drop(first);
        assert!(idle.as_mut().now_or_never().is_none());
        drop(second);
        idle.await;
    }

    #[tokio::test]
    async fn a_drain_that_nobody_can_start_never_starts() {
        let (trigger, mut drain) = channel();
        drop(trigger);
        assert!(drain.started().now_or_never().is_none());
    }
}
