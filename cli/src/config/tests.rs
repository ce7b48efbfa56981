use serde_json::{Value, json};

use super::dump::Dump;
use super::*;

fn dump() -> Value {
    json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
            {"name": "inbound/shop/web", "active_state": {"version_info": "0011223344556677", "listener": {
                "name": "inbound/shop/web",
                "filter_chains": [{
                    "filter_chain_match": {"destination_port": 8080, "transport_protocol": "tls", "application_protocols": ["weft-h2", "weft-http/1.1"]},
                    "transport_socket": {"name": "tls", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                        "require_client_certificate": true}},
                    "filters": [{"name": "http", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "http_filters": [
                            {"name": "rbac", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}},
                            {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                        "route_config": {"virtual_hosts": [{"domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "inbound/8080"}}]}]}}}]}],
                "default_filter_chain": {"filters": [{"name": "tcp", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "inbound/0"}}]}}}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [
            {"version_info": "0011223344556677", "route_config": {"name": "outbound/shop/reviews/80", "virtual_hosts": [{"domains": ["*"], "routes": [
                {"match": {"path_separated_prefix": "/v2", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
                 "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]},
                           "timeout": "15s", "retry_policy": {"retry_on": "5xx", "num_retries": 2}}},
                {"match": {"prefix": "/"}, "redirect": {"path_redirect": "/x"}}]}]}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
         "static_clusters": [{"cluster": {"name": "control-plane", "type": "STATIC", "transport_socket": {"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}}],
         "dynamic_active_clusters": [{"version_info": "8899aabbccddeeff", "cluster": {
            "name": "a", "type": "EDS", "lb_policy": "LEAST_REQUEST", "outlier_detection": {},
            "metadata": {"filter_metadata": {"weft.mesh": {"balancer": "peak-ewma"}}},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"use_downstream_protocol_config": {}}},
            "transport_socket_matches": [{"name": "weft-mtls", "transport_socket": {"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}]}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": [
            {"version_info": "8899aabbccddeeff", "endpoint_config": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": "fd00:198:18::7", "port_value": 8080}}}, "load_balancing_weight": 1,
                 "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"weft": "mtls", "identity": "spiffe://weft.local/ns/shop/sa/a"}}}},
                {"endpoint": {"address": {"socket_address": {"address": "198.18.0.8", "port_value": 8080}}}, "health_status": "DRAINING"}]}]}}]}
    ]})
}

/// The table's cells, without its alignment.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .skip(1)
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

#[test]
fn listeners_say_what_they_match_and_do() {
    let dump = dump();
    let table = listeners::table(&Dump::new(&dump));
    assert_eq!(
        rows(&table),
        [
            vec!["LISTENER", "ADDRESS", "MATCH", "DOES", "VERSION"],
            vec![
                "inbound/shop/web",
                "-",
                "port 8080 tls weft-h2|weft-http/1.1",
                "mutual TLS, RBAC, HTTP to inbound/8080",
                "00112233"
            ],
            vec!["inbound/shop/web", "-", "otherwise", "TCP to inbound/0", "00112233"],
        ]
    );
}

#[test]
fn routes_say_where_requests_go() {
    let dump = dump();
    let table = routes::table(&Dump::new(&dump), false);
    assert_eq!(
        rows(&table)[1..],
        [
            vec![
                "outbound/shop/reviews/80",
                "*",
                "/v2[/*] :method=GET",
                "a (90) b (10)",
                "15s",
                "2 on 5xx",
                "00112233"
            ],
            vec!["outbound/shop/reviews/80", "*", "/*", "redirect", "-", "-", "00112233"],
        ]
    );
}

#[test]
fn clusters_say_how_endpoints_are_called() {
    let dump = dump();
    let table = clusters::table(&Dump::new(&dump), false);
    assert_eq!(
        rows(&table)[1..],
        [
            vec!["a", "EDS", "peak-ewma", "as the caller's", "by endpoint", "outliers", "8899aabb"],
            vec!["control-plane", "STATIC", "ROUND_ROBIN", "HTTP/1.1", "always", "-", "static"],
        ]
    );
}

#[test]
fn endpoints_say_who_must_answer() {
    let dump = dump();
    let table = endpoints::table(&Dump::new(&dump), false);
    assert_eq!(
        rows(&table)[1..],
        [
            vec!["a", "[fd00:198:18::7]:8080", "HEALTHY", "1", "spiffe://weft.local/ns/shop/sa/a", "8899aabb"],
            vec!["a", "198.18.0.8:8080", "DRAINING", "-", "plaintext", "8899aabb"],
        ]
    );
}

#[test]
fn wide_tables_say_more_in_columns_of_their_own() {
    let dump = dump();
    let dump = Dump::new(&dump);
    let ends = |table: &str, count: usize| -> Vec<Vec<String>> {
        rows(table).iter().map(|row| row[row.len() - count..].iter().map(|cell| (*cell).to_owned()).collect()).collect()
    };
    let endpoints = ends(&endpoints::table(&dump, true), 3);
    assert_eq!(endpoints, [vec!["POD", "ZONE", "PRIORITY"], vec!["-", "-", "0"], vec!["-", "-", "0"]]);
    let clusters = ends(&clusters::table(&dump, true), 3);
    assert_eq!(clusters[0], ["CONNECT TIMEOUT", "MOST CONNECTIONS", "MOST REQUESTS"]);
    let routes = ends(&routes::table(&dump, true), 3);
    assert_eq!(routes[0], ["NAME", "TRY TIMEOUT", "IDLE TIMEOUT"]);
}

#[test]
fn certificates_say_whose_they_are_and_until_when() {
    let certs = json!({"certificates": [{
        "ca_cert": [{"serial_number": "01", "subject_alt_names": [{"uri": "spiffe://weft.local"}]}],
        "cert_chain": [{"serial_number": "02", "valid_from": "2026-11-25T00:00:00Z", "expiration_time": "2026-11-26T00:00:00Z",
            "subject_alt_names": [{"uri": "spiffe://weft.local/ns/shop/sa/a"}, {"dns": "a-0.a.shop.pod.weft.mesh"}]}]}]});
    let names = "spiffe://weft.local/ns/shop/sa/a a-0.a.shop.pod.weft.mesh";
    assert_eq!(
        rows(&certificates::table(&certs))[1..],
        [
            vec!["own", names, "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z", "02"],
            vec!["trusted root", "spiffe://weft.local", "01"],
        ]
    );
}

#[test]
fn an_empty_dump_has_empty_tables() {
    let empty = json!({});
    assert_eq!(listeners::table(&Dump::new(&empty)), "LISTENERS: none known\n");
}

#[test]
fn a_part_of_the_dump_keeps_envoys_shape() {
    let dump = dump();
    let part = Dump::new(&dump).part(Part::Clusters);
    assert_eq!(part["configs"].as_array().map(Vec::len), Some(1));
    assert_eq!(part["configs"][0], dump["configs"][2]);
}
