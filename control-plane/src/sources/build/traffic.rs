//! TrafficPolicy and FaultPolicy → what callers of each service port do.

use std::sync::Arc;
use std::time::Duration;

use weft_api::mesh::{self, FaultPolicySpec, RetryOn, TrafficPolicySpec};

use super::services::Services;
use super::{Notes, Parts, attach};
use crate::model::policy::{AbortStatus, Algorithm, Fault, Limits, Outliers, Retries, Traffic};

pub(super) fn attach(services: &mut Services<'_>, parts: &Parts<'_>, notes: &mut Notes) {
    let traffic = attach::to_services(&parts.traffic, services, |p| &p.spec.target_refs, notes);
    let traffic = attach::winners(traffic, notes, attach::describe_service);
    let faults = attach::to_services(&parts.faults, services, |p| &p.spec.target_refs, notes);
    let faults = attach::winners(faults, notes, attach::describe_service);
    for (name, built) in services {
        for port in &mut built.service.ports {
            // A policy for one port goes before one for the whole service.
            let keys = [(name.clone(), port.name.clone()), (name.clone(), None)];
            if let Some(policy) = keys.iter().find_map(|key| traffic.get(key)) {
                port.traffic = Arc::new(traffic_of(&policy.object.spec));
            }
            if let Some(policy) = keys.iter().find_map(|key| faults.get(key)) {
                port.fault = Some(Arc::new(fault_of(&policy.object.spec)));
            }
        }
    }
}

fn traffic_of(said: &TrafficPolicySpec) -> Traffic {
    let mut traffic = Traffic::default();
    if let Some(timeouts) = said.timeouts {
        traffic.request_timeout = timeouts.request.and_then(limit);
        traffic.try_timeout = timeouts.backend_request.and_then(limit);
        traffic.connect_timeout = timeouts.connect.map_or(traffic.connect_timeout, |d| d.0);
        if let Some(idle) = timeouts.idle {
            traffic.idle_timeout = limit(idle);
        }
    }
    if let Some(retries) = &said.retries {
        traffic.retries = (retries.attempts != Some(0)).then(|| retries_of(retries));
        if let Some(budget) = retries.budget {
            traffic.retry_budget_percent = budget.percent.unwrap_or(traffic.retry_budget_percent);
            traffic.retry_budget_min = budget.min_concurrency.unwrap_or(traffic.retry_budget_min);
        }
    }
    if let Some(balancing) = said.load_balancing {
        traffic.algorithm = match balancing.algorithm {
            mesh::Algorithm::PeakEwma => Algorithm::PeakEwma,
            mesh::Algorithm::LeastRequest => Algorithm::LeastRequest,
            mesh::Algorithm::RoundRobin => Algorithm::RoundRobin,
        };
        traffic.panic_threshold = balancing.panic_threshold.unwrap_or(0.0);
    }
    traffic.outliers = said.outlier_detection.map(outliers_of);
    if let Some(breaker) = said.circuit_breaker {
        let none = Limits::default();
        traffic.limits = Limits {
            connections: breaker.max_connections.unwrap_or(none.connections),
            pending: breaker.max_pending_requests.unwrap_or(none.pending),
            requests: breaker.max_requests.unwrap_or(none.requests),
            requests_per_connection: breaker.max_requests_per_connection,
        };
    }
    traffic
}

/// `0s` means no limit.
fn limit(duration: weft_api::Duration) -> Option<Duration> {
    (!duration.0.is_zero()).then_some(duration.0)
}

fn retries_of(said: &mesh::Retries) -> Retries {
    let mut on: Vec<RetryOn> = said.conditions.clone();
    if on.is_empty() && said.codes.is_empty() {
        on.push(RetryOn::ServerError);
    }
    on.sort();
    on.dedup();
    let base = said.backoff.and_then(|b| b.base).map_or(Duration::from_millis(25), |d| d.0);
    Retries {
        attempts: said.attempts.unwrap_or(2),
        on: on.into_iter().map(RetryOn::as_str).collect(),
        codes: said.codes.clone(),
        backoff_base: base,
        backoff_max: said.backoff.and_then(|b| b.max).map_or(base * 10, |d| d.0.max(base)),
    }
}

fn outliers_of(said: mesh::OutlierDetection) -> Outliers {
    let base = said.base_ejection_time.map_or(Duration::from_secs(30), |d| d.0);
    Outliers {
        consecutive_errors: said.consecutive_errors.unwrap_or(5),
        consecutive_gateway_errors: said.consecutive_gateway_errors.unwrap_or(0),
        failure_percentage: said.failure_percentage.unwrap_or(0),
        minimum_requests: said.minimum_requests.unwrap_or(50),
        interval: said.interval.map_or(Duration::from_secs(10), |d| d.0),
        base_ejection: base,
        max_ejection: said.max_ejection_time.map_or(Duration::from_secs(300).max(base), |d| d.0),
        max_ejection_percent: said.max_ejection_percent.unwrap_or(50),
    }
}

fn fault_of(said: &FaultPolicySpec) -> Fault {
    Fault {
        delay: said.delay.map(|delay| (delay.duration.0, millionths(delay.percentage))),
        abort: said.abort.and_then(|abort| {
            let status = match (abort.http_status, abort.grpc_status) {
                (Some(status), _) => AbortStatus::Http(status),
                (None, Some(status)) => AbortStatus::Grpc(status),
                // Checked when the file was read.
                (None, None) => return None,
            };
            Some((status, millionths(abort.percentage)))
        }),
    }
}

fn millionths(percentage: Option<f64>) -> u32 {
    // 0 to 100, checked when the file was read: at most 1,000,000.
    (percentage.unwrap_or(100.0) * 10_000.0).round() as u32
}
