//! `FaultPolicy`: delays and errors on purpose.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::TargetRef;
use crate::Duration;

/// Delays and fails calls to a Service, at the caller's side, to see how callers take it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultPolicy {
    /// `weft.mesh/v1alpha1`.
    pub api_version: String,
    /// `FaultPolicy`.
    pub kind: String,
    /// Name, namespace, creation time (the older policy wins a tie).
    pub metadata: ObjectMeta,
    /// The policy.
    pub spec: FaultPolicySpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What a [`FaultPolicy`] says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FaultPolicySpec {
    /// The Services whose callers are disturbed.
    pub target_refs: Vec<TargetRef>,
    /// Delays calls.
    pub delay: Option<FaultDelay>,
    /// Answers calls with an error.
    pub abort: Option<FaultAbort>,
}

/// Delays calls before they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// Share of the calls in percent, 0 to 100, with up to four decimals; unset means 100.
    pub percentage: Option<f64>,
}

/// Answers calls with an error instead of sending them: exactly one of the two statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// HTTP status, 200 to 599.
    pub http_status: Option<u16>,
    /// gRPC status, 1 to 16.
    pub grpc_status: Option<u32>,
    /// Share of the calls in percent, 0 to 100, with up to four decimals; unset means 100.
    pub percentage: Option<f64>,
}
