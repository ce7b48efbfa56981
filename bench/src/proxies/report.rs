//! What was measured: kept as JSON, shown as a table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::verdict;
use crate::summary::Summary;

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    /// What the programs call themselves.
    pub(super) versions: Vec<String>,
    pub(super) settings: Settings,
    pub(super) measurements: Vec<Measurement>,
}

/// What load was made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) rate: f64,
    pub(super) connections: usize,
    pub(super) rate_seconds: f64,
    pub(super) saturated_seconds: f64,
}

/// One pair's rounds, in their order: rounds of the same number were made within a minute.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measurement {
    pub(super) pair: String,
    pub(super) rounds: Vec<Round>,
}

/// One round. Costs are of both proxies together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Round {
    /// Latency at the fixed rate.
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    /// Processor time per request at the fixed rate.
    pub(super) rate_cpu_us: f64,
    /// The same of as much as goes.
    pub(super) saturated_cpu_us: f64,
    pub(super) saturated_per_second: f64,
    /// What the load itself took per request then.
    pub(super) load_cpu_us: f64,
    /// Memory after that.
    pub(super) resident_mib: f64,
    /// The part of it that is no file's.
    pub(super) anonymous_mib: f64,
}

/// A figure of a round.
pub(super) type Figure = fn(&Round) -> f64;

impl Measurement {
    /// A figure's median and extremes over the rounds.
    pub(super) fn over_rounds(&self, figure: Figure) -> Option<Summary> {
        Summary::of(&self.rounds.iter().map(figure).collect::<Vec<_>>())
    }
}

impl Report {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} was not kept by weft-bench", file.display()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    pub(super) fn of(&self, pair: &str) -> Option<&Measurement> {
        self.measurements.iter().find(|measurement| measurement.pair == pair)
    }

    /// The table, what was measured where, and how it compares to what Weft promises.
    pub(super) fn markdown(&self) -> String {
        let Settings { rate, connections, .. } = self.settings;
        let rounds = self.measurements.first().map_or(0, |first| first.rounds.len());
        let mut text = format!(
            "| pair | p50 ms | p90 ms | p99 ms | CPU µs per request at {rate}/s | CPU µs per request saturated | requests/s saturated | RSS MiB | \
             of it anonymous |\n|---|---|---|---|---|---|---|---|---|\n"
        );
        for measurement in &self.measurements {
            let cell = |figure: Figure, digits: usize| match measurement.over_rounds(figure) {
                Some(Summary { min, p50, max, .. }) if max > 0.0 => {
                    format!("**{p50:.digits$}** ({min:.digits$}–{max:.digits$})")
                }
                _ => "–".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                measurement.pair,
                cell(|round| round.p50_ms, 2),
                cell(|round| round.p90_ms, 2),
                cell(|round| round.p99_ms, 2),
                cell(|round| round.rate_cpu_us, 0),
                cell(|round| round.saturated_cpu_us, 1),
                cell(|round| round.saturated_per_second, 0),
                cell(|round| round.resident_mib, 1),
                cell(|round| round.anonymous_mib, 1),
            );
        }
        let Machine { processor, cores, memory_gib, kernel, load_before } = &self.machine;
        let load = self.measurements.iter().filter_map(|of| of.over_rounds(|round| round.load_cpu_us));
        let load = Summary::of(&load.map(|load| load.p50).collect::<Vec<_>>()).map_or(0.0, |load| load.p50);
        let _ = write!(
            text,
            "\nMedians of {rounds} rounds, with the least and the greatest in parentheses, over {connections} connections; `direct` is the \
             application without proxies. The load itself took {load:.0} µs per request when saturated. Machine: {cores} × {processor}, \
             {memory_gib:.0} GiB, Linux {kernel}, shared by the pair, nginx and the load; load average before: {load_before:.2}. {}.\n",
            self.versions.join("; ")
        );
        let verdicts = verdict::table(self);
        if !verdicts.is_empty() {
            let _ = write!(text, "\n{verdicts}");
        }
        text
    }
}

const BEGIN: &str = "<!-- made by `make bench`: begin -->\n";
const END: &str = "<!-- made by `make bench`: end -->\n";

/// Puts a text between a page's marks.
pub(super) fn replace(page: &Path, text: &str) -> Result<()> {
    let whole = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let parts = whole.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        bail!("{} has no lines `{}` and `{}`", page.display(), BEGIN.trim(), END.trim())
    };
    let whole = format!("{before}{BEGIN}{text}{END}{after}");
    fs::write(page, whole).with_context(|| format!("writing {}", page.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proxies::plot;

    #[test]
    fn the_page_shows_what_was_measured() {
        let docs = Path::new("../docs");
        let report = Report::read(&docs.join("performance/proxies.json")).unwrap();
        let page = fs::read_to_string(docs.join("performance.md")).unwrap();
        let shown = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).unwrap().0;
        let how = "run weft-bench proxies --from docs/performance/proxies.json --keep docs/performance --page docs/performance.md";
        assert_eq!(shown, report.markdown(), "{how}");
        assert_eq!(fs::read_to_string(docs.join("performance/proxies.svg")).unwrap(), plot::svg(&report), "{how}");
    }
}
