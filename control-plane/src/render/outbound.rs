//! The listener of one original destination: a service's address and port, or a pod's own.

use std::net::SocketAddr;
use std::time::Duration;

use weft_xds::google::protobuf::Any;
use weft_xds::names;

use super::values::{address, ads, core, hcm, listener};
use super::{envoy, http, routes, wire};
use crate::model::{Model, Protocol, Service, ServicePort};
use crate::{ClientKind, View};

/// What becomes of connections to one original destination.
pub(super) struct Destination {
    pub(super) protocol: Protocol,
    /// For statistics.
    pub(super) label: String,
    /// Where bytes go.
    pub(super) cluster: String,
    /// Where requests go.
    pub(super) source: hcm::http_connection_manager::RouteSpecifier,
    /// What requests pass before.
    pub(super) filters: Vec<hcm::HttpFilter>,
    pub(super) idle: Option<Duration>,
}

pub(super) fn listener(model: &Model, at: SocketAddr, view: &View) -> Option<Any> {
    let to = match model.service_at(at) {
        Some((service, port)) => to_service(service, port),
        None => to_pod(model, at)?,
    };
    let base = http::base(names::outbound_listener(at), true);
    let message = match view.client {
        ClientKind::Envoy => envoy::detecting(base, &to),
        ClientKind::Weft | ClientKind::Grpc => listener::Listener { filter_chains: chains(to), ..base },
    };
    let message = listener::Listener {
        address: address(at),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..message
    };
    Some(wire::pack(&message, &wire::LISTENER))
}

fn to_service(service: &Service, port: &ServicePort) -> Destination {
    let name = &service.name;
    let label = names::outbound_route(&name.namespace, &name.name, port.port);
    let cluster = names::service_cluster(&name.namespace, &name.name, port.port);
    let idle = port.traffic.idle_timeout;
    let source = hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
        config_source: Some(ads()),
        route_config_name: label.clone(),
    });
    let faults = port.fault.iter().map(|fault| http::fault_filter(fault)).collect();
    Destination { protocol: port.protocol, label, cluster, source, filters: faults, idle }
}

/// A call to a pod's own address: one endpoint. Routes, policy and faults are those of the headless service that owns it, if exactly
/// one does.
fn to_pod(model: &Model, at: SocketAddr) -> Option<Destination> {
    use hcm::http_connection_manager::RouteSpecifier;
    let pod = model.pod_at(at.ip())?;
    let protocol = pod_protocol(model, at)?;
    let cluster = names::pod_cluster(at);
    let label = names::outbound_listener(at);
    if let Some((_, port)) = model.headless_at(at) {
        let rds = hcm::Rds { config_source: Some(ads()), route_config_name: cluster.clone() };
        let faults = port.fault.iter().map(|fault| http::fault_filter(fault)).collect();
        let idle = port.traffic.idle_timeout;
        return Some(Destination { protocol, label, cluster, source: RouteSpecifier::Rds(rds), filters: faults, idle });
    }
    let name = format!("{}/{}", pod.name, at.port());
    let source = RouteSpecifier::RouteConfig(routes::only(&label, &name, &cluster, true));
    let idle = Some(Duration::from_secs(3600));
    Some(Destination { protocol, label, cluster, source, filters: Vec::new(), idle })
}

/// What a pod speaks on a port. A port that nobody declared is opaque: so the pod's own sidecar takes it too.
pub(super) fn pod_protocol(model: &Model, at: SocketAddr) -> Option<Protocol> {
    let pod = model.pod_at(at.ip())?;
    let workload = model.workload(&pod.name.namespace, &pod.workload);
    Some(workload.and_then(|w| w.ports.get(&at.port())).map_or(Protocol::Opaque, |p| p.protocol))
}

fn chains(to: Destination) -> Vec<listener::FilterChain> {
    let relay = |name| http::chain(name, vec![http::relay(&to.label, &to.cluster, to.idle)]);
    let auto = hcm::http_connection_manager::CodecType::Auto;
    let manager = || {
        http::chain(
            "http",
            vec![http::connection_manager(ClientKind::Weft, auto, &to.label, to.source, to.filters, to.idle)],
        )
    };
    match to.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => vec![manager()],
        Protocol::Opaque => vec![relay("tcp")],
        // An application's own TLS may carry the ALPN name of HTTP: the transport tells them apart. And since a chain that names the
        // transport puts those that do not out of the race, all three name it.
        Protocol::Detect => vec![
            only("raw_buffer", detected_http(), manager()),
            only("raw_buffer", Vec::new(), relay("tcp")),
            only("tls", Vec::new(), relay("own-tls")),
        ],
    }
}

/// A chain for what was found in the first bytes.
pub(super) fn only(transport: &str, protocols: Vec<String>, chain: listener::FilterChain) -> listener::FilterChain {
    listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch {
            transport_protocol: transport.to_owned(),
            application_protocols: protocols,
            ..Default::default()
        }),
        ..chain
    }
}

/// The names that Envoy's http_inspector gives to what it recognises.
pub(super) fn detected_http() -> Vec<String> {
    ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec()
}
