//! The task that keeps the stream: connects, feeds the state machine, publishes what it decides, and answers who asks.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds::names;

use super::keep::Keeper;
use super::kind::Kind;
use super::on_demand::{ANSWER_LIMIT, Demand, Lookup, MAX_DESTINATIONS, OnDemand, Question};
use super::resource::{Applier, Compiler};
use super::source::Source;
use super::state::{Answer, Change, Record, State};
use crate::admin::ReadyGuard;
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::tls::LocalIdentity;

/// Pause before the first new attempt after a loss, doubled with each failure, up to the longest; half of it is random.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for a stream's first sign of life.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How often idle destinations are looked for, and how long a change may wait to be saved.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What the client asks for at all times.
#[derive(Clone, Debug)]
pub enum Wants {
    /// A sidecar: its inbound listener by this name, the trust bundle, and destinations as they appear.
    Sidecar {
        /// `inbound/<namespace>/<workload>`.
        inbound_listener: String,
    },
    /// Everything of these kinds, with what it needs.
    All {
        /// The kinds.
        kinds: Vec<Kind>,
        /// Where resources may say that what they need comes from.
        source: Source,
    },
}

/// Opens streams. The one for use is [`ControlPlaneChannel`](super::ControlPlaneChannel); tests have their own.
pub trait Connect: Send {
    /// Opens a stream that sends `requests`; resolves with the responses at the server's first sign of life.
    fn open(
        &mut self,
        requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    ) -> BoxFuture<'static, Result<Responses, Status>>;
}

/// What a stream brings.
pub type Responses = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

/// What [`Handle`] asks of the task.
#[derive(Debug)]
enum Command {
    Dump(oneshot::Sender<Dump>),
}

/// Asks the task what it knows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

/// What the task knows.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Whether the stream is open.
    pub connected: bool,
    /// Every resource wanted.
    pub records: Vec<Record>,
}

impl Handle {
    /// Everything wanted, in force, warming or refused. `None` when the task has ended.
    pub async fn dump(&self) -> Option<Dump> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Dump(reply)).ok()?;
        answer.await.ok()
    }
}

/// The task's side.
pub struct Client<C> {
    connect: C,
    wants: Wants,
    state: State<Compiler>,
    demand: Demand,
    applier: Applier,
    metrics: Arc<Metrics>,
    keeper: Option<Keeper>,
    ready: Option<ReadyGuard>,
    link: Link,
    failures: u32,
    questions: mpsc::UnboundedReceiver<Question>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Whether the server said something about listeners since the last publication: an absent one changes nothing in force.
    listeners_answered: bool,
    /// Whether what is kept in the file is no longer what is in force.
    unsaved: bool,
    housekeeping: Instant,
}

/// The stream, or the way to one.
enum Link {
    Pausing {
        until: Instant,
    },
    Opening {
        requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
        opening: BoxFuture<'static, Result<Responses, Status>>,
        until: Instant,
    },
    Open {
        requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
        responses: Responses,
        answered: bool,
    },
}

/// What happened on the way.
enum Event {
    MayTry,
    Opened(Responses),
    Received(Box<DeltaDiscoveryResponse>),
    Lost(Status),
}

/// What a client is made of.
pub struct Parts {
    /// Who we are.
    pub node: Node,
    /// What is asked for at all times.
    pub wants: Wants,
    /// Where configuration is published.
    pub store: Arc<Store>,
    /// Where the trust bundle goes.
    pub identity: Arc<LocalIdentity>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Dropped when the first configuration is in force.
    pub ready: Option<ReadyGuard>,
}

impl<C: Connect> Client<C> {
    /// A client that has not begun. `state_dir`, if given, exists; what an earlier process kept there is in force when this returns.
    pub fn new(parts: Parts, connect: C, state_dir: Option<&Path>) -> (Self, OnDemand, Handle) {
        let now = Instant::now();
        let (on_demand, questions, clock) = OnDemand::new(parts.store.clone(), parts.metrics.clone());
        let (commands, commanded) = mpsc::unbounded_channel();
        let owner = parts.node.cluster.clone();
        let compiler = match &parts.wants {
            Wants::Sidecar { .. } => Compiler::default(),
            Wants::All { source, .. } => Compiler::binding(source.clone()),
        };
        let mut client = Self {
            connect,
            wants: parts.wants,
            state: State::new(parts.node, compiler),
            demand: Demand::new(clock, MAX_DESTINATIONS),
            applier: Applier::new(parts.store, parts.identity),
            metrics: parts.metrics,
            keeper: state_dir.map(|folder| Keeper::new(folder, &owner)),
            ready: parts.ready,
            link: Link::Pausing { until: now },
            failures: 0,
            questions,
            commands: commanded,
            listeners_answered: false,
            unsaved: false,
            housekeeping: now + HOUSEKEEPING,
        };
        match client.wants.clone() {
            Wants::Sidecar { inbound_listener } => {
                client.state.want(Kind::Listener, &inbound_listener);
                client.state.want(Kind::Secret, names::SECRET_BUNDLE);
            }
            Wants::All { kinds, .. } => kinds.into_iter().for_each(|kind| client.state.want_all(kind)),
        }
        client.restore(now);
        client.publish(now);
        client.unsaved = false;
        if client.is_ready() {
            client.ready = None;
        }
        (client, on_demand, Handle { commands })
    }

    /// Runs until dropped.
    pub async fn run(mut self) -> std::convert::Infallible {
        loop {
            let deadline = self.state.next_deadline().map_or(self.housekeeping, |warm| warm.min(self.housekeeping));
            tokio::select! {
                event = self.link.next() => self.on_event(event, Instant::now()),
                Some(question) = self.questions.recv() => self.on_question(question, Instant::now()),
                Some(Command::Dump(reply)) = self.commands.recv() => {
                    let dump = Dump { connected: matches!(self.link, Link::Open { .. }), records: self.state.records().collect() };
                    // Who asked may have gone.
                    let _ = reply.send(dump);
                }
                () = sleep_until(deadline) => self.on_time(Instant::now()).await,
            }
            self.publish(Instant::now());
            self.send();
            self.become_ready().await;
        }
    }

    fn restore(&mut self, now: Instant) {
        let Some(keeper) = &self.keeper else { return };
        let restored = keeper.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "the last configuration cannot be read; starting without it");
            Vec::new()
        });
        for resource in restored {
            let (kind, name) = &resource.key;
            let destination = name.parse().ok().filter(|_| *kind == Kind::Listener && resource.root);
            // Roots of an earlier process are destinations it was asked for; everything else is reached from what is wanted now.
            let root = destination.is_some() && matches!(self.wants, Wants::Sidecar { .. });
            if let Err(error) = self.state.restore(&resource.key, root, resource.raw) {
                tracing::warn!(%kind, %name, %error, "a kept resource is not understood; asking for it anew");
            }
            if let (true, Some(destination)) = (root, destination) {
                self.demand.remember(destination, now);
            }
        }
        self.state.restored();
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::MayTry => {
                let (requests, outgoing) = mpsc::unbounded_channel();
                self.state.stream_opened(now);
                let opening = self.connect.open(outgoing);
                self.link = Link::Opening { requests, opening, until: now + OPEN_LIMIT };
            }
            Event::Opened(responses) => {
                let former = std::mem::replace(&mut self.link, Link::Pausing { until: now });
                if let Link::Opening { requests, .. } = former {
                    self.link = Link::Open { requests, responses, answered: false };
                }
                self.metrics.set_control_plane_connected(true);
                tracing::info!("configuration stream open");
            }
            Event::Received(response) => {
                if let Link::Open { answered, .. } = &mut self.link {
                    *answered = true;
                }
                self.failures = 0;
                self.listeners_answered |= response.type_url == Kind::Listener.type_url();
                let kind = Kind::of_type_url(&response.type_url);
                let refused = self.state.received(*response, now);
                if let Some(kind) = kind.filter(|_| refused > 0) {
                    self.metrics.count_config_rejections(kind.as_str(), refused);
                }
            }
            Event::Lost(status) => {
                if !matches!(self.link, Link::Open { answered: true, .. }) {
                    self.failures = self.failures.saturating_add(1);
                }
                let pause = pause(self.failures);
                tracing::warn!(
                    code = ?status.code(), message = status.message(), again_in = ?pause,
                    "no configuration stream; the last good configuration stays in force"
                );
                self.state.stream_closed();
                self.metrics.set_control_plane_connected(false);
                self.link = Link::Pausing { until: now + pause };
            }
        }
    }

    fn on_question(&mut self, question: Question, now: Instant) {
        let destination = question.destination;
        let victim = self.demand.ask(question, &self.applier.store().load(), now);
        if let Some(victim) = victim {
            self.forget(victim);
        }
        let name = names::outbound_listener(destination);
        self.state.want(Kind::Listener, &name);
        let overdue = self.demand.asked_since(destination).is_some_and(|first| first + ANSWER_LIMIT <= now);
        if self.state.answer(Kind::Listener, &name) == Answer::Unknown
            && overdue
            && !matches!(self.link, Link::Open { .. })
        {
            // Asked before, in vain, and nobody is there who could answer: do not make every connection wait.
            self.demand.answer(destination, &Lookup::NoAnswer);
        } else {
            self.answer(destination);
        }
    }

    async fn on_time(&mut self, now: Instant) {
        self.state.on_time(now);
        if now < self.housekeeping {
            return;
        }
        self.housekeeping = now + HOUSEKEEPING;
        let expired = self.demand.expire(&self.applier.store().load(), now);
        for destination in expired {
            self.forget(destination);
        }
        self.save().await;
        self.count();
    }

    /// Puts changes in force, and answers those who waited for them.
    fn publish(&mut self, now: Instant) {
        let changes = self.state.take_changes();
        // What is known of destinations changes with listeners only; endpoints, which change most, need no look at each of them.
        let is_listener = |change: &Change<_>| {
            matches!(change, Change::Set((Kind::Listener, _), _) | Change::Removed((Kind::Listener, _)))
        };
        let destinations_changed = std::mem::take(&mut self.listeners_answered) || changes.iter().any(is_listener);
        if !changes.is_empty() {
            self.unsaved = true;
            let demand = &mut self.demand;
            self.applier.apply(changes, |destination, old, new| demand.replaced(destination, old, new));
        }
        if !destinations_changed {
            return;
        }
        let destinations: Vec<SocketAddr> = self.demand.destinations().collect();
        let (mut appeared, mut gone) = (Vec::new(), Vec::new());
        {
            let snapshot = self.applier.store().load();
            for destination in &destinations {
                let absent =
                    self.state.answer(Kind::Listener, &names::outbound_listener(*destination)) == Answer::Absent;
                match (absent, snapshot.absent.contains_key(destination)) {
                    (true, false) => gone.push(*destination),
                    (false, true) => appeared.push(*destination),
                    _ => {}
                }
            }
        }
        if !appeared.is_empty() || !gone.is_empty() {
            let seconds = self.demand.seconds(now);
            self.applier.store().update(|next| {
                appeared.iter().for_each(|destination| drop(next.absent.remove(destination)));
                for destination in gone {
                    next.absent.entry(destination).or_default().touch(seconds);
                }
            });
        }
        for destination in destinations {
            self.answer(destination);
        }
    }

    fn answer(&mut self, destination: SocketAddr) {
        if !self.demand.is_awaited(destination) {
            return;
        }
        let lookup = match self.state.answer(Kind::Listener, &names::outbound_listener(destination)) {
            Answer::Unknown => return,
            Answer::Absent => Lookup::Absent,
            Answer::Active => match self.applier.store().outbound(destination) {
                Some(listener) => Lookup::Found(listener),
                None => return,
            },
        };
        self.demand.answer(destination, &lookup);
    }

    fn forget(&mut self, destination: SocketAddr) {
        self.state.unwant(Kind::Listener, &names::outbound_listener(destination));
        if self.applier.store().load().absent.contains_key(&destination) {
            self.applier.store().update(|next| drop(next.absent.remove(&destination)));
        }
    }

    /// Whoever waits for readiness may count on it after a crash as well, so what is in force is kept first.
    async fn become_ready(&mut self) {
        if self.ready.is_some() && self.is_ready() {
            self.save().await;
            self.ready = None;
        }
    }

    fn is_ready(&self) -> bool {
        match &self.wants {
            Wants::Sidecar { inbound_listener } => {
                self.state.answer(Kind::Listener, inbound_listener) == Answer::Active
            }
            Wants::All { .. } => {
                matches!(self.link, Link::Open { answered: true, .. }) && self.state.next_deadline().is_none()
            }
        }
    }

    fn send(&mut self) {
        let (Link::Opening { requests, .. } | Link::Open { requests, .. }) = &self.link else { return };
        for request in self.state.take_requests() {
            // A stream that no longer reads reports its end itself.
            let _ = requests.send(request);
        }
    }

    async fn save(&mut self) {
        let Some(keeper) = self.keeper.clone().filter(|_| self.unsaved) else { return };
        self.unsaved = false;
        let bytes = keeper.encode(self.state.records());
        let saved = tokio::task::spawn_blocking(move || keeper.save(&bytes)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the configuration cannot be kept for the next start");
        }
    }

    fn count(&self) {
        let mut counts = [[0_usize; 4]; Kind::ALL.len()];
        for record in self.state.records() {
            let of_kind = &mut counts[record.key.0 as usize];
            of_kind[0] += usize::from(record.active.is_some());
            of_kind[1] += usize::from(record.warming.is_some());
            of_kind[2] += usize::from(record.refused.is_some());
            of_kind[3] += usize::from(record.absent);
        }
        for kind in Kind::ALL {
            for (state, count) in ["active", "warming", "refused", "absent"].into_iter().zip(counts[kind as usize]) {
                self.metrics.set_config_resources(kind.as_str(), state, count);
            }
        }
    }
}

impl Link {
    /// Waits for the next event. Nothing is lost when the wait is given up.
    async fn next(&mut self) -> Event {
        match self {
            Self::Pausing { until } => {
                sleep_until(*until).await;
                Event::MayTry
            }
            Self::Opening { opening, until, .. } => tokio::select! {
                opened = opening => opened.map_or_else(Event::Lost, Event::Opened),
                () = sleep_until(*until) => Event::Lost(Status::deadline_exceeded("the control plane does not answer")),
            },
            Self::Open { responses, .. } => match responses.next().await {
                Some(Ok(response)) => Event::Received(Box::new(response)),
                Some(Err(status)) => Event::Lost(status),
                None => Event::Lost(Status::unavailable("the control plane ended the stream")),
            },
        }
    }
}

/// Half fixed, half random, so that proxies that lost the same control plane do not come back together.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
