//! What is computed from sidecars' statistics.

use std::collections::BTreeMap;

use weft_local_mesh::Samples;

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
    fn a_quantile_lies_inside_its_bucket() {
        let buckets = BTreeMap::from([(Bound(0.1), 50.0), (Bound(0.2), 100.0), (Bound(f64::INFINITY), 100.0)]);
        assert_eq!(quantile(0.5, &buckets), Some(0.1));
        assert!((quantile(0.75, &buckets).unwrap() - 0.15).abs() < 1e-9);
        assert_eq!(quantile(0.5, &BTreeMap::from([(Bound(1.0), 0.0)])), None);
        let slow = BTreeMap::from([(Bound(0.1), 0.0), (Bound(f64::INFINITY), 9.0)]);
        assert_eq!(quantile(0.5, &slow), Some(0.1), "beyond the last bound, the last bound");
    }
}
