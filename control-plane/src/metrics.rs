//! What the control plane counts, under names that start with `weft_control_plane_`.

use std::time::{Duration, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use weft_telemetry::control_plane as table;

use crate::ResourceType;
use crate::sources::WatchState;

/// Upper bounds in seconds: what a proxy that answers at once needs, up to one that is stuck.
const CONVERGENCE: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All metrics of one control plane.
pub(crate) struct Metrics {
    registry: Registry,
    connected: Gauge,
    pushes: Family<TypeLabel, Counter>,
    resources: Family<TypeLabel, Counter>,
    rejections: Family<TypeLabel, Counter>,
    convergence: Histogram,
    certificates: Family<ResultLabel, Counter>,
    token_reviews: Family<ResultLabel, Counter>,
    elected: Gauge,
    status_writes: Family<ResultLabel, Counter>,
    source_errors: Gauge,
    changes: Counter,
    watch_synced: Family<KindLabel, Gauge>,
    watch_lists: Family<KindLabel, Gauge>,
    watch_failures: Family<KindLabel, Gauge>,
    watch_last_event: Family<KindLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: ResourceType,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl EncodeLabelValue for ResourceType {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.short().encode(encoder)
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let connected = Gauge::default();
        register(&mut registry, table::CONNECTED_PROXIES, connected.clone());
        let pushes = Family::<TypeLabel, Counter>::default();
        register(&mut registry, table::PUSHES, pushes.clone());
        let resources = Family::<TypeLabel, Counter>::default();
        register(&mut registry, table::RESOURCES_SENT, resources.clone());
        let rejections = Family::<TypeLabel, Counter>::default();
        register(&mut registry, table::NACKS, rejections.clone());
        let convergence = Histogram::new(CONVERGENCE);
        register(&mut registry, table::CONVERGENCE, convergence.clone());
        let certificates = Family::<ResultLabel, Counter>::default();
        register(&mut registry, table::CERTIFICATES, certificates.clone());
        let token_reviews = Family::<ResultLabel, Counter>::default();
        register(&mut registry, table::TOKEN_REVIEWS, token_reviews.clone());
        let elected = Gauge::default();
        register(&mut registry, table::ELECTED, elected.clone());
        let status_writes = Family::<ResultLabel, Counter>::default();
        register(&mut registry, table::STATUS_WRITES, status_writes.clone());
        let source_errors = Gauge::default();
        register(&mut registry, table::SOURCE_ERRORS, source_errors.clone());
        let changes = Counter::default();
        register(&mut registry, table::CONFIGURATION_CHANGES, changes.clone());
        let mut by_kind = |described| {
            let family = Family::<KindLabel, Gauge>::default();
            register(&mut registry, described, family.clone());
            family
        };
        let watch_synced = by_kind(table::WATCH_SYNCED);
        let watch_lists = by_kind(table::WATCH_LISTS);
        let watch_failures = by_kind(table::WATCH_FAILURES);
        let watch_last_event = by_kind(table::WATCH_LAST_EVENT);
        Self {
            registry,
            connected,
            pushes,
            resources,
            rejections,
            convergence,
            certificates,
            token_reviews,
            elected,
            status_writes,
            source_errors,
            changes,
            watch_synced,
            watch_lists,
            watch_failures,
            watch_last_event,
        }
    }

    pub(crate) fn connected(&self) {
        self.connected.inc();
    }

    pub(crate) fn disconnected(&self) {
        self.connected.dec();
    }

    pub(crate) fn pushed(&self, kind: ResourceType, resources: usize) {
        let label = TypeLabel { r#type: kind };
        self.pushes.get_or_create(&label).inc();
        self.resources.get_or_create(&label).inc_by(resources as u64);
    }

    pub(crate) fn rejected(&self, kind: ResourceType) {
        self.rejections.get_or_create(&TypeLabel { r#type: kind }).inc();
    }

    pub(crate) fn converged(&self, after: Duration) {
        self.convergence.observe(after.as_secs_f64());
    }

    pub(crate) fn certificate(&self, issued: bool) {
        let result = if issued { "issued" } else { "refused" };
        self.certificates.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn token_review(&self, result: &'static str) {
        self.token_reviews.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn elected(&self, elected: bool) {
        self.elected.set(elected.into());
    }

    pub(crate) fn status_write(&self, result: &'static str) {
        self.status_writes.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn source_errors(&self, errors: usize) {
        self.source_errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
    }

    pub(crate) fn watches(&self, watches: &[WatchState]) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for watch in watches {
            let label = KindLabel { kind: watch.kind };
            self.watch_synced.get_or_create(&label).set(watch.synced.into());
            self.watch_lists.get_or_create(&label).set(count(watch.lists));
            self.watch_failures.get_or_create(&label).set(count(watch.failures));
            if let Some(since) = watch.last_event.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
                self.watch_last_event.get_or_create(&label).set(count(since.as_secs()));
            }
        }
    }

    pub(crate) fn changed(&self) {
        self.changes.inc();
    }

    /// The OpenMetrics text of `/metrics`.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn register(registry: &mut Registry, family: weft_telemetry::Family, metric: impl Metric) {
    registry.register(family.name, family.help, metric);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_served_is_what_the_table_says() {
        let metrics = Metrics::new();
        // A family without series is not written at all.
        metrics.pushed(ResourceType::Cluster, 1);
        metrics.rejected(ResourceType::Cluster);
        metrics.certificate(true);
        metrics.token_review("accepted");
        metrics.status_write("written");
        metrics.watches(&[WatchState { kind: "Pod", last_event: Some(UNIX_EPOCH), ..WatchState::default() }]);
        let text = metrics.encode();
        let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let described: BTreeSet<_> = described.collect();
        let table: BTreeSet<_> = table::ALL.iter().map(|family| (family.name, family.kind.as_str())).collect();
        assert_eq!(described, table);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let series = &line[..line.find(['{', ' ']).unwrap()];
            let family = weft_telemetry::family_of(series).unwrap_or_else(|| panic!("{series} is not in the table"));
            for label in family.labels {
                assert!(line.contains(&format!("{label}=\"")), "{line} has no {label}");
            }
        }
    }
}
