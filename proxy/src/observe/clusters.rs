//! Outlier detection and circuit breakers, read from the clusters in force when scraped: a cluster that is gone leaves no series behind.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use weft_telemetry::{Family, proxy as table};

use crate::snapshot::Store;
use crate::upstream::breaker::Resource;

/// Ejections and limits of every cluster of a store.
#[derive(Debug)]
pub(super) struct ClusterCollector {
    store: Arc<Store>,
}

impl ClusterCollector {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Collector for ClusterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.store.load();
        let mut clusters: Vec<_> = snapshot.clusters.iter().collect();
        clusters.sort_unstable_by(|a, b| a.0.cmp(b.0));

        let mut family = describe(&mut encoder, table::OUTLIER_EJECTIONS, MetricType::Counter)?;
        for (name, cluster) in &clusters {
            let labels = [("cluster", &***name)];
            ConstCounter::new(cluster.outliers().ejections()).encode(family.encode_family(&labels)?)?;
        }
        let mut family = describe(&mut encoder, table::OUTLIER_EJECTED, MetricType::Gauge)?;
        for (name, cluster) in &clusters {
            let labels = [("cluster", &***name)];
            ConstGauge::new(i64::from(cluster.outliers().ejected())).encode(family.encode_family(&labels)?)?;
        }
        let mut family = describe(&mut encoder, table::UPSTREAM_IN_USE, MetricType::Gauge)?;
        for ((name, cluster), (resource, label)) in clusters.iter().flat_map(by_resource) {
            let labels = [("cluster", &**name), ("resource", label)];
            ConstGauge::new(i64::from(cluster.breaker().in_use(resource))).encode(family.encode_family(&labels)?)?;
        }
        let mut family = describe(&mut encoder, table::UPSTREAM_OVERFLOWS, MetricType::Counter)?;
        for ((name, cluster), (resource, label)) in clusters.iter().flat_map(by_resource) {
            let labels = [("cluster", &**name), ("resource", label)];
            ConstCounter::new(cluster.breaker().overflows(resource)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn describe<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    family: Family,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(family.name, family.help, None, kind)
}

fn by_resource<T: Copy>(cluster: &T) -> impl Iterator<Item = (T, (Resource, &'static str))> + use<T> {
    let cluster = *cluster;
    Resource::NAMED.into_iter().map(move |resource| (cluster, resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;
    use crate::upstream::Cluster;
    use weft_xds::envoy::config::cluster::v3::Cluster as Message;

    #[test]
    fn every_cluster_in_force_has_its_ejections_and_no_other() {
        let store = Arc::new(Store::new());
        let metrics = Metrics::observing(store.clone());
        let message = Message { name: "c".into(), ..Default::default() };
        let cluster = Arc::new(Cluster::compile(&message, "").unwrap());
        store.update(|next| drop(next.clusters.insert("c".into(), cluster)));
        let text = metrics.encode();
        assert!(text.contains("weft_outlier_ejections_total{cluster=\"c\"} 0\n"), "{text}");
        assert!(text.contains("weft_outlier_ejected{cluster=\"c\"} 0\n"), "{text}");
        assert!(text.contains("weft_upstream_in_use{cluster=\"c\",resource=\"requests\"} 0\n"), "{text}");
        let permit = store.load().clusters["c"].breaker().request().unwrap();
        assert!(metrics.encode().contains("weft_upstream_in_use{cluster=\"c\",resource=\"requests\"} 1\n"));
        drop(permit);
        store.update(|next| drop(next.clusters.remove("c")));
        assert!(!metrics.encode().contains("cluster=\"c\""));
    }
}
