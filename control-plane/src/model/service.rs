//! Services, their ports and endpoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_xds::names::{PodName, SpiffeId};

use super::name::ObjectName;
use super::policy::{Fault, Traffic};
use super::route::PortRoutes;

/// A name and addresses behind which endpoints stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// Its own (virtual) addresses, at most one of each family; none if headless.
    pub addresses: Vec<IpAddr>,
    /// Whether callers resolve the name to the pods' addresses.
    pub headless: bool,
    /// TCP ports by number.
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// The port of this number.
    #[must_use]
    pub fn port(&self, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.port == port)
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// The number that callers use.
    pub port: u16,
    /// The name, if it has one.
    pub name: Option<String>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where requests can go, by address.
    pub endpoints: Arc<Vec<Endpoint>>,
    /// Routes attached to it.
    pub routes: Arc<PortRoutes>,
    /// How callers treat it.
    pub traffic: Arc<Traffic>,
    /// Delays and errors on purpose.
    pub fault: Option<Arc<Fault>>,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 where the caller speaks it.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Opaque,
    /// Not declared: looked for in the first bytes.
    Detect,
}

impl Protocol {
    /// Ports that are opaque unless declared otherwise, mostly because the server speaks first.
    const OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

    /// The protocol of a port by what its owner says: `appProtocol` before the port's name (`http`, `grpc-web`: the part
    /// before the first `-`) before its number.
    #[must_use]
    pub fn declared(app_protocol: Option<&str>, name: Option<&str>, port: u16) -> Self {
        let by_name = || {
            let name = name?;
            Self::from_word(name.split('-').next().unwrap_or(name))
        };
        app_protocol.and_then(Self::from_word).or_else(by_name).unwrap_or(if Self::OPAQUE_PORTS.contains(&port) {
            Self::Opaque
        } else {
            Self::Detect
        })
    }

    fn from_word(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "http" | "http1" | "http/1.1" | "ws" | "kubernetes.io/ws" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            // The application's own TLS is bytes to us.
            "tcp" | "tls" | "https" | "wss" | "kubernetes.io/wss" | "redis" | "mysql" | "mongo" | "postgres"
            | "postgresql" | "kafka" | "amqp" | "smtp" => Self::Opaque,
            _ => return None,
        })
    }

    /// Whether every connection carries HTTP.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }
}

/// A pod, or another address, that requests of a service can go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port on which it listens.
    pub address: SocketAddr,
    /// Who has to answer there; `None` without a sidecar.
    pub peer: Option<MeshPeer>,
    /// Whether it takes new requests.
    pub health: Health,
    /// Where it runs, where that is known.
    pub zone: Option<Arc<str>>,
    /// The zones whose callers should prefer it; empty where nobody said.
    pub for_zones: Vec<String>,
}

/// Who answers at an endpoint with a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeshPeer {
    /// The identity that its certificate carries.
    pub identity: SpiffeId,
    /// The pod that its certificate names.
    pub pod: PodName,
}

/// Whether an endpoint takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Healthy,
    /// It finishes what it has.
    Draining,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_declared_by_field_then_name_then_number() {
        let declared = Protocol::declared;
        assert_eq!(declared(Some("kubernetes.io/h2c"), Some("http"), 80), Protocol::Http2);
        assert_eq!(declared(None, Some("grpc-api"), 80), Protocol::Grpc);
        assert_eq!(declared(Some("custom"), Some("http"), 80), Protocol::Http);
        assert_eq!(declared(None, None, 5432), Protocol::Opaque);
        assert_eq!(declared(None, Some("web"), 80), Protocol::Detect);
    }
}
