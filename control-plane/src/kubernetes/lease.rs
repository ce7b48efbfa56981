//! Which replica is elected: the holder of a Lease.
//!
//! As Kubernetes' own components do it: the holder renews the Lease; who sees it unchanged for its whole duration, by its own
//! clock, takes it. Clocks of different machines are never compared. A holder that cannot renew stops before others may take the
//! Lease; one that ends gives it back.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_inject::names::CONTROL_PLANE;

use super::{Installation, describe, in_time};

/// The Lease's name.
const NAME: &str = CONTROL_PLANE;

/// How long nobody takes a Lease that is not renewed.
const DURATION: Duration = Duration::from_secs(15);

/// How long a holder goes on without a renewal that succeeded. Less than [`DURATION`], so that two never write.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often the Lease is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Takes part until told to stop, and tells `elected` whether this replica holds the Lease.
pub(super) async fn run(
    client: kube::Client,
    installation: Installation,
    elected: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, &installation.namespace);
    let mut candidate = Candidate::new(installation.replica);
    let mut failing = false;
    loop {
        // An API server that does not answer must not keep a holder from noticing that its time is over.
        let attempt = tokio::time::timeout(DEADLINE / 2, attempt(&api, &mut candidate)).await;
        let problem = match attempt {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(describe(&error)),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        if let Some(problem) = problem.as_ref().filter(|_| !failing) {
            tracing::warn!("the election goes on without the Lease {NAME}: {problem}");
        }
        failing = problem.is_some();
        let holds = candidate.holds(Instant::now());
        elected.send_if_modified(|elected| std::mem::replace(elected, holds) != holds);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    elected.send_replace(false);
    if candidate.holds(Instant::now())
        && let Err(error) = in_time(give_back(&api, &candidate.name)).await
    {
        tracing::debug!("giving the Lease {NAME} back: {}", describe(&error));
    }
}

/// Empties the Lease: the next holder need not wait.
async fn give_back(api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let Some(mut lease) = api.get_opt(NAME).await? else { return Ok(()) };
    if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(name)) {
        spec.holder_identity = Some(String::new());
        api.replace(NAME, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

async fn attempt(api: &Api<Lease>, candidate: &mut Candidate) -> Result<(), kube::Error> {
    // Before the question, so that the time it takes counts against us.
    let asked = Instant::now();
    let Some(found) = api.get_opt(NAME).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                labels: Some(super::labels()),
                ..ObjectMeta::default()
            },
            spec: Some(candidate.claim(None)),
        };
        let created = api.create(&PostParams::default(), &lease).await;
        return candidate.wrote(asked, created);
    };
    if candidate.look(found.spec.as_ref(), asked) == Look::Wait {
        return Ok(());
    }
    let lease = Lease { spec: Some(candidate.claim(found.spec.as_ref())), ..found };
    // With the version that was read: of two who take it, one fails.
    let replaced = api.replace(NAME, &PostParams::default(), &lease).await;
    candidate.wrote(asked, replaced)
}

/// What to do about the Lease as it was found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It is ours, or nobody's: write it.
    Write,
    /// Somebody else has it.
    Wait,
}

/// One replica in the election.
struct Candidate {
    name: String,
    /// The Lease as it was last seen to change, and when.
    seen: Option<(LeaseSpec, Instant)>,
    /// When the Lease that we hold was last written by us.
    renewed: Option<Instant>,
}

impl Candidate {
    fn new(name: String) -> Self {
        Self { name, seen: None, renewed: None }
    }

    /// Whether this replica may write.
    fn holds(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed + DEADLINE)
    }

    fn look(&mut self, found: Option<&LeaseSpec>, now: Instant) -> Look {
        let Some(spec) = found else { return Look::Write };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.name {
            self.renewed = None;
        }
        if holder.is_empty() || holder == self.name {
            return Look::Write;
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => {
                self.seen = Some((spec.clone(), now));
                now
            }
        };
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        if now >= since + duration.map_or(DURATION, Duration::from_secs) { Look::Write } else { Look::Wait }
    }

    /// The Lease as ours.
    fn claim(&self, found: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = found.filter(|spec| spec.holder_identity.as_deref() == Some(&*self.name));
        let transitions = found.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours.is_some() || found.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    /// Takes what became of a write.
    fn wrote(&mut self, asked: Instant, result: Result<Lease, kube::Error>) -> Result<(), kube::Error> {
        match result {
            Ok(_) => {
                self.renewed = Some(asked);
                Ok(())
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                self.renewed = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewal: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            // Stands for the time of renewal, of which only the change is looked at.
            lease_transitions: Some(renewal),
            ..LeaseSpec::default()
        }
    }

    fn written() -> Result<Lease, kube::Error> {
        Ok(Lease::default())
    }

    #[test]
    fn a_lease_that_is_renewed_stays_its_holders_however_long() {
        let (mut us, start) = (Candidate::new("us".into()), Instant::now());
        for tick in 0..100 {
            let now = start + Duration::from_secs(10) * tick;
            assert_eq!(us.look(Some(&held_by("them", tick as i32)), now), Look::Wait);
        }
    }

    #[test]
    fn a_lease_that_stands_still_for_its_duration_is_taken() {
        let (mut us, start) = (Candidate::new("us".into()), Instant::now());
        let found = held_by("them", 1);
        assert_eq!(us.look(Some(&found), start), Look::Wait);
        assert_eq!(us.look(Some(&found), start + Duration::from_secs(14)), Look::Wait);
        assert_eq!(us.look(Some(&found), start + Duration::from_secs(15)), Look::Write);
        let taken = us.claim(Some(&found));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("us"), Some(2)));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let mut us = Candidate::new("us".into());
        assert_eq!(us.look(Some(&held_by("", 3)), Instant::now()), Look::Write);
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_before_others_may_take_the_lease() {
        let (mut us, start) = (Candidate::new("us".into()), Instant::now());
        us.wrote(start, written()).unwrap();
        assert!(us.holds(start + Duration::from_secs(9)));
        assert!(!us.holds(start + Duration::from_secs(10)));
    }

    #[test]
    fn a_holder_that_sees_another_in_its_place_stops_at_once() {
        let (mut us, start) = (Candidate::new("us".into()), Instant::now());
        us.wrote(start, written()).unwrap();
        assert_eq!(us.look(Some(&held_by("them", 9)), start), Look::Wait);
        assert!(!us.holds(start));
    }

    #[test]
    fn of_two_who_write_at_once_the_loser_is_not_elected() {
        let (mut us, start) = (Candidate::new("us".into()), Instant::now());
        us.wrote(start, written()).unwrap();
        let status = kube::core::Status { code: 409, reason: "Conflict".into(), ..kube::core::Status::default() };
        us.wrote(start, Err(kube::Error::Api(Box::new(status)))).unwrap();
        assert!(!us.holds(start));
    }
}
