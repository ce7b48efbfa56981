//! Whether and when to try again (`envoy.config.route.v3.RetryPolicy`).

use std::borrow::Cow;
use std::time::Duration;

use weft_xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use weft_xds::{FieldError, any};

use crate::header::{HeaderMatcher, compile_all};
use crate::proto::{duration, optional_duration, refuse, route, unsupported};
use crate::view::RequestView;

/// A compiled retry policy. How many retries a cluster bears at once is not its business: budgets and breakers bound it too.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    on: RetryOn,
    /// Retries after the first attempt; 1 where the policy does not say.
    pub num_retries: u32,
    /// How long one attempt may take; `None` for as long as the whole request may.
    pub per_try_timeout: Option<Duration>,
    /// How long one attempt may make no progress.
    pub per_try_idle_timeout: Option<Duration>,
    base: Duration,
    max: Duration,
    status_codes: Vec<u16>,
    response_headers: Vec<HeaderMatcher>,
    request_headers: Vec<HeaderMatcher>,
    /// Whether attempts avoid endpoints that have been tried (the `previous_hosts` predicate).
    pub avoid_previous_hosts: bool,
    /// How often another endpoint is drawn in search of one not tried yet.
    pub host_selection_attempts: u32,
}

/// A set of retry conditions, as `retry_on` lists them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

impl RetryOn {
    /// Status 5xx, or no response at all.
    pub const SERVER_ERROR: Self = Self(1);
    /// Status 502, 503 or 504, or no response at all.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// No response at all: connection closed, stream reset, attempt timed out.
    pub const RESET: Self = Self(1 << 2);
    /// No response, and the request's head had not been sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection could be made.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// Status 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 5);
    /// The peer refused the stream before it processed it.
    pub const REFUSED_STREAM: Self = Self(1 << 6);
    /// A status among the policy's `retriable_status_codes`.
    pub const STATUS_CODES: Self = Self(1 << 7);
    /// A response header among the policy's `retriable_headers`.
    pub const HEADERS: Self = Self(1 << 8);
    /// Also a response that carries `x-envoy-ratelimited`.
    pub const RATE_LIMITED: Self = Self(1 << 9);
    /// gRPC status 1 in the response's head (a response of trailers only).
    pub const CANCELLED: Self = Self(1 << 10);
    /// gRPC status 4.
    pub const DEADLINE_EXCEEDED: Self = Self(1 << 11);
    /// gRPC status 13.
    pub const INTERNAL: Self = Self(1 << 12);
    /// gRPC status 8.
    pub const RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    /// gRPC status 14.
    pub const UNAVAILABLE: Self = Self(1 << 14);

    const NAMES: [(&'static str, Self); 16] = [
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::STATUS_CODES),
        ("retriable-headers", Self::HEADERS),
        ("envoy-ratelimited", Self::RATE_LIMITED),
        ("cancelled", Self::CANCELLED),
        ("deadline-exceeded", Self::DEADLINE_EXCEEDED),
        ("internal", Self::INTERNAL),
        ("resource-exhausted", Self::RESOURCE_EXHAUSTED),
        ("unavailable", Self::UNAVAILABLE),
        // There is no HTTP/3 upstream whose connections could fail.
        ("http3-post-connect-failure", Self(0)),
    ];

    /// The set that holds the conditions of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any condition is in both sets.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn parse(list: &str, path: &str) -> Result<Self, FieldError> {
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).try_fold(Self::default(), |set, name| {
            match Self::NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, condition)) => Ok(set.union(*condition)),
                None => {
                    let known: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                    Err(refuse(path, format!("unknown condition {name:?}; known are {}", known.join(", "))))
                }
            }
        })
    }

    fn of_grpc_status(status: u32) -> Self {
        match status {
            1 => Self::CANCELLED,
            4 => Self::DEADLINE_EXCEEDED,
            8 => Self::RESOURCE_EXHAUSTED,
            13 => Self::INTERNAL,
            14 => Self::UNAVAILABLE,
            _ => Self::default(),
        }
    }
}

/// How an attempt ended, as far as a retry may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A response's head came.
    Response {
        /// The HTTP status.
        status: u16,
        /// `grpc-status` in the head, which only a response of trailers alone has.
        grpc_status: Option<u32>,
    },
    /// No connection to the endpoint could be made, its handshake and the connect timeout included.
    ConnectFailure,
    /// The peer refused the stream before processing it (REFUSED_STREAM, or above a GOAWAY's last stream).
    RefusedStream,
    /// The connection closed or the stream was reset before a response.
    Reset {
        /// Whether the request's head had been sent.
        request_sent: bool,
    },
    /// No response within the attempt's own timeout.
    PerTryTimeout,
    /// An authenticated mesh peer says that no byte reached its application: safe to repeat whatever the method and the conditions.
    Undelivered,
    /// A circuit breaker is open: never retried.
    Overflow,
}

impl RetryPolicy {
    /// Compiles the message.
    pub fn compile(message: &route::RetryPolicy, path: &str) -> Result<Self, FieldError> {
        unsupported(message.retry_priority.is_some(), path, "retry_priority")?;
        unsupported(!message.retry_options_predicates.is_empty(), path, "retry_options_predicates")?;
        unsupported(message.rate_limited_retry_back_off.is_some(), path, "rate_limited_retry_back_off")?;
        unsupported(message.refresh_cluster_on_retry, path, "refresh_cluster_on_retry")?;
        let (base, max) = backoff_bounds(message.retry_back_off.as_ref(), &format!("{path}.retry_back_off"))?;
        let status = |(i, &code): (usize, &u32)| match u16::try_from(code) {
            Ok(code @ 100..=599) => Ok(code),
            _ => Err(refuse(&format!("{path}.retriable_status_codes[{i}]"), format!("{code} is not an HTTP status"))),
        };
        let attempts = match message.host_selection_retry_max_attempts {
            0 => 1,
            n => u32::try_from(n).map_err(|_| {
                refuse(&format!("{path}.host_selection_retry_max_attempts"), format!("{n} is out of range"))
            })?,
        };
        Ok(Self {
            on: RetryOn::parse(&message.retry_on, &format!("{path}.retry_on"))?,
            num_retries: message.num_retries.as_ref().map_or(1, |n| n.value),
            per_try_timeout: optional_duration(message.per_try_timeout.as_ref(), &format!("{path}.per_try_timeout"))?
                .filter(|d| !d.is_zero()),
            per_try_idle_timeout: optional_duration(
                message.per_try_idle_timeout.as_ref(),
                &format!("{path}.per_try_idle_timeout"),
            )?
            .filter(|d| !d.is_zero()),
            base,
            max,
            status_codes: message.retriable_status_codes.iter().enumerate().map(status).collect::<Result<_, _>>()?,
            response_headers: compile_all(&message.retriable_headers, &format!("{path}.retriable_headers"))?,
            request_headers: compile_all(
                &message.retriable_request_headers,
                &format!("{path}.retriable_request_headers"),
            )?,
            avoid_previous_hosts: avoids_previous_hosts(message, path)?,
            host_selection_attempts: attempts,
        })
    }

    /// Whether the policy applies to this request at all (`retriable_request_headers`).
    pub fn applies_to<V: RequestView + ?Sized>(&self, view: &V) -> bool {
        self.request_headers.is_empty() || self.request_headers.iter().any(|header| header.matches(view))
    }

    /// Whether an attempt that ended so is worth another one. `header` looks up a response header by lower-case name; it is asked only
    /// for a [`Attempt::Response`]. Counting attempts and asking the budget is the caller's part.
    pub fn decide<'h>(&self, attempt: Attempt, header: impl Fn(&str) -> Option<Cow<'h, [u8]>>) -> bool {
        // A stream that ended without any response counts as a 5xx, since the client would see one.
        let no_response = RetryOn::RESET.union(RetryOn::SERVER_ERROR).union(RetryOn::GATEWAY_ERROR);
        let conditions = match attempt {
            Attempt::Undelivered => return true,
            Attempt::Overflow => return false,
            Attempt::Response { status, grpc_status } => return self.decide_response(status, grpc_status, header),
            Attempt::ConnectFailure => no_response.union(RetryOn::CONNECT_FAILURE).union(RetryOn::RESET_BEFORE_REQUEST),
            Attempt::RefusedStream => no_response.union(RetryOn::REFUSED_STREAM),
            Attempt::Reset { request_sent: false } => no_response.union(RetryOn::RESET_BEFORE_REQUEST),
            Attempt::Reset { request_sent: true } | Attempt::PerTryTimeout => no_response,
        };
        self.on.intersects(conditions)
    }

    fn decide_response<'h>(
        &self,
        status: u16,
        grpc_status: Option<u32>,
        header: impl Fn(&str) -> Option<Cow<'h, [u8]>>,
    ) -> bool {
        if self.on == RetryOn::default() {
            return false;
        }
        // Repeating what a rate limiter turned away makes it worse.
        if !self.on.intersects(RetryOn::RATE_LIMITED) && header("x-envoy-ratelimited").is_some() {
            return false;
        }
        let by_status = match status {
            502..=504 => RetryOn::SERVER_ERROR.union(RetryOn::GATEWAY_ERROR),
            500..=599 => RetryOn::SERVER_ERROR,
            409 => RetryOn::RETRIABLE_4XX,
            _ => RetryOn::default(),
        };
        self.on.intersects(by_status)
            || grpc_status.is_some_and(|status| self.on.intersects(RetryOn::of_grpc_status(status)))
            || (self.on.intersects(RetryOn::RATE_LIMITED) && header("x-envoy-ratelimited").is_some())
            || (self.on.intersects(RetryOn::STATUS_CODES) && self.status_codes.contains(&status))
            || (self.on.intersects(RetryOn::HEADERS)
                && self
                    .response_headers
                    .iter()
                    .any(|matcher| matcher.matches_value(response_field(status, matcher.name(), &header))))
    }

    /// How long to wait before retry number `retry` (1 for the first): fully jittered in [0, (2^retry − 1) × base), at most the maximum.
    pub fn backoff(&self, retry: u32, random: u32) -> Duration {
        let factor = 2_u32.saturating_pow(retry).saturating_sub(1);
        let ceiling = self.base.saturating_mul(factor).min(self.max);
        // random / 2^32 of the ceiling, which u128 holds: nanoseconds of any Duration need 94 bits.
        let nanos = (ceiling.as_nanos().min(u128::from(u64::MAX)) * u128::from(random)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn response_field<'h>(
    status: u16,
    name: &str,
    header: impl Fn(&str) -> Option<Cow<'h, [u8]>>,
) -> Option<Cow<'h, [u8]>> {
    if name == ":status" { Some(status.to_string().into_bytes().into()) } else { header(name) }
}

/// Base 25 ms and ten times the base, where unset.
fn backoff_bounds(
    message: Option<&route::retry_policy::RetryBackOff>,
    path: &str,
) -> Result<(Duration, Duration), FieldError> {
    const DEFAULT_BASE: Duration = Duration::from_millis(25);
    const LEAST: Duration = Duration::from_millis(1);
    let Some(message) = message else {
        return Ok((DEFAULT_BASE, DEFAULT_BASE * 10));
    };
    let base_path = format!("{path}.base_interval");
    let base =
        message.base_interval.as_ref().ok_or_else(|| refuse(&base_path, "missing; give a duration above zero"))?;
    let base = duration(base, &base_path)?;
    if base.is_zero() {
        return Err(refuse(&base_path, "zero; give a duration above zero"));
    }
    let base = base.max(LEAST);
    let max = optional_duration(message.max_interval.as_ref(), &format!("{path}.max_interval"))?;
    let max = max.map_or(base.saturating_mul(10), |max| max.max(LEAST));
    if max < base {
        return Err(refuse(&format!("{path}.max_interval"), format!("{max:?} is below base_interval, {base:?}")));
    }
    Ok((base, max))
}

fn avoids_previous_hosts(message: &route::RetryPolicy, path: &str) -> Result<bool, FieldError> {
    use route::retry_policy::retry_host_predicate::ConfigType;
    for (i, predicate) in message.retry_host_predicate.iter().enumerate() {
        let known = match &predicate.config_type {
            Some(ConfigType::TypedConfig(any)) => any::is::<PreviousHostsPredicate>(any),
            None => predicate.name == "envoy.retry_host_predicates.previous_hosts",
        };
        if !known {
            let problem =
                format!("{:?} is not supported; use envoy.retry_host_predicates.previous_hosts", predicate.name);
            return Err(refuse(&format!("{path}.retry_host_predicate[{i}]"), problem));
        }
    }
    Ok(!message.retry_host_predicate.is_empty())
}
