//! Circuit breakers: how much of a cluster may be in use at once (`envoy.config.cluster.v3.CircuitBreakers`).
//!
//! Every limit hands out permits that count until they are dropped. Limits can change while permits are out; those stay valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use weft_xds::FieldError;
use weft_xds::envoy::config::cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds};

use super::budget::RetryBudget;

/// A cluster's breakers. Cheap to clone; clones share their counts.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    gauges: Arc<Gauges>,
}

/// A limit was reached; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster has as many {0} as its circuit breaker allows")]
pub struct Overflow(pub Resource);

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Connections to endpoints.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way, waiting ones included.
    Requests,
    /// Retries under way.
    Retries,
}

impl Resource {
    /// Each with its name in metrics.
    pub const NAMED: [(Self, &str); 4] = [
        (Self::Connections, "connections"),
        (Self::Pending, "pending"),
        (Self::Requests, "requests"),
        (Self::Retries, "retries"),
    ];
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::Pending => "waiting requests",
            Self::Requests => "requests under way",
            Self::Retries => "retries under way",
        })
    }
}

/// A unit of a resource, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct Permit {
    gauges: Arc<Gauges>,
    resource: Resource,
}

/// Limits, each Envoy's default where the message does not set it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Most connections.
    pub max_connections: u32,
    /// Most requests that wait for a connection.
    pub max_pending: u32,
    /// Most requests under way.
    pub max_requests: u32,
    /// Most retries under way; not asked where there is a budget.
    pub max_retries: u32,
    /// Retries under way in relation to requests under way.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 1024, max_pending: 1024, max_requests: 1024, max_retries: 3, retry_budget: None }
    }
}

impl Limits {
    /// The thresholds of the default priority. Those of other priorities are skipped: routes of high priority are refused.
    ///
    /// # Errors
    /// For per-host thresholds other than connections, and malformed budgets.
    pub fn compile(message: Option<&CircuitBreakers>, path: &str) -> Result<Self, FieldError> {
        let Some(message) = message else { return Ok(Self::default()) };
        if !message.per_host_thresholds.is_empty() {
            return Err(FieldError::new(format!("{path}.per_host_thresholds"), "not supported; use thresholds"));
        }
        let default = message.thresholds.iter().enumerate().find(|(_, thresholds)| thresholds.priority == 0);
        default.map_or(Ok(Self::default()), |(i, thresholds)| Self::of(thresholds, &format!("{path}.thresholds[{i}]")))
    }

    fn of(message: &Thresholds, path: &str) -> Result<Self, FieldError> {
        let default = Self::default();
        if message.max_connection_pools.is_some() {
            return Err(FieldError::new(format!("{path}.max_connection_pools"), "not supported; use max_connections"));
        }
        Ok(Self {
            max_connections: message.max_connections.as_ref().map_or(default.max_connections, |n| n.value),
            max_pending: message.max_pending_requests.as_ref().map_or(default.max_pending, |n| n.value),
            max_requests: message.max_requests.as_ref().map_or(default.max_requests, |n| n.value),
            max_retries: message.max_retries.as_ref().map_or(default.max_retries, |n| n.value),
            retry_budget: message
                .retry_budget
                .as_ref()
                .map(|budget| RetryBudget::compile(budget, &format!("{path}.retry_budget")))
                .transpose()?,
        })
    }
}

impl Breaker {
    /// Breakers with these limits.
    pub fn new(limits: Limits) -> Self {
        let breaker = Self::default();
        breaker.set_limits(limits);
        breaker
    }

    /// Changes the limits for what is asked from now on.
    pub fn set_limits(&self, limits: Limits) {
        let gauges = &self.gauges;
        gauges.connections.limit.store(limits.max_connections, Relaxed);
        gauges.pending.limit.store(limits.max_pending, Relaxed);
        gauges.requests.limit.store(limits.max_requests, Relaxed);
        gauges.retries.limit.store(limits.max_retries, Relaxed);
        gauges.budget.store(limits.retry_budget.map_or(NO_BUDGET, RetryBudget::to_bits), Relaxed);
    }

    /// A connection to an endpoint.
    ///
    /// # Errors
    /// When there are as many as allowed.
    pub fn connection(&self) -> Result<Permit, Overflow> {
        self.take(Resource::Connections)
    }

    /// A request that waits for a connection.
    ///
    /// # Errors
    /// When there are as many as allowed.
    pub fn pending(&self) -> Result<Permit, Overflow> {
        self.take(Resource::Pending)
    }

    /// A request, from its first attempt to the end of its response.
    ///
    /// # Errors
    /// When there are as many as allowed.
    pub fn request(&self) -> Result<Permit, Overflow> {
        self.take(Resource::Requests)
    }

    /// A retry, from the decision for it to its end, back-off included.
    ///
    /// # Errors
    /// When the budget, or without one `max_retries`, is used up.
    pub fn retry(&self) -> Result<Permit, Overflow> {
        self.take(Resource::Retries)
    }

    /// How many units are out.
    pub fn in_use(&self, resource: Resource) -> u32 {
        self.gauges.of(resource).used.load(Relaxed)
    }

    /// How often the limit said no.
    pub fn overflows(&self, resource: Resource) -> u64 {
        self.gauges.of(resource).overflows.load(Relaxed)
    }

    fn take(&self, resource: Resource) -> Result<Permit, Overflow> {
        let gauge = self.gauges.of(resource);
        let limit = match resource {
            Resource::Retries => self.gauges.retry_limit(),
            _ => gauge.limit.load(Relaxed),
        };
        match gauge.used.fetch_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1)) {
            Ok(_) => Ok(Permit { gauges: self.gauges.clone(), resource }),
            Err(_) => {
                gauge.overflows.fetch_add(1, Relaxed);
                Err(Overflow(resource))
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.gauges.of(self.resource).used.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a permit was given back twice");
    }
}

#[derive(Debug)]
struct Gauges {
    connections: Gauge,
    pending: Gauge,
    requests: Gauge,
    retries: Gauge,
    /// [`RetryBudget::to_bits`], or [`NO_BUDGET`].
    budget: AtomicU64,
}

const NO_BUDGET: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Gauge {
    used: AtomicU32,
    limit: AtomicU32,
    overflows: AtomicU64,
}

impl Default for Gauges {
    fn default() -> Self {
        let limits = Limits::default();
        let gauge = |limit| Gauge { limit: AtomicU32::new(limit), ..Gauge::default() };
        Self {
            connections: gauge(limits.max_connections),
            pending: gauge(limits.max_pending),
            requests: gauge(limits.max_requests),
            retries: gauge(limits.max_retries),
            budget: AtomicU64::new(NO_BUDGET),
        }
    }
}

impl Gauges {
    fn of(&self, resource: Resource) -> &Gauge {
        match resource {
            Resource::Connections => &self.connections,
            Resource::Pending => &self.pending,
            Resource::Requests => &self.requests,
            Resource::Retries => &self.retries,
        }
    }

    fn retry_limit(&self) -> u32 {
        match self.budget.load(Relaxed) {
            NO_BUDGET => self.retries.limit.load(Relaxed),
            bits => RetryBudget::from_bits(bits).retries_allowed(self.requests.used.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_until_a_permit_is_dropped() {
        let breaker = Breaker::new(Limits { max_requests: 2, ..Limits::default() });
        let first = breaker.request().unwrap();
        let _second = breaker.request().unwrap();
        assert_eq!(breaker.request().unwrap_err(), Overflow(Resource::Requests));
        assert_eq!(breaker.overflows(Resource::Requests), 1);
        drop(first);
        assert!(breaker.request().is_ok());
    }

    #[test]
    fn limits_of_one_resource_leave_the_others_alone_and_can_change() {
        let breaker = Breaker::new(Limits { max_connections: 0, ..Limits::default() });
        assert!(breaker.connection().is_err());
        assert!(breaker.pending().is_ok());
        breaker.set_limits(Limits::default());
        assert!(breaker.connection().is_ok());
    }

    #[test]
    fn without_a_budget_three_retries_are_allowed_at_once() {
        let breaker = Breaker::default();
        let held: Vec<_> = (0..3).map(|_| breaker.retry().unwrap()).collect();
        assert!(breaker.retry().is_err());
        drop(held);
        assert_eq!(breaker.in_use(Resource::Retries), 0);
    }

    #[test]
    fn a_budget_bounds_retries_by_the_requests_under_way() {
        let budget = RetryBudget::new(20.0, 3);
        let breaker = Breaker::new(Limits { retry_budget: Some(budget), ..Limits::default() });
        let requests: Vec<_> = (0..100).map(|_| breaker.request().unwrap()).collect();
        let retries: Vec<_> = std::iter::from_fn(|| breaker.retry().ok()).collect();
        assert_eq!(retries.len(), 20);
        drop((requests, retries));
        let retries: Vec<_> = std::iter::from_fn(|| breaker.retry().ok()).collect();
        assert_eq!(retries.len(), 3, "an idle cluster keeps the least concurrency");
    }
}
