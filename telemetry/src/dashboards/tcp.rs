//! Connections and bytes.

use super::query::{gauge, namespace, or_zero, rate, workload};
use super::{Dashboard, Moves, Panel, Unit};
use crate::proxy::{BYTES, CONNECTIONS, CONNECTIONS_ACTIVE, TUNNELS_ACTIVE};

pub(super) fn dashboard() -> Dashboard {
    let pods = "namespace=~\"$namespace\",workload=~\"$workload\"";
    let bytes = |way| format!("{pods},way=\"{way}\"");
    let opaque = format!("{pods},protocol=\"tcp\"");
    Dashboard {
        uid: "weft-tcp",
        title: "Weft: TCP",
        description: "Connections by what they carry and how they are protected, and the bytes in them",
        variables: vec![namespace(), workload()],
        panels: vec![
            Panel::number("Opened", Unit::PerSecond, Moves::Up, rate("", CONNECTIONS, pods)),
            Panel::number("Open", Unit::Count, Moves::Up, gauge("", CONNECTIONS_ACTIVE, pods)),
            Panel::number("Opaque ones opened", Unit::PerSecond, Moves::Up, rate("", CONNECTIONS, &opaque)),
            Panel::number("Sent", Unit::BytesPerSecond, Moves::Up, rate("", BYTES, &bytes("sent"))),
            Panel::number("Received", Unit::BytesPerSecond, Moves::Up, rate("", BYTES, &bytes("received"))),
            Panel::number("Tunnels open", Unit::Count, Moves::Up, or_zero(gauge("", TUNNELS_ACTIVE, pods))),
            Panel::graph("Connections opened, by protocol", Unit::PerSecond, Moves::Up)
                .query(rate("direction, protocol", CONNECTIONS, pods), "{{direction}} {{protocol}}"),
            Panel::graph("Connections open, by protocol", Unit::Count, Moves::Up)
                .query(gauge("direction, protocol", CONNECTIONS_ACTIVE, pods), "{{direction}} {{protocol}}"),
            Panel::graph("Connections opened, by protection", Unit::PerSecond, Moves::Up)
                .query(rate("direction, tls", CONNECTIONS, pods), "{{direction}} {{tls}}"),
            Panel::graph("Bytes by workload", Unit::BytesPerSecond, Moves::Up)
                .query(rate("workload, way", BYTES, &format!("direction=\"inbound\",{pods}")), "{{workload}} {{way}}")
                .wide(12),
            Panel::graph("Tunnels open, by workload", Unit::Count, Moves::Up)
                .query(or_zero(gauge("workload", TUNNELS_ACTIVE, pods)), "{{workload}}")
                .wide(12),
        ],
    }
}
