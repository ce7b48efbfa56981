//! 90/10 between two versions, then 50/50 after an edit under load; an edit that is wrong changes nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use weft_local_mesh::client::{Call, Connection};
use weft_local_mesh::{Counts, wait};
use weft_sandbox::Pod;

use super::super::folder::{self, Replacement};
use super::super::report::Findings;
use super::{LIMIT, Story, is_load, verdict};

/// Requests over which a split is measured.
const SAMPLE: u64 = 2_000;

/// Requests while the file is broken: enough to see a change, in two seconds.
const BROKEN_SAMPLE: u64 = 600;

/// Requests per second: a sample in about seven seconds.
const SPLIT_RATE: f64 = 300.0;

/// A random split lies further than this from its weights once in 1.7 million times.
const STANDARD_ERRORS: f64 = 5.0;

/// Half to each, and testers back to v1: the second part is what shows, to the millisecond, when the edit holds.
pub(super) const HALF: [Replacement; 3] = [
    ("        - { name: reviews-v2, port: 80 }\n", "        - { name: reviews-v1, port: 80 }\n"),
    ("weight: 90", "weight: 50"),
    ("weight: 10", "weight: 50"),
];

/// A weight below nothing, in a file that is otherwise fine.
pub(super) const BROKEN: [Replacement; 1] = [("weight: 90", "weight: -90")];

pub(super) async fn tell(story: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let Story { shop, pace } = story;
    let control_plane = shop.control_plane();
    let limit = pace.patience(LIMIT);
    shop.reviews.set_rate(pace.rate(SPLIT_RATE)).await?;
    shop.reviews.mark("whole").await?;
    let first = sample(story, "ninety", SAMPLE).await?;
    let (fits, seen) = judge(&first, 0.10);
    findings.measured(fits, "reviews v2's share at 90/10", seen);

    folder::edit(control_plane.folder(), "routes.yaml", &BROKEN)?;
    let problem = wait::until(limit, "the control plane reports the broken edit", async || {
        Ok(control_plane.problems().await?.into_iter().find(|problem| problem.contains("routes.yaml")))
    })
    .await?;
    let named = problem.contains("weight") && problem.contains("-90");
    findings.measured(named, "a broken edit is reported with its field and value", problem);
    let during = sample(story, "broken", BROKEN_SAMPLE).await?;
    let (fits, seen) = judge(&during, 0.10);
    findings.measured(fits, "the split while the file is broken", seen);

    let address = SocketAddr::new(shop.mesh.service_addresses("reviews").await?[0], 80);
    let loadgen = shop.loadgen()?;
    let watcher = tokio::spawn(async move { first_tester_on_v1(loadgen.pod(), address).await });
    // Not before testers are seen on v2, or the edit's effect could not be told from how it was.
    let loadgen = shop.loadgen()?;
    wait::until(limit, "testers see v2", async || {
        let answer = tester().inside(loadgen.pod(), address).await?;
        Ok((answer.header("x-version") == "v2").then_some(()))
    })
    .await?;
    let saved = folder::edit(control_plane.folder(), "routes.yaml", &HALF)?;
    let followed = tokio::time::timeout(limit, watcher).await.context("no request followed the edit")???;
    let delay = followed.saturating_duration_since(saved);
    let milliseconds = format!("{:.0} ms", delay.as_secs_f64() * 1000.0);
    findings.measured(followed > saved, "a request follows the edit, after the file was saved", &milliseconds);
    findings.pace(
        pace.is_prompt(delay, Duration::from_secs(1)),
        "from saving the file to the first request that follows it",
        milliseconds,
    );

    let second = sample(story, "half", SAMPLE).await?;
    let (fits, seen) = judge(&second, 0.50);
    findings.measured(fits, "reviews v2's share at 50/50", seen);
    let (fits_old, _) = judge(&second, 0.10);
    findings.counter_proof(
        !fits_old && !judge(&first, 0.50).0,
        "each share against the other weights",
        "both lie outside the tolerance",
    );
    let whole = shop.reviews.since("whole").await?;
    findings.measured(whole.failed == 0, "failed requests from first to last", verdict(&whole));
    is_load(pace, &whole, findings);
    Ok(())
}

fn tester() -> Call {
    Call::get("/reviews").header("x-shop-cohort", "beta")
}

async fn sample(Story { shop, pace }: Story<'_>, mark: &str, size: u64) -> anyhow::Result<Counts> {
    shop.reviews.mark(mark).await?;
    Ok(shop.reviews.reach(mark, pace.patience(LIMIT), "enough requests to reviews", |counts| counts.ok >= size).await?)
}

/// Whether v2's share lies within the tolerance around `weight`, and how to say it.
fn judge(counts: &Counts, weight: f64) -> (bool, String) {
    let (v1, v2) = (counts.version("v1"), counts.version("v2"));
    let total = (v1 + v2).max(1) as f64;
    let share = v2 as f64 / total;
    let tolerance = STANDARD_ERRORS * (weight * (1.0 - weight) / total).sqrt();
    let fits = (share - weight).abs() <= tolerance;
    (fits, format!("{:.1} % of {total} (expected {:.0} ± {:.1} %)", share * 100.0, weight * 100.0, tolerance * 100.0))
}

/// Asks as a tester, again and again on one connection, until v1 answers; when that was.
async fn first_tester_on_v1(pod: &Pod, address: SocketAddr) -> anyhow::Result<Instant> {
    pod.run_async(move || async move {
        let mut connection = Connection::open(address).await?;
        loop {
            let answer = tester().on(&mut connection).await?;
            match answer.header("x-version") {
                "v1" => return Ok(Instant::now()),
                "v2" => tokio::time::sleep(Duration::from_millis(2)).await,
                _ => bail!("a tester was answered {}: {}", answer.status, answer.body),
            }
        }
    })
    .await?
}
