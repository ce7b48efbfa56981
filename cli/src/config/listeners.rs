//! What a proxy listens for.

use serde_json::Value;

use super::NONE;
use super::dump::{Dump, address, join, list, number, text, type_name};
use crate::output::Table;

/// One row for each filter chain.
pub(crate) fn table(dump: &Dump<'_>) -> String {
    let mut table = Table::new(["LISTENER", "ADDRESS", "MATCH", "DOES", "VERSION"]);
    for entry in dump.listeners() {
        let listener = entry.resource;
        let chains = list(&listener["filter_chains"]).map(|chain| (matches(&chain["filter_chain_match"]), chain));
        let default = Some(&listener["default_filter_chain"]).filter(|chain| chain.is_object());
        for (matches, chain) in chains.chain(default.map(|chain| ("otherwise".to_owned(), chain))) {
            table.row([
                text(&listener["name"]).to_owned(),
                address(&listener["address"]),
                matches,
                does(chain),
                entry.version(),
            ]);
        }
    }
    table.titled("LISTENERS", NONE)
}

fn matches(matches: &Value) -> String {
    let mut parts = Vec::new();
    if matches["destination_port"].is_number() {
        parts.push(format!("port {}", number(&matches["destination_port"])));
    }
    parts.extend(matches["transport_protocol"].as_str().map(str::to_owned));
    let names = |field: &str| list(&matches[field]).map(|name| text(name).to_owned()).collect::<Vec<_>>().join("|");
    parts.push(names("application_protocols"));
    parts.push(names("server_names"));
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "any".to_owned() } else { parts.join(" ") }
}

/// The filters in order, and where the last one leads.
fn does(chain: &Value) -> String {
    let mut parts = Vec::new();
    let socket = &chain["transport_socket"]["typed_config"];
    if type_name(socket) == "DownstreamTlsContext" {
        let mutual = socket["require_client_certificate"].as_bool() == Some(true);
        parts.push(if mutual { "mutual TLS" } else { "TLS" }.to_owned());
    }
    for filter in list(&chain["filters"]) {
        let config = &filter["typed_config"];
        match type_name(config) {
            "HttpConnectionManager" => {
                let filters = list(&config["http_filters"]).map(|filter| type_name(&filter["typed_config"]));
                parts.extend(filters.filter(|name| *name != "Router").map(str::to_owned));
                let route = match config["rds"]["route_config_name"].as_str() {
                    Some(name) => format!("route {name}"),
                    None => inline(&config["route_config"]),
                };
                parts.push(format!("HTTP to {route}"));
            }
            "TcpProxy" => parts.push(format!("TCP to {}", tcp(config))),
            name => parts.push(name.to_owned()),
        }
    }
    join(parts, ", ")
}

fn inline(route_config: &Value) -> String {
    let routes = list(&route_config["virtual_hosts"]).flat_map(|host| list(&host["routes"]));
    let clusters = routes.map(|route| text(&route["route"]["cluster"]).to_owned());
    let mut clusters: Vec<_> = clusters.filter(|cluster| !cluster.is_empty()).collect();
    clusters.sort();
    clusters.dedup();
    join(clusters, "|")
}

fn tcp(config: &Value) -> String {
    let weighted = list(&config["weighted_clusters"]["clusters"])
        .map(|cluster| format!("{} ({})", text(&cluster["name"]), number(&cluster["weight"])));
    join(std::iter::once(text(&config["cluster"]).to_owned()).chain(weighted), "|")
}
