//! What many measurements come to.

use serde::Serialize;

/// Percentiles of a sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// Of a sample, which may not be empty.
    pub(crate) fn of(sample: &[f64]) -> Option<Self> {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank: a value that was measured, not one between two.
        let rank = |share: f64| {
            let at = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(at.saturating_sub(1)).copied()
        };
        Some(Self { min: *sorted.first()?, p50: rank(0.5)?, p90: rank(0.9)?, p99: rank(0.99)?, max: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let sample: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Summary::of(&sample), Some(Summary { min: 1.0, p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Summary::of(&[7.0]), Some(Summary { min: 7.0, p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(Summary::of(&[]), None);
    }
}
