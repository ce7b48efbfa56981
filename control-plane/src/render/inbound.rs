//! The listener for traffic that arrives at a workload's pods.

use std::time::Duration;

use weft_inject::names::INBOUND_PORT;
use weft_xds::google::protobuf::Any;
use weft_xds::{metadata, names};

use super::values::{address, any_address, core, hcm, listener, number};
use super::{access, http, routes, tls, wire};
use crate::model::policy::{Access, TlsMode};
use crate::model::{InboundPort, MeshConfig, Model, Protocol, UnknownDestination};

/// Longer than callers keep idle connections, so that no request meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(2 * 3600);

pub(super) fn listener(model: &Model, namespace: &str, name: &str) -> Option<Any> {
    let workload = model.workload(namespace, name)?;
    let mut chains = Vec::new();
    for (port, inbound) in &workload.ports {
        declared(*port, *inbound, &workload.access, &mut chains);
    }
    undeclared(workload.tls, &workload.access, &mut chains);
    let detects = workload.ports.values().any(|p| p.protocol == Protocol::Detect);
    let message = listener::Listener {
        address: address(any_address(INBOUND_PORT)),
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

/// Connections by what their first bytes are. Every case is a chain of its own: once a chain names a transport protocol, chains that
/// name none are out of the race for it (Envoy's order of criteria has no way back).
#[derive(Clone, Copy)]
enum First {
    /// A ClientHello that offers to speak HTTP as sidecars do.
    MeshHttp,
    /// A ClientHello that offers to carry bytes as sidecars do.
    MeshTcp,
    /// Plaintext HTTP, where it has to be looked for.
    DetectedHttp,
    /// No ClientHello.
    Plaintext,
    /// Any other ClientHello: the application's own TLS.
    OwnTls,
}

fn declared(port: u16, inbound: InboundPort, access: &Access, chains: &mut Vec<listener::FilterChain>) {
    use First::{DetectedHttp, MeshHttp, OwnTls, Plaintext};
    let http = |first| chain(Some(port), first, serve(port, access));
    match (inbound.protocol, inbound.tls) {
        (Protocol::Http | Protocol::Http2 | Protocol::Grpc, mode) => {
            chains.push(http(MeshHttp));
            if mode == TlsMode::Permissive {
                chains.push(http(Plaintext));
                chains.push(chain(Some(port), OwnTls, relay(port, access)));
            }
        }
        (Protocol::Detect, mode) => {
            chains.push(http(MeshHttp));
            if mode == TlsMode::Permissive {
                chains.push(http(DetectedHttp));
            }
            bytes(Some(port), mode, access, chains);
        }
        (Protocol::Opaque, mode) => bytes(Some(port), mode, access, chains),
    }
}

/// Ports that nobody declared: bytes. Not the default chain, which would take what a strict port refuses.
fn undeclared(mode: TlsMode, access: &Access, chains: &mut Vec<listener::FilterChain>) {
    bytes(None, mode, access, chains);
}

fn bytes(port: Option<u16>, mode: TlsMode, access: &Access, chains: &mut Vec<listener::FilterChain>) {
    let accepted: &[First] = match mode {
        TlsMode::Strict => &[First::MeshTcp],
        TlsMode::Permissive => &[First::MeshTcp, First::Plaintext, First::OwnTls],
    };
    // Cluster `inbound/0` is that of any port: it delivers to the original address.
    let filters = || relay(port.unwrap_or(0), access);
    chains.extend(accepted.iter().map(|first| chain(port, *first, filters())));
}

fn chain(port: Option<u16>, first: First, filters: Vec<listener::Filter>) -> listener::FilterChain {
    const HTTP: &[&str] = &[names::ALPN_HTTP1, names::ALPN_H2];
    const TCP: &[&str] = &[names::ALPN_TCP];
    let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    let (name, transport, protocols, socket) = match first {
        First::MeshHttp => ("mesh-http", "tls", owned(HTTP), Some(tls::downstream(HTTP))),
        First::MeshTcp => ("mesh-tcp", "tls", owned(TCP), Some(tls::downstream(TCP))),
        First::DetectedHttp => ("detected-http", "raw_buffer", super::outbound::detected_http(), None),
        First::Plaintext => ("plaintext", "raw_buffer", Vec::new(), None),
        First::OwnTls => ("own-tls", "tls", Vec::new(), None),
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

fn relay(port: u16, access: &Access) -> Vec<listener::Filter> {
    let label = names::inbound_cluster(port);
    let mut filters = access::network_filters(access, &label);
    filters.push(http::relay(&label, &label, Some(IDLE)));
    filters
}
