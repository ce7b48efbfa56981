//! Cluster messages: defaults, and what is refused.

use super::super::{Cluster, ClusterConfig, Policy, Protocol, UpstreamProtocol};
use super::*;

fn compile(yaml: &str) -> Result<ClusterConfig, weft_xds::FieldError> {
    ClusterConfig::compile(&weft_xds::yaml::from_str(yaml).unwrap(), "")
}

#[test]
fn unset_fields_have_envoys_defaults() {
    let config = compile("{name: c}").unwrap();
    assert_eq!(config.connect_timeout, SECOND * 5);
    assert_eq!(config.idle_timeout, Some(SECOND * 3600));
    assert_eq!(config.policy, Policy::RoundRobin);
    assert_eq!(config.panic_threshold, 50);
    assert_eq!(config.protocol, UpstreamProtocol::Http1);
    assert_eq!((config.limits.max_requests, config.limits.max_retries), (1024, 3));
    assert!(config.outlier.is_none());
    let outlier = compile("{name: c, outlier_detection: {}}").unwrap().outlier.unwrap();
    assert_eq!(
        (outlier.consecutive_5xx, outlier.base_ejection_time, outlier.max_ejection_percent),
        (5, SECOND * 30, 10)
    );
}

#[test]
fn http_options_say_which_version_to_speak() {
    let options = |options: &str| {
        let typed = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let yaml = format!(
            "{{name: c, typed_extension_protocol_options: {{{typed}: {{'@type': type.googleapis.com/{typed}, {options}}}}}}}"
        );
        Cluster::compile(&weft_xds::yaml::from_str(&yaml).unwrap(), "")
    };
    for (text, for_http1, for_http2) in [
        ("explicit_http_config: {http_protocol_options: {}}", Protocol::Http1, Protocol::Http1),
        ("explicit_http_config: {http2_protocol_options: {}}", Protocol::Http2, Protocol::Http2),
        ("use_downstream_protocol_config: {}", Protocol::Http1, Protocol::Http2),
    ] {
        let cluster = options(text).unwrap();
        assert_eq!((cluster.http_protocol(false), cluster.http_protocol(true)), (for_http1, for_http2), "{text}");
    }
    let never =
        options("explicit_http_config: {http_protocol_options: {}}, common_http_protocol_options: {idle_timeout: 0s}")
            .unwrap();
    assert_eq!(never.config().idle_timeout, None);
    let silent =
        options("explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 0s, timeout: 1s}}}")
            .unwrap();
    assert_eq!(silent.config().h2.keepalive_interval, None, "PINGs without a pause");
    assert!(options("").unwrap_err().problem.contains("explicit_http_config"));
    assert!(options("auto_config: {}").is_err());
}

#[test]
fn what_is_wrong_or_not_supported_is_refused_with_the_fields_path() {
    for (yaml, start) in [
        ("{}", "name: is required"),
        ("{name: c, type: LOGICAL_DNS}", "load_assignment.endpoints: `0` is the number of endpoints"),
        ("{name: c, type: STRICT_DNS, dns_refresh_rate: 0s}", "dns_refresh_rate: `0ns` is too short"),
        ("{name: c, type: STRICT_DNS, dns_failure_refresh_rate: {}}", "dns_failure_refresh_rate.base_interval: "),
        ("{name: c, connect_timeout: 0s}", "connect_timeout: "),
        ("{name: c, connect_timeout: -1s}", "connect_timeout: "),
        ("{name: c, lb_policy: MAGLEV}", "lb_policy: "),
        ("{name: c, health_checks: [{timeout: 1s}]}", "health_checks: not supported"),
        (
            "{name: c, metadata: {filter_metadata: {weft.mesh: {balancer: fastest}}}}",
            "metadata.filter_metadata[\"weft.mesh\"].balancer: `fastest`",
        ),
        ("{name: c, outlier_detection: {max_ejection_percent: 101}}", "outlier_detection.max_ejection_percent: `101`"),
        (
            "{name: c, circuit_breakers: {thresholds: [{priority: HIGH}, {retry_budget: {budget_percent: {value: 101}}}]}}",
            "circuit_breakers.thresholds[1].retry_budget.budget_percent: `101`",
        ),
        ("{name: c, common_lb_config: {zone_aware_lb_config: {}}}", "common_lb_config.zone_aware_lb_config"),
        (
            "{name: c, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.b, port_value: 1}}}}]}]}}",
            "load_assignment: `a.b` is not an IP address",
        ),
        (
            "{name: c, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /x}}}}]}]}}",
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address: only socket_address",
        ),
        ("{name: c, transport_socket: {name: x}}", "transport_socket.typed_config: is required"),
    ] {
        let refusal = compile(yaml).unwrap_err().to_string();
        assert!(refusal.starts_with(start), "{yaml}\n{refusal}");
    }
}
