use super::*;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::filter::ConfigType;
use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::{metadata, names, unpack};

const SIDECAR: &str = r#"
node:
  id: shop/web-0
  cluster: shop/web
  metadata:
    weft.mesh: {namespace: shop, workload: web, pod: web-0, token_file: /run/token, state_dir: /run/state}
static_resources:
  clusters:
  - name: control-plane
    type: STATIC
    connect_timeout: 1.5s
    load_assignment:
      cluster_name: control-plane
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 198.18.0.2, port_value: 15012}}}}]}]
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: weft-control-plane
        common_tls_context: {validation_context: {trusted_ca: {filename: /run/root.pem}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
"#;

#[test]
fn a_sidecars_bootstrap_is_read() {
    let bootstrap: Bootstrap = from_str(SIDECAR).unwrap();
    let node = bootstrap.node.unwrap();
    let mesh = metadata::nested(node.metadata.as_ref().unwrap(), names::METADATA).unwrap();
    assert_eq!(metadata::str(mesh, names::key::WORKLOAD), Some("web"));
    let cluster = &bootstrap.static_resources.unwrap().clusters[0];
    let timeout = cluster.connect_timeout.as_ref().unwrap();
    assert_eq!((timeout.seconds, timeout.nanos), (1, 500_000_000));
}

#[test]
fn camel_case_json_and_snake_case_yaml_say_the_same() {
    let yaml: Cluster = from_str("{name: a, connect_timeout: 0.25s, lb_policy: LEAST_REQUEST}").unwrap();
    let json: Cluster = from_str(r#"{"name": "a", "connectTimeout": "0.250s", "lbPolicy": 1}"#).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn errors_name_the_path_of_the_field() {
    for (text, expected) in [
        (
            "static_resources: {clusters: [{name: a}, {nam: b}]}",
            "static_resources.clusters[1].nam: is no field of envoy.config.cluster.v3.Cluster; did you mean `name`?",
        ),
        (
            "static_resources: {clusters: [{connect_timeout: soon}]}",
            r#"static_resources.clusters[0].connect_timeout: `"soon"` does not fit: "#,
        ),
        (
            "static_resources: {clusters: [{lb_policy: FASTEST}]}",
            r#"static_resources.clusters[0].lb_policy: `"FASTEST"` does not fit: "#,
        ),
        (
            "admin: {address: {socket_address: {port_value: -1}}}",
            "admin.address.socket_address.port_value: `-1` does not fit: ",
        ),
        (
            "static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {a: 1}}]}]}]}",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.@type: is required but not set; ",
        ),
        (
            "static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {'@type': a/b.C}}]}]}]}",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.@type: `a/b.C` is no message that Weft implements; ",
        ),
        (
            "static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, clust: a}}]}]}]}",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.clust: is no field of envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        ),
        (
            "static_resources: {clusters: [{metadata: {filter_metadata: {x: 1}}}]}",
            r#"static_resources.clusters[0].metadata.filter_metadata["x"]: `1` does not fit: "#,
        ),
        ("node: [", "is not valid YAML or JSON: "),
    ] {
        let error = from_str::<Bootstrap>(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}\n  {error}\n  {expected}");
    }
}

#[test]
fn a_typed_config_is_read_and_dumped_with_its_type() {
    let text = r#"
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          max_request_headers_kb: 64
          route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, timeout: 0s}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
    "#;
    let chain: crate::envoy::config::listener::v3::FilterChain = from_str(text).unwrap();
    let Some(ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else {
        panic!("{chain:?}");
    };
    let hcm: HttpConnectionManager = unpack(any, "typed_config").unwrap();
    assert_eq!(hcm.max_request_headers_kb.unwrap().value, 64);
    let json = to_json(&chain).unwrap();
    let config = &json["filters"][0]["typed_config"];
    assert_eq!(config["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"], "0s");
    assert_eq!(from_json::<crate::envoy::config::listener::v3::FilterChain>(json).unwrap(), chain);
}

#[test]
fn keys_are_redacted_and_unknown_types_are_named_in_a_dump() {
    use crate::google::protobuf::Any;
    let chain: crate::envoy::config::listener::v3::FilterChain = from_str(
        r#"
        filters: [{name: a}]
        transport_socket:
          name: tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
            common_tls_context: {tls_certificates: [{certificate_chain: {inline_string: chain}, private_key: {inline_string: secret}}]}
        "#,
    )
    .unwrap();
    let mut unknown = chain.clone();
    unknown.filters[0].config_type =
        Some(ConfigType::TypedConfig(Any { type_url: "type.googleapis.com/some.Other".into(), value: vec![8, 1] }));
    for chain in [chain, unknown] {
        let json = to_json(&chain).unwrap();
        let text = json.to_string();
        assert!(text.contains("[redacted]") && text.contains("chain"), "{text}");
        assert!(!text.contains("secret\""), "{text}");
        if chain.filters[0].config_type.is_some() {
            let note = &json["filters"][0]["typed_config"]["value"];
            assert_eq!(note["unknown_type"], "type.googleapis.com/some.Other");
        }
    }
}
