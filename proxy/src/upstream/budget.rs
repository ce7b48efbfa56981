//! Retry budgets (`envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget`).

use weft_xds::FieldError;
use weft_xds::envoy::config::cluster::v3::circuit_breakers::thresholds;

/// How many retries may be under way, as a share of the requests under way.
///
/// A budget keeps a failing cluster from being hit by several times its load, which any fixed number of retries per request does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    percent: f32,
    min_concurrency: u32,
}

impl RetryBudget {
    /// `percent` of the requests under way, but at least `min_concurrency`.
    pub fn new(percent: f32, min_concurrency: u32) -> Self {
        Self { percent: percent.clamp(0.0, 100.0), min_concurrency }
    }

    /// Compiles the message: 20 % and 3 where unset.
    ///
    /// # Errors
    /// For a percentage outside 0 to 100, and for `budget_interval`.
    pub fn compile(message: &thresholds::RetryBudget, path: &str) -> Result<Self, FieldError> {
        let percent = message.budget_percent.as_ref().map_or(20.0, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            return Err(FieldError::invalid(
                format!("{path}.budget_percent"),
                percent,
                "is not a percentage",
                "give 0 to 100",
            ));
        }
        if message.budget_interval.is_some() {
            return Err(FieldError::new(
                format!("{path}.budget_interval"),
                "not supported; leave it unset to count requests under way",
            ));
        }
        #[allow(clippy::cast_possible_truncation)] // a percentage needs no more than 24 bits
        Ok(Self::new(percent as f32, message.min_retry_concurrency.as_ref().map_or(3, |least| least.value)))
    }

    /// How many retries may be under way beside so many requests.
    pub fn retries_allowed(self, requests: u32) -> u32 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and `requests`
        let share = (f64::from(requests) * f64::from(self.percent) / 100.0) as u32;
        share.max(self.min_concurrency)
    }

    /// Both numbers in one atomic's worth of bits; never `u64::MAX`, since no percentage is a NaN.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.percent.to_bits()) << 32 | u64::from(self.min_concurrency)
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves of to_bits
    pub(super) fn from_bits(bits: u64) -> Self {
        Self { percent: f32::from_bits((bits >> 32) as u32), min_concurrency: bits as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_packing() {
        for budget in [RetryBudget::new(0.0, 0), RetryBudget::new(12.5, 7), RetryBudget::new(100.0, u32::MAX)] {
            assert_eq!(RetryBudget::from_bits(budget.to_bits()), budget);
            assert_ne!(budget.to_bits(), u64::MAX);
        }
    }

    #[test]
    fn an_unset_budget_is_a_fifth_of_the_requests_and_at_least_three() {
        let budget = RetryBudget::compile(&thresholds::RetryBudget::default(), "b").unwrap();
        assert_eq!(budget.retries_allowed(0), 3);
        assert_eq!(budget.retries_allowed(1000), 200);
    }
}
