//! The whole mesh: is it well, and where is it not.

use super::panel::Link;
use super::query::{gauge, latency, namespace, or_zero, rate, success};
use super::{Dashboard, Moves, Panel, Unit};
use crate::proxy::{CONTROL_PLANE_CONNECTED, REQUESTS};

pub(super) fn dashboard() -> Dashboard {
    // Each request once: where it was made.
    let made = "direction=\"outbound\",namespace=~\"$namespace\"";
    let served = "direction=\"inbound\",namespace=~\"$namespace\"";
    let mutual = rate("", REQUESTS, &format!("{served},tls=\"mutual\""));
    let served_all = rate("", REQUESTS, served);
    Dashboard {
        uid: "weft-mesh",
        title: "Weft: mesh",
        description: "Requests, success, latency and protection of the whole mesh, by Service and by workload",
        variables: vec![namespace()],
        panels: vec![
            Panel::number("Requests", Unit::Requests, Moves::Up, rate("", REQUESTS, made)),
            Panel::number("Success", Unit::Share, Moves::Down, success("", made)),
            Panel::number("Latency, median", Unit::Latency, Moves::Up, latency("0.5", "", made)),
            Panel::number("Latency, 99th percentile", Unit::Latency, Moves::Up, latency("0.99", "", made)),
            Panel::number(
                "Requests under mutual TLS",
                Unit::Share,
                Moves::Down,
                format!("(({mutual}) or ({served_all}) * 0) / (({served_all}) > 0)"),
            ),
            Panel::number(
                "Sidecars with a control plane",
                Unit::Count,
                Moves::Up,
                gauge("", CONTROL_PLANE_CONNECTED, "namespace=~\"$namespace\""),
            ),
            Panel::graph("Requests by Service", Unit::Requests, Moves::Up)
                .query(rate("destination_service", REQUESTS, made), "{{destination_service}}")
                .leads_to(Link::Service),
            Panel::graph("Success by Service", Unit::Share, Moves::Down)
                .query(success("destination_service", made), "{{destination_service}}")
                .leads_to(Link::Service),
            Panel::graph("99th percentile by Service", Unit::Latency, Moves::Up)
                .query(latency("0.99", "destination_service", made), "{{destination_service}}")
                .leads_to(Link::Service),
            Panel::graph("Requests by workload that serves", Unit::Requests, Moves::Up)
                .query(rate("destination_workload", REQUESTS, served), "{{destination_workload}}")
                .leads_to(Link::Workload),
            Panel::graph("Responses by class", Unit::Requests, Moves::Up)
                .query(rate("response_class", REQUESTS, made), "{{response_class}}"),
            Panel::graph("Responses that are not the application's own, by flag", Unit::Requests, Moves::Up)
                .query(or_zero(rate("flag", REQUESTS, &format!("flag!=\"\",{made}"))), "{{flag}}"),
            Panel::table(
                "Who calls whom",
                Unit::Requests,
                Moves::Up,
                rate("source_workload, destination_service, tls", REQUESTS, made),
            )
            .leads_to(Link::Service),
            Panel::table(
                "Who is called by whom, with which identity",
                Unit::Requests,
                Moves::Up,
                rate("destination_workload, source_workload, peer", REQUESTS, served),
            )
            .leads_to(Link::Workload),
        ],
    }
}
