//! Proxies as processes: what they need, what they know.

use super::query::{gauge, namespace, or_zero, rate, select, workload};
use super::{Dashboard, Moves, Panel, Unit, Variable};
use crate::proxy::{
    BUILD, CONFIG_RESOURCES, CONNECTIONS_ACTIVE, CONTROL_PLANE_CONNECTED, DESTINATION_LOOKUPS, PROCESS_CPU,
    PROCESS_DESCRIPTORS, PROCESS_MEMORY,
};

pub(super) fn dashboard() -> Dashboard {
    let chosen = "namespace=~\"$namespace\",workload=~\"$workload\"";
    let metric = select(CONTROL_PLANE_CONNECTED, chosen);
    let pods = format!("{chosen},pod=~\"$pod\"");
    Dashboard {
        uid: "weft-proxy",
        title: "Weft: proxy",
        description: "What proxies cost, and the configuration they hold",
        variables: vec![namespace(), workload(), Variable { name: "pod", label: "Pod", metric, values_of: "pod" }],
        panels: vec![
            Panel::number(
                "Proxies",
                Unit::Count,
                Moves::Up,
                format!("count({})", select(CONTROL_PLANE_CONNECTED, &pods)),
            ),
            Panel::number("Memory", Unit::Bytes, Moves::Up, gauge("", PROCESS_MEMORY, &pods)),
            Panel::number("CPU", Unit::Cores, Moves::Up, rate("", PROCESS_CPU, &pods)),
            Panel::number("Connections open", Unit::Count, Moves::Up, gauge("", CONNECTIONS_ACTIVE, &pods)),
            Panel::number(
                "Resources held",
                Unit::Count,
                Moves::Up,
                gauge("", CONFIG_RESOURCES, &format!("{pods},state=\"active\"")),
            ),
            Panel::number(
                "Resources refused",
                Unit::Count,
                Moves::Not("what the control plane sends is what sidecars take"),
                gauge("", CONFIG_RESOURCES, &format!("{pods},state=\"refused\"")),
            ),
            Panel::graph("Memory by proxy", Unit::Bytes, Moves::Either)
                .query(gauge("pod", PROCESS_MEMORY, &pods), "{{pod}}"),
            Panel::graph("CPU by proxy", Unit::Cores, Moves::Up).query(rate("pod", PROCESS_CPU, &pods), "{{pod}}"),
            Panel::graph("File descriptors by proxy", Unit::Count, Moves::Either)
                .query(gauge("pod", PROCESS_DESCRIPTORS, &pods), "{{pod}}"),
            Panel::graph("Resources by kind and state", Unit::Count, Moves::Up)
                .query(gauge("kind, state", CONFIG_RESOURCES, &pods), "{{kind}} {{state}}"),
            Panel::graph("Destinations seen for the first time, by answer", Unit::PerSecond, Moves::Up)
                .query(or_zero(rate("outcome", DESTINATION_LOOKUPS, &pods)), "{{outcome}}"),
            Panel::graph("Proxies by version", Unit::Count, Moves::Up)
                .query(gauge("version", BUILD, &pods), "{{version}}"),
        ],
    }
}
