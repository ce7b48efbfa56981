//! Routes: which rule takes how much, and where it sends it.

use super::panel::Link;
use super::query::{latency, or_zero, rate, select, service, success};
use super::{Dashboard, Moves, Panel, Unit, Variable};
use crate::proxy::REQUESTS;

pub(super) fn dashboard() -> Dashboard {
    let taken = "direction=\"outbound\",destination_service=~\"$service\",route=~\"$route\"";
    let metric = select(REQUESTS, "direction=\"outbound\",destination_service=~\"$service\"");
    Dashboard {
        uid: "weft-route",
        title: "Weft: route",
        description: "How requests are spread over routes and their backends, and how each does",
        variables: vec![service(), Variable { name: "route", label: "Route", metric, values_of: "route" }],
        panels: vec![
            Panel::graph("Requests by route", Unit::Requests, Moves::Up)
                .query(rate("route", REQUESTS, taken), "{{route}}")
                .leads_to(Link::Route),
            Panel::graph("Success by route", Unit::Share, Moves::Down)
                .query(success("route", taken), "{{route}}")
                .leads_to(Link::Route),
            Panel::graph("99th percentile by route", Unit::Latency, Moves::Up)
                .query(latency("0.99", "route", taken), "{{route}}")
                .leads_to(Link::Route),
            Panel::graph("Share of each backend", Unit::Share, Moves::Either)
                .query(
                    format!(
                        "{} / on (route) group_left () (({}) > 0)",
                        rate("route, destination_service", REQUESTS, taken),
                        rate("route", REQUESTS, taken)
                    ),
                    "{{route}} → {{destination_service}}",
                )
                .leads_to(Link::Service),
            Panel::graph("Responses by class", Unit::Requests, Moves::Up)
                .query(rate("response_class", REQUESTS, taken), "{{response_class}}"),
            Panel::graph("Responses that are not the application's own, by flag", Unit::Requests, Moves::Up)
                .query(or_zero(rate("route, flag", REQUESTS, &format!("flag!=\"\",{taken}"))), "{{route}} {{flag}}"),
            Panel::table(
                "Routes, backends and callers",
                Unit::Requests,
                Moves::Up,
                rate("route, destination_service, source_workload, response_class", REQUESTS, taken),
            )
            .wide(24)
            .leads_to(Link::Service),
        ],
    }
}
