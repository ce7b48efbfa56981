//! Short-lived certificates are replaced several times, and the root once, while every service is called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use weft_local_mesh::client::Call;
use weft_local_mesh::{Error, MeshPod, wait};

use super::super::report::Findings;
use super::super::shop::Shop;
use super::{LIMIT, RATE, Story, is_load, settings, verdict};

/// Rotations that every sidecar has to show.
const ROTATIONS: usize = 3;

/// How often sidecars are looked at; far less than half of a certificate's life.
const LOOK: Duration = Duration::from_millis(500);

/// Looks at the certificates of all sidecars, from the beginning of the story on.
pub(super) struct Watch {
    /// When each certificate seen ends, in Unix seconds, by pod.
    seen: Arc<Mutex<BTreeMap<String, BTreeSet<u64>>>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(super) fn begin(shop: &Shop) -> Self {
        let seen: Arc<Mutex<BTreeMap<String, BTreeSet<u64>>>> = Arc::default();
        let task = tokio::spawn(look(shop.pods(), seen.clone()));
        Self { seen, task }
    }

    fn seen(&self) -> BTreeMap<String, BTreeSet<u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(pods: Vec<Arc<MeshPod>>, seen: Arc<Mutex<BTreeMap<String, BTreeSet<u64>>>>) {
    loop {
        for pod in &pods {
            if let Ok(expiry) = pod.certificate_expiry().await {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.entry(pod.name().to_owned()).or_default().insert(expiry.as_secs());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn tell(story: Story<'_>, watch: &Watch, findings: &mut Findings) -> anyhow::Result<()> {
    let Story { shop, pace } = story;
    let lifetime = settings(pace).certificate_lifetime;
    shop.everything.set_rate(pace.rate(RATE)).await?;
    shop.everything.mark("rotation").await?;
    root(story, findings).await?;

    let limit = pace.patience(LIMIT) + lifetime * 3;
    let what = "every certificate is rotated three times, and the first of each would be refused";
    let (seen, fewest) = wait::until(limit, what, async || {
        let seen = watch.seen();
        let fewest = seen.values().map(|expiries| expiries.len().saturating_sub(1)).min().unwrap_or(0);
        Ok((fewest >= ROTATIONS && expired(&seen) == seen.len()).then_some((seen, fewest)))
    })
    .await?;
    findings.measured(
        seen.len() == shop.pods().len(),
        "rotations of every sidecar's certificate since the story began",
        format!("at least {fewest} in each of {} sidecars, each for {lifetime:?}", seen.len()),
    );
    findings.counter_proof(
        true,
        "sidecars whose first certificate would be refused by now",
        format!("{0} of {0}: without rotation nothing would work", seen.len()),
    );
    let counts = shop.everything.since("rotation").await?;
    findings.measured(counts.failed == 0, "failed requests meanwhile", verdict(&counts));
    is_load(pace, &counts, findings);
    Ok(())
}

/// Of how many sidecars the first certificate seen has ended.
fn expired(seen: &BTreeMap<String, BTreeSet<u64>>) -> usize {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    seen.values().filter(|expiries| expiries.first().is_some_and(|first| *first < now)).count()
}

/// Replaces the root: the new one is trusted first and signs later, so that no sidecar ever meets a certificate it
/// cannot check; then the old one is trusted no more.
async fn root(story: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let shop = story.shop;
    let old = trusted(story, |roots| roots.len() == 1, "every sidecar trusts one root").await?;
    shop.control_plane().rotate_root().await?;
    let both = trusted(story, |roots| roots.len() == 2, "every sidecar trusts both roots").await?;
    let new =
        trusted(story, |roots| roots.len() == 1 && roots.is_disjoint(&old), "every sidecar trusts only the new root");
    let new = new.await?;
    findings.measured(
        both.is_superset(&old) && both.is_superset(&new),
        "the root is replaced: every sidecar trusted the old one, then both, then only the new one",
        format!("{} → {} in {} sidecars", names(&old), names(&new), shop.pods().len()),
    );
    Ok(())
}

/// Waits until every sidecar trusts the same roots and `enough` holds of them; the roots.
async fn trusted(
    Story { shop, pace }: Story<'_>,
    enough: impl Fn(&BTreeSet<String>) -> bool,
    what: &str,
) -> Result<BTreeSet<String>, Error> {
    wait::until(pace.patience(LIMIT) + settings(pace).certificate_lifetime * 3, what, async || {
        let mut common = None;
        for pod in shop.pods() {
            let roots = roots(&pod).await?;
            if !enough(&roots) || common.as_ref().is_some_and(|common| *common != roots) {
                return Ok(None);
            }
            common = Some(roots);
        }
        Ok(common)
    })
    .await
}

/// The roots that a sidecar trusts, by its own account.
async fn roots(pod: &MeshPod) -> Result<BTreeSet<String>, Error> {
    let answer = pod.admin(Call::get("/certs")).await?.json()?;
    let roots = answer["certificates"][0]["ca_cert"].as_array();
    let roots = roots.ok_or_else(|| Error::unexpected("/certs shows no roots", answer.to_string()))?;
    Ok(roots.iter().filter_map(|root| root["subject"].as_str().map(str::to_owned)).collect())
}

fn names(roots: &BTreeSet<String>) -> String {
    let last_word = |name: &String| name.rsplit(' ').next().unwrap_or_default().to_owned();
    roots.iter().map(last_word).collect::<Vec<_>>().join(", ")
}
