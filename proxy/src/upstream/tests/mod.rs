//! Clusters as a whole: who is picked, who is kept out, what stays across changes.

mod balancing;
mod changes;
mod ejecting;
mod refusing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::{Cluster, Endpoint, EndpointId, Outcome, PickContext, PickError};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// An EDS cluster with more settings in YAML.
fn cluster(settings: &str) -> Cluster {
    let message = weft_xds::yaml::from_str(&format!("{{name: c, type: EDS, {settings}}}")).unwrap();
    Cluster::compile(&message, "").unwrap()
}

const PEAK_EWMA: &str = "lb_policy: LEAST_REQUEST, metadata: {filter_metadata: {weft.mesh: {balancer: peak-ewma}}}";

/// An assignment of endpoints 198.18.0.1, 198.18.0.2, …, each with more settings in YAML.
fn assignment(endpoints: &[&str]) -> ClusterLoadAssignment {
    let endpoints: Vec<_> = (1..).zip(endpoints).map(|(i, more)| format!("{{{}, {more}}}", address(i))).collect();
    weft_xds::yaml::from_str(&format!("{{endpoints: [{{lb_endpoints: [{}]}}]}}", endpoints.join(", "))).unwrap()
}

fn address(i: usize) -> String {
    format!("endpoint: {{address: {{socket_address: {{address: 198.18.0.{i}, port_value: 80}}}}}}")
}

fn with_endpoints(settings: &str, endpoints: &[&str]) -> Cluster {
    let cluster = cluster(settings);
    cluster.set_endpoints(&assignment(endpoints), "").unwrap();
    cluster
}

fn endpoints(cluster: &Cluster) -> Vec<Arc<Endpoint>> {
    cluster.members().into_iter().map(|member| member.endpoint).collect()
}

fn pick(cluster: &Cluster, random: u64) -> Result<Arc<Endpoint>, PickError> {
    pick_untried(cluster, &[], random)
}

fn pick_untried(cluster: &Cluster, tried: &[EndpointId], random: u64) -> Result<Arc<Endpoint>, PickError> {
    cluster.pick(&PickContext { tried, random })
}

/// How often each endpoint (by the last byte of its address) is picked in so many picks, nothing else happening.
fn picks(cluster: &Cluster, n: u64) -> BTreeMap<u8, u64> {
    let mut counts = BTreeMap::new();
    for random in 0..n {
        *counts.entry(last_byte(&pick(cluster, random).unwrap())).or_default() += 1;
    }
    counts
}

fn last_byte(endpoint: &Endpoint) -> u8 {
    match endpoint.address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => panic!("not made by these tests: {ip}"),
    }
}

fn fail(endpoint: &Endpoint, times: usize) {
    (0..times).for_each(|_| endpoint.finish(Outcome::status(503), MS, Instant::now()));
}

/// Whether `part` is within five standard errors of `share` of `whole`.
fn is_share(part: u64, whole: u64, share: f64) -> bool {
    let expected = whole as f64 * share;
    (part as f64 - expected).abs() <= 5.0 * (expected * (1.0 - share)).sqrt()
}
