//! What stays across changes of endpoints and settings.

use super::super::{ClusterConfig, Discovery, DnsSettings};
use super::*;

fn meshed(identity: &str) -> String {
    format!(
        "metadata: {{filter_metadata: {{envoy.transport_socket_match: {{weft: mtls, identity: '{identity}', pod: p.w.n.pod.weft.mesh}}}}}}"
    )
}

const MESH: &str = "transport_socket_matches: [
    {name: weft-mtls, match: {weft: mtls}, transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: one}}},
    {name: plaintext, match: {}, transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}]";

fn config(settings: &str) -> ClusterConfig {
    ClusterConfig::compile(&weft_xds::yaml::from_str(&format!("{{name: c, type: EDS, {settings}}}")).unwrap(), "")
        .unwrap()
}

#[test]
fn an_endpoint_that_stays_keeps_its_object_and_state_when_others_come_and_go() {
    let cluster = with_endpoints("outlier_detection: {consecutive_5xx: 1}", &["", ""]);
    let [first, second] = <[_; 2]>::try_from(endpoints(&cluster)).unwrap();
    let _under_way = first.begin();
    fail(&first, 1);
    cluster.set_endpoints(&assignment(&["load_balancing_weight: 7, health_status: UNHEALTHY", "", ""]), "").unwrap();
    let after = endpoints(&cluster);
    assert!(Arc::ptr_eq(&after[0], &first) && Arc::ptr_eq(&after[1], &second));
    assert!(after[0].is_ejected() && after[0].active() == 1);
    assert_eq!(cluster.members()[0].weight, 7);
}

#[test]
fn an_endpoint_that_leaves_is_no_longer_counted_as_ejected_and_comes_back_new() {
    let cluster = with_endpoints("outlier_detection: {consecutive_5xx: 1}", &["", ""]);
    let first = endpoints(&cluster)[0].clone();
    fail(&first, 1);
    cluster.set_endpoints(&ClusterLoadAssignment::default(), "").unwrap();
    assert_eq!(cluster.outliers().ejected(), 0);
    cluster.set_endpoints(&assignment(&["", ""]), "").unwrap();
    let back = endpoints(&cluster)[0].clone();
    assert!(!back.is_ejected());
    assert_ne!(back.id(), first.id());
}

#[test]
fn an_address_with_another_identity_is_another_endpoint() {
    let (a, b) = (meshed("spiffe://weft.local/ns/n/sa/a"), meshed("spiffe://weft.local/ns/n/sa/b"));
    let cluster = with_endpoints(MESH, &[&a]);
    let before = endpoints(&cluster)[0].clone();
    assert_eq!(before.identity().unwrap().spiffe, "spiffe://weft.local/ns/n/sa/a");
    assert_eq!(before.identity().unwrap().pod.as_deref(), Some("p.w.n.pod.weft.mesh"));
    let _under_way = before.begin();
    cluster.set_endpoints(&assignment(&[&b]), "").unwrap();
    let after = endpoints(&cluster)[0].clone();
    assert_ne!(after.id(), before.id());
    assert_eq!(after.active(), 0);
}

#[test]
fn metadata_chooses_the_transport_socket() {
    let cluster = with_endpoints(MESH, &[&meshed("spiffe://weft.local/ns/n/sa/a"), ""]);
    let [meshed, plain] = <[_; 2]>::try_from(endpoints(&cluster)).unwrap();
    assert!(meshed.tls().is_some());
    assert!(plain.tls().is_none() && plain.identity().is_none());
}

#[test]
fn new_tls_settings_give_endpoints_a_new_id_but_keep_their_counters() {
    let cluster = with_endpoints(MESH, &[&meshed("spiffe://weft.local/ns/n/sa/a"), ""]);
    let before = endpoints(&cluster);
    let _under_way = before[0].begin();
    cluster.update(config(&MESH.replace("sni: one", "sni: two")));
    let after = endpoints(&cluster);
    assert_ne!(after[0].id(), before[0].id());
    assert_eq!(after[0].active(), 1);
    assert!(Arc::ptr_eq(&after[1], &before[1]), "the plaintext endpoint is not concerned");
    cluster.update(config(&MESH.replace("sni: one", "sni: two")));
    assert!(Arc::ptr_eq(&endpoints(&cluster)[0], &after[0]), "equal settings change nothing");
}

#[test]
fn an_update_keeps_permits_and_endpoints() {
    let cluster = with_endpoints("circuit_breakers: {thresholds: [{max_requests: 1}]}", &["", ""]);
    let _held = cluster.breaker().request().unwrap();
    assert!(cluster.breaker().request().is_err());
    cluster.update(config("circuit_breakers: {thresholds: [{max_requests: 2}]}, connect_timeout: 1s"));
    let _second = cluster.breaker().request().unwrap();
    assert!(cluster.breaker().request().is_err(), "the first still counts");
    assert_eq!(cluster.connect_timeout(), SECOND);
    assert_eq!(endpoints(&cluster).len(), 2);
}

#[test]
fn a_refused_assignment_changes_nothing() {
    let cluster = with_endpoints("", &[""]);
    let error = cluster.set_endpoints(&assignment(&["", "load_balancing_weight: 0"]), "resources[3]").unwrap_err();
    assert_eq!(error.path, "resources[3].endpoints[0].lb_endpoints[1].load_balancing_weight");
    assert_eq!(endpoints(&cluster).len(), 1);
}

#[test]
fn the_same_address_twice_is_one_endpoint() {
    let mut twice = assignment(&["", ""]);
    let again = twice.endpoints[0].clone();
    twice.endpoints.push(again);
    let cluster = cluster("");
    cluster.set_endpoints(&twice, "").unwrap();
    assert_eq!(endpoints(&cluster).len(), 2);
}

#[test]
fn names_become_endpoints_once_they_are_resolved() {
    let yaml = "{name: c, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: [
        {endpoint: {address: {socket_address: {address: shop.example, port_value: 80}}}}]}]}}";
    let cluster = Cluster::compile(&weft_xds::yaml::from_str(yaml).unwrap(), "").unwrap();
    assert!(!cluster.is_warm());
    let Discovery::Dns(DnsSettings { assignment, refresh, .. }) = cluster.config().discovery.clone() else {
        panic!("not DNS")
    };
    assert_eq!(refresh, SECOND * 5);
    assert_eq!(assignment.names().collect::<Vec<_>>(), ["shop.example"]);
    let resolve = |ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        cluster.set_assignment(assignment.resolve(|_| ips.clone()));
        endpoints(&cluster)
    };
    let before = resolve(&["198.18.0.1", "fd00:198:18::1"]);
    assert_eq!(
        before.iter().map(|endpoint| endpoint.address().to_string()).collect::<Vec<_>>(),
        ["198.18.0.1:80", "[fd00:198:18::1]:80"]
    );
    assert_eq!(before[0].hostname(), Some("shop.example"));
    assert!(Arc::ptr_eq(&resolve(&["198.18.0.1"])[0], &before[0]));
}
