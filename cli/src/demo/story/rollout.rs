//! Every pod of two services is replaced, in the order in which Kubernetes does it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use http::Method;

use super::super::observe::{Retries, Samples};
use super::super::pod::{Endpoint, MeshPod};
use super::super::report::Findings;
use super::super::shop::Shop;
use super::super::wait;
use super::resilience::RETRIES_OFF;
use super::{LEAST_RATE, RATE};

/// One speaks HTTP/2, the other HTTP/1.1.
const ROLLED: [&str; 2] = ["catalog", "reviews-v1"];

/// How much later than the pod others learn that it ends: Kubernetes tells both at once, and this is how long the news
/// may take through API server and control plane.
const NEWS: Duration = Duration::from_secs(1);

/// The time a pod gets to end.
const GRACE: Duration = Duration::from_secs(20);

/// How long the replicas about to end take to answer, so that requests are under way when they are told to.
const SLOW: &str = "mode=delay&rate=1&delay_ms=30";

pub(super) async fn tell(shop: &Shop, findings: &mut Findings) -> anyhow::Result<()> {
    // Without retries of what was answered, a failure would be seen.
    shop.control_plane().folder().edit("traffic.yaml", &RETRIES_OFF_EVERYWHERE)?;
    shop.control_plane().in_step().await?;
    let before: BTreeSet<_> = rolled(shop).iter().map(|pod| pod.name().to_owned()).collect();
    for load in [&shop.catalog, &shop.reviews] {
        load.rate(RATE).await?;
        load.mark("rollout").await?;
        load.until("rollout", GRACE, "requests before the restart", |counts| counts.ok >= 50).await?;
    }

    let sidecar = shop.loadgen()?;
    let scraped = Samples::of_sidecar(&sidecar.pod).await?;
    let (first, second) = try_join(roll(shop, ROLLED[0]), roll(shop, ROLLED[1])).await?;
    let replaced = first + second;
    let mut after = BTreeSet::new();
    let scrapes = (scraped, Samples::of_sidecar(&sidecar.pod).await?);
    for (load, name) in [(&shop.catalog, ROLLED[0]), (&shop.reviews, ROLLED[1])] {
        let counts = load.since("rollout").await?;
        findings.measured(
            counts.failed == 0 && counts.rate() >= LEAST_RATE,
            format!("failed requests to {name} while its pods were replaced"),
            {
                let retries = Retries::between(&scrapes.0, &scrapes.1, &format!("shop/{name}"));
                format!("{}; {} retries, {} over budget", counts.verdict(), retries.made, retries.over_budget)
            },
        );
        load.mark("after").await?;
        let counts = load.until("after", GRACE, "requests afterwards", |counts| counts.sent >= 200).await?;
        after.extend(counts.replicas.into_keys());
    }
    let left: Vec<_> = before.intersection(&after).collect();
    findings.measured(
        replaced == before.len() && left.is_empty(),
        "pods replaced, each after its successor served",
        format!("{replaced} of {}; {} old ones still answer", before.len(), left.len()),
    );
    disorderly(shop, findings).await
}

pub(super) const RETRIES_OFF_EVERYWHERE: [super::super::folder::Replacement; 2] = [
    RETRIES_OFF,
    // The next in the file is the policy for reviews.
    ("    attempts: 2\n    on: [5xx", "    attempts: 0\n    on: [5xx"),
];

fn rolled(shop: &Shop) -> Vec<Arc<MeshPod>> {
    ROLLED.iter().flat_map(|workload| shop.replicas(workload)).collect()
}

/// Replaces every pod of a workload, one after the other; how many.
async fn roll(shop: &Shop, workload: &str) -> anyhow::Result<usize> {
    let old = shop.replicas(workload);
    for pod in &old {
        // maxSurge 1, maxUnavailable 0: the successor serves first.
        let successor = shop.add(pod.workload).await?;
        serves(shop, &successor).await?;
        pod.fail(SLOW).await?;
        end(shop, pod).await?;
    }
    Ok(old.len())
}

/// Waits until a new pod has answered load.
async fn serves(shop: &Shop, pod: &MeshPod) -> anyhow::Result<()> {
    let load = if pod.workload.role == "catalog" { &shop.catalog } else { &shop.reviews };
    wait::until(GRACE, &format!("{} to serve", pod.name()), || async {
        Ok((load.since("rollout").await?.by_replica(pod.name()) > 0).then_some(()))
    })
    .await
}

/// Ends a pod as a kubelet does: at once the sidecar is told to drain and the application to end; a second later the
/// others hear of it; when the application has gone, so does the sidecar.
async fn end(shop: &Shop, pod: &MeshPod) -> anyhow::Result<()> {
    pod.sidecar(Method::POST, "/drain").await?.text()?;
    pod.terminate_app();
    tokio::time::sleep(NEWS).await;
    shop.maker.declare(&pod.pod, pod.workload, Endpoint::Terminating)?;
    pod.app_ended().await;
    let status = pod.stop_sidecar(GRACE).await;
    anyhow::ensure!(status.success(), "the sidecar of {} ended with {status}", pod.name());
    shop.maker.withdraw(&pod.pod)?;
    shop.remove(pod).await
}

/// The same load while a pod is killed without any order.
async fn disorderly(shop: &Shop, findings: &mut Findings) -> anyhow::Result<()> {
    let victim = shop.replica(ROLLED[0])?;
    for pod in shop.replicas(ROLLED[0]) {
        pod.fail("mode=delay&rate=1&delay_ms=100").await?;
    }
    shop.catalog.mark("killed").await?;
    shop.catalog
        .until("killed", GRACE, "requests to every replica", |counts| counts.by_replica(victim.name()) > 5)
        .await?;
    victim.kill_app().await;
    let counts =
        shop.catalog.until("killed", GRACE, "a failure", |counts| counts.failed > 0 || counts.sent >= 1_000).await?;
    findings.counter_proof(counts.failed > 0, "the same load when a replica is killed instead", counts.verdict());
    shop.maker.withdraw(&victim.pod)?;
    victim.stop_sidecar(GRACE).await;
    shop.remove(&victim).await
}
