//! A replica that crashes and one that fails, seen by a caller that must not notice.

use std::sync::Arc;
use std::time::Instant;

use weft_local_mesh::{Error, MeshPod, wait};

use super::super::folder::{self, Replacement};
use super::super::observe::Retries;
use super::super::report::Findings;
use super::super::shop::Shop;
use super::{LIMIT, RATE, Story, is_load, verdict};

/// The first policy of the file is the catalog's, and the catalog's `attempts` come first.
pub(super) const RETRIES_OFF: Replacement = ("attempts: 2", "attempts: 0");
/// Every replica gets its turn: by default the balancer itself avoids one that fails.
pub(super) const ROUND_ROBIN: Replacement = (
    "  timeouts: { request: 3s, backendRequest: 1s }",
    "  timeouts: { request: 3s, backendRequest: 1s }\n  loadBalancing: { algorithm: RoundRobin }",
);
pub(super) const OUTLIERS_OFF: Replacement = ("consecutiveErrors: 5", "consecutiveErrors: 0");

/// The share of its requests on which the replica crashes.
const CRASHING: f64 = 0.03;

/// Crashes over which retries are judged.
const CRASHES: u64 = 5;

/// Requests in a row that have to spare an ejected replica; with round robin a third of them would reach it.
const EJECTED: u64 = 60;

pub(super) async fn tell(story: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let Story { shop, pace } = story;
    let replicas = shop.replicas("catalog");
    let [first, ..] = &replicas[..] else { anyhow::bail!("the catalog has no replica") };
    shop.catalog.set_rate(pace.rate(RATE)).await?;
    hidden_crashes(story, first, findings).await?;
    visible_crashes(story, first, findings).await?;
    ejection(story, first, replicas.len(), findings).await
}

/// Outlier detection off, so that the crashing replica keeps its share and retries alone hide it.
async fn hidden_crashes(
    Story { shop, pace }: Story<'_>,
    victim: &Arc<MeshPod>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    apply(shop, &[ROUND_ROBIN, OUTLIERS_OFF]).await?;
    let sidecar = shop.loadgen()?;
    let before = sidecar.metrics().await?;
    shop.catalog.mark("hidden").await?;
    let crashes = victim.app()?.crash(pace.share(CRASHING), CRASHES, pace.patience(LIMIT)).await?;
    let counts = shop.catalog.since("hidden").await?;
    let after = sidecar.metrics().await?;
    let retries = Retries::between(&before, &after, "shop/catalog");
    let share = retries.made / counts.sent.max(1) as f64;
    findings.measured(
        counts.failed == 0 && crashes >= CRASHES,
        "failed requests while one of three replicas crashes again and again",
        format!("{} over {crashes} crashes", verdict(&counts)),
    );
    is_load(pace, &counts, findings);
    // The budget bounds the retries under way, not their share of all requests: a third of the requests find the replica gone while it
    // is down. So what shows that the budget was enough is that it refused none.
    findings.measured(
        retries.made >= 1.0 && retries.over_budget == 0.0,
        "retries that hid them, none refused by the budget",
        format!("{} ({:.1} % of the requests), {} refused", retries.made, share * 100.0, retries.over_budget),
    );
    Ok(())
}

async fn visible_crashes(
    Story { shop, pace }: Story<'_>,
    victim: &Arc<MeshPod>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    apply(shop, &[ROUND_ROBIN, OUTLIERS_OFF, RETRIES_OFF]).await?;
    shop.catalog.mark("visible").await?;
    let crashes = victim.app()?.crash(pace.share(CRASHING), CRASHES, pace.patience(LIMIT)).await?;
    let counts = shop.catalog.since("visible").await?;
    findings.counter_proof(
        counts.failed > 0,
        "the same crashes with retries off",
        format!("{} over {crashes} crashes", verdict(&counts)),
    );
    Ok(())
}

/// Retries stay off: what the failing replica answers is what the caller sees.
async fn ejection(
    Story { shop, pace }: Story<'_>,
    victim: &Arc<MeshPod>,
    replicas: usize,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let limit = pace.patience(LIMIT);
    // 500 and not 503: the balancer itself would avoid a replica that says it is overloaded.
    victim.app()?.fail("mode=error&status=500").await?;
    let counts = shop.catalog.next(300, limit).await?;
    findings.counter_proof(
        counts.failed * 10 >= counts.sent,
        format!("a failing replica of {replicas} with outlier detection off"),
        format!("{} of {} failed", counts.failed, counts.sent),
    );

    apply(shop, &[ROUND_ROBIN, RETRIES_OFF]).await?;
    let began = Instant::now();
    // Ejected: so many requests in a row without one that reaches it, while it fails as before. An ejection ends after five seconds, and
    // the next one lasts longer: the sidecar counts it before and after.
    let sidecar = shop.loadgen()?;
    let ejected = async || Ok::<_, Error>(sidecar.metrics().await?.sum("weft_outlier_ejected", &[]));
    let counts = wait::until(limit, "the failing replica is ejected", async || {
        if ejected().await? != 1.0 {
            return Ok(None);
        }
        let counts = shop.catalog.next(EJECTED, limit).await?;
        let spared = counts.replica(victim.name()) == 0 && ejected().await? == 1.0;
        Ok(spared.then_some(counts))
    })
    .await?;
    findings.measured(
        counts.failed == 0,
        "requests that reach it once outlier detection has ejected it",
        format!(
            "0 of {}, {} failed, {:.1} s after the policy was saved; the sidecar counts 1 ejected",
            counts.sent,
            counts.failed,
            began.elapsed().as_secs_f64(),
        ),
    );

    victim.app()?.recover().await?;
    let recovered = Instant::now();
    shop.catalog.mark("back").await?;
    let back = shop
        .catalog
        .reach("back", limit, "the recovered replica is let back in", |counts| counts.replica(victim.name()) >= 10)
        .await?;
    findings.measured(
        back.failed == 0,
        "the replica is let back in after it has recovered",
        format!(
            "{} requests answered {:.1} s after it recovered, {} failed",
            back.replica(victim.name()),
            recovered.elapsed().as_secs_f64(),
            back.failed
        ),
    );
    Ok(())
}

async fn apply(shop: &Shop, edits: &[Replacement]) -> anyhow::Result<()> {
    folder::edit(shop.control_plane().folder(), "traffic.yaml", edits)?;
    Ok(shop.mesh.in_force().await?)
}
