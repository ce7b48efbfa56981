//! What the story found: for each step what was measured, and what shows that the measurement can fail.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One observation.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// Whether it is as it must be.
    pub(crate) ok: bool,
    /// Whether it tells only how fast this machine was.
    pub(crate) pace: bool,
    /// What was looked at.
    pub(crate) what: String,
    /// What was seen, with its figures.
    pub(crate) seen: String,
}

/// One step of the story.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StepReport {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// True if every finding is as it must be, there is a measurement and a counter-proof, and nothing broke off.
    pub(crate) ok: bool,
    pub(crate) measured: Vec<Finding>,
    /// The same measurement where it has to come out otherwise.
    pub(crate) counter_proofs: Vec<Finding>,
    /// Why the step could not be finished.
    pub(crate) error: Option<String>,
    pub(crate) seconds: f64,
}

/// The findings of a step under way.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    measured: Vec<Finding>,
    counter_proofs: Vec<Finding>,
}

impl Findings {
    /// Notes what was measured.
    pub(crate) fn measured(&mut self, ok: bool, what: impl Into<String>, seen: impl Into<String>) {
        self.measured.push(Finding { ok, pace: false, what: what.into(), seen: seen.into() });
    }

    /// Notes a rate or a time, which a slow machine may miss without anything being wrong.
    pub(crate) fn pace(&mut self, ok: bool, what: impl Into<String>, seen: impl Into<String>) {
        self.measured.push(Finding { ok, pace: true, what: what.into(), seen: seen.into() });
    }

    /// Notes what shows that the measurement can fail.
    pub(crate) fn counter_proof(&mut self, ok: bool, what: impl Into<String>, seen: impl Into<String>) {
        self.counter_proofs.push(Finding { ok, pace: false, what: what.into(), seen: seen.into() });
    }

    /// Ends the step.
    pub(crate) fn conclude(
        self,
        name: &'static str,
        title: &'static str,
        outcome: anyhow::Result<()>,
        took: Duration,
    ) -> StepReport {
        let Self { measured, counter_proofs } = self;
        let error = outcome.err().map(|error| format!("{error:#}"));
        let proven = !measured.is_empty() && !counter_proofs.is_empty();
        let ok = error.is_none() && proven && measured.iter().chain(&counter_proofs).all(|finding| finding.ok);
        StepReport { name, title, ok, measured, counter_proofs, error, seconds: took.as_secs_f64() }
    }
}

/// The whole story.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    /// From the start of the command to the first request served.
    pub(crate) up_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) steps: Vec<StepReport>,
}

impl Report {
    pub(crate) fn new(steps: Vec<StepReport>, up: Duration, took: Duration) -> Self {
        let ok = !steps.is_empty() && steps.iter().all(|step| step.ok);
        Self { ok, up_seconds: up.as_secs_f64(), seconds: took.as_secs_f64(), steps }
    }

    /// The verdict in one line.
    pub(crate) fn summary(&self) -> String {
        let good = self.steps.iter().filter(|step| step.ok).count();
        format!("{good} of {} steps observed in {:.0} s", self.steps.len(), self.seconds)
    }
}

impl fmt::Display for StepReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok  " } else { "FAIL" };
        writeln!(formatter, "{verdict} {} ({:.1} s)", self.title, self.seconds)?;
        for (kind, findings) in [("measured", &self.measured), ("counter-proof", &self.counter_proofs)] {
            for finding in findings {
                let sign = if finding.ok { "✓" } else { "✗" };
                writeln!(formatter, "     {sign} {kind}: {}: {}", finding.what, finding.seen)?;
            }
        }
        if let Some(error) = &self.error {
            writeln!(formatter, "     ✗ broke off: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(findings: Findings, outcome: anyhow::Result<()>) -> StepReport {
        findings.conclude("name", "title", outcome, Duration::from_secs(1))
    }

    #[test]
    fn a_step_without_a_counter_proof_is_not_observed() {
        let mut findings = Findings::default();
        findings.measured(true, "requests", "100 of 100");
        assert!(!step(findings, Ok(())).ok);
    }

    #[test]
    fn a_step_is_observed_when_measurement_and_counter_proof_hold() {
        let mut findings = Findings::default();
        findings.measured(true, "requests", "100 of 100");
        findings.counter_proof(true, "retries off", "3 failed");
        let step = step(findings, Ok(()));
        assert!(step.ok);
        let report = Report::new(vec![step], Duration::ZERO, Duration::ZERO);
        assert!(report.ok && report.summary().contains("1 of 1 steps observed"));
    }

    #[test]
    fn one_wrong_finding_or_an_error_fails_the_whole() {
        for (ok, outcome) in [(false, Ok(())), (true, Err(anyhow::anyhow!("no answer")))] {
            let mut findings = Findings::default();
            findings.measured(ok, "requests", "");
            findings.counter_proof(true, "", "");
            let report = Report::new(vec![step(findings, outcome)], Duration::ZERO, Duration::ZERO);
            assert!(!report.ok);
        }
    }
}
