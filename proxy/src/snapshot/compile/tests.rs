//! Listeners as they are written in Envoy's file format, and what they compile to.

use std::time::Duration;

use weft_xds::FieldError;
use weft_xds::envoy::config::listener::v3 as proto;

use super::compile_listener;
use crate::snapshot::{ChainBody, Codec, HttpChain, Listener, RouteSource, TcpChain, UnknownDestination};

fn compile(yaml: &str) -> Result<Listener, FieldError> {
    let message: proto::Listener = weft_xds::yaml::from_str(yaml)?;
    compile_listener(&message).map(|compiled| compiled.listener)
}

/// A listener on 127.0.0.1:8080 whose only chain ends in an HTTP connection manager with these further fields.
fn http_listener(fields: &str) -> String {
    format!(
        r#"
name: web
address: {{socket_address: {{address: 127.0.0.1, port_value: 8080}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: web
      route_config:
        virtual_hosts:
        - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}
{fields}
"#
    )
}

const ROUTER: &str = r#"
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

fn http(fields: &str) -> std::sync::Arc<HttpChain> {
    let listener = compile(&http_listener(&format!("{ROUTER}{fields}"))).unwrap();
    match &listener.chains[0].body {
        ChainBody::Http(chain) => chain.clone(),
        ChainBody::Tcp(_) => panic!("the chain is HTTP"),
    }
}

fn tcp_listener(fields: &str) -> String {
    format!(
        r#"
name: raw
address: {{socket_address: {{address: "::1", port_value: 9000}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.tcp_proxy
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: raw
{fields}
"#
    )
}

fn tcp(fields: &str) -> std::sync::Arc<TcpChain> {
    match &compile(&tcp_listener(fields)).unwrap().chains[0].body {
        ChainBody::Tcp(chain) => chain.clone(),
        ChainBody::Http(_) => panic!("the chain is TCP"),
    }
}

/// The error's text up to its way out.
fn refusal(yaml: &str) -> String {
    compile(yaml).unwrap_err().to_string()
}

#[test]
fn unset_http_fields_hold_envoys_defaults() {
    let chain = http("");
    assert_eq!(chain.codec, Codec::Auto);
    assert_eq!(chain.max_request_head, 60 * 1024);
    assert_eq!(chain.max_headers_count, 100);
    assert_eq!(chain.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(chain.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(chain.request_headers_timeout, None);
    assert!(!chain.accept_http_10 && !chain.enable_trailers && !chain.h2.allow_connect && !chain.proxy_100_continue);
    assert_eq!(chain.h2.max_concurrent_streams, 1024);
    assert!(chain.filters.is_empty());
    assert!(matches!(chain.routes, RouteSource::Inline(_)));
}

#[test]
fn set_http_fields_are_taken() {
    let chain = http(
        r#"
      codec_type: HTTP1
      max_request_headers_kb: 64
      common_http_protocol_options: {max_headers_count: 7, idle_timeout: 0s}
      http_protocol_options: {accept_http_10: true, default_host_for_http_10: old.example, enable_trailers: true}
      http2_protocol_options: {initial_stream_window_size: 65536, allow_connect: true}
      stream_idle_timeout: 0s
      request_headers_timeout: 2.5s
      upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}, {upgrade_type: spdy/3.1, enabled: false}]
      proxy_100_continue: true
"#,
    );
    assert_eq!(chain.codec, Codec::Http1);
    assert_eq!(chain.max_request_head, 65_536);
    assert_eq!(chain.max_headers_count, 7);
    assert_eq!(chain.idle_timeout, None, "0s switches the limit off");
    assert_eq!(chain.stream_idle_timeout, None);
    assert_eq!(chain.request_headers_timeout, Some(Duration::from_millis(2500)));
    assert_eq!(chain.default_host_for_http_10.as_deref(), Some("old.example"));
    assert!(chain.accept_http_10 && chain.enable_trailers && chain.h2.allow_connect && chain.proxy_100_continue);
    assert_eq!(chain.h2.initial_stream_window, 65_536);
    assert!(
        chain.upgrades.allows(b"WebSocket") && chain.upgrades.allows_connect() && !chain.upgrades.allows(b"spdy/3.1")
    );
}

#[test]
fn what_is_refused_names_the_fields_path() {
    const HCM: &str = "filter_chains[0].filters[0].typed_config";
    let with = |fields: &str| http_listener(&format!("{ROUTER}{fields}"));
    for (yaml, path) in [
        (with("      codec_type: HTTP3"), "codec_type"),
        (with("      strip_any_host_port: true"), "strip_any_host_port"),
        (with("      request_headers_timeout: -1s"), "request_headers_timeout"),
        (with("      request_timeout: 1s"), "request_timeout"),
        (with("      via: x"), "via"),
        (
            with("      common_http_protocol_options: {max_stream_duration: 1s}"),
            "common_http_protocol_options.max_stream_duration",
        ),
        (with("      max_request_headers_kb: 9000"), "max_request_headers_kb"),
        (
            with("      http2_protocol_options: {initial_stream_window_size: 5}"),
            "http2_protocol_options.initial_stream_window_size",
        ),
        (
            with("      http_protocol_options: {allow_chunked_length: true}"),
            "http_protocol_options.allow_chunked_length",
        ),
        (with("      upgrade_configs: [{}]"), "upgrade_configs[0].upgrade_type"),
        (http_listener(""), "http_filters"),
    ] {
        let refusal = refusal(&yaml);
        assert!(refusal.starts_with(&format!("{HCM}.{path}: ")), "{path}: {refusal}");
    }
}

#[test]
fn an_unknown_http_filter_is_refused_unless_it_is_optional() {
    let filter = |optional: bool| {
        format!(
            r#"
      http_filters:
      - name: not-an-http-filter
        is_optional: {optional}
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy}}
      - name: envoy.filters.http.router
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
        )
    };
    let refusal = refusal(&http_listener(&filter(false)));
    assert!(refusal.starts_with("filter_chains[0].filters[0].typed_config.http_filters[0]: `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`"), "{refusal}");
    assert!(compile(&http_listener(&filter(true))).is_ok());
}

#[test]
fn an_access_filter_under_another_name_is_refused_because_routes_could_not_override_it() {
    let filters = r#"
      http_filters:
      - name: my-rbac
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;
    assert!(refusal(&http_listener(filters)).contains("http_filters[0].name: `my-rbac`"));
}

#[test]
fn a_listener_needs_the_clusters_its_routes_may_use_and_the_routes_it_names() {
    let message = weft_xds::yaml::from_str(&http_listener(ROUTER)).unwrap();
    assert_eq!(compile_listener(&message).unwrap().needs.clusters, ["app".into()]);
    let rds = http_listener(ROUTER).replace(
        "route_config:",
        "rds: {route_config_name: outbound/shop/reviews/80, config_source: {ads: {}}}\n      x:",
    );
    let rds: String = rds
        .lines()
        .filter(|line| !line.contains("x:") && !line.contains("virtual_hosts") && !line.contains("name: all"))
        .map(|line| format!("{line}\n"))
        .collect();
    let needs = compile_listener(&weft_xds::yaml::from_str(&rds).unwrap()).unwrap().needs;
    assert_eq!(needs.routes, ["outbound/shop/reviews/80".into()]);
    assert!(needs.clusters.is_empty());
}

#[test]
fn a_tcp_chain_spreads_connections_by_weight() {
    let chain = tcp("      weighted_clusters: {clusters: [{name: a, weight: 9}, {name: b, weight: 1}]}");
    let to_b = (0..1000).filter(|n| &**chain.pick(*n) == "b").count();
    assert_eq!(to_b, 100);
    assert_eq!(chain.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(chain.max_connect_attempts, 1);
}

#[test]
fn a_tcp_chain_without_a_destination_is_refused() {
    const TCP: &str = "filter_chains[0].filters[0].typed_config";
    assert!(refusal(&tcp_listener("")).starts_with(&format!("{TCP}.cluster: ")));
    let zero = "      weighted_clusters: {clusters: [{name: a, weight: 0}]}";
    assert!(refusal(&tcp_listener(zero)).starts_with(&format!("{TCP}.weighted_clusters.clusters[0].weight: `0`")));
}

#[test]
fn network_rbac_comes_before_the_proxy_and_anything_else_is_refused() {
    let tcp = tcp_listener("      cluster: app");
    let rbac = tcp.replace(
        "- filters:",
        "- filters:\n  - name: envoy.filters.network.rbac\n    typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x, rules: {}}",
    );
    assert_eq!(compile(&rbac).unwrap().chains[0].network_rbac.len(), 1);
    let twice = tcp_listener(
        "      cluster: app\n  - name: last\n    typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: b}",
    );
    assert!(
        refusal(&twice)
            .starts_with("filter_chains[0].filters[0]: `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`")
    );
}

#[test]
fn two_chains_with_the_same_conditions_are_refused() {
    let chain = |condition: &str| {
        format!(
            "- filter_chain_match: {condition}\n  filters: [{{name: t, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: a}}}}]\n"
        )
    };
    let listener = |a: &str, b: &str| format!("name: l\nbind_to_port: false\nfilter_chains:\n{}{}", chain(a), chain(b));
    let same = listener("{destination_port: 1, server_names: [a, b]}", "{destination_port: 1, server_names: [b]}");
    assert!(
        refusal(&same)
            .starts_with("filter_chains[1].filter_chain_match: has the same conditions as `filter_chains[0]`")
    );
    let other = listener("{destination_port: 1, server_names: [a, b]}", "{destination_port: 2, server_names: [b]}");
    assert!(compile(&other).is_ok());
}

#[test]
fn the_meshs_ranges_come_with_the_inbound_listener() {
    let yaml = |mesh: &str| {
        format!(
            "name: inbound/shop/web\nbind_to_port: false\ntraffic_direction: INBOUND\nmetadata: {{filter_metadata: {{weft.mesh: {mesh}}}}}\n{}",
            &tcp_listener("      cluster: a")[tcp_listener("").find("filter_chains").unwrap()..]
        )
    };
    let listener =
        compile(&yaml("{ranges: [198.18.0.0/15, \"fd00:198:18::/48\"], unknown_destination: refuse}")).unwrap();
    let mesh = listener.mesh.unwrap();
    assert!(mesh.contains("198.19.0.1".parse().unwrap()) && !mesh.contains("10.0.0.1".parse().unwrap()));
    assert_eq!(mesh.unknown_destination, UnknownDestination::Refuse);
    assert_eq!(listener.bind, None);
    assert!(
        refusal(&yaml("{ranges: [198.18.0.0/99]}")).starts_with("metadata.filter_metadata[\"weft.mesh\"].ranges[0]: ")
    );
}

#[test]
fn addresses_that_cannot_be_bound_are_refused() {
    let listener = http_listener(ROUTER);
    for (from, to, path) in [
        ("address: 127.0.0.1", "address: localhost", "address.socket_address.address"),
        ("port_value: 8080", "port_value: 80800", "address.socket_address.port_value"),
        ("address: {socket_address: {address: 127.0.0.1, port_value: 8080}}", "address: {pipe: {path: /x}}", "address"),
    ] {
        let refusal = refusal(&listener.replacen(from, to, 1));
        assert!(refusal.starts_with(&format!("{path}: ")), "{refusal}");
    }
}
