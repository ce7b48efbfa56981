//! A cluster: its settings, its endpoints, and what is shared by all who use it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_xds::FieldError;
use weft_xds::envoy::config::cluster::v3::Cluster as Message;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::assignment::{Assignment, Health, Location};
use super::balance::{EndpointSet, Member, PickContext, PickError};
use super::breaker::Breaker;
use super::config::{ClusterConfig, UpstreamProtocol};
use super::discovery::Discovery;
use super::endpoint::{Endpoint, EndpointIdentity, State};
use super::outlier::Detector;
use super::sockets::Sockets;

/// What is spoken on a connection to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Opaque bytes.
    Tcp,
}

/// Somewhere requests can be sent to. Shared by all workers; picking takes no lock.
///
/// Settings and endpoints can change while it is in use. Breaker counts, budgets, latency estimates and ejections stay across such
/// changes, for endpoints as long as address and identity stay the same.
#[derive(Debug)]
pub struct Cluster {
    id: u64,
    config: ArcSwap<ClusterConfig>,
    endpoints: ArcSwap<EndpointSet>,
    breaker: Breaker,
    detector: Arc<Detector>,
    warm: watch::Sender<bool>,
    /// The assignment in force. Writers take turns under it; readers never do.
    writer: Mutex<Assignment>,
}

impl Cluster {
    /// Compiles the message into a cluster of its own; `path` is where it sits, empty for a resource.
    ///
    /// # Errors
    /// The first field that is wrong or not supported.
    pub fn compile(message: &Message, path: &str) -> Result<Self, FieldError> {
        Ok(Self::new(ClusterConfig::compile(message, path)?))
    }

    /// A cluster with these settings, and endpoints if the settings name them by address.
    pub fn new(config: ClusterConfig) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let cluster = Self {
            id: NEXT.fetch_add(1, Relaxed),
            endpoints: ArcSwap::default(),
            breaker: Breaker::default(),
            detector: Arc::new(Detector::new(Instant::now())),
            warm: watch::Sender::new(false),
            writer: Mutex::default(),
            config: ArcSwap::from_pointee(config.clone()),
        };
        cluster.update(config);
        cluster
    }

    /// Changes the settings. Endpoints of the former discovery stay until the new one gives others.
    pub fn update(&self, config: ClusterConfig) {
        let mut current = self.lock();
        self.breaker.set_limits(config.limits);
        self.detector.configure(config.outlier.clone());
        match &config.discovery {
            Discovery::Static(assignment) => {
                current.clone_from(assignment);
                self.warm.send_replace(true);
            }
            Discovery::OriginalDestination => drop(self.warm.send_replace(true)),
            Discovery::Eds(_) | Discovery::Dns(_) => {}
        }
        self.install(&current, &config.sockets);
        self.config.store(Arc::new(config));
    }

    /// Takes endpoints from EDS.
    ///
    /// # Errors
    /// The first field that is wrong or not supported, or an endpoint given by name; then nothing changes.
    pub fn set_endpoints(&self, message: &ClusterLoadAssignment, path: &str) -> Result<(), FieldError> {
        let assignment = Assignment::compile(message, path)?;
        if let Some(name) = assignment.names().next() {
            return Err(FieldError::invalid(path, name, "is not an IP address", "give addresses over EDS"));
        }
        self.set_assignment(assignment);
        Ok(())
    }

    /// Takes endpoints, for example those a [`Discovery::Dns`] assignment resolved to. Unresolved names are left out.
    pub fn set_assignment(&self, assignment: Assignment) {
        let mut current = self.lock();
        *current = assignment;
        self.install(&current, &self.config.load().sockets);
        self.warm.send_replace(true);
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    /// When there is none to choose. A cluster of type ORIGINAL_DST never has any.
    pub fn pick(&self, cx: &PickContext<'_>) -> Result<Arc<Endpoint>, PickError> {
        let config = self.config.load();
        self.endpoints.load().pick(config.policy, config.panic_threshold, self.detector.ejected(), cx)
    }

    /// Lets ejected endpoints back in when their time is over and, once per interval, compares success rates. Call it about once a
    /// second, from one place.
    pub fn tick(&self, now: Instant) {
        let endpoints = self.endpoints.load();
        self.detector.tick(endpoints.members().iter().map(|member| &**member.endpoint.state()), now);
    }

    /// Its id, unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> Arc<str> {
        self.config.load().name.clone()
    }

    /// The settings in force. Hold them as long as one decision takes.
    pub fn config(&self) -> Guard<Arc<ClusterConfig>> {
        self.config.load()
    }

    /// All endpoints, whatever their health.
    pub fn members(&self) -> Vec<Member> {
        self.endpoints.load().members().to_vec()
    }

    /// Circuit breakers and retry budget.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Outlier detection.
    pub fn outliers(&self) -> &Detector {
        &self.detector
    }

    /// Whether its endpoints have been told, be it that there are none.
    pub fn is_warm(&self) -> bool {
        *self.warm.borrow()
    }

    /// Resolves when its endpoints have been told.
    pub async fn warmed(&self) {
        // Invariant: the sender lives as long as the cluster.
        let _ = self.warm.subscribe().wait_for(|warm| *warm).await;
    }

    /// Whether connections go where they were going, so that nothing is picked.
    pub fn is_original_destination(&self) -> bool {
        matches!(self.config.load().discovery, Discovery::OriginalDestination)
    }

    /// Longest time to connect, handshakes included.
    pub fn connect_timeout(&self) -> Duration {
        self.config.load().connect_timeout
    }

    /// What HTTP version to speak for a client that speaks HTTP/2, or does not.
    pub fn http_protocol(&self, downstream_is_http2: bool) -> Protocol {
        match self.config.load().protocol {
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::UseDownstream if downstream_is_http2 => Protocol::Http2,
            UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => Protocol::Http1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Assignment> {
        // The assignment is replaced whole: a writer that panicked left it as it was.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds the endpoints of an assignment and puts them in force, with the state of those that stay.
    fn install(&self, assignment: &Assignment, sockets: &Sockets) {
        let now = Instant::now();
        let before = self.endpoints.load_full();
        let mut stay: HashMap<Key<'_>, &Arc<Endpoint>> = before
            .members()
            .iter()
            .map(|member| ((member.endpoint.address(), member.endpoint.identity()), &member.endpoint))
            .collect();
        let mut members = Vec::with_capacity(assignment.endpoints.len());
        let mut seen = std::collections::HashSet::new();
        for blueprint in &assignment.endpoints {
            let Location::Address(address) = blueprint.location else { continue };
            // The same address twice would count, and could be ejected, as two.
            if !seen.insert(address) {
                continue;
            }
            let tls = sockets.choose(blueprint.socket_metadata.as_ref());
            let known = stay.remove(&(address, blueprint.identity.as_deref()));
            let endpoint = match known {
                Some(known) if known.tls() == tls.as_ref() && known.hostname() == blueprint.hostname.as_deref() => {
                    known.clone()
                }
                known => {
                    // A new id where only TLS changed, so that no pooled connection of the old settings is used.
                    let state =
                        known.map_or_else(|| State::new(self.detector.clone(), now), |known| known.state().clone());
                    Arc::new(Endpoint::new(address, blueprint.hostname.clone(), blueprint.identity.clone(), tls, state))
                }
            };
            members.push(Member {
                endpoint,
                weight: blueprint.weight,
                priority: blueprint.priority,
                zone: blueprint.zone.clone(),
                health: blueprint.health,
            });
        }
        for gone in stay.values() {
            self.detector.forget(&gone.state().outlier);
        }
        self.detector.set_hosts(members.iter().filter(|member| member.health != Health::Draining).count());
        self.endpoints.store(Arc::new(EndpointSet::new(members, rand::random_range(0..1 << 16))));
    }
}

/// What has to stay the same for an endpoint to be the same.
type Key<'a> = (SocketAddr, Option<&'a EndpointIdentity>);
