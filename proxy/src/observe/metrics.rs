//! Metric families and the handles that the data path holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::clusters::ClusterCollector;
use super::labels::{
    Direction, Flag, LookupOutcome, Protocol, RequestKey, ResponseClass, ResponseLabels, RetryOutcome, Text, Tls, Way,
};
use super::process::ProcessCollector;
use crate::snapshot::Store;

/// Most request keys with series of their own; whatever comes later is counted under `overflow`.
///
/// One key is a histogram of [`LATENCY_BUCKETS`] and about one counter: 1,000 keys are some 17,000 lines of text.
const MAX_REQUEST_KEYS: usize = 1000;

/// Upper bounds in seconds. Close together below 10 ms, where a mesh's own latency is read off.
const LATENCY_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type Labels<const N: usize> = [(&'static str, Text); N];
type StaticLabels<const N: usize> = [(&'static str, &'static str); N];
type LatencyFamily = Family<RequestKey, Histogram, fn() -> Histogram>;

/// All metrics of the process. Shared by all workers.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ResponseLabels, Counter>,
    durations: LatencyFamily,
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
    keys: Mutex<HashMap<Arc<RequestKey>, Arc<RequestMetrics>>>,
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
        registry.register(
            "weft_requests",
            "Requests, by response class and by the flag of a response that is not the application's own",
            requests.clone(),
        );
        let durations = LatencyFamily::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS));
        registry.register(
            "weft_request_duration_seconds",
            "Time from the head of a request to the end of its response",
            durations.clone(),
        );
        let retries = Family::default();
        registry.register("weft_request_retries", "Retries, by how they ended", retries.clone());
        let connections = Family::default();
        registry.register("weft_connections", "Connections accepted, by what they carry", connections.clone());
        let connections_active = Family::default();
        registry.register(
            "weft_connections_active",
            "Connections open now, by what they carry",
            connections_active.clone(),
        );
        let tunnels_active = Family::default();
        registry.register(
            "weft_tunnels_active",
            "WebSockets and other tunnels open now, each also a request once it has ended",
            tunnels_active.clone(),
        );
        let bytes = Family::default();
        registry.register(
            "weft_bytes",
            "Bytes of requests, responses and relays on the side of whoever connected",
            bytes.clone(),
        );
        let certificate_expiry = Gauge::<f64, AtomicU64>::default();
        registry.register(
            "weft_certificate_expiry_seconds",
            "When the workload's certificate ends, in seconds since 1970; 0 without one",
            certificate_expiry.clone(),
        );
        let lookups = Family::default();
        registry.register(
            "weft_destination_lookups",
            "Questions to the control plane for a destination seen for the first time, by answer",
            lookups.clone(),
        );
        let control_plane_connected = Gauge::<i64, AtomicI64>::default();
        registry.register(
            "weft_control_plane_connected",
            "1 while the configuration stream is open",
            control_plane_connected.clone(),
        );
        let config_resources = Family::default();
        registry.register(
            "weft_config_resources",
            "Configuration resources known, by kind and state",
            config_resources.clone(),
        );
        let config_rejections = Family::default();
        registry.register(
            "weft_config_rejections",
            "Configuration resources refused, by kind",
            config_rejections.clone(),
        );
        registry.register("weft_build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(ProcessCollector));
        Self {
            registry,
            requests,
            durations,
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
        // The map is whole even if a holder of the lock panicked: inserts are single calls.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = keys.get(&key) {
            return metrics.clone();
        }
        let key = if keys.len() < MAX_REQUEST_KEYS { key } else { RequestKey::overflow(key.direction) };
        let key = Arc::new(key);
        keys.entry(key.clone()).or_insert_with(|| Arc::new(RequestMetrics::new(self, key))).clone()
    }

    /// The handles of one kind of connection.
    pub fn connection(&self, direction: Direction, protocol: Protocol, tls: Tls) -> ConnectionMetrics {
        let labels = [("direction", direction.as_str()), ("protocol", protocol.as_str()), ("tls", tls.as_str())];
        let bytes =
            |way: Way| self.bytes.get_or_create_owned(&[("direction", direction.as_str()), ("way", way.as_str())]);
        ConnectionMetrics {
            opened: self.connections.get_or_create_owned(&labels),
            active: self.connections_active.get_or_create_owned(&labels),
            sent: bytes(Way::Sent),
            received: bytes(Way::Received),
        }
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
        let mut out = String::new();
        // Writing to a `String` cannot fail, and our own labels and collectors return no other error.
        if text::encode(&mut out, &self.registry).is_err() {
            tracing::error!("the metrics could not be written; what is served is incomplete");
        }
        out
    }
}

/// Handles for one kind of request.
#[derive(Debug)]
pub struct RequestMetrics {
    key: Arc<RequestKey>,
    requests: Family<ResponseLabels, Counter>,
    /// Counters without a flag, by class; made on first use so that no empty series appear.
    plain: [OnceLock<Counter>; ResponseClass::ALL.len()],
    duration: Histogram,
}

impl RequestMetrics {
    fn new(metrics: &Metrics, key: Arc<RequestKey>) -> Self {
        Self {
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
            Some(_) => counter().inc(),
        };
        self.duration.observe(duration.as_secs_f64());
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
mod tests {
    use super::*;

    fn key(route: &str) -> RequestKey {
        RequestKey {
            direction: Direction::Outbound,
            source_workload: "web".into(),
            source_namespace: "shop".into(),
            destination_service: "shop/reviews".into(),
            destination_workload: "reviews-v1".into(),
            route: route.into(),
            peer: "spiffe://weft.local/ns/shop/sa/reviews".into(),
            tls: Tls::Mutual,
        }
    }

    #[test]
    fn a_request_is_counted_by_class_and_flag_and_timed_once() {
        let metrics = Metrics::new();
        let request = metrics.request(key("r"));
        request.record(ResponseClass::of_status(200), None, Duration::from_millis(4));
        request.record(ResponseClass::of_status(204), None, Duration::from_millis(4));
        request.record(ResponseClass::of_status(503), Some(Flag::new("UH")), Duration::from_millis(4));
        let text = metrics.encode();
        let labels = r#"direction="outbound",source_workload="web",source_namespace="shop",destination_service="shop/reviews",destination_workload="reviews-v1",route="r",peer="spiffe://weft.local/ns/shop/sa/reviews",tls="mutual""#;
        for line in [
            format!(r#"weft_requests_total{{{labels},response_class="2xx",flag=""}} 2"#),
            format!(r#"weft_requests_total{{{labels},response_class="5xx",flag="UH"}} 1"#),
            format!("weft_request_duration_seconds_count{{{labels}}} 3"),
            format!(r#"weft_request_duration_seconds_bucket{{le="0.003",{labels}}} 0"#),
            format!(r#"weft_request_duration_seconds_bucket{{le="0.005",{labels}}} 3"#),
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_same_key_gives_the_same_handles() {
        let metrics = Metrics::new();
        assert!(Arc::ptr_eq(&metrics.request(key("r")), &metrics.request(key("r"))));
    }

    #[test]
    fn keys_beyond_the_limit_share_one_series() {
        let metrics = Metrics::new();
        for n in 0..MAX_REQUEST_KEYS {
            metrics.request(key(&n.to_string()));
        }
        let (one, other) = (metrics.request(key("one more")), metrics.request(key("and another")));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.key().route.as_str(), "overflow");
        assert_eq!(metrics.request(key("3")).key().route.as_str(), "3");
    }

    #[test]
    fn a_connection_is_active_until_its_guard_is_dropped() {
        let metrics = Metrics::new();
        let connection = metrics.connection(Direction::Inbound, Protocol::Tcp, Tls::None);
        let guard = connection.open();
        connection.sent(7);
        let active = r#"weft_connections_active{direction="inbound",protocol="tcp",tls="none"}"#;
        assert!(metrics.encode().contains(&format!("{active} 1\n")));
        drop(guard);
        let text = metrics.encode();
        assert!(text.contains(&format!("{active} 0\n")));
        assert!(text.contains("weft_connections_total{direction=\"inbound\",protocol=\"tcp\",tls=\"none\"} 1\n"));
        assert!(text.contains("weft_bytes_total{direction=\"inbound\",way=\"sent\"} 7\n"));
    }

    #[test]
    fn label_values_cannot_break_the_text_format() {
        let metrics = Metrics::new();
        metrics.request(key("a\"b\\c\nd")).record(ResponseClass::Error, None, Duration::ZERO);
        assert!(metrics.encode().contains(r#"route="a\"b\\c\nd""#));
    }

    #[test]
    fn names_that_others_read_are_there() {
        let metrics = Metrics::new();
        metrics.set_certificate_expiry(1_700_000_000);
        let cluster = metrics.cluster("shop/reviews");
        cluster.retry(RetryOutcome::Success);
        let text = metrics.encode();
        for line in [
            "weft_certificate_expiry_seconds 1700000000.0",
            r#"weft_request_retries_total{destination_service="shop/reviews",outcome="success"} 1"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\nis not in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
