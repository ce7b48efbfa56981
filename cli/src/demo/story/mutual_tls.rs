//! Every request between two pods shows the right identity at both ends, and the wire shows nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weft_local_mesh::client::Call;
use weft_local_mesh::{Error, Sample, Samples, wait};

use super::super::report::Findings;
use super::super::shop::{Shop, identity};
use super::{LIMIT, RATE, Story};

/// What every answer of the shop contains.
const MARKER: &[u8] = b"weft-shop-plaintext";

/// Calls that must be among those seen, from workload to workload.
const EXPECTED: [(&str, &str); 9] = [
    ("loadgen", "web"),
    ("loadgen", "cart"),
    ("loadgen", "notifications"),
    ("web", "catalog"),
    ("web", "reviews-v1"),
    ("web", "reviews-v2"),
    ("web", "cart"),
    ("web", "payments"),
    ("web", "notifications"),
];

/// Requests during which the bridge is listened to.
const REQUESTS: u64 = 300;

pub(super) async fn tell(Story { shop, pace }: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let limit = pace.patience(LIMIT);
    let before = scrape(shop).await?;
    let inside = shop.replica("web")?.pod().capture().await?;
    shop.everything.mark("mutual-tls").await?;
    shop.everything.set_rate(pace.rate(RATE)).await?;
    let bridge = wait::until(limit, "a capture on the bridge is complete", async || {
        let bridge = shop.mesh.sandbox().capture().await.map_err(Error::from)?;
        shop.everything.next(REQUESTS, limit).await?;
        let bridge = bridge.stop();
        // One in which the kernel's queue was full proves nothing: it is made anew.
        Ok((bridge.dropped() == 0).then_some(bridge))
    })
    .await?;
    let inside = inside.stop();
    // A WebSocket is one request that ends when it is closed.
    let closed = shop.loadgen()?.probe("ws://notifications/ws", &[]).await?.ok;
    // One in ten requests for reviews is made to v2, by chance.
    let calls = wait::until(limit, "every workload has called those that it calls", async || {
        let calls = Calls::between(shop, &before, &scrape(shop).await?);
        Ok(EXPECTED.iter().all(|call| calls.pairs.contains(&own(call))).then_some(calls))
    })
    .await?;
    let counts = shop.everything.since("mutual-tls").await?;

    findings.measured(
        counts.failed == 0 && closed,
        "requests to every service in every protocol",
        format!("{} sent, failures: {}", counts.sent, counts.describe_failures()),
    );
    findings.measured(
        calls.wrong.is_empty() && calls.requests > 0.0,
        "both sidecars of each call saw mutual TLS and the right SPIFFE identity",
        match calls.wrong.first() {
            Some(wrong) => format!("{} wrong, first: {wrong}", calls.wrong.len()),
            None => format!("{} requests over {} pairs of workloads", calls.requests, calls.pairs.len()),
        },
    );
    findings.measured(
        calls.tcp_mutual > 0.0 && calls.tcp_plain == 0.0,
        "opaque connections to the queue",
        format!("{} with mutual TLS, {} without", calls.tcp_mutual, calls.tcp_plain),
    );
    findings.measured(
        !bridge.contains(MARKER) && bridge.frames().count() > 0,
        "plaintext of the payloads in a capture on the bridge",
        format!("{} in {} frames", found(bridge.contains(MARKER)), bridge.frames().count()),
    );
    findings.counter_proof(
        inside.contains(MARKER),
        "the same search in a capture inside a pod, between application and sidecar",
        format!("{} in {} frames", found(inside.contains(MARKER)), inside.frames().count()),
    );

    // The front end's port is permissive: a call without a sidecar is readable on the same bridge.
    let bridge = shop.mesh.sandbox().capture().await?;
    let web = SocketAddr::new(shop.replica("web")?.pod().v4(), 8080);
    Call::get("/api/home").inside(&shop.intruder, web).await?.text()?;
    let bridge = bridge.stop();
    findings.counter_proof(
        bridge.contains(MARKER),
        "the same search on the bridge during one call without a sidecar",
        found(bridge.contains(MARKER)),
    );
    Ok(())
}

fn found(yes: bool) -> &'static str {
    if yes { "found" } else { "not found" }
}

fn own((from, to): &(&str, &str)) -> (String, String) {
    ((*from).to_owned(), (*to).to_owned())
}

/// The statistics of every sidecar, by pod.
async fn scrape(shop: &Shop) -> Result<Vec<(String, Samples)>, Error> {
    let mut scrapes = Vec::new();
    for pod in shop.pods() {
        scrapes.push((pod.name().to_owned(), pod.metrics().await?));
    }
    Ok(scrapes)
}

#[derive(Default)]
struct Calls {
    requests: f64,
    /// Calling and answering workload.
    pairs: BTreeSet<(String, String)>,
    wrong: Vec<String>,
    tcp_mutual: f64,
    tcp_plain: f64,
}

impl Calls {
    fn between(shop: &Shop, before: &[(String, Samples)], after: &[(String, Samples)]) -> Self {
        let pods = shop.pods();
        let account = |workload: &str| {
            let pod = pods.iter().find(|pod| pod.spec().workload == workload)?;
            Some(identity(&pod.spec().service_account))
        };
        let mut calls = Self::default();
        for ((pod, now), (_, then)) in after.iter().zip(before) {
            for sample in now.of("weft_requests_total", &[]) {
                let labels: Vec<_> = sample.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let new = sample.value - then.sum("weft_requests_total", &labels);
                if new <= 0.0 {
                    continue;
                }
                let outbound = sample.label("direction") == "outbound";
                let other = if outbound { "destination_workload" } else { "source_workload" };
                let expected = account(sample.label(other));
                if sample.label("tls") != "mutual" || expected.as_deref() != Some(sample.label("peer")) {
                    calls.wrong.push(describe(pod, sample));
                }
                if outbound {
                    calls.requests += new;
                    let pair = (sample.label("source_workload"), sample.label("destination_workload"));
                    calls.pairs.insert(own(&pair));
                }
            }
            if pod.starts_with("queue") {
                let connections = |tls| {
                    let labels = [("direction", "inbound"), ("tls", tls)];
                    now.sum("weft_connections_total", &labels) - then.sum("weft_connections_total", &labels)
                };
                calls.tcp_mutual += connections("mutual");
                calls.tcp_plain += connections("none");
            }
        }
        calls
    }
}

fn describe(pod: &str, sample: &Sample) -> String {
    format!(
        "{} at {pod}, {} → {}: tls {:?}, peer {:?}",
        sample.label("direction"),
        sample.label("source_workload"),
        sample.label("destination_workload"),
        sample.label("tls"),
        sample.label("peer"),
    )
}
