//! What Weft promises beside its peers, and whether it was kept.
//!
//! Compared are ratios within a round, and then their median: what disturbs a round mostly disturbs both.

use std::fmt::Write as _;

use super::report::{Figure, Report, Round};
use crate::summary::Summary;

/// Weft's figure divided by a peer's is at most this.
struct Promise {
    what: &'static str,
    figure: Figure,
    inside: &'static str,
    peer: &'static str,
    at_most: f64,
}

const fn promise(
    what: &'static str,
    figure: Figure,
    inside: &'static str,
    peer: &'static str,
    at_most: f64,
) -> Promise {
    Promise { what, figure, inside, peer, at_most }
}

const AT_RATE: (&str, Figure) = ("CPU per request at the fixed rate", |round: &Round| round.rate_cpu_us);
const SATURATED: (&str, Figure) = ("CPU per request, saturated", |round: &Round| round.saturated_cpu_us);
const P99: (&str, Figure) = ("p99 at the fixed rate", |round: &Round| round.p99_ms);
const MEMORY: (&str, Figure) = ("memory (RSS)", |round: &Round| round.resident_mib);

const PROMISES: [Promise; 12] = [
    promise(AT_RATE.0, AT_RATE.1, "h1", "haproxy", 1.0),
    promise(AT_RATE.0, AT_RATE.1, "h2", "haproxy", 1.0),
    promise(SATURATED.0, SATURATED.1, "h1", "haproxy", 1.0),
    promise(SATURATED.0, SATURATED.1, "h2", "haproxy", 1.5),
    promise(P99.0, P99.1, "h1", "haproxy", 1.1),
    promise(P99.0, P99.1, "h2", "haproxy", 1.1),
    promise(AT_RATE.0, AT_RATE.1, "h1", "envoy", 0.5),
    promise(AT_RATE.0, AT_RATE.1, "h2", "envoy", 0.5),
    promise(SATURATED.0, SATURATED.1, "h1", "envoy", 0.5),
    promise(SATURATED.0, SATURATED.1, "h2", "envoy", 0.5),
    promise(MEMORY.0, MEMORY.1, "h1", "envoy", 0.2),
    promise(MEMORY.0, MEMORY.1, "h2", "envoy", 0.2),
];

/// A row for each promise whose peer was measured; empty where there is none.
pub(super) fn table(report: &Report) -> String {
    let mut rows = String::new();
    for Promise { what, figure, inside, peer, at_most } in &PROMISES {
        let measured = |program: &str| report.of(&format!("{program} {inside}"));
        let (Some(weft), Some(other)) = (measured("weft"), measured(peer)) else { continue };
        let ratios: Vec<_> =
            weft.rounds.iter().zip(&other.rounds).map(|(weft, other)| figure(weft) / figure(other)).collect();
        let Some(Summary { min, p50, max, .. }) = Summary::of(&ratios) else { continue };
        let verdict = if p50 <= *at_most { "kept" } else { "**missed**" };
        let _ = writeln!(
            rows,
            "| {what}, {inside} inside | {peer} | {p50:.2} ({min:.2}–{max:.2}) | {at_most} | {verdict} |"
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "| Weft's | divided by that of | median ratio within a round | wanted at most | |\n|---|---|---|---|---|\n{rows}"
    )
}
