//! Addresses, with health and identity.

use super::NONE;
use super::dump::{Dump, address, list, number, text};
use crate::output::Table;

pub(crate) fn table(dump: &Dump<'_>) -> String {
    let mut table = Table::new(["CLUSTER", "ENDPOINT", "HEALTH", "WEIGHT", "IDENTITY", "VERSION"]);
    for entry in dump.endpoints() {
        for endpoint in list(&entry.resource["endpoints"]).flat_map(|group| list(&group["lb_endpoints"])) {
            let tls = &endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"];
            table.row([
                text(&entry.resource["cluster_name"]).to_owned(),
                address(&endpoint["endpoint"]["address"]),
                endpoint["health_status"].as_str().unwrap_or("HEALTHY").to_owned(),
                number(&endpoint["load_balancing_weight"]),
                tls["identity"].as_str().unwrap_or("plaintext").to_owned(),
                entry.version(),
            ]);
        }
    }
    table.titled("ENDPOINTS", NONE)
}
