//! Asking for a destination's listener when the first connection to it appears.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::observe::{LookupOutcome, Metrics};
use crate::snapshot::{Listener, Snapshot, Store};

/// Longest wait for the control plane's answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Most destinations kept; beyond it the one unused for longest is forgotten.
pub const MAX_DESTINATIONS: usize = 1024;

/// A destination that nobody used for this long is forgotten.
pub const IDLE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// What is known of a destination.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Its listener. Hold it as long as the connection lives: a destination in use is not forgotten.
    Found(Arc<Listener>),
    /// The control plane says there is none.
    Absent,
    /// No answer within [`ANSWER_LIMIT`].
    NoAnswer,
}

/// The data path's side: asks, and waits for the answer. Cheap to clone; every worker has one.
#[derive(Clone, Debug)]
pub struct OnDemand {
    store: Arc<Store>,
    questions: mpsc::UnboundedSender<Question>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Whole seconds since the process began to ask: what [`crate::snapshot::LastUsed`] holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn seconds(self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.0).as_secs()).unwrap_or(u32::MAX)
    }
}

/// A connection waits to know its destination.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) destination: SocketAddr,
    pub(super) answer: oneshot::Sender<Lookup>,
}

impl OnDemand {
    pub(super) fn new(store: Arc<Store>, metrics: Arc<Metrics>) -> (Self, mpsc::UnboundedReceiver<Question>, Clock) {
        let (questions, asked) = mpsc::unbounded_channel();
        let clock = Clock(Instant::now());
        (Self { store, questions, metrics, clock }, asked, clock)
    }

    /// The listener for an original destination: at once where it is known, else within [`ANSWER_LIMIT`].
    pub async fn outbound(&self, destination: SocketAddr) -> Lookup {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        if let Some(known) = self.known(destination) {
            return known;
        }
        let (answer, answered) = oneshot::channel();
        // The other side is gone only when the process ends.
        let asked = self.questions.send(Question { destination, answer }).is_ok();
        let lookup = match timeout(ANSWER_LIMIT, answered).await {
            Ok(Ok(lookup)) if asked => lookup,
            _ => Lookup::NoAnswer,
        };
        self.metrics.count_lookup(match lookup {
            Lookup::Found(_) => LookupOutcome::Found,
            Lookup::Absent => LookupOutcome::Absent,
            Lookup::NoAnswer => LookupOutcome::NoAnswer,
        });
        lookup
    }

    fn known(&self, destination: SocketAddr) -> Option<Lookup> {
        let snapshot = self.store.load();
        let seconds = self.clock.seconds(Instant::now());
        if let Some(listener) = snapshot.outbound(destination) {
            listener.last_used.touch(seconds);
            return Some(Lookup::Found(listener.clone()));
        }
        snapshot.absent.get(&destination)?.touch(seconds);
        Some(Lookup::Absent)
    }
}

/// The stream's side: who waits for what, and what may be forgotten.
#[derive(Debug)]
pub(super) struct Demand {
    destinations: HashMap<SocketAddr, Asked>,
    clock: Clock,
    capacity: usize,
}

#[derive(Debug)]
struct Asked {
    first: Instant,
    last: Instant,
    waiting: Vec<oneshot::Sender<Lookup>>,
    /// Earlier versions of the listener, which connections may still hold.
    replaced: Vec<Weak<Listener>>,
}

impl Asked {
    fn new(now: Instant) -> Self {
        Self { first: now, last: now, waiting: Vec::new(), replaced: Vec::new() }
    }

    /// Whether a connection holds the destination's listener. The holders that do not count: the snapshot by name and by
    /// address, and the stream's state.
    fn is_in_use(&self, destination: SocketAddr, snapshot: &Snapshot) -> bool {
        const OWN_HOLDERS: usize = 3;
        let current = snapshot.outbound(destination);
        current.is_some_and(|listener| Arc::strong_count(listener) > OWN_HOLDERS)
            || self.replaced.iter().any(|old| old.strong_count() > 0)
    }
}

impl Demand {
    pub(super) fn new(clock: Clock, capacity: usize) -> Self {
        Self { destinations: HashMap::new(), clock, capacity }
    }

    /// Notes a destination that an earlier process asked for.
    pub(super) fn remember(&mut self, destination: SocketAddr, now: Instant) {
        self.destinations.entry(destination).or_insert_with(|| Asked::new(now));
    }

    /// Notes a question. Gives the destination to forget in its favour, if there are too many.
    pub(super) fn ask(&mut self, question: Question, snapshot: &Snapshot, now: Instant) -> Option<SocketAddr> {
        let new = !self.destinations.contains_key(&question.destination);
        let victim = (new && self.destinations.len() >= self.capacity).then(|| self.least_recent(snapshot)).flatten();
        if let Some(victim) = victim {
            self.destinations.remove(&victim);
        }
        let asked = self.destinations.entry(question.destination).or_insert_with(|| Asked::new(now));
        asked.last = now;
        asked.waiting.push(question.answer);
        victim
    }

    /// Since when the destination's answer is outstanding.
    pub(super) fn asked_since(&self, destination: SocketAddr) -> Option<Instant> {
        self.destinations.get(&destination).map(|asked| asked.first)
    }

    /// Whether anybody waits for the destination.
    pub(super) fn is_awaited(&self, destination: SocketAddr) -> bool {
        self.destinations.get(&destination).is_some_and(|asked| !asked.waiting.is_empty())
    }

    pub(super) fn seconds(&self, now: Instant) -> u32 {
        self.clock.seconds(now)
    }

    /// Gives all who wait for the destination their answer.
    pub(super) fn answer(&mut self, destination: SocketAddr, lookup: &Lookup) {
        if let Some(asked) = self.destinations.get_mut(&destination) {
            for waiting in asked.waiting.drain(..) {
                // Who has given up does not mind.
                let _ = waiting.send(lookup.clone());
            }
        }
    }

    /// Keeps an eye on a version that was replaced, and hands its last use on to the new one.
    pub(super) fn replaced(&mut self, destination: SocketAddr, old: &Arc<Listener>, new: &Listener) {
        new.last_used.touch(old.last_used.seconds());
        if let Some(asked) = self.destinations.get_mut(&destination) {
            asked.replaced.retain(|old| old.strong_count() > 0);
            asked.replaced.push(Arc::downgrade(old));
        }
    }

    pub(super) fn destinations(&self) -> impl Iterator<Item = SocketAddr> {
        self.destinations.keys().copied()
    }

    /// Forgets what nobody has used for [`IDLE_LIMIT`], and those who have stopped waiting.
    pub(super) fn expire(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<SocketAddr> {
        let clock = self.clock;
        let mut expired = Vec::new();
        self.destinations.retain(|destination, asked| {
            asked.waiting.retain(|waiting| !waiting.is_closed());
            let used = last_used(*destination, asked, snapshot, clock);
            let idle = u64::from(clock.seconds(now).saturating_sub(used)) >= IDLE_LIMIT.as_secs();
            let keep = !idle || !asked.waiting.is_empty() || asked.is_in_use(*destination, snapshot);
            if !keep {
                expired.push(*destination);
            }
            keep
        });
        expired
    }

    /// The destination unused for longest; one with open connections only if there is no other.
    fn least_recent(&self, snapshot: &Snapshot) -> Option<SocketAddr> {
        self.destinations
            .iter()
            .min_by_key(|(destination, asked)| {
                (asked.is_in_use(**destination, snapshot), last_used(**destination, asked, snapshot, self.clock))
            })
            .map(|(destination, _)| *destination)
    }
}

fn last_used(destination: SocketAddr, asked: &Asked, snapshot: &Snapshot, clock: Clock) -> u32 {
    let listener = snapshot.outbound(destination).map(|listener| listener.last_used.seconds());
    let absent = snapshot.absent.get(&destination).map(|used| used.seconds());
    listener.or(absent).unwrap_or(0).max(clock.seconds(asked.last))
}
