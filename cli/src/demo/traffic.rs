//! Who calls whom, how often, how well and how fast: the rows of the live table, from two scrapes of every sidecar.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use weft_local_mesh::{MeshPod, Sample, Samples};

use super::observe::{Bound, quantile};

/// From whom to whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) source: String,
    pub(crate) service: String,
    /// The workload behind the service.
    pub(crate) workload: String,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) edge: Edge,
    pub(crate) per_second: f64,
    /// Share of the requests without an error, 0 to 1.
    pub(crate) success: f64,
    /// Seconds; none without requests.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) retries_per_second: f64,
    /// The SPIFFE identity of the answering side; empty if it had none.
    pub(crate) peer: String,
}

/// What a workload carries as bytes: there are no requests to count, but connections.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Opaque {
    pub(crate) workload: String,
    /// Connections open now, with mutual TLS and without.
    pub(crate) mutual: f64,
    pub(crate) plain: f64,
}

/// Cumulative values of one edge.
#[derive(Debug, Clone, Default)]
struct Totals {
    requests: f64,
    errors: f64,
    buckets: BTreeMap<Bound, f64>,
    retries: f64,
    peer: String,
}

/// One scrape of all sidecars.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    at: Instant,
    /// By pod, so that a replaced pod does not make totals shrink.
    totals: BTreeMap<(String, Edge), Totals>,
    pub(crate) opaque: Vec<Opaque>,
}

impl Scrape {
    /// Scrapes every pod; one that does not answer is left out.
    pub(crate) async fn of(pods: &[Arc<MeshPod>]) -> Self {
        let scrapes = join_all(pods.iter().map(|pod| async move {
            let samples = pod.metrics().await.ok()?;
            Some((pod.name().to_owned(), pod.spec().workload.clone(), samples))
        }))
        .await;
        Self::new(Instant::now(), scrapes.into_iter().flatten())
    }

    /// Given the scrapes by pod and workload.
    fn new(at: Instant, scrapes: impl IntoIterator<Item = (String, String, Samples)>) -> Self {
        let mut totals: BTreeMap<(String, Edge), Totals> = BTreeMap::new();
        let mut opaque: BTreeMap<String, Opaque> = BTreeMap::new();
        for (pod, workload, samples) in scrapes {
            let open = |tls| {
                let labels = [("direction", "inbound"), ("protocol", "tcp"), ("tls", tls)];
                samples.sum("weft_connections_active", &labels)
            };
            let (mutual, plain) = (open("mutual"), open("none"));
            if mutual + plain > 0.0 {
                let none = Opaque { workload: workload.clone(), mutual: 0.0, plain: 0.0 };
                let sum = opaque.entry(workload).or_insert(none);
                sum.mutual += mutual;
                sum.plain += plain;
            }
            let outbound = |name| samples.of(name, &[("direction", "outbound")]);
            let key = |sample: &Sample| {
                let edge = Edge {
                    source: sample.label("source_workload").to_owned(),
                    service: sample.label("destination_service").to_owned(),
                    workload: sample.label("destination_workload").to_owned(),
                };
                (pod.clone(), edge)
            };
            for sample in outbound("weft_requests_total") {
                let total = totals.entry(key(sample)).or_default();
                total.requests += sample.value;
                if matches!(sample.label("response_class"), "5xx" | "error") {
                    total.errors += sample.value;
                }
                if !sample.label("peer").is_empty() {
                    total.peer = sample.label("peer").to_owned();
                }
            }
            for sample in outbound("weft_request_duration_seconds_bucket") {
                let Ok(bound) = sample.label("le").replace("+Inf", "inf").parse() else { continue };
                *totals.entry(key(sample)).or_default().buckets.entry(Bound(bound)).or_default() += sample.value;
            }
            // Retries are counted by service: they belong to the row of its first workload.
            for sample in samples.of("weft_request_retries_total", &[]) {
                let service = sample.label("destination_service");
                let row = totals.iter_mut().find(|((of, edge), _)| *of == pod && edge.service == service);
                if let Some((_, total)) = row {
                    total.retries += sample.value;
                }
            }
        }
        Self { at, totals, opaque: opaque.into_values().collect() }
    }

    /// What happened between `earlier` and this scrape, by edge.
    pub(crate) fn since(&self, earlier: &Scrape) -> Vec<Row> {
        let seconds = self.at.saturating_duration_since(earlier.at).as_secs_f64().max(1e-3);
        let mut edges: BTreeMap<Edge, Totals> = BTreeMap::new();
        for (key, now) in &self.totals {
            let before = earlier.totals.get(key).cloned().unwrap_or_default();
            // A sidecar that started again counts from zero.
            let before = if before.requests > now.requests { Totals::default() } else { before };
            let sum = edges.entry(key.1.clone()).or_default();
            sum.requests += now.requests - before.requests;
            sum.errors += now.errors - before.errors;
            sum.retries += now.retries - before.retries;
            for (bound, count) in &now.buckets {
                *sum.buckets.entry(*bound).or_default() +=
                    count - before.buckets.get(bound).copied().unwrap_or_default();
            }
            if !now.peer.is_empty() {
                sum.peer.clone_from(&now.peer);
            }
        }
        edges
            .into_iter()
            .map(|(edge, sum)| Row {
                edge,
                per_second: sum.requests / seconds,
                success: if sum.requests > 0.0 { 1.0 - sum.errors / sum.requests } else { 1.0 },
                p50: quantile(0.50, &sum.buckets),
                p99: quantile(0.99, &sum.buckets),
                retries_per_second: sum.retries / seconds,
                peer: sum.peer,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scrape(at: Instant, ok: u32, failed: u32, fast: u32, retries: u32) -> Scrape {
        let labels = "direction=\"outbound\",source_workload=\"web\",destination_service=\"shop/reviews\",\
                      destination_workload=\"reviews-v1\"";
        let text = format!(
            "weft_requests_total{{{labels},response_class=\"2xx\",peer=\"spiffe://x\"}} {ok}\n\
             weft_requests_total{{{labels},response_class=\"5xx\",peer=\"\"}} {failed}\n\
             weft_request_duration_seconds_bucket{{{labels},le=\"0.01\"}} {fast}\n\
             weft_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}\n\
             weft_request_retries_total{{destination_service=\"shop/reviews\",outcome=\"success\"}} {retries}\n\
             weft_requests_total{{direction=\"inbound\",source_workload=\"web\"}} 99\n\
             weft_connections_active{{direction=\"inbound\",protocol=\"tcp\",tls=\"mutual\"}} 3\n\
             weft_connections_active{{direction=\"inbound\",protocol=\"http1\",tls=\"mutual\"}} 5\n",
            ok + failed
        );
        Scrape::new(at, [("web-0".to_owned(), "web".to_owned(), Samples::parse(&text))])
    }

    #[test]
    fn a_row_is_the_difference_of_two_scrapes() {
        let start = Instant::now();
        let rows = scrape(start + Duration::from_secs(2), 190, 10, 200, 6).since(&scrape(start, 100, 0, 100, 2));
        assert_eq!(rows.len(), 1, "inbound counts are not rows: {rows:?}");
        let row = &rows[0];
        assert_eq!(row.edge.workload, "reviews-v1");
        assert_eq!(row.per_second, 50.0);
        assert!((row.success - 0.9).abs() < 1e-9);
        assert_eq!(row.retries_per_second, 2.0);
        assert_eq!(row.peer, "spiffe://x");
        assert_eq!(row.p50, Some(0.005));
    }

    #[test]
    fn connections_of_bytes_are_counted_while_they_are_open() {
        let open = scrape(Instant::now(), 0, 0, 0, 0).opaque;
        assert_eq!(open, [Opaque { workload: "web".to_owned(), mutual: 3.0, plain: 0.0 }]);
    }

    #[test]
    fn a_sidecar_that_started_again_counts_from_zero() {
        let start = Instant::now();
        let rows = scrape(start + Duration::from_secs(1), 10, 0, 10, 0).since(&scrape(start, 500, 0, 500, 0));
        assert_eq!(rows[0].per_second, 10.0);
    }
}
