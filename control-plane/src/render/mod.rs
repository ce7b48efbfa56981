//! A resource is a pure function of (type, name, view): what a [`Model`] means in Envoy's words.
//!
//! | module | resources |
//! |---|---|
//! | `inbound` | the listener for traffic that arrives at a workload's pods |
//! | `outbound` | the listener of one original destination |
//! | `routes` | route configurations |
//! | `clusters` | clusters and their TLS |
//! | `endpoints` | load assignments |
//! | `envoy` | what an Envoy needs beside what our own sidecars do |
//! | `grpc` | what a gRPC application without a sidecar takes |
//! | `http`, `tls`, `access`, `values` | the pieces that they share |
//! | `wire` | encoding that is the same in every run |
//!
//! Every value is written, also where it is Envoy's default: what an unset field means has changed between Envoy's versions.
//! The trust bundle (SDS) is not the model's: whoever serves it renders it.

mod access;
mod clusters;
mod endpoints;
mod envoy;
mod grpc;
mod http;
mod inbound;
mod outbound;
mod routes;
mod tls;
mod values;
mod wire;

use std::sync::Arc;

use weft_xds::google::protobuf::Any;
use weft_xds::names::{self, ResourceName};

use crate::model::Model;
use crate::{ClientKind, ResourceKey, ResourceType, View};

/// Renders a resource for a view; `None` if there is no such thing.
///
/// Equal models give equal bytes, in every run of the program.
#[must_use]
pub fn render(model: &Model, key: &ResourceKey, view: &View) -> Option<Any> {
    let name = ResourceName::parse(&key.name)?;
    match (key.kind, name) {
        (ResourceType::Listener, ResourceName::InboundListener { namespace, workload }) => {
            inbound::listener(model, namespace, workload, view)
        }
        (ResourceType::Listener, ResourceName::OutboundListener(address)) => outbound::listener(model, address, view),
        (ResourceType::Listener, ResourceName::Outbound) if view.client == ClientKind::Envoy => {
            Some(envoy::outbound(model.config()))
        }
        (ResourceType::Listener, ResourceName::Host { host, port }) if view.client == ClientKind::Grpc => {
            grpc::client(model, host, port, view)
        }
        (ResourceType::Listener, ResourceName::GrpcServer { address }) if view.client == ClientKind::Grpc => {
            grpc::server(model, address, view)
        }
        (ResourceType::Cluster, ResourceName::Passthrough) if view.client == ClientKind::Envoy => {
            Some(clusters::passthrough())
        }
        (ResourceType::Route, ResourceName::InboundRoute { namespace, workload, port })
            if view.client == ClientKind::Envoy =>
        {
            inbound::routes(model, namespace, workload, port)
        }
        (ResourceType::Route, ResourceName::OutboundRoute(at)) => routes::configuration(model, at, view),
        (ResourceType::Route, ResourceName::PodCluster(address)) => routes::to_pod(model, address, view),
        (ResourceType::Cluster, ResourceName::ServiceCluster(at)) => clusters::service(model, at, view),
        (ResourceType::Cluster, ResourceName::PodCluster(address)) => clusters::pod(model, address, view),
        (ResourceType::Cluster, ResourceName::InboundCluster(port)) => Some(clusters::inbound(port)),
        (ResourceType::Endpoint, ResourceName::ServiceCluster(at)) => endpoints::service(model, at, view),
        (ResourceType::Endpoint, ResourceName::PodCluster(address)) => endpoints::pod(model, address),
        _ => None,
    }
}

/// The names that exist of a type, for clients that ask for everything. Clusters of pods' own addresses and inbound
/// listeners are left out: they are for those who name them. An Envoy never names a listener or a cluster, and so is told of all that it
/// may need in the place of `workload`.
#[must_use]
pub fn names(model: &Model, kind: ResourceType, client: ClientKind, workload: (&str, &str)) -> Vec<Arc<str>> {
    let ports = || model.services().flat_map(|s| s.ports.iter().map(move |p| (&s.name, p.port, &s.addresses)));
    let mut names: Vec<Arc<str>> = match kind {
        ResourceType::Listener => ports()
            .flat_map(|(_, port, addresses)| {
                addresses.iter().map(move |ip| names::outbound_listener((*ip, port).into()).into())
            })
            .collect(),
        ResourceType::Route => {
            ports().map(|(s, port, _)| names::outbound_route(&s.namespace, &s.name, port).into()).collect()
        }
        ResourceType::Cluster | ResourceType::Endpoint => {
            ports().map(|(s, port, _)| names::service_cluster(&s.namespace, &s.name, port).into()).collect()
        }
        ResourceType::Secret => Vec::new(),
    };
    if client == ClientKind::Envoy {
        names.extend(envoy::more_names(model, kind, workload));
    }
    names
}

/// Whether a resource may differ between two models. `false` is certain and cheap: the parts that it is made of are the very same.
#[must_use]
pub fn may_differ(old: &Model, new: &Model, key: &ResourceKey) -> bool {
    fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
    if !Arc::ptr_eq(old.config(), new.config()) {
        return true;
    }
    let pod = |model: &Model, address: std::net::SocketAddr| {
        let pod = model.pod_at(address.ip()).cloned();
        let workload = pod.as_ref().and_then(|p| model.workload(&p.name.namespace, &p.workload).cloned());
        (pod, workload)
    };
    let pods_same = |address| {
        let (a, b) = (pod(old, address), pod(new, address));
        same(a.0.as_ref(), b.0.as_ref())
            && same(a.1.as_ref(), b.1.as_ref())
            && same(old.headless_at(address).map(|s| s.0), new.headless_at(address).map(|s| s.0))
    };
    let unchanged = match ResourceName::parse(&key.name) {
        Some(
            ResourceName::InboundListener { namespace, workload }
            | ResourceName::InboundRoute { namespace, workload, .. },
        ) => same(old.workload(namespace, workload), new.workload(namespace, workload)),
        Some(ResourceName::OutboundListener(address)) => {
            same(old.service_at(address).map(|s| s.0), new.service_at(address).map(|s| s.0)) && pods_same(address)
        }
        Some(ResourceName::OutboundRoute(at) | ResourceName::ServiceCluster(at)) => {
            same(old.service(at.namespace, at.service), new.service(at.namespace, at.service))
        }
        Some(ResourceName::PodCluster(address)) => pods_same(address),
        // Whose they are depends on who asks.
        Some(ResourceName::Host { .. } | ResourceName::GrpcServer { .. }) => false,
        Some(ResourceName::InboundCluster(_) | ResourceName::Outbound | ResourceName::Passthrough) | None => true,
    };
    !unchanged
}
