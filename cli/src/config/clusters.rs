//! Groups of endpoints, and how they are called.

use serde_json::Value;

use super::NONE;
use super::dump::{Dump, list, number, text, type_name};
use crate::output::Table;

pub(crate) fn table(dump: &Dump<'_>, wide: bool) -> String {
    let mut table = Table::new(["CLUSTER", "TYPE", "BALANCER", "PROTOCOL", "TLS", "EJECTS", "VERSION"])
        .more(wide, ["CONNECT TIMEOUT", "MOST CONNECTIONS", "MOST REQUESTS"]);
    for entry in dump.clusters() {
        let cluster = entry.resource;
        let outliers = if cluster["outlier_detection"].is_object() { "outliers" } else { "-" };
        let cells = [
            text(&cluster["name"]).to_owned(),
            cluster["type"].as_str().unwrap_or("STATIC").to_owned(),
            balancer(cluster),
            protocol(cluster).to_owned(),
            tls(cluster).to_owned(),
            outliers.to_owned(),
            entry.version(),
        ];
        let limits = &cluster["circuit_breakers"]["thresholds"][0];
        // Envoy's defaults, which a proxy has too.
        let connect = cluster["connect_timeout"].as_str().unwrap_or("5s").to_owned();
        let most = |field: &str| if limits[field].is_null() { "1024".to_owned() } else { number(&limits[field]) };
        table.row_and(cells, [connect, most("max_connections"), most("max_requests")]);
    }
    table.titled("CLUSTERS", NONE)
}

fn balancer(cluster: &Value) -> String {
    let ours = cluster["metadata"]["filter_metadata"]["weft.mesh"]["balancer"].as_str();
    ours.unwrap_or_else(|| cluster["lb_policy"].as_str().unwrap_or("ROUND_ROBIN")).to_owned()
}

fn protocol(cluster: &Value) -> &'static str {
    let options =
        &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    let explicit = &options["explicit_http_config"];
    if options["use_downstream_protocol_config"].is_object() {
        "as the caller's"
    } else if explicit["http2_protocol_options"].is_object() {
        "HTTP/2"
    } else if options["auto_config"].is_object() {
        "by ALPN"
    } else {
        "HTTP/1.1"
    }
}

fn tls(cluster: &Value) -> &'static str {
    let is_tls = |socket: &Value| type_name(&socket["typed_config"]) == "UpstreamTlsContext";
    if list(&cluster["transport_socket_matches"]).any(|choice| is_tls(&choice["transport_socket"])) {
        "by endpoint"
    } else if is_tls(&cluster["transport_socket"]) {
        "always"
    } else {
        "never"
    }
}
