//! `weft demo --once`: seven steps, each observed from the outside while load runs, each with a counter-proof.

mod intruder;
mod mutual_tls;
mod outage;
mod resilience;
mod rollout;
mod rotation;
mod split;

use std::time::{Duration, Instant};

use super::report::{Findings, StepReport};
use super::shop::Shop;

/// How long certificates live while the story is told, until the outage: so short that they are rotated all the time.
pub(crate) const CERTIFICATES: Duration = Duration::from_secs(20);

/// Requests per second to every service, and to a service under disturbance.
const RATE: f64 = 120.0;

/// The least rate that counts as load during a disturbance, in requests per second.
const LEAST_RATE: f64 = 100.0;

/// The longest that an edit may take to show.
const EDIT_LIMIT: Duration = Duration::from_secs(10);

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

/// The steps' names, for the command line.
pub(crate) fn names() -> Vec<&'static str> {
    STEPS.iter().map(|(name, _)| *name).collect()
}

/// Tells the steps chosen, or all if none is; a step that breaks off does not keep the others from being told.
pub(crate) async fn tell(shop: &Shop, chosen: &[String], show: impl Fn(&StepReport)) -> Vec<StepReport> {
    let watch = rotation::Watch::begin(shop);
    let mut reports = Vec::new();
    let wanted = STEPS.iter().filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name));
    for (name, title) in wanted {
        eprintln!("… {title}");
        let began = Instant::now();
        let mut findings = Findings::default();
        let outcome = match *name {
            "mutual-tls" => mutual_tls::tell(shop, &mut findings).await,
            "split" => split::tell(shop, &mut findings).await,
            "resilience" => resilience::tell(shop, &mut findings).await,
            "intruder" => intruder::tell(shop, &mut findings).await,
            "rotation" => rotation::tell(shop, &watch, &mut findings).await,
            "outage" => outage::tell(shop, &mut findings).await,
            _ => rollout::tell(shop, &mut findings).await,
        };
        let report = findings.conclude(name, title, outcome, began.elapsed());
        show(&report);
        reports.push(report);
        if let Err(error) = settle(shop).await {
            eprintln!("cannot prepare the next step: {error:#}");
        }
    }
    reports
}

/// Undoes what a step may have left: load, faults and edits.
async fn settle(shop: &Shop) -> anyhow::Result<()> {
    for load in [&shop.everything, &shop.reviews, &shop.catalog] {
        load.rate(0.0).await?;
    }
    for pod in shop.pods() {
        if pod.workload.role != "loadgen" {
            pod.recover().await?;
        }
    }
    let control_plane = shop.control_plane();
    for (file, _) in super::folder::SAMPLES {
        control_plane.folder().restore(file)?;
    }
    control_plane.in_step().await
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
