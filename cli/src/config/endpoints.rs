//! Addresses, with health and identity.

use serde_json::Value;

use super::NONE;
use super::dump::{Dump, address, list, number, text};
use crate::output::Table;

pub(crate) fn table(dump: &Dump<'_>, wide: bool) -> String {
    let mut table = Table::new(["CLUSTER", "ENDPOINT", "HEALTH", "WEIGHT", "IDENTITY", "VERSION"])
        .more(wide, ["POD", "ZONE", "PRIORITY"]);
    for entry in dump.endpoints() {
        let groups = list(&entry.resource["endpoints"]);
        for (group, endpoint) in groups.flat_map(|group| list(&group["lb_endpoints"]).map(move |one| (group, one))) {
            let tls = &endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"];
            let cells = [
                text(&entry.resource["cluster_name"]).to_owned(),
                address(&endpoint["endpoint"]["address"]),
                endpoint["health_status"].as_str().unwrap_or("HEALTHY").to_owned(),
                number(&endpoint["load_balancing_weight"]),
                tls["identity"].as_str().unwrap_or("plaintext").to_owned(),
                entry.version(),
            ];
            let or_none = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let priority = group["priority"].as_u64().unwrap_or(0).to_string();
            table.row_and(cells, [or_none(&tls["pod"]), or_none(&group["locality"]["zone"]), priority]);
        }
    }
    table.titled("ENDPOINTS", NONE)
}
