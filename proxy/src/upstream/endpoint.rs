//! One endpoint of a cluster, and what is known about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::load::Load;
use super::outcome::Outcome;
use super::outlier::{self, Detector};
use super::sockets::SocketTls;

/// Tells endpoints apart. Never used again, so that connections of an address's former owner are not used for its new one.
pub type EndpointId = u64;

/// An address to send to. Its counters outlive changes of its weight, health and TLS settings.
#[derive(Debug)]
pub struct Endpoint {
    id: EndpointId,
    address: SocketAddr,
    hostname: Option<Arc<str>>,
    identity: Option<Arc<EndpointIdentity>>,
    tls: Option<Arc<SocketTls>>,
    state: Arc<State>,
}

/// Who has to be at an address, as its certificate shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointIdentity {
    /// The SPIFFE ID, the certificate's only URI SAN.
    pub spiffe: String,
    /// The DNS SAN that names workload and pod.
    pub pod: Option<String>,
}

/// Counters of an endpoint, shared by all workers.
#[derive(Debug)]
pub(super) struct State {
    active: AtomicU32,
    pub(super) load: Load,
    pub(super) outlier: outlier::Record,
    requests: AtomicU64,
    failures: AtomicU64,
    detector: Arc<Detector>,
}

impl State {
    pub(super) fn new(detector: Arc<Detector>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicU32::new(0),
            load: Load::new(now),
            outlier: outlier::Record::default(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            detector,
        })
    }
}

impl Endpoint {
    pub(super) fn new(
        address: SocketAddr,
        hostname: Option<Arc<str>>,
        identity: Option<Arc<EndpointIdentity>>,
        tls: Option<Arc<SocketTls>>,
        state: Arc<State>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Relaxed), address, hostname, identity, tls, state }
    }

    /// Its id, unique in this process.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host name it was given with, for `auto_host_rewrite`.
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// Who has to be there; `None` where the mesh does not know or the endpoint has no sidecar.
    pub fn identity(&self) -> Option<&EndpointIdentity> {
        self.identity.as_deref()
    }

    /// How to secure connections to it; `None` is plaintext.
    pub fn tls(&self) -> Option<&Arc<SocketTls>> {
        self.tls.as_ref()
    }

    /// Counts an attempt as under way until the guard is dropped, which is when its response is over.
    pub fn begin(&self) -> InFlight {
        self.state.active.fetch_add(1, Relaxed);
        self.state.requests.fetch_add(1, Relaxed);
        InFlight { state: self.state.clone() }
    }

    /// Tells how an attempt ended, once, as soon as it is known: for a response that is when its head is there (for gRPC, when
    /// `grpc-status` is). `latency` is the time from sending to that moment.
    pub fn finish(&self, outcome: Outcome, latency: Duration, now: Instant) {
        let state = &self.state;
        if outcome == Outcome::Cancelled {
            return;
        }
        if outcome.is_penalized() {
            state.load.penalize(latency, now);
        } else {
            state.load.observe(latency, now);
        }
        if let Some(pause) = outcome.pause() {
            state.load.pause(pause, now);
        }
        if outcome.effective_status().is_some_and(|status| status >= 500) {
            state.failures.fetch_add(1, Relaxed);
        }
        if state.detector.record(&state.outlier, outcome, now) {
            tracing::warn!(endpoint = %self.address, ?outcome, "ejected by outlier detection");
        }
    }

    /// Attempts under way.
    pub fn active(&self) -> u32 {
        self.state.active.load(Relaxed)
    }

    /// Attempts ever begun.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }

    /// Attempts that failed or were answered 5xx.
    pub fn failures(&self) -> u64 {
        self.state.failures.load(Relaxed)
    }

    /// Whether outlier detection keeps it out.
    pub fn is_ejected(&self) -> bool {
        self.state.outlier.is_ejected()
    }

    /// The faded latency estimate, `None` before the first answer.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        self.state.load.estimate(now).map(Duration::from_secs_f32)
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

/// An attempt under way.
#[derive(Debug)]
#[must_use = "dropping the guard ends the attempt"]
pub struct InFlight {
    state: Arc<State>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.state.active.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "an attempt ended twice");
    }
}
