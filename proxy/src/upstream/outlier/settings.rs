//! The message's fields, with Envoy's defaults.

use std::time::Duration;

use weft_xds::FieldError;
use weft_xds::envoy::config::cluster::v3::OutlierDetection;
use weft_xds::google::protobuf::UInt32Value;

use crate::upstream::fields::optional_duration;

/// Compiled outlier detection. Shares are in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierSettings {
    /// Length of a counting window.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// The longest ejection.
    pub max_ejection_time: Duration,
    /// Up to this much is added to each ejection.
    pub max_jitter: Duration,
    /// How many may be out at once; one at least, unless 0.
    pub max_ejection_percent: u32,
    /// One may be out even if the share is 0.
    pub always_eject_one: bool,
    /// Failures seen on this side are counted apart from what endpoints answer.
    pub split_local_origin: bool,
    /// Run of 5xx that ejects.
    pub consecutive_5xx: u32,
    /// How often such a run is enforced.
    pub enforcing_5xx: u32,
    /// Run of 502, 503 and 504 that ejects.
    pub consecutive_gateway: u32,
    /// How often such a run is enforced.
    pub enforcing_gateway: u32,
    /// Run of failures seen on this side that ejects, where they are counted apart.
    pub consecutive_local: u32,
    /// How often such a run is enforced.
    pub enforcing_local: u32,
    /// Endpoints with enough attempts before success rates are compared.
    pub success_rate_hosts: u32,
    /// Attempts in a window that are enough for that.
    pub success_rate_volume: u32,
    /// Thousandths of a standard deviation below the mean that eject.
    pub success_rate_stdev_factor: u32,
    /// How often that is enforced.
    pub enforcing_success_rate: u32,
    /// The same for failures seen on this side.
    pub enforcing_local_success_rate: u32,
    /// Share of failed attempts that ejects.
    pub failure_percentage_threshold: u32,
    /// Endpoints with enough attempts before it is applied.
    pub failure_percentage_hosts: u32,
    /// Attempts in a window that are enough for that.
    pub failure_percentage_volume: u32,
    /// How often that is enforced.
    pub enforcing_failure_percentage: u32,
    /// The same for failures seen on this side.
    pub enforcing_local_failure_percentage: u32,
}

impl OutlierSettings {
    /// Compiles the message.
    ///
    /// # Errors
    /// For percentages above 100 and malformed durations.
    pub fn compile(message: &OutlierDetection, path: &str) -> Result<Self, FieldError> {
        const DEFAULT_MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
        if !message.monitors.is_empty() {
            return Err(FieldError::new(format!("{path}.monitors"), "not supported; leave it unset"));
        }
        let number = |value: &Option<UInt32Value>, default| value.as_ref().map_or(default, |value| value.value);
        let percent = |value: &Option<UInt32Value>, default, field: &str| match number(value, default) {
            percent @ 0..=100 => Ok(percent),
            percent => {
                Err(FieldError::invalid(format!("{path}.{field}"), percent, "is not a percentage", "give 0 to 100"))
            }
        };
        let duration = |value, field: &str, default| {
            optional_duration(value, &format!("{path}.{field}")).map(|value| value.unwrap_or(default))
        };
        let interval = duration(message.interval.as_ref(), "interval", Duration::from_secs(10))?;
        if interval.is_zero() {
            return Err(FieldError::invalid(
                format!("{path}.interval"),
                "0s",
                "is no interval",
                "give a duration above zero",
            ));
        }
        let base_ejection_time =
            duration(message.base_ejection_time.as_ref(), "base_ejection_time", Duration::from_secs(30))?;
        let max_ejection_time =
            duration(message.max_ejection_time.as_ref(), "max_ejection_time", DEFAULT_MAX_EJECTION_TIME)?;
        Ok(Self {
            interval,
            base_ejection_time,
            max_ejection_time: max_ejection_time.max(base_ejection_time),
            max_jitter: duration(
                message.max_ejection_time_jitter.as_ref(),
                "max_ejection_time_jitter",
                Duration::ZERO,
            )?,
            max_ejection_percent: percent(&message.max_ejection_percent, 10, "max_ejection_percent")?,
            always_eject_one: message.always_eject_one_host.as_ref().is_some_and(|always| always.value),
            split_local_origin: message.split_external_local_origin_errors,
            consecutive_5xx: number(&message.consecutive_5xx, 5),
            enforcing_5xx: percent(&message.enforcing_consecutive_5xx, 100, "enforcing_consecutive_5xx")?,
            consecutive_gateway: number(&message.consecutive_gateway_failure, 5),
            enforcing_gateway: percent(
                &message.enforcing_consecutive_gateway_failure,
                0,
                "enforcing_consecutive_gateway_failure",
            )?,
            consecutive_local: number(&message.consecutive_local_origin_failure, 5),
            enforcing_local: percent(
                &message.enforcing_consecutive_local_origin_failure,
                100,
                "enforcing_consecutive_local_origin_failure",
            )?,
            success_rate_hosts: number(&message.success_rate_minimum_hosts, 5),
            success_rate_volume: number(&message.success_rate_request_volume, 100),
            success_rate_stdev_factor: number(&message.success_rate_stdev_factor, 1900),
            enforcing_success_rate: percent(&message.enforcing_success_rate, 100, "enforcing_success_rate")?,
            enforcing_local_success_rate: percent(
                &message.enforcing_local_origin_success_rate,
                100,
                "enforcing_local_origin_success_rate",
            )?,
            failure_percentage_threshold: percent(
                &message.failure_percentage_threshold,
                85,
                "failure_percentage_threshold",
            )?,
            failure_percentage_hosts: number(&message.failure_percentage_minimum_hosts, 5),
            failure_percentage_volume: number(&message.failure_percentage_request_volume, 50),
            enforcing_failure_percentage: percent(
                &message.enforcing_failure_percentage,
                0,
                "enforcing_failure_percentage",
            )?,
            enforcing_local_failure_percentage: percent(
                &message.enforcing_failure_percentage_local_origin,
                0,
                "enforcing_failure_percentage_local_origin",
            )?,
        })
    }
}
