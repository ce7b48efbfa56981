//! The control plane is killed for half a minute; meanwhile an endpoint changes and someone calls what nobody called
//! before.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use weft_local_mesh::client::Call;
use weft_local_mesh::{Counts, Endpoint, Settings, wait};

use super::super::report::Findings;
use super::super::shop::Shop;
use super::{LIMIT, RATE, Story, is_load, settings, verdict};

/// How long the control plane stays dead.
const OUTAGE: Duration = Duration::from_secs(30);

/// Requests per second to the catalog, whose endpoints change.
const CATALOG_RATE: f64 = 40.0;

/// How long a sidecar waits for an answer about a destination it does not know.
const UNKNOWN: Duration = Duration::from_secs(2);

pub(super) async fn tell(story: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let Story { shop, pace } = story;
    let limit = pace.patience(LIMIT);
    // Certificates that outlive the outage.
    let long = Settings { certificate_lifetime: Settings::default().certificate_lifetime, ..settings(pace) };
    let control_plane = shop.control_plane();
    let leaving = shop.replica("catalog")?;
    // Nobody in this pod calls reviews.
    let stranger = shop.replica("cart")?;
    let unknown = SocketAddr::new(shop.mesh.service_addresses("reviews").await?[0], 80);
    let call = Call::get("/reviews").header("x-shop-cohort", "beta");
    let call_unknown = || call.inside(stranger.pod(), unknown);

    prolong_certificates(story, &long).await?;
    for (load, rate) in [(&shop.everything, RATE), (&shop.catalog, CATALOG_RATE)] {
        load.set_rate(pace.rate(rate)).await?;
        // Connections and configuration of the traffic that is known.
        load.mark("warm").await?;
        load.reach("warm", limit, "requests before the outage", |counts| counts.ok >= 100).await?;
        load.mark("outage").await?;
    }

    control_plane.kill().await;
    let killed = Instant::now();
    shop.mesh.declare(&leaving, Endpoint::NotReady)?;
    let asked = Instant::now();
    let answer = call_unknown().await?;
    let waited = asked.elapsed();
    let flag = answer.header("x-weft-flag").to_owned();
    findings.measured(
        flag == "NC",
        "a destination called for the first time during the outage",
        format!("{} with flag {flag:?}: {}", answer.status, answer.body.trim()),
    );
    findings.pace(
        pace.is_prompt(waited, UNKNOWN + Duration::from_secs(1)),
        "from the call to that answer",
        format!("{:.2} s", waited.as_secs_f64()),
    );
    tokio::time::sleep(OUTAGE.saturating_sub(killed.elapsed())).await;
    let during = shop.catalog.since("outage").await?;
    findings.counter_proof(
        during.replica(leaving.name()) > 0,
        "requests to the endpoint withdrawn during the outage, before the restart",
        format!("{} of {}", during.replica(leaving.name()), during.sent),
    );

    control_plane.run(&long).await?;
    let dead = killed.elapsed();
    let restarted = Instant::now();
    wait::until(limit, "the destination is served", async || Ok((call_unknown().await?.status == 200).then_some(())))
        .await?;
    findings.measured(
        true,
        "the same destination after the restart",
        format!("served after {:.1} s", restarted.elapsed().as_secs_f64()),
    );
    let unseen = |counts: &Counts| counts.replica(leaving.name()) == 0;
    let quiet = shop.catalog.until("the endpoint change takes effect", 40, limit, unseen).await?;
    findings.measured(
        true,
        "the endpoint change made during the outage",
        format!("0 of {} requests to it, {:.1} s after the restart", quiet.sent, restarted.elapsed().as_secs_f64()),
    );
    resent(shop, findings).await?;

    for (load, service) in [(&shop.everything, "all services"), (&shop.catalog, "the catalog")] {
        let counts = load.since("outage").await?;
        findings.measured(
            counts.failed == 0 && dead >= OUTAGE,
            format!("failed requests to {service} over {:.0} s without control plane and after", dead.as_secs_f64()),
            verdict(&counts),
        );
    }
    is_load(pace, &shop.everything.since("outage").await?, findings);
    Ok(shop.mesh.declare(&leaving, Endpoint::Ready)?)
}

/// The control plane counts from its start what it sends: the changed endpoints to those who use them, and what the
/// pod that asked anew did not have.
async fn resent(shop: &Shop, findings: &mut Findings) -> anyhow::Result<()> {
    let sent = shop.control_plane().resources_sent().await?;
    let held: f64 = {
        let status = shop.control_plane().status().await?;
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        let types = proxies.iter().flat_map(|proxy| proxy["types"].as_array().cloned().unwrap_or_default());
        types.filter_map(|kind| kind["resources"].as_f64()).sum()
    };
    let all: f64 = sent.iter().sum();
    // One listener, route, two clusters and their endpoints for the pod that asked anew; the catalog's endpoints for
    // its callers; nothing else.
    findings.measured(
        all > 0.0 && all <= 12.0,
        "resources sent after the restart, where only endpoints of one service had changed",
        format!(
            "{all} of {held} held (LDS {}, RDS {}, CDS {}, EDS {}, SDS {})",
            sent[0], sent[1], sent[2], sent[3], sent[4]
        ),
    );
    Ok(())
}

/// Starts the control plane anew with long-lived certificates, and waits until every sidecar has one.
async fn prolong_certificates(Story { shop, pace }: Story<'_>, long: &Settings) -> anyhow::Result<()> {
    let limit = pace.patience(LIMIT);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let enough = now + limit + OUTAGE * 10;
    let control_plane = shop.control_plane();
    control_plane.kill().await;
    control_plane.run(long).await?;
    wait::until(limit, "every sidecar has a long-lived certificate", async || {
        for pod in shop.pods() {
            if pod.certificate_expiry().await? < enough {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    Ok(shop.mesh.in_force().await?)
}
