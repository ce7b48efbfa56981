//! What an Envoy in the place of our own sidecar is told, where that differs.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

mod support;

use support::{model, service};
use weft_control_plane::ResourceType::{Cluster, Listener, Route};
use weft_control_plane::model::Model;
use weft_control_plane::render::{names, render};
use weft_control_plane::{ClientKind, ResourceKey, ResourceType, View};
use weft_xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use weft_xds::envoy::config::listener::v3::Listener as ListenerMessage;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier,
};

const OWN: (&str, &str) = ("shop", "reviews");

fn shop(more: &str) -> Model {
    let port = "{port: 80, targetPort: 8080, appProtocol: http}";
    model(&(service("reviews", "198.18.10.5", port, "198.18.0.7") + more))
}

fn rendered<M: prost::Message + prost::Name + Default>(model: &Model, kind: ResourceType, name: &str) -> M {
    let any = render(model, &ResourceKey::new(kind, name), &View::envoy("shop", "/run/agent")).unwrap();
    weft_xds::unpack(&any, name).unwrap()
}

/// Whether a text is anywhere in a message.
fn holds(message: &impl prost::Message, text: &str) -> bool {
    message.encode_to_vec().windows(text.len()).any(|window| window == text.as_bytes())
}

fn manager(listener: &ListenerMessage, chain: &str) -> HttpConnectionManager {
    use weft_xds::envoy::config::listener::v3::filter::ConfigType;
    let chain = listener.filter_chains.iter().find(|found| found.name == chain).unwrap();
    match chain.filters.last().unwrap().config_type.as_ref().unwrap() {
        ConfigType::TypedConfig(any) => weft_xds::unpack(any, "").unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_told_of_all_that_it_cannot_name() {
    let model = shop("");
    let all = |kind| names(&model, kind, ClientKind::Envoy, OWN);
    let listeners = all(Listener);
    for name in ["198.18.10.5:80", "198.18.0.7:8080", "outbound"] {
        assert!(listeners.iter().any(|found| **found == *name), "{name}: {listeners:?}");
    }
    let clusters = all(Cluster);
    for name in ["service/shop/reviews/80", "pod/198.18.0.7/8080", "inbound/8080", "inbound/0", "passthrough"] {
        assert!(clusters.iter().any(|found| **found == *name), "{name}: {clusters:?}");
        assert!(
            render(&model, &ResourceKey::new(Cluster, name), &View::envoy("shop", "/run/agent")).is_some(),
            "{name}"
        );
    }
    let view = View::weft("shop");
    assert!(render(&model, &ResourceKey::new(Listener, "outbound"), &view).is_none(), "ours listen by themselves");
}

#[test]
fn each_alpn_name_has_a_chain_with_its_codec() {
    let listener: ListenerMessage = rendered(&shop(""), Listener, "inbound/shop/reviews");
    assert_eq!(listener.bind_to_port, None, "it listens");
    for (chain, codec, alpn) in
        [("8080-mesh-http1", CodecType::Http1, "weft-http/1.1"), ("8080-mesh-http2", CodecType::Http2, "weft-h2")]
    {
        assert_eq!(manager(&listener, chain).codec_type(), codec);
        let found = listener.filter_chains.iter().find(|found| found.name == chain).unwrap();
        assert_eq!(found.filter_chain_match.as_ref().unwrap().application_protocols, [alpn]);
    }
    assert!(holds(&listener, "/run/agent/identity.json"), "its key is where its agent keeps it");
}

#[test]
fn access_rules_come_by_routes_so_that_they_hold_for_open_connections() {
    let policy = "---\napiVersion: weft.mesh/v1alpha1\nkind: AccessPolicy\nmetadata: {name: only, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Service, name: reviews}], action: Allow, rules: [{from: [{serviceAccounts: [shop/web]}]}]}\n";
    let (without, with) = (shop(""), shop(policy));
    let name = "inbound/shop/reviews/8080";
    let listener = |model| rendered::<ListenerMessage>(model, Listener, "inbound/shop/reviews");
    match manager(&listener(&with), "8080-mesh-http2").route_specifier.unwrap() {
        RouteSpecifier::Rds(rds) => assert_eq!(rds.route_config_name, name),
        other => panic!("{other:?}"),
    }
    let settings =
        |model| rendered::<RouteConfiguration>(model, Route, name).virtual_hosts[0].typed_per_filter_config.clone();
    assert_eq!(settings(&without).len(), 0);
    assert_eq!(settings(&with).keys().collect::<Vec<_>>(), ["weft.allow"]);
    let chain = |model, name: &str| listener(model).filter_chains.into_iter().find(|chain| chain.name == name).unwrap();
    assert_eq!(chain(&with, "8080-mesh-http2"), chain(&without, "8080-mesh-http2"), "no connection is drained");
}

#[test]
fn a_peer_is_accepted_by_its_identity_alone_and_never_in_plaintext() {
    let cluster: ClusterMessage = rendered(&shop(""), Cluster, "service/shop/reviews/80");
    let names: Vec<_> = cluster.transport_socket_matches.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["spiffe://weft.local/ns/shop/sa/reviews", "weft-mtls", "plaintext"]);
    let criteria: Vec<_> =
        cluster.transport_socket_matches.iter().map(|found| found.r#match.as_ref().unwrap().fields.len()).collect();
    assert_eq!(
        criteria,
        [2, 1, 0],
        "an endpoint of another identity is still one with mutual TLS, which accepts nobody"
    );
    assert!(holds(&cluster.transport_socket_matches[1], "spiffe://nobody.invalid"));
}

#[test]
fn equal_models_give_equal_bytes() {
    let deny = |name: &str, action: &str| {
        format!(
            "---\napiVersion: weft.mesh/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: reviews}}], action: {action}, rules: [{{from: [{{serviceAccounts: [shop/web]}}]}}]}}\n"
        )
    };
    let model = shop(&(deny("a", "Allow") + &deny("b", "Deny")));
    let view = View::envoy("shop", "/run/agent");
    for (kind, name) in [(Route, "inbound/shop/reviews/8080"), (Cluster, "service/shop/reviews/80")] {
        let once = || render(&model, &ResourceKey::new(kind, name), &view).unwrap();
        let first = once();
        assert!((0..20).all(|_| once() == first), "{name}");
    }
}
