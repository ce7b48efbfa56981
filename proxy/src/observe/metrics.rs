//! Metric families and the handles that the data path holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use weft_telemetry::proxy as table;

use super::clusters::ClusterCollector;
use super::labels::{
    Direction, Flag, LookupOutcome, Protocol, RequestKey, ResponseClass, ResponseLabels, RetryOutcome, Text, Tls, Way,
};
use super::process::ProcessCollector;
use crate::snapshot::Store;

/// Most request keys with series of their own; whatever comes later is counted under `overflow`.
///
/// One key is a histogram of [`LATENCY_BUCKETS`] and about one counter: 1,000 keys are some 25,000 lines of text.
const MAX_REQUEST_KEYS: usize = 1000;

/// How long the series of a key stay after the last connection that used them: long enough for Prometheus to see the last requests
/// however rarely it scrapes.
const UNUSED: Duration = Duration::from_secs(3600);

/// Upper bounds in seconds. Close together below 10 ms, where a mesh's own latency is read off.
const LATENCY_BUCKETS: [f64; 20] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];

type Labels<const N: usize> = [(&'static str, Text); N];
type StaticLabels<const N: usize> = [(&'static str, &'static str); N];
type LatencyFamily = Family<RequestKey, Histogram, fn() -> Histogram>;

/// All metrics of the process. Shared by all workers.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ResponseLabels, Counter>,
    durations: LatencyFamily,
    expired: Counter,
    overflow: Counter,
    retries: Family<Labels<2>, Counter>,
    connections: Family<StaticLabels<3>, Counter>,
    connections_active: Family<StaticLabels<3>, Gauge>,
    tunnels_active: Family<StaticLabels<1>, Gauge>,
    bytes: Family<StaticLabels<2>, Counter>,
    certificate_expiry: Gauge<f64, AtomicU64>,
    lookups: Family<StaticLabels<1>, Counter>,
    control_plane_connected: Gauge<i64, AtomicI64>,
    config_resources: Family<StaticLabels<2>, Gauge>,
    config_rejections: Family<StaticLabels<1>, Counter>,
    keys: Mutex<HashMap<Arc<RequestKey>, Known>>,
}

/// A request key that has series.
#[derive(Debug)]
struct Known {
    metrics: Arc<RequestMetrics>,
    /// Since when no connection has held them, as far as anybody has looked.
    unused_since: Option<Instant>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every family.
    pub fn new() -> Self {
        Self::of_registry(Registry::default())
    }

    /// As [`Metrics::new`], and outlier detection's state is read from the clusters of `store` when scraped.
    pub fn observing(store: Arc<Store>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ClusterCollector::new(store)));
        Self::of_registry(registry)
    }

    fn of_registry(mut registry: Registry) -> Self {
        let requests = Family::default();
        register(&mut registry, table::REQUESTS, requests.clone());
        let durations = LatencyFamily::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS));
        register(&mut registry, table::REQUEST_DURATION, durations.clone());
        let expired = Counter::default();
        register(&mut registry, table::REQUEST_SERIES_EXPIRED, expired.clone());
        let overflow = Counter::default();
        register(&mut registry, table::REQUEST_SERIES_OVERFLOW, overflow.clone());
        let retries = Family::default();
        register(&mut registry, table::REQUEST_RETRIES, retries.clone());
        let connections = Family::default();
        register(&mut registry, table::CONNECTIONS, connections.clone());
        let connections_active = Family::default();
        register(&mut registry, table::CONNECTIONS_ACTIVE, connections_active.clone());
        let tunnels_active = Family::default();
        register(&mut registry, table::TUNNELS_ACTIVE, tunnels_active.clone());
        let bytes = Family::default();
        register(&mut registry, table::BYTES, bytes.clone());
        let certificate_expiry = Gauge::<f64, AtomicU64>::default();
        register(&mut registry, table::CERTIFICATE_EXPIRY, certificate_expiry.clone());
        let lookups = Family::default();
        register(&mut registry, table::DESTINATION_LOOKUPS, lookups.clone());
        let control_plane_connected = Gauge::<i64, AtomicI64>::default();
        register(&mut registry, table::CONTROL_PLANE_CONNECTED, control_plane_connected.clone());
        let config_resources = Family::default();
        register(&mut registry, table::CONFIG_RESOURCES, config_resources.clone());
        let config_rejections = Family::default();
        register(&mut registry, table::CONFIG_REJECTIONS, config_rejections.clone());
        register(&mut registry, table::BUILD, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(ProcessCollector));
        Self {
            registry,
            requests,
            durations,
            expired,
            overflow,
            retries,
            connections,
            connections_active,
            tunnels_active,
            bytes,
            certificate_expiry,
            lookups,
            control_plane_connected,
            config_resources,
            config_rejections,
            keys: Mutex::default(),
        }
    }

    /// The handles of one kind of request. Locks and hashes: resolve once and hold.
    pub fn request(&self, key: RequestKey) -> Arc<RequestMetrics> {
        let mut keys = self.lock();
        if let Some(known) = keys.get_mut(&key) {
            known.unused_since = None;
            return known.metrics.clone();
        }
        let key = if keys.len() < MAX_REQUEST_KEYS {
            key
        } else {
            self.overflow.inc();
            RequestKey::overflow(key.direction)
        };
        let key = Arc::new(key);
        let known = keys.entry(key.clone()).or_insert_with(|| {
            let metrics = Arc::new(RequestMetrics::new(self, key));
            Known { metrics, unused_since: None }
        });
        known.metrics.clone()
    }

    /// Removes series that no connection has used for [`UNUSED`].
    fn expire(&self, now: Instant) {
        self.lock().retain(|key, known| {
            // Nobody gets at them but through the map, which is locked.
            if Arc::strong_count(&known.metrics) > 1 {
                known.unused_since = None;
                return true;
            }
            let since = *known.unused_since.get_or_insert(now);
            if now.saturating_duration_since(since) < UNUSED {
                return true;
            }
            self.durations.remove(key);
            for (class, flag) in known.metrics.responses() {
                self.requests.remove(&ResponseLabels { key: key.clone(), class, flag });
            }
            self.expired.inc();
            false
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<RequestKey>, Known>> {
        // The map is whole even if a holder of the lock panicked: inserts and removals are single calls.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handles of one kind of connection.
    pub fn connection(&self, direction: Direction, protocol: Protocol, tls: Tls) -> ConnectionMetrics {
        let labels = [("direction", direction.as_str()), ("protocol", protocol.as_str()), ("tls", tls.as_str())];
        ConnectionMetrics {
            opened: self.connections.get_or_create_owned(&labels),
            active: self.connections_active.get_or_create_owned(&labels),
            sent: self.bytes_of(direction, Way::Sent),
            received: self.bytes_of(direction, Way::Received),
        }
    }

    fn bytes_of(&self, direction: Direction, way: Way) -> Counter {
        self.bytes.get_or_create_owned(&[("direction", direction.as_str()), ("way", way.as_str())])
    }

    /// Counts a tunnel, which stays active until the guard is dropped.
    pub fn tunnel(&self, direction: Direction) -> ActiveGuard {
        ActiveGuard::new(self.tunnels_active.get_or_create_owned(&[("direction", direction.as_str())]))
    }

    /// The handles of a cluster's Service, `namespace/name`, or of the cluster's own name where it is no Service.
    pub fn cluster(&self, service: &str) -> ClusterMetrics {
        let service = Text::from(service);
        ClusterMetrics {
            retries: RetryOutcome::ALL
                .iter()
                .map(|outcome| {
                    self.retries.get_or_create_owned(&[
                        ("destination_service", service.clone()),
                        ("outcome", Text::from(outcome.as_str())),
                    ])
                })
                .collect(),
        }
    }

    /// Says when the workload's certificate ends, in seconds since 1970.
    pub fn set_certificate_expiry(&self, unix_seconds: i64) {
        self.certificate_expiry.set(unix_seconds as f64);
    }

    /// Counts a first-time destination.
    pub fn count_lookup(&self, outcome: LookupOutcome) {
        self.lookups.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Says whether the configuration stream is open.
    pub fn set_control_plane_connected(&self, connected: bool) {
        self.control_plane_connected.set(i64::from(connected));
    }

    /// Says how many resources of a kind are in a state.
    pub fn set_config_resources(&self, kind: &'static str, state: &'static str, count: usize) {
        self.config_resources
            .get_or_create(&[("kind", kind), ("state", state)])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts resources that were refused.
    pub fn count_config_rejections(&self, kind: &'static str, count: usize) {
        self.config_rejections.get_or_create(&[("kind", kind)]).inc_by(count as u64);
    }

    /// All metrics in OpenMetrics text (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn encode(&self) -> String {
        self.expire(Instant::now());
        let mut out = String::new();
        // Writing to a `String` cannot fail, and our own labels and collectors return no other error.
        if text::encode(&mut out, &self.registry).is_err() {
            tracing::error!("the metrics could not be written; what is served is incomplete");
        }
        out
    }
}

fn register(registry: &mut Registry, family: weft_telemetry::Family, metric: impl Metric) {
    registry.register(family.name, family.help, metric);
}

/// Handles for one kind of request.
#[derive(Debug)]
pub struct RequestMetrics {
    key: Arc<RequestKey>,
    requests: Family<ResponseLabels, Counter>,
    /// Counters without a flag, by class; made on first use so that no empty series appear.
    plain: [OnceLock<Counter>; ResponseClass::ALL.len()],
    /// The responses that have a counter beside those.
    flagged: Mutex<BTreeSet<(ResponseClass, &'static str)>>,
    duration: Histogram,
    received: Counter,
    sent: Counter,
}

impl RequestMetrics {
    fn new(metrics: &Metrics, key: Arc<RequestKey>) -> Self {
        Self {
            received: metrics.bytes_of(key.direction, Way::Received),
            sent: metrics.bytes_of(key.direction, Way::Sent),
            flagged: Mutex::default(),
            requests: metrics.requests.clone(),
            plain: Default::default(),
            duration: metrics.durations.get_or_create_owned(&key),
            key,
        }
    }

    /// What the handles stand for.
    pub fn key(&self) -> &RequestKey {
        &self.key
    }

    /// Counts one request. `duration` runs from its head to the end of its response.
    pub fn record(&self, class: ResponseClass, flag: Option<Flag>, duration: Duration) {
        let counter = || {
            self.requests.get_or_create_owned(&ResponseLabels {
                key: self.key.clone(),
                class,
                flag: flag.map_or("", Flag::as_str),
            })
        };
        match flag {
            None => self.plain[class as usize].get_or_init(counter).inc(),
            Some(flag) => {
                self.flagged().insert((class, flag.as_str()));
                counter().inc()
            }
        };
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts the bytes of one request's body and its response's.
    pub fn bytes(&self, received: u64, sent: u64) {
        // Most requests have no body: an atomic of all workers is left alone for them.
        if received > 0 {
            self.received.inc_by(received);
        }
        if sent > 0 {
            self.sent.inc_by(sent);
        }
    }

    /// Classes and flags that have a counter.
    fn responses(&self) -> Vec<(ResponseClass, &'static str)> {
        let plain = ResponseClass::ALL.iter().filter(|class| self.plain[**class as usize].get().is_some());
        plain.map(|class| (*class, "")).chain(self.flagged().iter().copied()).collect()
    }

    fn flagged(&self) -> MutexGuard<'_, BTreeSet<(ResponseClass, &'static str)>> {
        self.flagged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles for one kind of connection.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    opened: Counter,
    active: Gauge,
    sent: Counter,
    received: Counter,
}

impl ConnectionMetrics {
    /// Counts a connection, which stays active until the guard is dropped.
    pub fn open(&self) -> ActiveGuard {
        self.opened.inc();
        ActiveGuard::new(self.active.clone())
    }

    /// Counts bytes to the one who connected.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Counts bytes from the one who connected.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }
}

/// One active connection or tunnel.
#[derive(Debug)]
pub struct ActiveGuard {
    active: Gauge,
}

impl ActiveGuard {
    fn new(active: Gauge) -> Self {
        active.inc();
        Self { active }
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.active.dec();
    }
}

/// Handles for one cluster.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    /// By [`RetryOutcome`], in order of declaration.
    retries: Arc<[Counter]>,
}

impl ClusterMetrics {
    /// Counts a retry.
    pub fn retry(&self, outcome: RetryOutcome) {
        self.retries[outcome as usize].inc();
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
