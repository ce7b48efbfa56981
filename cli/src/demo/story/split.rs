//! 90/10 between two versions, then 50/50 after an edit under load; an edit that is wrong changes nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::client;
use super::super::folder::Replacement;
use super::super::load::Counts;
use super::super::report::Findings;
use super::super::shop::Shop;
use super::super::wait;
use super::{EDIT_LIMIT, LEAST_RATE};

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

pub(super) async fn tell(shop: &Shop, findings: &mut Findings) -> anyhow::Result<()> {
    let control_plane = shop.control_plane();
    shop.reviews.rate(SPLIT_RATE).await?;
    shop.reviews.mark("whole").await?;
    let first = sample(shop, "ninety", SAMPLE).await?;
    let (fits, seen) = judge(&first, 0.10);
    findings.measured(fits, "reviews v2's share at 90/10", seen);

    control_plane.folder().edit("routes.yaml", &BROKEN)?;
    let problem = wait::until(EDIT_LIMIT, "the control plane to report the broken edit", || async {
        Ok(control_plane.problems().await?.into_iter().find(|problem| problem.contains("routes.yaml")))
    })
    .await?;
    let named = problem.contains("weight") && problem.contains("-90");
    findings.measured(named, "a broken edit is reported with its field and value", problem);
    let during = sample(shop, "broken", BROKEN_SAMPLE).await?;
    let (fits, seen) = judge(&during, 0.10);
    findings.measured(fits, "the split while the file is broken", seen);

    let address = SocketAddr::new(shop.service_address("reviews").await?, 80);
    let loadgen = shop.loadgen()?;
    let watcher = tokio::spawn(async move { first_tester_on_v1(&loadgen.pod, address).await });
    // Not before testers are seen on v2, or the edit's effect could not be told from how it was.
    wait::until(EDIT_LIMIT, "testers to see v2", || async {
        let answer = client::inside(&shop.loadgen()?.pod, address, Method::GET, "/reviews", &[TESTER]).await?;
        Ok((answer.header("x-version") == "v2").then_some(()))
    })
    .await?;
    let saved = control_plane.folder().edit("routes.yaml", &HALF)?;
    let followed = tokio::time::timeout(EDIT_LIMIT, watcher).await.context("no request followed the edit")???;
    let delay = followed.saturating_duration_since(saved);
    findings.measured(
        followed > saved && delay < Duration::from_secs(1),
        "from saving the file to the first request that follows it",
        format!("{:.0} ms", delay.as_secs_f64() * 1000.0),
    );

    let second = sample(shop, "half", SAMPLE).await?;
    let (fits, seen) = judge(&second, 0.50);
    findings.measured(fits, "reviews v2's share at 50/50", seen);
    let (fits_old, _) = judge(&second, 0.10);
    findings.counter_proof(
        !fits_old && !judge(&first, 0.50).0,
        "each share against the other weights",
        "both lie outside the tolerance",
    );
    let whole = shop.reviews.since("whole").await?;
    findings.measured(
        whole.failed == 0 && whole.rate() >= LEAST_RATE,
        "failed requests from first to last",
        whole.verdict(),
    );
    Ok(())
}

const TESTER: (&str, &str) = ("x-shop-cohort", "beta");

async fn sample(shop: &Shop, mark: &str, size: u64) -> anyhow::Result<Counts> {
    shop.reviews.mark(mark).await?;
    let limit = Duration::from_secs(40);
    shop.reviews.until(mark, limit, "enough requests to reviews", |counts| counts.ok >= size).await
}

/// Whether v2's share lies within the tolerance around `weight`, and how to say it.
fn judge(counts: &Counts, weight: f64) -> (bool, String) {
    let (v1, v2) = (counts.by_version("v1"), counts.by_version("v2"));
    let total = (v1 + v2).max(1) as f64;
    let share = v2 as f64 / total;
    let tolerance = STANDARD_ERRORS * (weight * (1.0 - weight) / total).sqrt();
    let fits = (share - weight).abs() <= tolerance;
    (fits, format!("{:.1} % of {total} (expected {:.0} ± {:.1} %)", share * 100.0, weight * 100.0, tolerance * 100.0))
}

/// Asks as a tester, again and again on one connection, until v1 answers; when that was.
async fn first_tester_on_v1(pod: &weft_sandbox::Pod, address: SocketAddr) -> anyhow::Result<Instant> {
    pod.run_async(move || async move {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        loop {
            let answer = client::send(&mut sender, &Method::GET, "/reviews", &[TESTER]).await?;
            match answer.header("x-version") {
                "v1" => return Ok(Instant::now()),
                "v2" => tokio::time::sleep(Duration::from_millis(2)).await,
                _ => bail!("a tester was answered {}: {}", answer.status, answer.body),
            }
        }
    })
    .await?
}
