//! `TrafficPolicy`: how callers treat a Service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::TargetRef;
use crate::Duration;

/// How callers treat a Service: time limits, retries, balancing, outliers, circuit breaking.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// `weft.mesh/v1alpha1`.
    pub api_version: String,
    /// `TrafficPolicy`.
    pub kind: String,
    /// Name, namespace, creation time (the older policy wins a tie).
    pub metadata: ObjectMeta,
    /// The policy.
    pub spec: TrafficPolicySpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What a [`TrafficPolicy`] says; what is not set keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The Services that callers treat so.
    pub target_refs: Vec<TargetRef>,
    /// Time limits.
    pub timeouts: Option<TrafficTimeouts>,
    /// Retries.
    pub retries: Option<Retries>,
    /// Which endpoint gets a request.
    pub load_balancing: Option<LoadBalancing>,
    /// When an endpoint that fails is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// How much one caller may have under way.
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// Time limits; `0s` means none. An HTTPRoute rule's own `timeouts` go before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TrafficTimeouts {
    /// From the request to the end of the response, retries included; unset means none.
    pub request: Option<Duration>,
    /// For each try; unset means none.
    pub backend_request: Option<Duration>,
    /// Until a connection stands, TLS handshake included; unset means 1 s.
    pub connect: Option<Duration>,
    /// A connection without traffic; unset means 1 h.
    pub idle: Option<Duration>,
}

/// Retries. Whatever is said here, a request that certainly reached no application is sent again up to twice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Retries after the first try, 0 to 10; unset means 2.
    pub attempts: Option<u32>,
    /// When to retry; unset means `5xx` and what is always retried.
    #[serde(default)]
    pub conditions: Vec<RetryOn>,
    /// Response codes that are retried too, 400 to 599.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Least and most time before a retry; unset means 25 ms to 250 ms.
    pub backoff: Option<Backoff>,
    /// Keeps retries from multiplying an overload; unset means 20 %, at least 3.
    pub budget: Option<RetryBudget>,
}

/// What is worth a retry, in Envoy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Any 5xx, a reset or no answer.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503 and 504.
    GatewayError,
    /// The connection broke, whenever.
    Reset,
    /// No connection could be made.
    ConnectFailure,
    /// The other side refused the stream before it read it.
    RefusedStream,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// gRPC status CANCELLED.
    Cancelled,
    /// gRPC status DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// gRPC status INTERNAL.
    Internal,
    /// gRPC status RESOURCE_EXHAUSTED.
    ResourceExhausted,
    /// gRPC status UNAVAILABLE.
    Unavailable,
}

impl RetryOn {
    /// The word in Envoy's `retry_on`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::Retriable4xx => "retriable-4xx",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Time before a retry, exponential with jitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Backoff {
    /// Before the first retry.
    pub base: Option<Duration>,
    /// The most.
    pub max: Option<Duration>,
}

/// Retries under way, at most, in relation to the requests under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Percent of the requests under way, 0 to 100; unset means 20.
    pub percent: Option<f64>,
    /// Always allowed at once; unset means 3.
    pub min_concurrency: Option<u32>,
}

/// Which endpoint gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// The algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Percent of healthy endpoints below which all are used again; 0 turns it off; unset means 0.
    pub panic_threshold: Option<f64>,
}

/// A balancing algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// The better of two random endpoints by a moving average of latency and requests under way.
    #[default]
    PeakEwma,
    /// The better of two random endpoints by requests under way.
    LeastRequest,
    /// In turn.
    RoundRobin,
}

/// When an endpoint that fails is left out for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// 5xx responses or failed connections in a row; unset means 5, 0 turns it off.
    pub consecutive_errors: Option<u32>,
    /// 502, 503, 504 or failed connections in a row; unset means off.
    pub consecutive_gateway_errors: Option<u32>,
    /// Percent of failures within an interval, 1 to 100; unset means off.
    pub failure_percentage: Option<u32>,
    /// Requests within an interval below which `failurePercentage` does not count; unset means 50.
    pub minimum_requests: Option<u32>,
    /// How often endpoints are looked at; unset means 10 s.
    pub interval: Option<Duration>,
    /// How long an endpoint is left out the first time; longer each time; unset means 30 s.
    pub base_ejection_time: Option<Duration>,
    /// The longest that an endpoint is left out; unset means 300 s.
    pub max_ejection_time: Option<Duration>,
    /// Percent of the endpoints that may be left out at once, 0 to 100; unset means 50.
    pub max_ejection_percent: Option<u32>,
}

/// How much one caller may have under way to the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Connections; unset means 1,000,000.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection; unset means 1,000,000.
    pub max_pending_requests: Option<u32>,
    /// Requests; unset means 1,000,000.
    pub max_requests: Option<u32>,
    /// Requests over one connection before it is closed; unset means any number.
    pub max_requests_per_connection: Option<u32>,
}
