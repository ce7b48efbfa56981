//! Who may call whom, who does, and how that is protected.

use super::panel::Link;
use super::query::{namespace, or_zero, rate, select};
use super::{Dashboard, Moves, Panel, Unit};
use crate::control_plane::CERTIFICATES;
use crate::proxy::{CERTIFICATE_EXPIRY, CONNECTIONS, REQUESTS};

pub(super) fn dashboard() -> Dashboard {
    let pods = "namespace=~\"$namespace\"";
    let served = format!("direction=\"inbound\",{pods}");
    let mutual = |by| {
        let mutual = rate(by, REQUESTS, &format!("{served},tls=\"mutual\""));
        let all = rate(by, REQUESTS, &served);
        format!("(({mutual}) or ({all}) * 0) / (({all}) > 0)")
    };
    let denied = format!("{served},flag=\"UAEX\"");
    let plain = format!("{served},tls=\"none\"");
    let expiry = format!("{} > 0", select(CERTIFICATE_EXPIRY, pods));
    Dashboard {
        uid: "weft-security",
        title: "Weft: security",
        description: "Mutual TLS, identities, refused requests and certificates",
        variables: vec![namespace()],
        panels: vec![
            Panel::number("Requests under mutual TLS", Unit::Share, Moves::Down, mutual("")),
            Panel::number("Requests in the clear", Unit::Requests, Moves::Up, or_zero(rate("", REQUESTS, &plain))),
            Panel::number("Requests denied", Unit::Requests, Moves::Up, or_zero(rate("", REQUESTS, &denied))),
            Panel::number("First certificate ends in", Unit::TimeLeft, Moves::Down, format!("min({expiry}) - time()")),
            Panel::number(
                "Sidecars without certificate",
                Unit::Count,
                Moves::Not("a sidecar is not ready without one"),
                or_zero(format!("count({} == 0)", select(CERTIFICATE_EXPIRY, pods))),
            ),
            Panel::number(
                "Certificates refused",
                Unit::PerSecond,
                Moves::Not("who asks has a token"),
                or_zero(rate("", CERTIFICATES, "result=\"refused\"")),
            ),
            Panel::graph("Mutual TLS by workload", Unit::Share, Moves::Down)
                .query(mutual("destination_workload"), "{{destination_workload}}")
                .leads_to(Link::Workload),
            Panel::graph("Requests in the clear, by workload", Unit::Requests, Moves::Up)
                .query(or_zero(rate("destination_workload", REQUESTS, &plain)), "{{destination_workload}}"),
            Panel::graph("Connections, by protection", Unit::PerSecond, Moves::Up)
                .query(rate("tls", CONNECTIONS, &served), "{{tls}}"),
            Panel::graph("Requests denied, by caller", Unit::Requests, Moves::Up).query(
                or_zero(rate("peer, destination_workload", REQUESTS, &denied)),
                "{{peer}} → {{destination_workload}}",
            ),
            Panel::graph("Time until certificates end", Unit::TimeLeft, Moves::Down)
                .query(format!("min by (workload) ({expiry}) - time()"), "{{workload}}"),
            Panel::graph("Certificates issued", Unit::PerSecond, Moves::Up)
                .query(rate("result", CERTIFICATES, ""), "{{result}}"),
            Panel::table(
                "Identities that call",
                Unit::Requests,
                Moves::Up,
                rate("peer, source_namespace, destination_workload, tls", REQUESTS, &served),
            )
            .wide(24)
            .leads_to(Link::Workload),
        ],
    }
}
