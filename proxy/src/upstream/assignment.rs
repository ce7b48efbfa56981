//! Endpoints as the control plane or a file names them (`envoy.config.endpoint.v3.ClusterLoadAssignment`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_xds::FieldError;
use weft_xds::envoy::config::core::v3::{Address, HealthStatus, address, socket_address};
use weft_xds::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier};
use weft_xds::google::protobuf::Struct;
use weft_xds::metadata;
use weft_xds::names::{METADATA_TRANSPORT_SOCKET, key};

use super::endpoint::EndpointIdentity;
use super::fields::unsupported;

/// A compiled assignment: what a cluster's endpoints are made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignment {
    pub(super) endpoints: Vec<Blueprint>,
}

/// One endpoint to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blueprint {
    pub(super) location: Location,
    pub(super) hostname: Option<Arc<str>>,
    pub(super) identity: Option<Arc<EndpointIdentity>>,
    /// Metadata that picks the transport socket.
    pub(super) socket_metadata: Option<Struct>,
    pub(super) weight: u32,
    pub(super) priority: u32,
    pub(super) zone: Option<Arc<str>>,
    pub(super) health: Health,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Location {
    Address(SocketAddr),
    /// A name that has to be resolved first.
    Name(String, u16),
}

/// What discovery says about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Fit for traffic (HEALTHY, DEGRADED, or not said).
    Healthy,
    /// Gets traffic only in a panic (UNHEALTHY, TIMEOUT).
    Unhealthy,
    /// On its way out: gets no new requests while there is anyone else.
    Draining,
}

impl Assignment {
    /// Compiles the message. Endpoints with host names are kept as names: see [`Self::resolve`].
    ///
    /// # Errors
    /// The first field that is wrong or not supported.
    pub fn compile(message: &ClusterLoadAssignment, path: &str) -> Result<Self, FieldError> {
        let policy = message.policy.as_ref();
        unsupported(policy.is_some_and(|policy| !policy.drop_overloads.is_empty()), path, "policy.drop_overloads")?;
        let mut endpoints = Vec::new();
        for (i, locality) in message.endpoints.iter().enumerate() {
            let path = format!("{path}.endpoints[{i}]");
            unsupported(locality.lb_config.is_some(), &path, "lb_config")?;
            let zone =
                locality.locality.as_ref().map(|locality| locality.zone.as_str()).filter(|zone| !zone.is_empty());
            let zone: Option<Arc<str>> = zone.map(Into::into);
            for (j, endpoint) in locality.lb_endpoints.iter().enumerate() {
                let mut blueprint = Blueprint::compile(endpoint, &format!("{path}.lb_endpoints[{j}]"))?;
                blueprint.priority = locality.priority;
                blueprint.zone.clone_from(&zone);
                endpoints.push(blueprint);
            }
        }
        Ok(Self { endpoints })
    }

    /// The names that have to be resolved.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().filter_map(|endpoint| match &endpoint.location {
            Location::Name(name, _) => Some(name.as_str()),
            Location::Address(_) => None,
        })
    }

    /// The addresses, without the names.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.iter().filter_map(|endpoint| match endpoint.location {
            Location::Address(address) => Some(address),
            Location::Name(..) => None,
        })
    }

    /// The assignment with every name replaced by its addresses, each an endpoint of its own.
    #[must_use]
    pub fn resolve(&self, lookup: impl Fn(&str) -> Vec<IpAddr>) -> Self {
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for endpoint in &self.endpoints {
            match &endpoint.location {
                Location::Address(_) => endpoints.push(endpoint.clone()),
                Location::Name(name, port) => endpoints.extend(lookup(name).into_iter().map(|ip| Blueprint {
                    location: Location::Address(SocketAddr::new(ip, *port)),
                    hostname: endpoint.hostname.clone().or_else(|| Some(name.as_str().into())),
                    ..endpoint.clone()
                })),
            }
        }
        Self { endpoints }
    }
}

impl Blueprint {
    fn compile(message: &LbEndpoint, path: &str) -> Result<Self, FieldError> {
        let endpoint = match message.host_identifier.as_ref() {
            Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
            Some(HostIdentifier::EndpointName(_)) => {
                return Err(FieldError::new(format!("{path}.endpoint_name"), "not supported; use endpoint"));
            }
            None => return Err(FieldError::missing(format!("{path}.endpoint"), "give an address")),
        };
        let weight = message.load_balancing_weight.as_ref().map_or(1, |weight| weight.value);
        if weight == 0 {
            let way_out = "give 1 or more, or leave the endpoint out";
            return Err(FieldError::invalid(format!("{path}.load_balancing_weight"), weight, "is no weight", way_out));
        }
        let health = match HealthStatus::try_from(message.health_status) {
            Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => Health::Healthy,
            Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
            Ok(HealthStatus::Draining) => Health::Draining,
            Err(_) => {
                let status = message.health_status;
                return Err(FieldError::invalid(
                    format!("{path}.health_status"),
                    status,
                    "is unknown",
                    "use HEALTHY, UNHEALTHY or DRAINING",
                ));
            }
        };
        let socket_metadata = metadata::of(message.metadata.as_ref(), METADATA_TRANSPORT_SOCKET);
        Ok(Self {
            location: location(endpoint.address.as_ref(), &format!("{path}.endpoint.address"))?,
            hostname: Some(endpoint.hostname.as_str()).filter(|name| !name.is_empty()).map(Into::into),
            identity: socket_metadata.and_then(identity).map(Arc::new),
            socket_metadata: socket_metadata.cloned(),
            weight,
            priority: 0,
            zone: None,
            health,
        })
    }
}

fn identity(metadata: &Struct) -> Option<EndpointIdentity> {
    let spiffe = metadata::str(metadata, key::IDENTITY)?.to_owned();
    Some(EndpointIdentity { spiffe, pod: metadata::str(metadata, key::POD).map(str::to_owned) })
}

fn location(message: Option<&Address>, path: &str) -> Result<Location, FieldError> {
    let socket = match message.and_then(|message| message.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => socket,
        Some(_) => return Err(FieldError::new(path, "only socket_address is supported")),
        None => return Err(FieldError::missing(path, "give a socket_address")),
    };
    let path = format!("{path}.socket_address");
    unsupported(socket.protocol != 0, &path, "protocol UDP")?;
    unsupported(!socket.resolver_name.is_empty(), &path, "resolver_name")?;
    unsupported(!socket.network_namespace_filepath.is_empty(), &path, "network_namespace_filepath")?;
    let port = match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port)
            .map_err(|_| FieldError::invalid(format!("{path}.port_value"), port, "is no port", "give 1 to 65535"))?,
        _ => return Err(FieldError::missing(format!("{path}.port_value"), "give 1 to 65535")),
    };
    Ok(match socket.address.parse() {
        Ok(ip) => Location::Address(SocketAddr::new(ip, port)),
        Err(_) if socket.address.is_empty() => {
            return Err(FieldError::missing(format!("{path}.address"), "give an IP address"));
        }
        Err(_) => Location::Name(socket.address.clone(), port),
    })
}
