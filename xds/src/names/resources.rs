//! Resource names: built here and parsed here, nowhere else.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A resource name, taken apart. `Display` builds it, [`ResourceName::parse`] takes it apart again.
///
/// Namespaces, services and workloads hold no `/`: Kubernetes forbids it, and [`ResourceName::parse`] relies on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResourceName<'a> {
    /// Listener `inbound/<namespace>/<workload>`: everything that arrives at one workload's pods.
    InboundListener {
        /// The workload's namespace.
        namespace: &'a str,
        /// The workload (owner), not the pod.
        workload: &'a str,
    },
    /// Listener `198.18.10.5:80` or `[fd00:198:18::a]:80`: traffic to one original destination.
    OutboundListener(SocketAddr),
    /// Route configuration `outbound/<namespace>/<service>/<port>`.
    OutboundRoute(ServicePort<'a>),
    /// Route configuration `inbound/<namespace>/<workload>/<port>`: requests that arrive at a port of one workload's pods, for clients that
    /// take them from a listener of their own.
    InboundRoute {
        /// The workload's namespace.
        namespace: &'a str,
        /// The workload (owner), not the pod.
        workload: &'a str,
        /// The pods' port.
        port: u16,
    },
    /// Cluster and EDS name `service/<namespace>/<service>/<port>`.
    ServiceCluster(ServicePort<'a>),
    /// Cluster and EDS name `pod/<ip>/<port>`: a pod called by its own address.
    PodCluster(SocketAddr),
    /// Cluster `inbound/<port>`: delivery to the original address.
    InboundCluster(u16),
    /// Listener `reviews.shop.svc:80`: calls to a service by name, for gRPC clients without a sidecar.
    Host {
        /// The name that the client calls.
        host: &'a str,
        /// The service's port.
        port: u16,
    },
    /// Listener `grpc/server?xds.resource.listening_address=0.0.0.0:50051`: what a gRPC server without a sidecar accepts.
    GrpcServer {
        /// The address on which it listens.
        address: &'a str,
    },
    /// Listener `outbound`: redirected connections, for clients that do not listen for them by themselves.
    Outbound,
    /// Cluster `passthrough`: destinations that the mesh does not know, for clients that need a cluster to relay to them.
    Passthrough,
}

/// A port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServicePort<'a> {
    /// The service's namespace.
    pub namespace: &'a str,
    /// The service's name.
    pub service: &'a str,
    /// The service's port, not the target port.
    pub port: u16,
}

impl<'a> ResourceName<'a> {
    /// Takes a name apart; `None` if it is none of ours.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        if let Ok(address) = name.parse::<SocketAddr>() {
            return Some(Self::OutboundListener(address));
        }
        match name {
            OUTBOUND => return Some(Self::Outbound),
            PASSTHROUGH => return Some(Self::Passthrough),
            _ => {}
        }
        if let Some(address) = name.strip_prefix(GRPC_SERVER) {
            return non_empty(address).map(|address| Self::GrpcServer { address });
        }
        if let Some((host, port)) = name.rsplit_once(':')
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        {
            return Some(Self::Host { host: non_empty(host)?, port: port.parse().ok()? });
        }
        let mut parts = name.split('/');
        let parsed = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
            ("inbound", port, None, None) => Self::InboundCluster(port.parse().ok()?),
            ("inbound", namespace, Some(workload), None) => {
                Self::InboundListener { namespace: non_empty(namespace)?, workload: non_empty(workload)? }
            }
            ("inbound", namespace, Some(workload), Some(port)) => Self::InboundRoute {
                namespace: non_empty(namespace)?,
                workload: non_empty(workload)?,
                port: port.parse().ok()?,
            },
            ("outbound", namespace, Some(service), Some(port)) => {
                Self::OutboundRoute(service_port(namespace, service, port)?)
            }
            ("service", namespace, Some(service), Some(port)) => {
                Self::ServiceCluster(service_port(namespace, service, port)?)
            }
            ("pod", ip, Some(port), None) => {
                Self::PodCluster(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
            }
            _ => return None,
        };
        parts.next().is_none().then_some(parsed)
    }
}

impl fmt::Display for ResourceName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InboundListener { namespace, workload } => write!(f, "inbound/{namespace}/{workload}"),
            Self::OutboundListener(address) => write!(f, "{address}"),
            Self::OutboundRoute(to) => {
                write!(f, "outbound/{}/{}/{}", to.namespace, to.service, to.port)
            }
            Self::InboundRoute { namespace, workload, port } => write!(f, "inbound/{namespace}/{workload}/{port}"),
            Self::ServiceCluster(to) => {
                write!(f, "service/{}/{}/{}", to.namespace, to.service, to.port)
            }
            Self::PodCluster(address) => write!(f, "pod/{}/{}", address.ip(), address.port()),
            Self::InboundCluster(port) => write!(f, "inbound/{port}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::GrpcServer { address } => write!(f, "{GRPC_SERVER}{address}"),
            Self::Outbound => f.write_str(OUTBOUND),
            Self::Passthrough => f.write_str(PASSTHROUGH),
        }
    }
}

/// What the names of gRPC servers' listeners begin with; see [`super::GRPC_SERVER_TEMPLATE`].
const GRPC_SERVER: &str = "grpc/server?xds.resource.listening_address=";

/// Name of the listener for redirected connections, for clients that do not listen for them by themselves.
pub const OUTBOUND: &str = "outbound";
/// Name of the cluster of destinations that the mesh does not know, for clients that need one to relay to them.
pub const PASSTHROUGH: &str = "passthrough";

/// Name of the listener for traffic that arrives at a workload's pods.
#[must_use]
pub fn inbound_listener(namespace: &str, workload: &str) -> String {
    ResourceName::InboundListener { namespace, workload }.to_string()
}

/// Name of the route configuration for requests that arrive at a port of a workload's pods.
#[must_use]
pub fn inbound_route(namespace: &str, workload: &str, port: u16) -> String {
    ResourceName::InboundRoute { namespace, workload, port }.to_string()
}

/// Name of the listener for calls to a service by name.
#[must_use]
pub fn host(host: &str, port: u16) -> String {
    ResourceName::Host { host, port }.to_string()
}

/// Name of the listener of a gRPC server on this address.
#[must_use]
pub fn grpc_server(address: &str) -> String {
    ResourceName::GrpcServer { address }.to_string()
}

/// Name of the listener for one original destination.
#[must_use]
pub fn outbound_listener(destination: SocketAddr) -> String {
    ResourceName::OutboundListener(destination).to_string()
}

/// Name of the route configuration of a service's port.
#[must_use]
pub fn outbound_route(namespace: &str, service: &str, port: u16) -> String {
    ResourceName::OutboundRoute(ServicePort { namespace, service, port }).to_string()
}

/// Name of the cluster, and of its load assignment, of a service's port.
#[must_use]
pub fn service_cluster(namespace: &str, service: &str, port: u16) -> String {
    ResourceName::ServiceCluster(ServicePort { namespace, service, port }).to_string()
}

/// Name in a route for a backend that the route may not refer to. There is no such cluster: requests to it are answered with the
/// route's `cluster_not_found_response_code`.
#[must_use]
pub fn refused_cluster(namespace: &str, service: &str, port: u16) -> String {
    format!("refused/{namespace}/{service}/{port}")
}

/// Name of the cluster, and of its load assignment, of a pod called by its own address.
#[must_use]
pub fn pod_cluster(address: SocketAddr) -> String {
    ResourceName::PodCluster(address).to_string()
}

/// Name of the cluster that delivers to the original address.
#[must_use]
pub fn inbound_cluster(port: u16) -> String {
    ResourceName::InboundCluster(port).to_string()
}

/// The SNI between sidecars: names service and port for routing across networks.
///
/// A server name is a DNS name (RFC 6066 §3), so the port is a label: `p80.reviews.shop.svc`.
#[must_use]
pub fn mesh_sni(namespace: &str, service: &str, port: u16) -> String {
    format!("p{port}.{service}.{namespace}.svc")
}

/// Takes [`mesh_sni`] apart; `None` if the SNI is none of ours.
#[must_use]
pub fn parse_mesh_sni(sni: &str) -> Option<ServicePort<'_>> {
    let mut labels = sni.strip_suffix(".svc")?.split('.');
    let port = labels.next()?.strip_prefix('p')?.parse().ok()?;
    let service = non_empty(labels.next()?)?;
    let namespace = non_empty(labels.next()?)?;
    labels.next().is_none().then_some(ServicePort { namespace, service, port })
}

/// `node.id`: `<namespace>/<pod>`.
#[must_use]
pub fn node_id(namespace: &str, pod: &str) -> String {
    format!("{namespace}/{pod}")
}

/// `node.cluster`: `<namespace>/<workload>`.
#[must_use]
pub fn node_cluster(namespace: &str, workload: &str) -> String {
    format!("{namespace}/{workload}")
}

/// Takes [`node_id`] or [`node_cluster`] apart.
#[must_use]
pub fn parse_node(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.split_once('/')?;
    (!name.contains('/')).then_some((non_empty(namespace)?, non_empty(name)?))
}

fn service_port<'a>(namespace: &'a str, service: &'a str, port: &str) -> Option<ServicePort<'a>> {
    Some(ServicePort { namespace: non_empty(namespace)?, service: non_empty(service)?, port: port.parse().ok()? })
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_what_built_it() {
        for name in [
            inbound_listener("shop", "reviews-v1"),
            outbound_listener("198.18.10.5:80".parse().unwrap()),
            outbound_listener("[fd00:198:18::a]:80".parse().unwrap()),
            outbound_route("shop", "reviews", 80),
            service_cluster("shop", "reviews", 80),
            pod_cluster("198.18.0.7:8080".parse().unwrap()),
            pod_cluster("[fd00:198:18::7]:8080".parse().unwrap()),
            inbound_cluster(8080),
            inbound_route("shop", "reviews-v1", 8080),
            host("reviews.shop.svc", 80),
            grpc_server("0.0.0.0:50051"),
            super::super::GRPC_SERVER_TEMPLATE.replace("%s", "[::]:50051"),
            OUTBOUND.to_owned(),
            PASSTHROUGH.to_owned(),
        ] {
            let parsed = ResourceName::parse(&name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(parsed.to_string(), name);
        }
        assert_eq!(pod_cluster("[fd00::7]:80".parse().unwrap()), "pod/fd00::7/80");
    }

    #[test]
    fn names_of_others_are_none_of_ours() {
        for name in [
            "",
            "inbound",
            "inbound/",
            "inbound//x",
            "inbound/a/b/c",
            "service/a/b/0x50",
            "service/a/b/80/c",
            "pod/here/80",
            "outbound/a/b/70000",
            "example.com:port",
            "http://example.com:80",
            &refused_cluster("shop", "reviews", 80),
        ] {
            assert_eq!(ResourceName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_sni_parses_back() {
        let sni = mesh_sni("shop", "reviews", 80);
        assert_eq!(sni, "p80.reviews.shop.svc");
        assert_eq!(parse_mesh_sni(&sni), Some(ServicePort { namespace: "shop", service: "reviews", port: 80 }));
        assert_eq!(parse_mesh_sni("www.example.com"), None);
    }

    #[test]
    fn a_node_name_has_exactly_two_parts() {
        assert_eq!(parse_node(&node_id("shop", "web-0")), Some(("shop", "web-0")));
        assert_eq!(parse_node("shop/a/b"), None);
        assert_eq!(parse_node("shop"), None);
    }
}
