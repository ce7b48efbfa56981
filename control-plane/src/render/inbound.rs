//! The listener for traffic that arrives at a workload's pods.

use std::time::Duration;

use weft_xds::google::protobuf::Any;
use weft_xds::{metadata, names};

use super::values::{address, any_address, core, hcm, listener, number};
use super::{access, http, routes, tls, wire};
use crate::model::policy::{Access, TlsMode};
use crate::model::{InboundPort, MeshConfig, Model, Protocol, UnknownDestination};

/// Longer than callers keep idle connections, so that no request meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// Where redirected connections arrive.
const PORT: u16 = 15006;

pub(super) fn listener(model: &Model, namespace: &str, name: &str) -> Option<Any> {
    let workload = model.workload(namespace, name)?;
    let mut chains = Vec::new();
    for (port, inbound) in &workload.ports {
        declared(*port, *inbound, &workload.access, &mut chains);
    }
    undeclared(workload.tls, &workload.access, &mut chains);
    let detects = workload.ports.values().any(|p| p.protocol == Protocol::Detect);
    let message = listener::Listener {
        address: address(any_address(PORT)),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        filter_chains: chains,
        metadata: Some(mesh(model.config())),
        ..http::base(names::inbound_listener(namespace, name), detects)
    };
    Some(wire::pack(&message, &wire::LISTENER))
}

/// What the sidecar has to know of the mesh before it knows any destination.
fn mesh(config: &MeshConfig) -> core::Metadata {
    let ranges: Vec<String> = config.ranges.iter().map(ToString::to_string).collect();
    let unknown = match config.unknown_destination {
        UnknownDestination::Passthrough => "passthrough",
        UnknownDestination::Refuse => "refuse",
    };
    metadata::single(
        names::METADATA,
        metadata::object([(names::key::RANGES, ranges.into()), (names::key::UNKNOWN_DESTINATION, unknown.into())]),
    )
}

/// Connections by what their first bytes are.
enum First<'a> {
    /// A ClientHello with one of these ALPN names: from a sidecar.
    Mesh(&'a [&'a str]),
    /// Plaintext HTTP, where it has to be looked for.
    DetectedHttp,
    /// No ClientHello.
    Plaintext,
    /// Anything that no other chain takes.
    Anything,
}

fn declared(port: u16, inbound: InboundPort, access: &Access, chains: &mut Vec<listener::FilterChain>) {
    let http_alpn = [names::ALPN_HTTP1, names::ALPN_H2];
    let tcp_alpn = [names::ALPN_TCP];
    let mut add = |name: &str, first: First<'_>, http: bool| {
        let filters = if http { serve(port, access) } else { relay(port, access) };
        chains.push(chain(Some(port), name, first, filters));
    };
    let permissive = inbound.tls == TlsMode::Permissive;
    let (http, opaque) = match inbound.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => (true, false),
        Protocol::Opaque => (false, true),
        Protocol::Detect => (true, true),
    };
    if http {
        add("mtls-http", First::Mesh(&http_alpn), true);
    }
    if opaque {
        add("mtls-tcp", First::Mesh(&tcp_alpn), false);
    }
    if permissive {
        match (http, opaque) {
            (true, false) => add("plain-http", First::Plaintext, true),
            (true, true) => add("plain-http", First::DetectedHttp, true),
            _ => {}
        }
        // Also the application's own TLS.
        add("plain-tcp", First::Anything, false);
    }
}

/// Ports that nobody declared: bytes. Not the default chain, which would take what a strict port refuses.
fn undeclared(mode: TlsMode, access: &Access, chains: &mut Vec<listener::FilterChain>) {
    chains.push(chain(None, "mtls-tcp", First::Mesh(&[names::ALPN_TCP]), relay(0, access)));
    if mode == TlsMode::Permissive {
        chains.push(chain(None, "plain-tcp", First::Anything, relay(0, access)));
    }
}

fn chain(port: Option<u16>, name: &str, first: First<'_>, filters: Vec<listener::Filter>) -> listener::FilterChain {
    let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    let (transport, protocols, socket) = match first {
        First::Mesh(alpn) => ("tls", owned(alpn), Some(tls::downstream(alpn))),
        First::DetectedHttp => ("raw_buffer", super::outbound::detected_http(), None),
        First::Plaintext => ("raw_buffer", Vec::new(), None),
        First::Anything => ("", Vec::new(), None),
    };
    let label = port.map_or("any".to_owned(), |p| p.to_string());
    listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: port.and_then(number),
            transport_protocol: transport.to_owned(),
            application_protocols: protocols,
            ..Default::default()
        }),
        transport_socket: socket,
        ..http::chain(&format!("{label}-{name}"), filters)
    }
}

fn serve(port: u16, access: &Access) -> Vec<listener::Filter> {
    let label = names::inbound_cluster(port);
    let source = hcm::http_connection_manager::RouteSpecifier::RouteConfig(routes::only(&label, &label, &label, false));
    vec![http::connection_manager(&label, source, access::http_filters(access), Some(IDLE))]
}

/// `port` 0 is any: the cluster delivers to the original address.
fn relay(port: u16, access: &Access) -> Vec<listener::Filter> {
    let label = names::inbound_cluster(port);
    let mut filters = access::network_filters(access, &label);
    filters.push(http::relay(&label, &label, Some(IDLE)));
    filters
}
