//! `weft demo --once`: seven steps, each observed from the outside while load runs, each with a counter-proof.

mod intruder;
mod mutual_tls;
mod outage;
mod pace;
mod resilience;
mod rollout;
mod rotation;
mod split;

use std::time::{Duration, Instant};

use weft_local_mesh::{Counts, Settings};

pub(crate) use self::pace::Pace;
use super::folder;
use super::report::{Findings, StepReport};
use super::shop::Shop;

/// What is told about, and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Story<'a> {
    pub(crate) shop: &'a Shop,
    pub(crate) pace: Pace,
}

/// Requests per second to every service, and to a service under disturbance.
const RATE: f64 = 120.0;

/// The longest that anything waited for may take. How long it takes is told; a machine may be busy with something else.
const LIMIT: Duration = Duration::from_secs(60);

/// In the order told. Rotation comes before the outage: only long-lived certificates outlive a dead control plane.
const STEPS: [(&str, &str); 7] = [
    ("mutual-tls", "Every call is mutually authenticated and encrypted"),
    ("split", "Traffic is split by weight, and follows an edit"),
    ("resilience", "Retries hide a crashing replica, outlier detection removes a failing one"),
    ("intruder", "A caller without an identity is refused"),
    ("rotation", "Certificates and the root are rotated under load"),
    ("outage", "The mesh works while the control plane is dead"),
    ("rollout", "A rolling restart loses no request"),
];

/// How the shop's control plane runs until the outage: certificates live so short that they are rotated all the time, and a new root
/// is trusted only a little before it signs, as every sidecar hears of it within milliseconds.
pub(crate) fn settings(pace: Pace) -> Settings {
    Settings {
        certificate_lifetime: pace.patience(Duration::from_secs(20)),
        root_overlap: pace.patience(Duration::from_secs(6)),
    }
}

/// The steps' names, for the command line.
pub(crate) fn names() -> Vec<&'static str> {
    STEPS.iter().map(|(name, _)| *name).collect()
}

/// Tells the steps chosen, or all if none is; a step that breaks off does not keep the others from being told.
pub(crate) async fn tell(story: Story<'_>, chosen: &[String], show: impl Fn(&StepReport)) -> Vec<StepReport> {
    let watch = rotation::Watch::begin(story.shop);
    let mut reports = Vec::new();
    let wanted = STEPS.iter().filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name));
    for (name, title) in wanted {
        eprintln!("… {title}");
        let began = Instant::now();
        let mut findings = Findings::default();
        let outcome = match *name {
            "mutual-tls" => mutual_tls::tell(story, &mut findings).await,
            "split" => split::tell(story, &mut findings).await,
            "resilience" => resilience::tell(story, &mut findings).await,
            "intruder" => intruder::tell(story, &mut findings).await,
            "rotation" => rotation::tell(story, &watch, &mut findings).await,
            "outage" => outage::tell(story, &mut findings).await,
            _ => rollout::tell(story, &mut findings).await,
        };
        let report = findings.conclude(name, title, outcome, began.elapsed());
        show(&report);
        reports.push(report);
        if let Err(error) = settle(story.shop).await {
            eprintln!("cannot prepare the next step: {error:#}");
        }
    }
    reports
}

/// Undoes what a step may have left: load, faults and edits.
async fn settle(shop: &Shop) -> anyhow::Result<()> {
    for load in [&shop.everything, &shop.reviews, &shop.catalog] {
        load.set_rate(0.0).await?;
    }
    for pod in shop.pods() {
        if let Ok(app) = pod.app() {
            app.recover().await?;
        }
    }
    for (file, _) in folder::SAMPLES {
        folder::restore(shop.control_plane().folder(), file)?;
    }
    Ok(shop.mesh.in_force().await?)
}

/// Notes whether calls under a disturbance were as many a second as a load has to be.
fn is_load(pace: Pace, counts: &Counts, findings: &mut Findings) {
    findings.pace(pace.is_load(counts), "requests per second meanwhile", format!("{:.0}", counts.rate()));
}

/// How many failed, of how many, how fast, and how.
fn verdict(counts: &Counts) -> String {
    let Counts { failed, sent, largest_gap_ms, .. } = counts;
    let failures = if *failed == 0 { String::new() } else { format!(" ({})", counts.describe_failures()) };
    let rate = counts.rate();
    format!("{failed} of {sent} at {rate:.0}/s, longest gap between two successes {largest_gap_ms:.0} ms{failures}")
}

#[cfg(test)]
mod tests {
    use super::super::folder::{Replacement, edited};
    use super::*;

    #[test]
    fn every_edit_of_the_story_fits_the_samples_and_is_valid() {
        let edits: [(&str, &[Replacement]); 6] = [
            ("routes.yaml", &split::HALF),
            ("traffic.yaml", &[resilience::ROUND_ROBIN, resilience::OUTLIERS_OFF]),
            ("traffic.yaml", &[resilience::ROUND_ROBIN, resilience::OUTLIERS_OFF, resilience::RETRIES_OFF]),
            ("traffic.yaml", &[resilience::ROUND_ROBIN, resilience::RETRIES_OFF]),
            ("traffic.yaml", &rollout::RETRIES_OFF_EVERYWHERE),
            ("security.yaml", &intruder::PERMISSIVE),
        ];
        for (file, replacements) in edits {
            let manifest = weft_api::manifest::parse(file, &edited(file, replacements).unwrap());
            assert!(manifest.problems.is_empty(), "{file} {replacements:?}: {:#?}", manifest.problems);
        }
    }

    #[test]
    fn the_broken_edit_is_broken() {
        let text = edited("routes.yaml", &split::BROKEN).unwrap();
        let manifest = weft_api::manifest::parse("routes.yaml", &text);
        assert!(manifest.has_errors(), "{text}");
    }

    #[test]
    fn retries_are_off_for_both_services_that_are_rolled() {
        let text = edited("traffic.yaml", &rollout::RETRIES_OFF_EVERYWHERE).unwrap();
        assert_eq!(text.matches("attempts: 0").count(), rollout::RETRIES_OFF_EVERYWHERE.len());
    }
}
