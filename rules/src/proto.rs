//! Shorthand for the Envoy messages this crate compiles, and the conversions all of them need.

use std::time::Duration;

use weft_xds::FieldError;
pub(crate) use weft_xds::envoy::{
    config::{core::v3 as core, rbac::v3 as rbac, route::v3 as route},
    extensions::filters::{
        common::fault::v3 as common_fault, http::fault::v3 as http_fault, http::rbac::v3 as http_rbac,
        network::rbac::v3 as network_rbac,
    },
    r#type::{matcher::v3 as matcher, v3 as kind},
};
pub(crate) use weft_xds::google::protobuf;

/// An error that names the field and the reason, and says how to get rid of it.
pub(crate) fn refuse(path: &str, problem: impl Into<String>) -> FieldError {
    FieldError::new(path, problem)
}

/// Refuses a field that is set although this proxy does not implement it.
pub(crate) fn unsupported(set: bool, path: &str, field: &str) -> Result<(), FieldError> {
    if !set {
        return Ok(());
    }
    Err(refuse(&format!("{path}.{field}"), "not supported; leave it unset"))
}

/// A protobuf duration as ours. Negative values and nanoseconds out of range are refused, as Envoy does.
pub(crate) fn duration(value: &protobuf::Duration, path: &str) -> Result<Duration, FieldError> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(refuse(
            path,
            format!("{}s {}ns is not a duration; give 0 s or more, with 0 to 999999999 ns", value.seconds, value.nanos),
        )),
    }
}

/// [`duration`] of a field that may be unset.
pub(crate) fn optional_duration(
    value: Option<&protobuf::Duration>,
    path: &str,
) -> Result<Option<Duration>, FieldError> {
    value.map(|value| duration(value, path)).transpose()
}

/// A share of all requests, decided by an injected random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    pub(crate) fn compile(value: &kind::FractionalPercent, path: &str) -> Result<Self, FieldError> {
        use kind::fractional_percent::DenominatorType;
        let denominator = match DenominatorType::try_from(value.denominator) {
            Ok(DenominatorType::Hundred) => 100,
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Err(_) => {
                return Err(refuse(&format!("{path}.denominator"), format!("unknown value {}", value.denominator)));
            }
        };
        Ok(Self { numerator: value.numerator, denominator })
    }

    /// Whether the request that drew `random` belongs to the share. At least the whole denominator means always.
    pub(crate) fn hits(self, random: u32) -> bool {
        random % self.denominator < self.numerator
    }

    /// The share lowered to at most `percent`, as the fault filter's percentage headers may do.
    pub(crate) fn capped_at(self, numerator: u32) -> Self {
        Self { numerator: self.numerator.min(numerator), ..self }
    }
}
