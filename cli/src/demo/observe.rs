//! What sidecars and control plane say about themselves: Prometheus text, parsed and compared.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::Method;

use super::client;

/// The port on which a sidecar serves its statistics, on all of the pod's addresses.
const STATISTICS: u16 = 15020;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Sample>);

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Sample {
    /// A label's value; empty if absent.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}

impl Samples {
    /// Reads the text exposition format. Lines that are none are skipped.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect())
    }

    /// Scrapes the sidecar of a pod.
    pub(crate) async fn of_sidecar(pod: &weft_sandbox::Pod) -> anyhow::Result<Self> {
        let address = SocketAddr::new(pod.v4(), STATISTICS);
        Ok(Self::parse(&client::tcp(address, Method::GET, "/stats/prometheus").await?.text()?))
    }

    /// All samples of a metric.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of a metric's samples whose labels have these values.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name)
            .filter(|sample| labels.iter().all(|(label, value)| sample.label(label) == *value))
            .map(|sample| sample.value)
            .sum()
    }
}

/// Retries of a sidecar's requests to one service between two scrapes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    /// Made, whatever came of them.
    pub(crate) made: f64,
    /// Not made because the budget was used up.
    pub(crate) over_budget: f64,
}

impl Retries {
    pub(crate) fn between(before: &Samples, after: &Samples, service: &str) -> Self {
        let counted = |outcome| {
            let labels = [("destination_service", service), ("outcome", outcome)];
            let name = "weft_request_retries_total";
            after.sum(name, &labels) - before.sum(name, &labels)
        };
        Self { made: counted("success") + counted("failure"), over_budget: counted("over_budget") }
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let (name, rest) = match line.find(['{', ' ']) {
        Some(end) => line.split_at(end),
        None => return None,
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(inside) = rest.strip_prefix('{') {
        let mut left = inside;
        loop {
            left = left.trim_start_matches([',', ' ']);
            if let Some(after) = left.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = left.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            left = after;
        }
    }
    // A time stamp may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// A quantile of a histogram given as cumulative counts by upper bound, linear within a bucket as Prometheus has
/// it; none without observations.
pub(crate) fn quantile(quantile: f64, buckets: &BTreeMap<Bound, f64>) -> Option<f64> {
    let total = *buckets.values().next_back()?;
    if total <= 0.0 {
        return None;
    }
    let rank = quantile * total;
    let mut lower = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.0.is_infinite() {
                return Some(lower.0);
            }
            let share = (rank - lower.1) / (count - lower.1).max(f64::MIN_POSITIVE);
            return Some(lower.0 + (bound.0 - lower.0) * share.clamp(0.0, 1.0));
        }
        lower = (bound.0, *count);
    }
    Some(lower.0)
}

/// A bucket's upper bound, ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound(pub(crate) f64);

impl Eq for Bound {}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_values_and_escapes() {
        let samples = Samples::parse(
            "# TYPE weft_requests counter\n\
             weft_requests_total{direction=\"outbound\",peer=\"a\\\"b\"} 3\n\
             weft_requests_total{direction=\"inbound\",peer=\"\"} 4 1700000000\n\
             weft_up 1\n\
             nonsense\n",
        );
        assert_eq!(samples.sum("weft_requests_total", &[]), 7.0);
        assert_eq!(samples.sum("weft_requests_total", &[("direction", "inbound")]), 4.0);
        assert_eq!(samples.of("weft_requests_total").next().unwrap().label("peer"), "a\"b");
        assert_eq!(samples.sum("weft_up", &[]), 1.0);
    }

    #[test]
    fn a_quantile_lies_inside_its_bucket() {
        let buckets = BTreeMap::from([(Bound(0.1), 50.0), (Bound(0.2), 100.0), (Bound(f64::INFINITY), 100.0)]);
        assert_eq!(quantile(0.5, &buckets), Some(0.1));
        assert!((quantile(0.75, &buckets).unwrap() - 0.15).abs() < 1e-9);
        assert_eq!(quantile(0.5, &BTreeMap::from([(Bound(1.0), 0.0)])), None);
        let slow = BTreeMap::from([(Bound(0.1), 0.0), (Bound(f64::INFINITY), 9.0)]);
        assert_eq!(quantile(0.5, &slow), Some(0.1), "beyond the last bound, the last bound");
    }
}
