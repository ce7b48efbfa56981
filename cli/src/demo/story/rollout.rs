//! Every pod of two services is replaced, in the order in which Kubernetes does it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_local_mesh::client::Call;
use weft_local_mesh::{Endpoint, MeshPod, wait};

use super::super::folder::{self, Replacement};
use super::super::observe::Retries;
use super::super::report::Findings;
use super::super::shop::Shop;
use super::resilience::RETRIES_OFF;
use super::{LIMIT, RATE, Story, is_load, verdict};

/// One speaks HTTP/2, the other HTTP/1.1.
const ROLLED: [&str; 2] = ["catalog", "reviews-v1"];

/// How much later than the pod others learn that it ends: Kubernetes tells both at once, and this is how long the news
/// may take through API server and control plane.
const NEWS: Duration = Duration::from_secs(1);

/// How long the replicas about to end take to answer, so that requests are under way when they are told to.
const SLOW: &str = "mode=delay&rate=1&delay_ms=30";

pub(super) async fn tell(story: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let Story { shop, pace } = story;
    let limit = pace.patience(LIMIT);
    // Without retries of what was answered, a failure would be seen.
    folder::edit(shop.control_plane().folder(), "traffic.yaml", &RETRIES_OFF_EVERYWHERE)?;
    shop.mesh.in_force().await?;
    let before: BTreeSet<_> = rolled(shop).iter().map(|pod| pod.name().to_owned()).collect();
    for load in [&shop.catalog, &shop.reviews] {
        load.set_rate(pace.rate(RATE)).await?;
        load.mark("rollout").await?;
        load.reach("rollout", limit, "requests before the restart", |counts| counts.ok >= 50).await?;
    }

    let sidecar = shop.loadgen()?;
    let scraped = sidecar.metrics().await?;
    let (first, second) = tokio::try_join!(roll(story, ROLLED[0]), roll(story, ROLLED[1]))?;
    let replaced = first + second;
    let mut after = BTreeSet::new();
    let scrapes = (scraped, sidecar.metrics().await?);
    for (load, name) in [(&shop.catalog, ROLLED[0]), (&shop.reviews, ROLLED[1])] {
        let counts = load.since("rollout").await?;
        findings.measured(counts.failed == 0, format!("failed requests to {name} while its pods were replaced"), {
            let retries = Retries::between(&scrapes.0, &scrapes.1, &format!("shop/{name}"));
            format!("{}; {} retries, {} over budget", verdict(&counts), retries.made, retries.over_budget)
        });
        is_load(pace, &counts, findings);
        after.extend(load.next(200, limit).await?.replicas.into_keys());
    }
    let left: Vec<_> = before.intersection(&after).collect();
    findings.measured(
        replaced == before.len() && left.is_empty(),
        "pods replaced, each after its successor served",
        format!("{replaced} of {}; {} old ones still answer", before.len(), left.len()),
    );
    disorderly(story, findings).await
}

pub(super) const RETRIES_OFF_EVERYWHERE: [Replacement; 2] = [
    RETRIES_OFF,
    // The next in the file is the policy for reviews.
    ("    attempts: 2\n    conditions: [5xx", "    attempts: 0\n    conditions: [5xx"),
];

fn rolled(shop: &Shop) -> Vec<Arc<MeshPod>> {
    ROLLED.iter().flat_map(|workload| shop.replicas(workload)).collect()
}

/// Replaces every pod of a workload, one after the other; how many.
async fn roll(story: Story<'_>, workload: &str) -> anyhow::Result<usize> {
    let shop = story.shop;
    let old = shop.replicas(workload);
    for pod in &old {
        // maxSurge 1, maxUnavailable 0: the successor serves first.
        let successor = shop.add(workload).await?;
        serves(story, &successor).await?;
        pod.app()?.fail(SLOW).await?;
        end(shop, pod).await?;
    }
    Ok(old.len())
}

/// Waits until a new pod has answered load.
async fn serves(Story { shop, pace }: Story<'_>, pod: &MeshPod) -> anyhow::Result<()> {
    let load = if pod.spec().workload == ROLLED[0] { &shop.catalog } else { &shop.reviews };
    wait::until(pace.patience(LIMIT), &format!("{} serves", pod.name()), async || {
        Ok((load.since("rollout").await?.replica(pod.name()) > 0).then_some(()))
    })
    .await?;
    Ok(())
}

/// Ends a pod as a kubelet does: at once the sidecar is told to drain and the application to end; a second later the
/// others hear of it; when the application has gone, so does the sidecar.
async fn end(shop: &Shop, pod: &MeshPod) -> anyhow::Result<()> {
    pod.admin(Call::post("/drain")).await?.text()?;
    pod.app()?.terminate();
    tokio::time::sleep(NEWS).await;
    shop.mesh.declare(pod, Endpoint::Terminating)?;
    pod.app()?.ended().await;
    let status = pod.stop_sidecar(LIMIT).await;
    anyhow::ensure!(status.success(), "the sidecar of {} ended with {status}", pod.name());
    shop.remove(pod).await
}

/// The same load while a pod is killed without any order.
async fn disorderly(Story { shop, pace }: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let limit = pace.patience(LIMIT);
    let victim = shop.replica(ROLLED[0])?;
    // So many, and so slow, that every connection has a request under way, and every replica some of them.
    for pod in shop.replicas(ROLLED[0]) {
        pod.app()?.fail("mode=delay&rate=1&delay_ms=400").await?;
    }
    shop.catalog.set_rate(RATE).await?;
    shop.catalog.mark("killed").await?;
    shop.catalog
        .reach("killed", limit, "requests to every replica", |counts| counts.replica(victim.name()) > 5)
        .await?;
    victim.app()?.kill().await;
    let counts =
        shop.catalog.reach("killed", limit, "a failure", |counts| counts.failed > 0 || counts.sent >= 1_000).await?;
    findings.counter_proof(counts.failed > 0, "the same load when a replica is killed instead", verdict(&counts));
    victim.stop_sidecar(LIMIT).await;
    shop.remove(&victim).await
}
