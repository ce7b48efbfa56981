//! One workload: what it serves, and what it calls.

use super::panel::Link;
use super::query::{gauge, latency, namespace, rate, success, workload};
use super::{Dashboard, Moves, Panel, Unit};
use crate::proxy::{CONNECTIONS_ACTIVE, PROCESS_CPU, PROCESS_MEMORY, REQUESTS};

pub(super) fn dashboard() -> Dashboard {
    let pods = "namespace=~\"$namespace\",workload=~\"$workload\"";
    let served = format!("direction=\"inbound\",{pods}");
    let made = format!("direction=\"outbound\",{pods}");
    Dashboard {
        uid: "weft-workload",
        title: "Weft: workload",
        description: "What a workload serves and to whom, what it calls, and what its sidecars need for that",
        variables: vec![namespace(), workload()],
        panels: vec![
            Panel::number("Served", Unit::Requests, Moves::Up, rate("", REQUESTS, &served)),
            Panel::number("Success of what it serves", Unit::Share, Moves::Down, success("", &served)),
            Panel::number("99th percentile of what it serves", Unit::Latency, Moves::Up, latency("0.99", "", &served)),
            Panel::number("Made", Unit::Requests, Moves::Up, rate("", REQUESTS, &made)),
            Panel::number("Success of what it calls", Unit::Share, Moves::Down, success("", &made)),
            Panel::number("99th percentile of what it calls", Unit::Latency, Moves::Up, latency("0.99", "", &made)),
            Panel::graph("Served, by caller", Unit::Requests, Moves::Up)
                .query(rate("source_workload", REQUESTS, &served), "{{source_workload}}")
                .leads_to(Link::Caller),
            Panel::graph("Served, by pod", Unit::Requests, Moves::Up)
                .query(rate("pod", REQUESTS, &served), "{{pod}}")
                .leads_to(Link::Proxy),
            Panel::graph("Latency of what it serves", Unit::Latency, Moves::Up)
                .query(latency("0.5", "", &served), "50 %")
                .query(latency("0.95", "", &served), "95 %")
                .query(latency("0.99", "", &served), "99 %"),
            Panel::graph("Made, by Service", Unit::Requests, Moves::Up)
                .query(rate("destination_service", REQUESTS, &made), "{{destination_service}}")
                .leads_to(Link::Service),
            Panel::graph("Success by Service", Unit::Share, Moves::Down)
                .query(success("destination_service", &made), "{{destination_service}}")
                .leads_to(Link::Service),
            Panel::graph("99th percentile by Service", Unit::Latency, Moves::Up)
                .query(latency("0.99", "destination_service", &made), "{{destination_service}}")
                .leads_to(Link::Service),
            Panel::graph("Connections open", Unit::Count, Moves::Up)
                .query(gauge("direction", CONNECTIONS_ACTIVE, pods), "{{direction}}"),
            Panel::graph("Memory of its sidecars", Unit::Bytes, Moves::Either)
                .query(gauge("pod", PROCESS_MEMORY, pods), "{{pod}}")
                .leads_to(Link::Proxy),
            Panel::graph("CPU of its sidecars", Unit::Cores, Moves::Up)
                .query(rate("pod", PROCESS_CPU, pods), "{{pod}}")
                .leads_to(Link::Proxy),
        ],
    }
}
