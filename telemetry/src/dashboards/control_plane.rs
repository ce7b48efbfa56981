//! The control plane: does what is written arrive.

use super::query::{gauge, or_zero, quantile_of, rate, select};
use super::{Dashboard, Moves, Panel, Unit};
use crate::control_plane::{
    CERTIFICATES, CONFIGURATION_CHANGES, CONNECTED_PROXIES, CONVERGENCE, NACKS, PUSHES, RESOURCES_SENT, SOURCE_ERRORS,
};
use crate::proxy::{CONFIG_REJECTIONS, CONTROL_PLANE_CONNECTED};

pub(super) fn dashboard() -> Dashboard {
    let never = Moves::Not("what the control plane sends is what sidecars take");
    let lost = format!("count({} == 0)", select(CONTROL_PLANE_CONNECTED, ""));
    Dashboard {
        uid: "weft-control-plane",
        title: "Weft: control plane",
        description: "Whether configuration reaches the proxies, how fast, and what they refuse",
        variables: Vec::new(),
        panels: vec![
            Panel::number("Proxies connected", Unit::Count, Moves::Up, gauge("", CONNECTED_PROXIES, "")),
            Panel::number("Proxies without control plane", Unit::Count, Moves::Not("it is up"), or_zero(lost)),
            Panel::number(
                "Mistakes in the configuration",
                Unit::Count,
                Moves::Not("there is none"),
                gauge("", SOURCE_ERRORS, ""),
            ),
            Panel::number("Refused by proxies", Unit::PerSecond, never, or_zero(rate("", NACKS, ""))),
            Panel::number("Changes", Unit::PerSecond, Moves::Up, rate("", CONFIGURATION_CHANGES, "")),
            Panel::number(
                "Changes arrive, 99th percentile",
                Unit::Latency,
                Moves::Either,
                quantile_of("0.99", "", CONVERGENCE, ""),
            ),
            Panel::graph("From a change to the last acknowledgement", Unit::Latency, Moves::Either)
                .query(quantile_of("0.5", "", CONVERGENCE, ""), "50 %")
                .query(quantile_of("0.99", "", CONVERGENCE, ""), "99 %"),
            Panel::graph("Responses sent, by type", Unit::PerSecond, Moves::Up)
                .query(rate("type", PUSHES, ""), "{{type}}"),
            Panel::graph("Resources sent, by type", Unit::PerSecond, Moves::Up)
                .query(rate("type", RESOURCES_SENT, ""), "{{type}}"),
            Panel::graph("Responses refused by proxies, by type", Unit::PerSecond, never)
                .query(or_zero(rate("type", NACKS, "")), "{{type}}"),
            Panel::graph("Resources refused, by proxy", Unit::PerSecond, never)
                .query(or_zero(rate("pod, kind", CONFIG_REJECTIONS, "")), "{{pod}} {{kind}}"),
            Panel::graph("Certificates, by result", Unit::PerSecond, Moves::Up)
                .query(rate("result", CERTIFICATES, ""), "{{result}}"),
        ],
    }
}
