use std::collections::BTreeSet;

use super::*;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Listener;
use crate::{type_url, yaml};

fn listener(text: &str) -> Result<Vec<String>, FieldError> {
    check_message(&yaml::from_str::<Listener>(text).unwrap())
}

fn cluster(text: &str) -> Result<Vec<String>, FieldError> {
    check_message(&yaml::from_str::<Cluster>(text).unwrap())
}

#[test]
fn every_field_of_every_message_is_decided_exactly_once() {
    let pool = yaml::pool().unwrap();
    let mut seen = BTreeSet::new();
    for decision in table::all() {
        assert!(seen.insert(decision.message), "{} is there twice", decision.message);
        let descriptor = pool.get_message_by_name(decision.message).unwrap();
        let mut decided: Vec<_> = [decision.enforced, decision.ignored, decision.refused].concat();
        decided.sort_unstable();
        let fields: Vec<_> = descriptor.fields().collect();
        let mut expected: Vec<_> = fields.iter().map(|field| field.name()).collect();
        expected.sort_unstable();
        assert_eq!(decided, expected, "{}", decision.message);
    }
}

#[test]
fn the_generated_numbers_and_types_are_those_of_the_descriptors() {
    let pool = yaml::pool().unwrap();
    let again = "run cargo run -p weft-xds --example prune_descriptors";
    let mut messages = messages();
    messages.sort_unstable();
    let generated: Vec<_> = fields::MESSAGES.iter().map(|message| message.name).collect();
    assert_eq!(generated, messages, "{again}");
    for message in fields::MESSAGES {
        let descriptor = pool.get_message_by_name(message.name).unwrap();
        let mut expected: Vec<_> = descriptor
            .fields()
            .map(|field| {
                let shape = match (field.is_map(), field.is_list()) {
                    (true, _) => Shape::Map,
                    (_, true) => Shape::Many,
                    _ => Shape::One,
                };
                let of = field.kind().as_message().map(|of| match shape {
                    Shape::Map => of.map_entry_value_field().kind(),
                    _ => field.kind(),
                });
                let of = of.and_then(|of| of.as_message().map(|of| of.full_name().to_owned()));
                let kind = match of.as_deref() {
                    Some("google.protobuf.Any") => Kind::Any,
                    Some("google.protobuf.BoolValue") => Kind::Flag,
                    Some(name) => find(name).map_or(Kind::Leaf, Kind::Message),
                    None => Kind::Leaf,
                };
                (field.number(), field.name().to_owned(), shape, kind)
            })
            .collect();
        expected.sort_unstable_by_key(|(number, ..)| *number);
        let found: Vec<_> =
            message.fields.iter().map(|field| (field.number, field.name.to_owned(), field.shape, field.kind)).collect();
        assert_eq!(found, expected, "{}: {again}", message.name);
    }
}

#[test]
fn what_is_enforced_is_decided_all_the_way_down() {
    let pool = yaml::pool().unwrap();
    for decision in table::all() {
        let descriptor = pool.get_message_by_name(decision.message).unwrap();
        for name in decision.enforced {
            let field = descriptor.get_field_by_name(name).unwrap();
            let kind = field.kind();
            let Some(of) = kind.as_message() else { continue };
            let value = of.is_map_entry().then(|| of.map_entry_value_field().kind());
            let of = match &value {
                Some(value) => value.as_message(),
                None => Some(of),
            };
            let Some(of) = of.map(|of| of.full_name()) else { continue };
            assert!(
                of.starts_with("google.protobuf.") || find(of).is_some(),
                "{}.{name} is enforced, but nothing is said about {of}",
                decision.message
            );
        }
    }
}

#[test]
fn a_refused_field_is_named_wherever_it_is() {
    for (text, path) in [
        ("{udp_listener_config: {}}", "udp_listener_config"),
        ("{filter_chains: [{}, {filters: [{config_discovery: {}}]}]}", "filter_chains[1].filters[0].config_discovery"),
        (
            r#"filter_chains: [{filters: [{typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, route_config: {virtual_hosts: [{routes: [{}, {route: {cluster: a, metadata_match: {}}}]}]}}}]}]"#,
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[1].route.metadata_match",
        ),
        (
            r#"filter_chains: [{filters: [{typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, rules: {policies: {p: {principals: [{not_id: {remote_ip: {}}}]}}}}}]}]"#,
            r#"filter_chains[0].filters[0].typed_config.rules.policies["p"].principals[0].not_id.remote_ip"#,
        ),
    ] {
        let error = listener(text).unwrap_err();
        assert_eq!(error.path, path);
        assert_eq!(error.problem, "is not supported; remove it");
    }
}

#[test]
fn a_refused_flag_that_is_off_is_let_through() {
    assert_eq!(listener("{transparent: false}").unwrap(), [""; 0]);
    assert_eq!(listener("{transparent: true}").unwrap_err().path, "transparent");
}

#[test]
fn ignored_fields_are_reported_once_each() {
    let found = cluster(
        "{alt_stat_name: x, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {health_check_config: {}}}, {endpoint: {health_check_config: {}}}]}]}}",
    );
    assert_eq!(
        found.unwrap(),
        ["alt_stat_name", "load_assignment.endpoints[].lb_endpoints[].endpoint.health_check_config"]
    );
}

#[test]
fn an_unknown_field_number_is_an_error_with_the_path_of_its_message() {
    // Field 1000 of the second filter chain (field 3): a varint 1.
    let unknown = [0xc0, 0x3e, 0x01];
    let mut bytes = vec![0x1a, 0, 0x1a, 3];
    bytes.extend_from_slice(&unknown);
    let error = check(type_url::LISTENER, &bytes).unwrap_err();
    assert_eq!(error.path, "filter_chains[1]");
    assert!(error.problem.contains("number 1000"), "{error}");
}

#[test]
fn an_any_of_an_unknown_type_is_left_to_the_compiler() {
    let mut bytes = vec![0x1a, 11, 0x1a, 9, 0x22, 7];
    bytes.extend_from_slice(&[0x0a, 5]);
    bytes.extend_from_slice(b"a/b.C");
    assert_eq!(check(type_url::LISTENER, &bytes).unwrap(), ["filter_chains[].filters[].typed_config"]);
}

#[test]
fn malformed_bytes_and_endless_nesting_are_errors() {
    assert!(check(type_url::CLUSTER, &[0x0a, 5, b'x']).is_err());
    assert!(check(type_url::CLUSTER, &[0x0b]).is_err(), "a group");
    assert!(check("a/b.C", &[]).is_err());
    // RBAC's not_rule in itself, 200 times.
    let mut bytes = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x42];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    let error = check("x/envoy.config.rbac.v3.Permission", &bytes).unwrap_err();
    assert!(error.problem.contains("nested too deeply"), "{error}");
}

#[test]
fn rows_cover_the_kinds_of_support() {
    let row = |message: &str, field: &str| rows().find(|row| row.message == message && row.field == field).unwrap();
    let listener = "envoy.config.listener.v3.Listener";
    assert_eq!(row(listener, "filter_chains").support, Support::Enforced);
    assert_eq!(row(listener, "filter_chains").number, 3);
    assert_eq!(row(listener, "stat_prefix").support, Support::Ignored);
    assert_eq!(row(listener, "api_listener").support, Support::Refused);
}

#[test]
fn damaged_messages_are_errors_or_not_but_never_panics() {
    let message = yaml::from_str::<Listener>(
        r#"{name: a, filter_chains: [{filters: [{typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, rules: {policies: {p: {principals: [{any: true}]}}}}}]}]}"#,
    )
    .unwrap();
    let bytes = message.encode_to_vec();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x0a, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(8)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            // What it says does not matter: text that is not UTF-8, say, is found by decoding.
            let _ = check(type_url::LISTENER, &damaged);
        }
        let _ = check(type_url::LISTENER, &bytes[..at]);
    }
}

#[test]
fn each_enforced_field_is_left_out_once_at_every_depth() {
    let text = "{name: l, stat_prefix: ignored, filter_chains: [{filters: [{name: http, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: c}}]}]}";
    let message = yaml::from_str::<Listener>(text).unwrap();
    let variants = without_each(&Listener::type_url(), &message.encode_to_vec());
    let paths: Vec<_> = variants.iter().map(|variant| variant.path.as_str()).collect();
    let filter = "filter_chains[0].filters[0]";
    let expected = [
        "name",
        "filter_chains",
        "filter_chains[0].filters",
        &format!("{filter}.name"),
        &format!("{filter}.typed_config"),
        &format!("{filter}.typed_config.cluster"),
    ];
    assert_eq!(paths, expected);
    let text = text.replace(", cluster: c", "");
    let last = Listener::decode(variants[5].bytes.as_slice()).unwrap();
    assert_eq!(last, yaml::from_str::<Listener>(&text).unwrap());
}
