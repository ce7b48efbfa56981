//! What one worker thread works with.
//!
//! A worker is a single-threaded runtime. Configuration, balancer state and metrics are shared between workers; connection
//! pools, buffers and deadlines are its own, so that nothing on the path of a request takes a lock.

use crate::admin::drain::Drain;
use crate::ads::OnDemand;
use crate::http::ResponseHead;
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::stream::sweep::Sweep;
use crate::tls::LocalIdentity;
use crate::upstream::pool::{Network, Pools};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What all workers share.
pub struct Shared {
    /// The published configuration.
    pub store: Arc<Store>,
    /// Asks the control plane for destinations as they appear; `None` with a static configuration.
    pub on_demand: Option<OnDemand>,
    /// This workload's key, certificate and trust bundle.
    pub identity: Arc<LocalIdentity>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Fixed values of the process.
    pub settings: Settings,
}

/// Fixed values of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This workload's name, for metrics.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of the listener that describes this workload's own ports.
    pub inbound_listener: String,
    /// Port to which outbound connections are redirected.
    pub outbound_port: u16,
    /// Port to which inbound connections are redirected.
    pub inbound_port: u16,
    /// The longest TLS or HTTP/2 handshake.
    pub handshake_timeout: Duration,
    /// How long connections of a listener that was removed may take to end.
    pub drain_time: Duration,
    /// How long a client of unknown protocol may stay silent before the far side is connected.
    pub detection_budget: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workload: String::new(),
            namespace: String::new(),
            inbound_listener: String::new(),
            outbound_port: 15001,
            inbound_port: 15006,
            handshake_timeout: Duration::from_secs(10),
            drain_time: Duration::from_secs(30),
            detection_budget: Duration::from_millis(200),
        }
    }
}

/// One worker thread's own things.
pub struct Worker {
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Says when to drain.
    pub drain: Drain,
    /// Its deadlines.
    pub sweep: Sweep,
    /// Its idle connections.
    pub pools: Pools,
    /// How it connects.
    pub network: Rc<dyn Network>,
    random: RefCell<SmallRng>,
    heads: RefCell<Vec<ResponseHead>>,
}

/// Response heads kept for further requests.
const SPARE_HEADS: usize = 64;

/// A response head on loan from its worker, with the memory of those before it.
pub struct LentHead<'w> {
    worker: &'w Worker,
    head: ResponseHead,
}

impl Deref for LentHead<'_> {
    type Target = ResponseHead;

    fn deref(&self) -> &ResponseHead {
        &self.head
    }
}

impl DerefMut for LentHead<'_> {
    fn deref_mut(&mut self) -> &mut ResponseHead {
        &mut self.head
    }
}

impl Drop for LentHead<'_> {
    fn drop(&mut self) {
        let mut heads = self.worker.heads.borrow_mut();
        if heads.len() < SPARE_HEADS {
            self.head.clear();
            heads.push(std::mem::take(&mut self.head));
        }
    }
}

impl Worker {
    /// A worker; the caller runs [`Sweep::run`] and [`Pools::run`] beside it.
    pub fn new(shared: Arc<Shared>, drain: Drain, network: Rc<dyn Network>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            drain,
            sweep: Sweep::default(),
            pools: Pools::default(),
            network,
            random: RefCell::new(SmallRng::from_os_rng()),
            heads: RefCell::default(),
        })
    }

    /// A worker of a proxy by itself: without control plane, and with an identity that nobody has signed.
    #[cfg(test)]
    pub(crate) fn alone(store: Arc<Store>, settings: Settings, drain: Drain, network: Rc<dyn Network>) -> Rc<Self> {
        let shared = Shared {
            store,
            on_demand: None,
            identity: LocalIdentity::new(),
            metrics: Arc::new(Metrics::new()),
            settings,
        };
        Self::new(Arc::new(shared), drain, network)
    }

    /// An empty response head.
    pub fn response_head(&self) -> LentHead<'_> {
        LentHead { worker: self, head: self.heads.borrow_mut().pop().unwrap_or_default() }
    }

    /// Fixed values of the process.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The published configuration.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// A random number: good enough to spread load, not to keep a secret.
    pub fn random(&self) -> u32 {
        self.random.borrow_mut().random()
    }

    /// As [`Worker::random`], wider.
    pub fn random64(&self) -> u64 {
        self.random.borrow_mut().random()
    }
}
