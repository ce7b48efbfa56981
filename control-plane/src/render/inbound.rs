//! The listener for traffic that arrives at a workload's pods.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_inject::names::INBOUND_PORT;
use weft_xds::google::protobuf::Any;
use weft_xds::{metadata, names};

use super::values::{address, ads, any_address, core, hcm, listener, number};
use super::{access, envoy, http, routes, tls, wire};
use crate::model::policy::{Access, TlsMode};
use crate::model::{InboundPort, MeshConfig, Model, ObjectName, Protocol, UnknownDestination};
use crate::{ClientKind, View};
use hcm::http_connection_manager::CodecType;

/// Longer than callers keep idle connections, so that no request meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(2 * 3600);

pub(super) fn listener(model: &Model, namespace: &str, name: &str, view: &View) -> Option<Any> {
    let workload = model.workload(namespace, name)?;
    let chains = Chains { name: &workload.name, access: &workload.access, view, chains: Vec::new() };
    let chains = chains.of_ports(&workload.ports, workload.tls);
    let detects = workload.ports.values().any(|p| p.protocol == Protocol::Detect);
    let message = listener::Listener {
        address: address(any_address(INBOUND_PORT)),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        filter_chains: chains,
        metadata: Some(mesh(model.config())),
        ..http::base(names::inbound_listener(namespace, name), detects)
    };
    let message = match view.client {
        ClientKind::Envoy => envoy::receiving(message),
        ClientKind::Weft | ClientKind::Grpc => message,
    };
    Some(wire::pack(&message, &wire::LISTENER))
}

/// The routes of one port of an Envoy's inbound listener.
pub(super) fn routes(model: &Model, namespace: &str, name: &str, port: u16) -> Option<Any> {
    let workload = model.workload(namespace, name)?;
    workload.ports.get(&port)?;
    let label = names::inbound_cluster(port);
    let mut table = routes::only(&names::inbound_route(namespace, name, port), &label, &label, false);
    for host in &mut table.virtual_hosts {
        host.typed_per_filter_config = access::by_route(&workload.access);
    }
    Some(wire::pack(&table, &wire::ROUTES))
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
    /// The same with HTTP/1.1 only, for Envoy: its codec that decides by ALPN does not know our names.
    MeshHttp1,
    /// The same with HTTP/2 only.
    MeshHttp2,
    /// A ClientHello of a gRPC application without a sidecar, which knows only the public name of HTTP/2.
    MeshGrpc,
    /// A ClientHello that offers to carry bytes as sidecars do.
    MeshTcp,
    /// Plaintext HTTP, where it has to be looked for.
    DetectedHttp,
    /// No ClientHello.
    Plaintext,
    /// Any other ClientHello: the application's own TLS.
    OwnTls,
}

impl First {
    /// What offers HTTP as sidecars do, in one chain or in one for each codec.
    fn mesh_http(client: ClientKind) -> &'static [Self] {
        match client {
            ClientKind::Envoy => &[Self::MeshHttp1, Self::MeshHttp2],
            ClientKind::Weft | ClientKind::Grpc => &[Self::MeshHttp],
        }
    }

    fn codec(self) -> CodecType {
        match self {
            Self::MeshHttp1 => CodecType::Http1,
            Self::MeshHttp2 | Self::MeshGrpc => CodecType::Http2,
            _ => CodecType::Auto,
        }
    }
}

/// The chains of one workload, as they are made.
struct Chains<'m> {
    name: &'m ObjectName,
    access: &'m Access,
    view: &'m View,
    chains: Vec<listener::FilterChain>,
}

impl Chains<'_> {
    fn of_ports(mut self, ports: &BTreeMap<u16, InboundPort>, others: TlsMode) -> Vec<listener::FilterChain> {
        for (port, inbound) in ports {
            self.declared(*port, *inbound);
        }
        // Ports that nobody declared: bytes. Not the default chain, which would take what a strict port refuses.
        self.bytes(None, others);
        self.chains
    }

    fn declared(&mut self, port: u16, inbound: InboundPort) {
        match (inbound.protocol, inbound.tls) {
            (Protocol::Http | Protocol::Http2 | Protocol::Grpc, mode) => {
                self.http(port, First::mesh_http(self.view.client));
                // Declared to be gRPC in plaintext, so that a ClientHello for HTTP/2 is the mesh's.
                if inbound.protocol == Protocol::Grpc {
                    self.http(port, &[First::MeshGrpc]);
                }
                if mode == TlsMode::Permissive {
                    self.http(port, &[First::Plaintext]);
                    self.push(Some(port), First::OwnTls, relay(port, self.access));
                }
            }
            (Protocol::Detect, mode) => {
                self.http(port, First::mesh_http(self.view.client));
                if mode == TlsMode::Permissive {
                    self.http(port, &[First::DetectedHttp]);
                }
                self.bytes(Some(port), mode);
            }
            (Protocol::Opaque, mode) => self.bytes(Some(port), mode),
        }
    }

    fn http(&mut self, port: u16, firsts: &[First]) {
        for first in firsts {
            self.push(Some(port), *first, self.serve(port, first.codec()));
        }
    }

    fn serve(&self, port: u16, codec: CodecType) -> Vec<listener::Filter> {
        use hcm::http_connection_manager::RouteSpecifier;
        let label = names::inbound_cluster(port);
        let client = self.view.client;
        let (source, filters) = match client {
            // What may change under connections that are open comes by routes, which Envoy changes under them too.
            ClientKind::Envoy => {
                let route_config_name = names::inbound_route(&self.name.namespace, &self.name.name, port);
                let rds = hcm::Rds { config_source: Some(ads()), route_config_name };
                (RouteSpecifier::Rds(rds), access::unset_filters())
            }
            ClientKind::Weft | ClientKind::Grpc => {
                let routes = RouteSpecifier::RouteConfig(routes::only(&label, &label, &label, false));
                (routes, access::http_filters(self.access))
            }
        };
        vec![http::connection_manager(client, codec, &label, source, filters, Some(IDLE))]
    }

    fn bytes(&mut self, port: Option<u16>, mode: TlsMode) {
        let accepted: &[First] = match mode {
            TlsMode::Strict => &[First::MeshTcp],
            TlsMode::Permissive => &[First::MeshTcp, First::Plaintext, First::OwnTls],
        };
        for first in accepted {
            // Cluster `inbound/0` is that of any port: it delivers to the original address.
            self.push(port, *first, relay(port.unwrap_or(0), self.access));
        }
    }

    fn push(&mut self, port: Option<u16>, first: First, filters: Vec<listener::Filter>) {
        const HTTP: &[&str] = &[names::ALPN_HTTP1, names::ALPN_H2];
        const HTTP1: &[&str] = &[names::ALPN_HTTP1];
        const HTTP2: &[&str] = &[names::ALPN_H2];
        const TCP: &[&str] = &[names::ALPN_TCP];
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        let mesh = |alpn| ("tls", owned(alpn), Some(tls::downstream(alpn, self.view)));
        let (name, (transport, protocols, socket)) = match first {
            First::MeshHttp => ("mesh-http", mesh(HTTP)),
            First::MeshHttp1 => ("mesh-http1", mesh(HTTP1)),
            First::MeshHttp2 => ("mesh-http2", mesh(HTTP2)),
            First::MeshGrpc => ("mesh-grpc", mesh(&["h2"])),
            First::MeshTcp => ("mesh-tcp", mesh(TCP)),
            First::DetectedHttp => ("detected-http", ("raw_buffer", super::outbound::detected_http(), None)),
            First::Plaintext => ("plaintext", ("raw_buffer", Vec::new(), None)),
            First::OwnTls => ("own-tls", ("tls", Vec::new(), None)),
        };
        let label = port.map_or("any".to_owned(), |p| p.to_string());
        let chain = http::chain(&format!("{label}-{name}"), filters);
        let mut chain = super::outbound::only(transport, protocols, chain);
        if let Some(port) = port {
            chain.filter_chain_match.get_or_insert_default().destination_port = number(port);
        }
        chain.transport_socket = socket;
        self.chains.push(chain);
    }
}

fn relay(port: u16, access: &Access) -> Vec<listener::Filter> {
    let label = names::inbound_cluster(port);
    let mut filters = access::network_filters(access, &label);
    filters.push(http::relay(&label, &label, Some(IDLE)));
    filters
}
