//! Injected delays and aborts (`envoy.extensions.filters.http.fault.v3.HTTPFault`).

use std::time::Duration;

use weft_xds::FieldError;

use crate::header::{HeaderMatcher, compile_all};
use crate::proto::{Fraction, common_fault, duration, http_fault, refuse, unsupported};
use crate::view::RequestView;

/// A compiled fault filter.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    delay: Option<Delay>,
    abort: Option<Abort>,
    upstream_cluster: Option<String>,
    headers: Vec<HeaderMatcher>,
    downstream_nodes: Vec<String>,
    /// Faults at once; beyond, requests pass unharmed. `None` is no limit. Counting them is the caller's part.
    pub max_active: Option<u32>,
}

#[derive(Debug, Clone)]
struct Delay {
    share: Fraction,
    /// `None`: the request's `x-envoy-fault-delay-request` says how many milliseconds.
    fixed: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Abort {
    share: Fraction,
    /// `None`: the request's `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says what with.
    fixed: Option<AbortWith>,
    body: String,
}

/// What an aborted request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortWith {
    /// This HTTP status.
    Http(u16),
    /// HTTP status 200 and this `grpc-status`.
    Grpc(u32),
}

/// What to do to one request: first wait, then answer or let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultDecision<'a> {
    /// How long to hold the request back.
    pub delay: Option<Duration>,
    /// Answer with this and forward nothing.
    pub abort: Option<AbortWith>,
    /// The body of the answer; empty for the filter's own words.
    pub body: &'a str,
}

impl FaultDecision<'_> {
    /// Whether the request passes untouched.
    pub fn is_none(&self) -> bool {
        self.delay.is_none() && self.abort.is_none()
    }
}

impl Fault {
    /// Compiles the message. Response rate limits are refused.
    pub fn compile(message: &http_fault::HttpFault, path: &str) -> Result<Self, FieldError> {
        unsupported(message.response_rate_limit.is_some(), path, "response_rate_limit")?;
        Ok(Self {
            delay: message.delay.as_ref().map(|delay| Delay::compile(delay, &format!("{path}.delay"))).transpose()?,
            abort: message.abort.as_ref().map(|abort| Abort::compile(abort, &format!("{path}.abort"))).transpose()?,
            upstream_cluster: Some(message.upstream_cluster.clone()).filter(|name| !name.is_empty()),
            headers: compile_all(&message.headers, &format!("{path}.headers"))?,
            downstream_nodes: message.downstream_nodes.clone(),
            max_active: message.max_active_faults.as_ref().map(|max| max.value),
        })
    }

    /// Decides for a request about to go to `cluster`. Delay and abort use different halves of `random`, so they fall independently.
    pub fn decide<V: RequestView + ?Sized>(&self, view: &V, cluster: &str, random: u64) -> FaultDecision<'_> {
        if !self.concerns(view, cluster) {
            return FaultDecision::default();
        }
        let (high, low) = ((random >> 32) as u32, random as u32);
        let abort = self.abort.as_ref();
        FaultDecision {
            delay: self.delay.as_ref().and_then(|delay| delay.decide(view, low)),
            abort: abort.and_then(|abort| abort.decide(view, high)),
            body: abort.map_or("", |abort| &abort.body),
        }
    }

    fn concerns<V: RequestView + ?Sized>(&self, view: &V, cluster: &str) -> bool {
        self.upstream_cluster.as_deref().is_none_or(|want| want == cluster)
            && self.headers.iter().all(|header| header.matches(view))
            && (self.downstream_nodes.is_empty()
                || view
                    .header("x-envoy-downstream-service-node")
                    .is_some_and(|node| self.downstream_nodes.iter().any(|want| want.as_bytes() == &*node)))
    }
}

impl Delay {
    fn compile(message: &common_fault::FaultDelay, path: &str) -> Result<Self, FieldError> {
        use common_fault::fault_delay::FaultDelaySecifier as Specifier;
        let fixed = match message.fault_delay_secifier.as_ref() {
            Some(Specifier::FixedDelay(delay)) => {
                let path = format!("{path}.fixed_delay");
                let delay = duration(delay, &path)?;
                if delay.is_zero() {
                    return Err(refuse(&path, "zero; give a duration above zero"));
                }
                Some(delay)
            }
            Some(Specifier::HeaderDelay(_)) => None,
            None => {
                return Err(refuse(path, "neither fixed_delay nor header_delay is set; set one"));
            }
        };
        Ok(Self { share: share(message.percentage.as_ref(), &format!("{path}.percentage"))?, fixed })
    }

    fn decide<V: RequestView + ?Sized>(&self, view: &V, random: u32) -> Option<Duration> {
        let delay = match self.fixed {
            Some(delay) => delay,
            None => Duration::from_millis(number(view, "x-envoy-fault-delay-request")?.into()),
        };
        let share = match (self.fixed, number(view, "x-envoy-fault-delay-request-percentage")) {
            (None, Some(percentage)) => self.share.capped_at(percentage),
            _ => self.share,
        };
        share.hits(random).then_some(delay)
    }
}

impl Abort {
    fn compile(message: &http_fault::FaultAbort, path: &str) -> Result<Self, FieldError> {
        use http_fault::fault_abort::ErrorType;
        let fixed = match message.error_type.as_ref() {
            Some(ErrorType::HttpStatus(status)) => match http_status(*status) {
                Some(status) => Some(AbortWith::Http(status)),
                None => {
                    return Err(refuse(&format!("{path}.http_status"), format!("{status} is not between 200 and 599")));
                }
            },
            Some(ErrorType::GrpcStatus(status)) => Some(AbortWith::Grpc(*status)),
            Some(ErrorType::HeaderAbort(_)) => None,
            None => {
                return Err(refuse(path, "none of http_status, grpc_status and header_abort is set; set one"));
            }
        };
        Ok(Self {
            share: share(message.percentage.as_ref(), &format!("{path}.percentage"))?,
            fixed,
            body: message.response_body.clone(),
        })
    }

    fn decide<V: RequestView + ?Sized>(&self, view: &V, random: u32) -> Option<AbortWith> {
        let Some(fixed) = self.fixed else {
            let http = number(view, "x-envoy-fault-abort-request").and_then(http_status).map(AbortWith::Http);
            let with = http.or_else(|| number(view, "x-envoy-fault-abort-grpc-request").map(AbortWith::Grpc))?;
            let share = number(view, "x-envoy-fault-abort-request-percentage")
                .map_or(self.share, |percentage| self.share.capped_at(percentage));
            return share.hits(random).then_some(with);
        };
        self.share.hits(random).then_some(fixed)
    }
}

/// An unset percentage is 0 %, as in Envoy.
fn share(percentage: Option<&crate::proto::kind::FractionalPercent>, path: &str) -> Result<Fraction, FieldError> {
    Fraction::compile(percentage.unwrap_or(&Default::default()), path)
}

fn http_status(status: u32) -> Option<u16> {
    u16::try_from(status).ok().filter(|status| (200..600).contains(status))
}

fn number<V: RequestView + ?Sized>(view: &V, header: &str) -> Option<u32> {
    std::str::from_utf8(&view.header(header)?).ok()?.parse().ok()
}
