//! Load assignments: who stands behind a service port or a pod's own address.

use std::net::SocketAddr;

use weft_xds::google::protobuf::Any;
use weft_xds::names::{self, ServicePort as At};
use weft_xds::{envoy, metadata};

use super::values::{address, endpoint, number};
use super::wire;
use crate::model::{Endpoint, Health, MeshPeer, Model};

pub(super) fn service(model: &Model, at: At<'_>) -> Option<Any> {
    let port = model.service(at.namespace, at.service)?.port(at.port)?;
    let name = names::service_cluster(at.namespace, at.service, at.port);
    Some(assignment(name, &port.endpoints))
}

pub(super) fn pod(model: &Model, at: SocketAddr) -> Option<Any> {
    // Whoever calls a pod by its own address means this pod, ready or not.
    let endpoint = Endpoint { address: at, peer: model.pod_at(at.ip())?.peer(), health: Health::Healthy };
    Some(assignment(names::pod_cluster(at), &[endpoint]))
}

fn assignment(name: String, endpoints: &[Endpoint]) -> Any {
    let message = endpoint::ClusterLoadAssignment {
        cluster_name: name,
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: endpoints.iter().map(lb_endpoint).collect(),
            load_balancing_weight: number(1_u32),
            ..Default::default()
        }],
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
