//! One Service, as its callers see it.

use super::panel::Link;
use super::query::{gauge, latency, or_zero, rate, select, service, success};
use super::{Dashboard, Moves, Panel, Unit};
use crate::proxy::{OUTLIER_EJECTED, OUTLIER_EJECTIONS, REQUEST_RETRIES, REQUESTS};

pub(super) fn dashboard() -> Dashboard {
    let calls = "direction=\"outbound\",destination_service=~\"$service\"";
    let cluster = "cluster=~\"service/($service)/.*\"";
    let retries = "destination_service=~\"$service\"";
    let ejections = format!("rate({}[$__rate_interval])", select(OUTLIER_EJECTIONS, cluster));
    Dashboard {
        uid: "weft-service",
        title: "Weft: Service",
        description: "What callers of a Service get, from whom, and what their sidecars do about its failures",
        variables: vec![service()],
        panels: vec![
            Panel::number("Requests", Unit::Requests, Moves::Up, rate("", REQUESTS, calls)),
            Panel::number("Success", Unit::Share, Moves::Down, success("", calls)),
            Panel::number("Median", Unit::Latency, Moves::Up, latency("0.5", "", calls)),
            Panel::number("95th percentile", Unit::Latency, Moves::Up, latency("0.95", "", calls)),
            Panel::number("99th percentile", Unit::Latency, Moves::Up, latency("0.99", "", calls)),
            Panel::number(
                "Endpoints ejected",
                Unit::Count,
                Moves::Up,
                or_zero(format!("max({})", select(OUTLIER_EJECTED, cluster))),
            ),
            Panel::graph("Requests by caller", Unit::Requests, Moves::Up)
                .query(rate("source_workload", REQUESTS, calls), "{{source_workload}}")
                .leads_to(Link::Caller),
            Panel::graph("Success by caller", Unit::Share, Moves::Down)
                .query(success("source_workload", calls), "{{source_workload}}")
                .leads_to(Link::Caller),
            Panel::graph("99th percentile by caller", Unit::Latency, Moves::Up)
                .query(latency("0.99", "source_workload", calls), "{{source_workload}}")
                .leads_to(Link::Caller),
            Panel::graph("Requests by workload that answers", Unit::Requests, Moves::Up)
                .query(rate("destination_workload", REQUESTS, calls), "{{destination_workload}}")
                .leads_to(Link::Workload),
            Panel::graph("Latency", Unit::Latency, Moves::Up)
                .query(latency("0.5", "", calls), "50 %")
                .query(latency("0.95", "", calls), "95 %")
                .query(latency("0.99", "", calls), "99 %"),
            Panel::graph("Requests by route", Unit::Requests, Moves::Up)
                .query(rate("route", REQUESTS, calls), "{{route}}")
                .leads_to(Link::Route),
            Panel::graph("Retries by outcome", Unit::PerSecond, Moves::Up)
                .query(or_zero(rate("outcome", REQUEST_RETRIES, retries)), "{{outcome}}"),
            Panel::graph("Endpoints ejected by outlier detection", Unit::Count, Moves::Up)
                .query(or_zero(gauge("pod", OUTLIER_EJECTED, cluster)), "by {{pod}}"),
            Panel::graph("Ejections", Unit::PerSecond, Moves::Up)
                .query(or_zero(format!("sum({ejections})")), "ejections"),
        ],
    }
}
