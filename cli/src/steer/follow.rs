//! `--watch`: what the proxies report of the calls to a Service, as their callers see them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use weft_local_mesh::Samples;
use weft_local_mesh::client::Call;

use super::Wrong;
use super::plan::Watched;
use super::world::{WORKLOAD, World, list_of, namespace_of};
use crate::cluster::forward::Forward;
use crate::cluster::{Cluster, PodName, has_sidecar, is_ready, items, name};
use crate::demo::observe::{Bound, quantile};
use crate::output;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Where a sidecar shows its statistics to everybody.
const STATISTICS_PORT: u16 = 15020;
/// Pods of a cluster that are asked, each over a connection of its own through the API server.
const MOST_PODS: usize = 30;

/// Where to read statistics.
pub(super) struct Proxies {
    addresses: Vec<SocketAddr>,
    /// Kept open while the addresses are used.
    _forwards: Vec<Forward>,
    /// How many there are besides.
    left_out: usize,
}

impl Proxies {
    /// The sidecars of the Workloads.
    pub(super) fn of_folder(world: &World) -> Self {
        let address = |workload: &serde_json::Value| {
            let first = list_of(&workload["spec"]["addresses"]).next()?.as_str()?.parse::<IpAddr>().ok()?;
            (workload["spec"]["meshed"] != false).then_some(SocketAddr::new(first, STATISTICS_PORT))
        };
        let addresses = world.of(WORKLOAD).filter_map(address).collect();
        Self { addresses, _forwards: Vec::new(), left_out: 0 }
    }

    /// The sidecars of pods, through the API server.
    pub(super) async fn of_cluster(cluster: &Cluster) -> anyhow::Result<Self> {
        let pods = cluster.get(&["pods", "-A"]).await?;
        let pods: Vec<_> = items(&pods).filter(|pod| has_sidecar(pod) && is_ready(pod)).collect();
        let asked = pods
            .iter()
            .take(MOST_PODS)
            .map(|pod| PodName { name: name(pod).to_owned(), namespace: Some(namespace_of(pod).to_owned()) });
        let forwards = join_all(asked.map(async |pod| cluster.forward(&pod, STATISTICS_PORT).await)).await;
        // A pod may just have gone.
        let forwards: Vec<_> = forwards.into_iter().filter_map(Result::ok).collect();
        let addresses = forwards.iter().map(|forward| forward.address).collect();
        Ok(Self { addresses, _forwards: forwards, left_out: pods.len().saturating_sub(MOST_PODS) })
    }

    /// The statistics of all that answer.
    async fn samples(&self) -> Vec<(SocketAddr, Samples)> {
        let ask = async |address: SocketAddr| {
            let answer = tokio::time::timeout(INTERVAL, Call::get("/stats/prometheus").tcp(address)).await;
            Some((address, Samples::parse(&answer.ok()?.ok()?.text().ok()?)))
        };
        join_all(self.addresses.iter().copied().map(ask)).await.into_iter().flatten().collect()
    }
}

/// Prints a line for each backend, every two seconds until Ctrl-C.
pub(super) async fn until_told(proxies: &Proxies, service: &Watched) -> anyhow::Result<()> {
    let [mut interrupt, mut terminate] = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let first = proxies.samples().await;
    if first.is_empty() {
        return Err(Wrong::because(match proxies.addresses.len() {
            0 => "there is no proxy to ask for its statistics, so there is nothing to watch".to_owned(),
            count => format!(
                "none of {count} proxies shows its statistics at port {STATISTICS_PORT}; watch from where they can be reached"
            ),
        }));
    }
    let mut notice = format!(
        "following {} at {}; Ctrl-C ends it",
        service.label(),
        output::plural(first.len(), "proxy").replace("proxys", "proxies")
    );
    if proxies.left_out > 0 {
        notice.push_str(&format!(" ({} more are not asked)", proxies.left_out));
    }
    eprintln!("{notice}");
    let began = Instant::now();
    let mut before = Totals::of(&first, service);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let now = Totals::of(&proxies.samples().await, service);
        output::print(&now.since(&before).lines(began.elapsed()))?;
        before = now;
    }
}

impl Watched {
    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether a proxy's name for a route (`namespace/route/rule`) is one of this Service's: its routes', or that for a Service without any.
    fn has(&self, route: &str) -> bool {
        let Some((whole, _)) = route.rsplit_once('/') else { return false };
        self.routes.iter().any(|known| known == whole) || route == format!("{}/{}/default", self.namespace, self.name)
    }
}

/// Who answered, as far as the caller's proxy knows; empty for the proxy itself.
type Backend = String;

/// Counters of all proxies together.
#[derive(Debug, Default, Clone)]
struct Totals(BTreeMap<(SocketAddrKey, Backend), Counts>);

/// A counter begins again when its proxy does, so each is kept by itself.
type SocketAddrKey = Option<SocketAddr>;

#[derive(Debug, Default, Clone, PartialEq)]
struct Counts {
    requests: f64,
    failures: f64,
    /// Cumulative, by upper bound in seconds.
    durations: BTreeMap<Bound, f64>,
}

impl Totals {
    fn of(samples: &[(SocketAddr, Samples)], service: &Watched) -> Self {
        let mut totals = Self::default();
        let outbound = [("direction", "outbound")];
        for (address, samples) in samples {
            for sample in
                samples.of("weft_requests_total", &outbound).filter(|sample| service.has(sample.label("route")))
            {
                let counts = totals.entry(*address, sample.label("destination_service"));
                counts.requests += sample.value;
                if ["5xx", "error"].contains(&sample.label("response_class")) {
                    counts.failures += sample.value;
                }
            }
            let buckets = samples.of("weft_request_duration_seconds_bucket", &outbound);
            for sample in buckets.filter(|sample| service.has(sample.label("route"))) {
                let bound = sample.label("le").parse().unwrap_or(f64::INFINITY);
                *totals
                    .entry(*address, sample.label("destination_service"))
                    .durations
                    .entry(Bound(bound))
                    .or_default() += sample.value;
            }
        }
        totals
    }

    fn entry(&mut self, address: SocketAddr, backend: &str) -> &mut Counts {
        self.0.entry((Some(address), backend.to_owned())).or_default()
    }

    /// What came since, of all proxies together.
    fn since(&self, before: &Self) -> Self {
        let mut sum = Self::default();
        for (key, now) in &self.0 {
            let zero = Counts::default();
            let before = before.0.get(key).filter(|before| before.requests <= now.requests).unwrap_or(&zero);
            let counts = sum.0.entry((None, key.1.clone())).or_default();
            counts.requests += now.requests - before.requests;
            counts.failures += now.failures - before.failures;
            for (bound, count) in &now.durations {
                *counts.durations.entry(*bound).or_default() +=
                    count - before.durations.get(bound).copied().unwrap_or_default();
            }
        }
        sum.0.retain(|_, counts| counts.requests > 0.0);
        sum
    }

    fn lines(&self, after: Duration) -> String {
        let all: f64 = self.0.values().map(|counts| counts.requests).sum();
        let time = format!("{:>4} s", after.as_secs());
        if all <= 0.0 {
            return format!("{time}  no calls\n");
        }
        let line = |((_, backend), counts): (&(SocketAddrKey, Backend), &Counts)| {
            let backend = if backend.is_empty() { "(the caller's proxy)" } else { backend };
            let milliseconds = |share| match quantile(share, &counts.durations) {
                Some(seconds) => format!("{:.1} ms", seconds * 1e3),
                None => "-".to_owned(),
            };
            format!(
                "{time}  {backend:<32} {:>5.1} %  {:>7.1} rps  success {:>6.2} %  p50 {:>9}  p95 {:>9}  p99 {:>9}\n",
                100.0 * counts.requests / all,
                counts.requests / INTERVAL.as_secs_f64(),
                100.0 * (1.0 - counts.failures / counts.requests),
                milliseconds(0.5),
                milliseconds(0.95),
                milliseconds(0.99),
            )
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(v1: u32, v2: u32, failed: u32) -> Samples {
        let series = |name: &str, service: &str, more: &str, value: u32| {
            format!(
                "{name}{{direction=\"outbound\",destination_service=\"{service}\",route=\"shop/reviews/canary\"{more}}} {value}\n"
            )
        };
        let mut text = series("weft_requests_total", "shop/reviews-v1", ",response_class=\"2xx\"", v1);
        text += &series("weft_requests_total", "shop/reviews-v2", ",response_class=\"2xx\"", v2);
        text += &series("weft_requests_total", "shop/reviews-v2", ",response_class=\"5xx\"", failed);
        text += "weft_requests_total{direction=\"outbound\",destination_service=\"shop/web\",route=\"shop/web/default\",response_class=\"2xx\"} 9\n";
        for (bound, share) in [("0.01", 0), ("0.1", 1), ("+Inf", 1)] {
            text += &series(
                "weft_request_duration_seconds_bucket",
                "shop/reviews-v2",
                &format!(",le=\"{bound}\""),
                (v2 + failed) * share,
            );
        }
        Samples::parse(&text)
    }

    fn totals(samples: Samples) -> Totals {
        let service = Watched { namespace: "shop".into(), name: "reviews".into(), routes: vec!["shop/reviews".into()] };
        Totals::of(&[("198.18.0.7:15020".parse().unwrap(), samples)], &service)
    }

    #[test]
    fn shares_success_and_latency_are_those_of_the_time_between_two_looks() {
        let lines = totals(scrape(190, 60, 50)).since(&totals(scrape(100, 50, 50))).lines(Duration::from_secs(2));
        let cells: Vec<Vec<_>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[0][2..7], ["shop/reviews-v1", "90.0", "%", "45.0", "rps"]);
        assert_eq!(cells[1][2..10], ["shop/reviews-v2", "10.0", "%", "5.0", "rps", "success", "100.00", "%"]);
        assert_eq!(cells[1][10..13], ["p50", "55.0", "ms"]);
    }

    #[test]
    fn a_proxy_that_began_again_counts_from_nothing() {
        let lines = totals(scrape(0, 4, 4)).since(&totals(scrape(1000, 500, 0))).lines(Duration::from_secs(4));
        assert!(lines.contains("success  50.00 %"), "{lines}");
        assert!(
            totals(scrape(1, 1, 0)).since(&totals(scrape(1, 1, 0))).lines(Duration::from_secs(4)).contains("no calls")
        );
    }
}
