//! Load assignments: who stands behind a service port or a pod's own address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weft_xds::google::protobuf::Any;
use weft_xds::names::{self, ServicePort as At};
use weft_xds::{envoy, metadata};

use super::values::{address, core, endpoint, number};
use super::{grpc, wire};
use crate::model::{Endpoint, Health, MeshPeer, Model};
use crate::{ClientKind, View};

pub(super) fn service(model: &Model, at: At<'_>, view: &View) -> Option<Any> {
    let port = model.service(at.namespace, at.service)?.port(at.port)?;
    let name = names::service_cluster(at.namespace, at.service, at.port);
    let groups = match view.zone.as_deref().filter(|zone| has_hints(&port.endpoints, zone)) {
        Some(zone) => by_zone(&port.endpoints, zone),
        None => vec![group(port.endpoints.iter())],
    };
    let groups = if view.client == ClientKind::Grpc { grpc::endpoints(groups) } else { groups };
    Some(assignment(name, groups))
}

pub(super) fn pod(model: &Model, at: SocketAddr) -> Option<Any> {
    let pod = model.pod_at(at.ip())?;
    // Whoever calls a pod by its own address means this pod, ready or not.
    let health = Health::Healthy;
    let endpoint = Endpoint { address: at, peer: pod.peer(), health, zone: None, for_zones: Vec::new() };
    Some(assignment(names::pod_cluster(at), vec![group([&endpoint])]))
}

/// Whether the hints of an EndpointSlice hold for a zone: as with kube-proxy, only if every endpoint has some, and one is meant for the zone.
/// Otherwise whoever set them has not finished, or has given them up.
fn has_hints(endpoints: &[Endpoint], zone: &str) -> bool {
    let mut healthy = endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy);
    healthy.clone().all(|endpoint| !endpoint.for_zones.is_empty()) && healthy.any(|endpoint| is_for(endpoint, zone))
}

fn is_for(endpoint: &Endpoint, zone: &str) -> bool {
    endpoint.for_zones.iter().any(|hint| hint == zone)
}

/// What is meant for a zone goes first; the rest takes over as far as that fails.
fn by_zone(endpoints: &[Endpoint], zone: &str) -> Vec<endpoint::LocalityLbEndpoints> {
    let mut groups: BTreeMap<(bool, Option<&str>), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let key = (!is_for(endpoint, zone), endpoint.zone.as_deref());
        groups.entry(key).or_default().push(endpoint);
    }
    let place = |((is_other, zone), endpoints): ((bool, Option<&str>), Vec<&Endpoint>)| endpoint::LocalityLbEndpoints {
        locality: zone.map(|zone| core::Locality { zone: zone.to_owned(), ..Default::default() }),
        priority: is_other.into(),
        ..group(endpoints)
    };
    groups.into_iter().map(place).collect()
}

fn group<'e>(endpoints: impl IntoIterator<Item = &'e Endpoint>) -> endpoint::LocalityLbEndpoints {
    endpoint::LocalityLbEndpoints {
        lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
        load_balancing_weight: number(1_u32),
        ..Default::default()
    }
}

fn assignment(name: String, groups: Vec<endpoint::LocalityLbEndpoints>) -> Any {
    let message = endpoint::ClusterLoadAssignment {
        cluster_name: name,
        endpoints: groups,
        policy: Some(endpoint::cluster_load_assignment::Policy {
            overprovisioning_factor: number(140_u32),
            ..Default::default()
        }),
        ..Default::default()
    };
    wire::pack(&message, &wire::ENDPOINTS)
}

fn lb_endpoint(of: &Endpoint) -> endpoint::LbEndpoint {
    use envoy::config::core::v3::HealthStatus;
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(of.address),
            ..Default::default()
        })),
        health_status: match of.health {
            Health::Healthy => HealthStatus::Healthy,
            Health::Draining => HealthStatus::Draining,
        }
        .into(),
        metadata: of.peer.as_ref().map(peer),
        load_balancing_weight: number(1_u32),
    }
}

fn peer(peer: &MeshPeer) -> envoy::config::core::v3::Metadata {
    metadata::single(
        names::METADATA_TRANSPORT_SOCKET,
        metadata::object([
            (names::key::WEFT, names::key::MTLS.into()),
            (names::key::IDENTITY, peer.identity.to_string().into()),
            (names::key::POD, peer.pod.to_string().into()),
        ]),
    )
}
