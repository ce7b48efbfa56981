//! What an Envoy needs beside what our own sidecars do.
//!
//! It listens for redirected connections by listeners of ours; has a filter chain with an explicit codec for each ALPN name, as its own choice of a
//! codec by ALPN knows only Envoy's names; and knows whom it calls by a transport socket for each identity, as it does not look for an identity
//! in an endpoint's metadata.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weft_inject::names::{INBOUND_PORT, OUTBOUND_PORT};
use weft_xds::envoy::extensions::filters::common::set_filter_state::v3 as filter_state;
use weft_xds::envoy::extensions::filters::network::set_filter_state::v3 as network_filter_state;
use weft_xds::google::protobuf::Any;
use weft_xds::{metadata, names};

use super::clusters::{meshed, socket_match};
use super::outbound::{Destination, only};
use super::values::{address, cluster, core, duration, hcm, listener, number, route, truth};
use super::{http, tls, wire};
use crate::model::{MeshConfig, MeshPeer, Model, Protocol, UnknownDestination};
use crate::{ClientKind, ResourceType, View};

/// How long a port whose protocol nobody declared waits for the client's first bytes: a server may be the one to speak first.
const SNIFF: Duration = Duration::from_millis(200);
/// By what a failed delivery is known that no byte of reached the application: see `weft-proxy`, which sends it.
const UNDELIVERED: &str = "x-weft-undelivered";
/// The methods of requests that may be repeated, as a regular expression.
const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";
/// How often an endpoint is drawn anew that was tried before. A dead one has the fewest requests under way, so that drawing the better of two
/// finds it in three cases of four where there are two endpoints.
const SELECTIONS: i64 = 100;
/// An identity that nobody has, for endpoints that came before their cluster's identities.
const NOBODY: &str = "spiffe://nobody.invalid";
/// Chooses the ALPN names that are offered, in place of the transport socket's (Envoy's well-known filter state).
const ALPN_STATE: &str = "envoy.network.application_protocols";

/// Connections that leave the pod: each goes on in the listener of its original destination, if there is one.
pub(super) fn outbound(config: &MeshConfig) -> Any {
    let relay = http::relay(names::PASSTHROUGH, names::PASSTHROUGH, Some(Duration::from_secs(3600)));
    let unknown = match config.unknown_destination {
        UnknownDestination::Passthrough => vec![relay],
        // A chain without filters closes the connection.
        UnknownDestination::Refuse => Vec::new(),
    };
    let message = listener::Listener {
        name: names::OUTBOUND.to_owned(),
        // On any other address this would be an open relay.
        address: address(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), OUTBOUND_PORT)),
        additional_addresses: also_at(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), OUTBOUND_PORT)),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        use_original_dst: truth(true),
        listener_filters: vec![http::original_destination()],
        filter_chains: vec![refused(OUTBOUND_PORT), refused(INBOUND_PORT), http::chain("unknown", unknown)],
        ..Default::default()
    };
    wire::pack(&message, &wire::LISTENER)
}

/// A workload's inbound listener, as one that accepts connections.
pub(super) fn receiving(mut message: listener::Listener) -> listener::Listener {
    message.bind_to_port = None;
    message.additional_addresses = also_at(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), INBOUND_PORT));
    message.filter_chains.push(refused(INBOUND_PORT));
    message
}

/// Whoever connects to a redirected port itself would be sent there again and again.
fn refused(port: u16) -> listener::FilterChain {
    listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch { destination_port: number(port), ..Default::default() }),
        ..http::chain(&format!("own-port-{port}"), Vec::new())
    }
}

fn also_at(at: SocketAddr) -> Vec<listener::AdditionalAddress> {
    vec![listener::AdditionalAddress { address: address(at), ..Default::default() }]
}

/// The listener of an original destination: chains, and the inspection that they need. Where nothing has to be told apart there is none, so
/// that a server may speak first.
pub(super) fn detecting(base: listener::Listener, to: &Destination) -> listener::Listener {
    use hcm::http_connection_manager::CodecType;
    let manager = |name, codec, more: Option<listener::Filter>| {
        // What may change under connections that are open comes by routes, which Envoy changes under them too.
        let filters = vec![http::unset_fault_filter()];
        let (client, source) = (ClientKind::Envoy, to.source.clone());
        let manager = http::connection_manager(client, codec, &to.label, source, filters, to.idle);
        http::chain(name, more.into_iter().chain([manager]).collect())
    };
    let relay = |name, more: Option<listener::Filter>| {
        let relay = http::relay(&to.label, &to.cluster, to.idle);
        http::chain(name, more.into_iter().chain([relay]).collect())
    };
    let http2 = || vec!["h2c".to_owned()];
    let http1 = || vec!["http/1.0".to_owned(), "http/1.1".to_owned()];
    let (chains, inspectors, limit) = match to.protocol {
        // What the client speaks is what the server hears.
        Protocol::Http => {
            let chains = vec![
                only("", http2(), manager("http2", CodecType::Http2, Some(offer(names::ALPN_H2)))),
                manager("http1", CodecType::Http1, None),
            ];
            // The client speaks first, however late.
            (chains, vec![http::http_inspector()], Duration::ZERO)
        }
        Protocol::Http2 | Protocol::Grpc => (vec![manager("http", CodecType::Auto, None)], Vec::new(), Duration::ZERO),
        Protocol::Opaque => (vec![relay("tcp", None)], Vec::new(), Duration::ZERO),
        Protocol::Detect => {
            let bytes = || Some(offer(names::ALPN_TCP));
            let chains = vec![
                only("raw_buffer", http1(), manager("http1", CodecType::Http1, None)),
                only("raw_buffer", http2(), manager("http2", CodecType::Http2, Some(offer(names::ALPN_H2)))),
                only("raw_buffer", Vec::new(), relay("tcp", bytes())),
                only("tls", Vec::new(), relay("own-tls", bytes())),
            ];
            (chains, vec![http::tls_inspector(), http::http_inspector()], SNIFF)
        }
    };
    listener::Listener {
        filter_chains: chains,
        listener_filters: inspectors,
        listener_filters_timeout: duration(limit),
        ..base
    }
}

/// What an Envoy offers to a cluster's endpoints unless [`offer`] says otherwise.
fn alpn(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http | Protocol::Detect => names::ALPN_HTTP1,
        Protocol::Http2 | Protocol::Grpc => names::ALPN_H2,
        Protocol::Opaque => names::ALPN_TCP,
    }
}

/// Has connections to endpoints offer this ALPN name.
fn offer(name: &str) -> listener::Filter {
    use core::substitution_format_string::Format;
    use filter_state::filter_state_value::{Key, SharedWithUpstream, Value};
    let text = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(name.to_owned())),
        ..Default::default()
    };
    let value = filter_state::FilterStateValue {
        key: Some(Key::ObjectKey(ALPN_STATE.to_owned())),
        value: Some(Value::FormatString(core::SubstitutionFormatString {
            format: Some(Format::TextFormatSource(text)),
            ..Default::default()
        })),
        shared_with_upstream: SharedWithUpstream::Once.into(),
        ..Default::default()
    };
    let message = network_filter_state::Config { on_new_connection: vec![value], ..Default::default() };
    http::filter("envoy.filters.network.set_filter_state", weft_xds::pack(&message))
}

/// A transport socket for each identity among a cluster's endpoints.
pub(super) fn socket_matches<'p>(
    protocol: Protocol,
    sni: &str,
    peers: impl Iterator<Item = &'p MeshPeer>,
    view: &View,
) -> Vec<cluster::cluster::TransportSocketMatch> {
    let identities: BTreeSet<String> = peers.map(|peer| peer.identity.to_string()).collect();
    let to = |identity: &str| tls::upstream_to(identity, &[alpn(protocol)], sni.to_owned(), view);
    let mut matches: Vec<_> = identities
        .iter()
        .map(|identity| {
            let mut criteria = meshed();
            metadata::insert(&mut criteria, names::key::IDENTITY, identity.as_str());
            socket_match(identity, criteria, to(identity))
        })
        .collect();
    // An endpoint that is not among them must not be taken for one without mutual TLS.
    matches.push(socket_match(names::SOCKET_MTLS, meshed(), to(NOBODY)));
    matches
}

/// A cluster whose endpoints' health counts at once: Envoy collects changes for a second unless told otherwise.
pub(super) fn at_once(mut cluster: cluster::Cluster) -> cluster::Cluster {
    cluster.common_lb_config.get_or_insert_default().update_merge_window = duration(Duration::ZERO);
    cluster
}

/// A route that is retried as our own proxy does by itself: what certainly reached no application, and what may be repeated (RFC 9110 §9.2.2)
/// if its connection broke. Envoy's conditions know no methods, so the latter is a route of its own.
pub(super) fn retried_as_ours(mut route: route::Route) -> Vec<route::Route> {
    let Some(policy) = retry_policy(&mut route) else { return vec![route] };
    policy.retry_on.push_str(",retriable-headers");
    policy.host_selection_retry_max_attempts = SELECTIONS;
    policy.retriable_headers.push(route::HeaderMatcher {
        name: UNDELIVERED.to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    });
    // Envoy counts a try that took too long as broken.
    let limited = policy.per_try_timeout.as_ref().is_some_and(|limit| (limit.seconds, limit.nanos) != (0, 0));
    if limited {
        return vec![route];
    }
    let mut repeated = route.clone();
    repeated.r#match.get_or_insert_default().headers.push(super::routes::method_in(IDEMPOTENT));
    if let Some(policy) = retry_policy(&mut repeated) {
        policy.retry_on.push_str(",reset");
    }
    vec![repeated, route]
}

fn retry_policy(route: &mut route::Route) -> Option<&mut route::RetryPolicy> {
    match &mut route.action {
        Some(route::route::Action::Route(action)) => action.retry_policy.as_mut(),
        _ => None,
    }
}

/// What an Envoy in the place of a workload needs beside the services: it names no listener and no cluster.
pub(super) fn more_names(model: &Model, kind: ResourceType, (namespace, workload): (&str, &str)) -> Vec<Arc<str>> {
    // Pods by the ports on which they listen: they may be called by their own addresses.
    let pods = || {
        model.pods().flat_map(|pod| {
            let workload = model.workload(&pod.name.namespace, &pod.workload);
            let ports = workload.map(|workload| workload.ports.keys().copied()).into_iter().flatten();
            ports.flat_map(|port| pod.addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
        })
    };
    match kind {
        ResourceType::Listener => {
            pods().map(|at| names::outbound_listener(at).into()).chain([names::OUTBOUND.into()]).collect()
        }
        ResourceType::Cluster => {
            let ports = model.workload(namespace, workload).map(|workload| workload.ports.keys().copied());
            let own = ports.into_iter().flatten().chain([0]).map(|port| names::inbound_cluster(port).into());
            pods().map(|at| names::pod_cluster(at).into()).chain(own).chain([names::PASSTHROUGH.into()]).collect()
        }
        _ => Vec::new(),
    }
}
