//! The measurement as a picture: a panel for each figure, a bar for each pair, whiskers from the least to the greatest.

use std::fmt::Write as _;

use super::report::{Figure, Report};
use crate::summary::Summary;

const WIDTH: f64 = 960.0;
const PANEL: f64 = WIDTH / 2.0;
const LABELS: f64 = 90.0;
const VALUES: f64 = 60.0;
const ROW: f64 = 22.0;
const TITLE: f64 = 40.0;

/// The picture, as SVG.
pub(super) fn svg(report: &Report) -> String {
    let rate = report.settings.rate;
    let panels: [(String, Figure, usize); 4] = [
        (format!("CPU µs per request at {rate}/s"), |round| round.rate_cpu_us, 0),
        ("CPU µs per request, saturated".to_owned(), |round| round.saturated_cpu_us, 1),
        (format!("p99 latency at {rate}/s, ms"), |round| round.p99_ms, 2),
        ("resident memory of both, MiB".to_owned(), |round| round.resident_mib, 1),
    ];
    let height = TITLE + ROW * report.measurements.len() as f64 + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{total}\" fill=\"white\"/>\n",
        total = height * 2.0,
    );
    for (index, (title, figure, digits)) in panels.iter().enumerate() {
        let (left, top) = ((index % 2) as f64 * PANEL, (index / 2) as f64 * height);
        panel(&mut text, report, title, *figure, *digits, left, top);
    }
    text + "</svg>\n"
}

fn panel(text: &mut String, report: &Report, title: &str, figure: Figure, digits: usize, left: f64, top: f64) {
    let summaries: Vec<_> = report.measurements.iter().map(|of| (of.pair.as_str(), of.over_rounds(figure))).collect();
    // By medians: a single round that was disturbed may leave the picture.
    let widest = summaries.iter().filter_map(|(_, summary)| Some(summary.as_ref()?.p50)).fold(0.0, f64::max) * 1.25;
    let scale = (PANEL - LABELS - VALUES) / if widest > 0.0 { widest } else { 1.0 };
    let _ =
        writeln!(text, "<text x=\"{:.1}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>", left + 12.0, top + 24.0);
    for (row, (pair, summary)) in summaries.iter().enumerate() {
        let y = top + TITLE + row as f64 * ROW;
        let zero = left + LABELS;
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            zero - 6.0,
            y + 12.0,
            escaped(pair)
        );
        let Some(Summary { min, p50, max, .. }) = summary.as_ref().filter(|summary| summary.max > 0.0) else {
            continue;
        };
        let at = |value: f64| zero + value.min(widest) * scale;
        let middle = y + 8.0;
        let _ = writeln!(
            text,
            "<rect x=\"{zero:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{}\"/>\n\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#333\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{p50:.digits$}</text>",
            at(*p50) - zero,
            colour(pair),
            at(*min),
            at(*max),
            at(max.max(*p50)) + 6.0,
            y + 12.0,
        );
    }
}

fn colour(pair: &str) -> &'static str {
    match pair.split(' ').next() {
        Some("weft") => "#2a9d8f",
        Some("haproxy") => "#8ab0d9",
        Some("envoy") => "#c9a6d6",
        _ => "#c8c8c8",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_cannot_break_the_picture() {
        assert_eq!(escaped("<a> & b"), "&lt;a> &amp; b");
    }
}
