//! Pods, and the workloads they are replicas of.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use weft_xds::names::{PodName, SpiffeId};

use super::name::ObjectName;
use super::policy::{Access, TlsMode};
use super::service::{MeshPeer, Protocol};

/// One running process with addresses of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: ObjectName,
    /// What tells it from others of its name, before it and after it; where there are none, nothing.
    pub uid: Option<String>,
    /// When it was made, where that is known: a certificate from before it is not its own.
    pub created: Option<SystemTime>,
    /// Name of the workload it is a replica of, in the same namespace.
    pub workload: String,
    /// Its addresses, at most one of each family; the first is used by services.
    pub addresses: Vec<IpAddr>,
    /// Who it is.
    pub identity: SpiffeId,
    /// The name that its certificate carries.
    pub pod_name: PodName,
    /// Where it runs, where that is known.
    pub zone: Option<Arc<str>>,
    /// Labels, by which services and policies select it.
    pub labels: BTreeMap<String, String>,
    /// Whether services send it requests.
    pub ready: bool,
    /// Whether it is going away.
    pub terminating: bool,
    /// Whether a sidecar runs beside it.
    pub meshed: bool,
}

impl Pod {
    /// Who answers at its addresses, if it has a sidecar.
    #[must_use]
    pub fn peer(&self) -> Option<MeshPeer> {
        self.meshed.then(|| MeshPeer { identity: self.identity.clone(), pod: self.pod_name.clone() })
    }
}

/// The replicas of one process and what holds for all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name.
    pub name: ObjectName,
    /// Names of its pods, in its namespace.
    pub pods: Vec<String>,
    /// Ports on which it listens, as it or the services that select it declare.
    pub ports: BTreeMap<u16, InboundPort>,
    /// The mode of all other ports.
    pub tls: TlsMode,
    /// Who may call it.
    pub access: Access,
}

/// A port on which a workload listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether callers without mutual TLS are accepted.
    pub tls: TlsMode,
}
