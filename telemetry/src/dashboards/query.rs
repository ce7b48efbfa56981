//! PromQL, made from the tables.

use super::Variable;
use crate::proxy::{CONTROL_PLANE_CONNECTED, REQUEST_DURATION, REQUESTS};
use crate::{Family, Kind};

/// Responses that are failures of the called: a caller's own mistakes and refused callers are not.
const FAILED: &str = "5xx|error";

/// Series that match.
pub(super) fn select(family: Family, matchers: &str) -> String {
    let suffix = match family.kind {
        Kind::Counter => "_total",
        Kind::Histogram => "_bucket",
        Kind::Info => "_info",
        Kind::Gauge => "",
    };
    format!("{}{suffix}{{{matchers}}}", family.name)
}

/// Growth per second, summed by labels.
pub(super) fn rate(by: &str, family: Family, matchers: &str) -> String {
    sum(by, &format!("rate({}[$__rate_interval])", select(family, matchers)))
}

/// A gauge, summed by labels.
pub(super) fn gauge(by: &str, family: Family, matchers: &str) -> String {
    sum(by, &select(family, matchers))
}

/// The share of requests that did not fail.
pub(super) fn success(by: &str, matchers: &str) -> String {
    let failed = rate(by, REQUESTS, &format!("response_class=~\"{FAILED}\",{matchers}"));
    let all = rate(by, REQUESTS, matchers);
    // Where none failed there is no series of failures.
    format!("1 - (({failed}) or ({all}) * 0) / (({all}) > 0)")
}

/// A quantile of the requests' durations.
pub(super) fn latency(quantile: &str, by: &str, matchers: &str) -> String {
    quantile_of(quantile, by, REQUEST_DURATION, matchers)
}

/// A quantile of a histogram; nothing, and not NaN, where nothing was observed.
pub(super) fn quantile_of(quantile: &str, by: &str, family: Family, matchers: &str) -> String {
    let by = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
    format!("histogram_quantile({quantile}, {}) >= 0", rate(&by, family, matchers))
}

/// The same, and 0 where nothing of the kind has ever happened.
pub(super) fn or_zero(expression: String) -> String {
    format!("{expression} or vector(0)")
}

fn sum(by: &str, what: &str) -> String {
    if by.is_empty() { format!("sum({what})") } else { format!("sum by ({by}) ({what})") }
}

/// Namespaces that have sidecars.
pub(super) fn namespace() -> Variable {
    let metric = select(CONTROL_PLANE_CONNECTED, "");
    Variable { name: "namespace", label: "Namespace", metric, values_of: "namespace" }
}

/// Workloads of the namespaces chosen.
pub(super) fn workload() -> Variable {
    let metric = select(CONTROL_PLANE_CONNECTED, "namespace=~\"$namespace\"");
    Variable { name: "workload", label: "Workload", metric, values_of: "workload" }
}

/// Services that are called.
pub(super) fn service() -> Variable {
    let metric = select(REQUESTS, "direction=\"outbound\"");
    Variable { name: "service", label: "Service", metric, values_of: "destination_service" }
}

/// The metrics that PromQL asks for, each with the labels it names in braces.
#[cfg(test)]
pub(super) fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(brace) = rest.find('{') {
        let before = &rest[..brace];
        let start = before.rfind(|c| !is_name(c)).map_or(0, |at| at + 1);
        let (matchers, after) = rest[brace + 1..].split_once('}').unwrap();
        // Values hold no quotes; what is left of every second one are names.
        let outside = matchers.split('"').step_by(2);
        let labels = outside.map(|part| part.trim_matches(|c| !is_name(c)).to_owned()).filter(|name| !name.is_empty());
        found.push((before[start..].to_owned(), labels.collect()));
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::BYTES;

    #[test]
    fn promql_is_written_as_people_do() {
        assert_eq!(rate("way", BYTES, "a=\"b\""), "sum by (way) (rate(weft_bytes_total{a=\"b\"}[$__rate_interval]))");
        assert_eq!(
            latency("0.5", "route", ""),
            "histogram_quantile(0.5, sum by (le, route) (rate(weft_request_duration_seconds_bucket{}[$__rate_interval]))) >= 0"
        );
    }

    #[test]
    fn selectors_are_found() {
        assert_eq!(
            selectors("sum(rate(weft_a_total{x=\"1,2\",y=~\"$z\"}[1m])) / weft_b{}"),
            [("weft_a_total".to_owned(), vec!["x".to_owned(), "y".to_owned()]), ("weft_b".to_owned(), vec![])]
        );
    }
}
