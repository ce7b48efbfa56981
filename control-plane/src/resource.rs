//! What can be asked for: a resource's type, its name, and for whom it is rendered.

use std::fmt;
use std::sync::Arc;

use weft_xds::type_url;

/// The xDS resource types served. Their order is the order of a push: make before break
/// (xDS protocol, "Eventual consistency considerations"), so that no listener or route names a cluster that the client
/// does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// SDS: trust bundles only; workloads' keys never exist here.
    Secret,
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl ResourceType {
    /// All types, in the order of a push.
    pub const ALL: [Self; 5] = [Self::Secret, Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    /// The type with this URL; `None` if it is not served.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// The type's URL.
    #[must_use]
    pub fn url(self) -> &'static str {
        match self {
            Self::Secret => type_url::SECRET,
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoint => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
        }
    }

    /// The short name that operators know: `LDS`, `RDS`, …
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Secret => "SDS",
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
        }
    }

    /// Whether state-of-the-world responses must always hold every subscribed resource of this type, so that leaving
    /// one out deletes it (xDS protocol: only LDS and CDS).
    #[must_use]
    pub fn is_full_state(self) -> bool {
        matches!(self, Self::Listener | Self::Cluster)
    }

    /// Whether resources of this type may differ between client namespaces. Where not, one encoding serves all.
    #[must_use]
    pub fn reads_namespace(self) -> bool {
        matches!(self, Self::Route)
    }

    /// Whether resources of this type may differ between kinds of clients. Where not, one encoding serves all.
    #[must_use]
    pub fn reads_client(self) -> bool {
        !matches!(self, Self::Secret)
    }

    /// Whether resources of this type name the files of the client's agent.
    #[must_use]
    pub fn reads_agent_folder(self) -> bool {
        matches!(self, Self::Listener | Self::Cluster)
    }

    /// Whether resources of this type may differ between zones. Where not, one encoding serves all.
    #[must_use]
    pub fn reads_zone(self) -> bool {
        matches!(self, Self::Endpoint)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// One resource: its type and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// The type.
    pub kind: ResourceType,
    /// The name, as `weft_xds::names` builds it.
    pub name: Arc<str>,
}

impl ResourceKey {
    /// The resource of this type and name.
    pub fn new(kind: ResourceType, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// What kind of client asks. Each reads the same model in its own dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKind {
    /// A Weft sidecar.
    Weft,
    /// An Envoy as a sidecar, its key and certificate kept by `weft agent`.
    Envoy,
    /// A gRPC application that has no sidecar.
    Grpc,
}

impl ClientKind {
    /// The kind of client that calls itself so (`node.user_agent_name`). Whoever is unknown gets what our own sidecars get.
    #[must_use]
    pub fn of_user_agent(name: &str) -> Self {
        match name {
            "envoy" => Self::Envoy,
            // `gRPC C-core`, `gRPC Go`, `gRPC Java`.
            name if name.starts_with("gRPC ") => Self::Grpc,
            _ => Self::Weft,
        }
    }
}

/// For whom a resource is rendered: only what the rendering reads, so that one encoding serves as many clients as possible.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// The client's kind.
    pub client: ClientKind,
    /// The client's namespace; `None` where the type does not read it ([`ResourceType::reads_namespace`]).
    pub namespace: Option<Arc<str>>,
    /// The client's zone; `None` where it is not known, or the type does not read it ([`ResourceType::reads_zone`]).
    pub zone: Option<Arc<str>>,
    /// The client's workload, where what it asks for does not say whose it is.
    pub workload: Option<Arc<str>>,
    /// The folder in which the client finds its key and certificate; `None` where the client or the type does not read it.
    pub agent_folder: Option<Arc<str>>,
}

impl View {
    /// The view of a Weft sidecar in a namespace.
    pub fn weft(namespace: impl Into<Arc<str>>) -> Self {
        Self {
            client: ClientKind::Weft,
            namespace: Some(namespace.into()),
            zone: None,
            workload: None,
            agent_folder: None,
        }
    }

    /// The view of an Envoy in a namespace, whose agent uses this folder.
    pub fn envoy(namespace: impl Into<Arc<str>>, agent_folder: impl Into<Arc<str>>) -> Self {
        Self { client: ClientKind::Envoy, agent_folder: Some(agent_folder.into()), ..Self::weft(namespace) }
    }

    /// The view of a gRPC application in a namespace, in the place of a workload.
    pub fn grpc(namespace: impl Into<Arc<str>>, workload: impl Into<Arc<str>>) -> Self {
        Self { client: ClientKind::Grpc, workload: Some(workload.into()), ..Self::weft(namespace) }
    }

    /// The view from a zone.
    #[must_use]
    pub fn in_zone(self, zone: Option<Arc<str>>) -> Self {
        Self { zone, ..self }
    }

    /// The part of this view that resources of a type read.
    #[must_use]
    pub fn narrowed_to(&self, kind: ResourceType) -> Self {
        // Its names for listeners leave out a service's namespace, and whose server it is.
        let by_place = self.client == ClientKind::Grpc && kind == ResourceType::Listener;
        Self {
            client: if kind.reads_client() { self.client } else { ClientKind::Weft },
            agent_folder: self.agent_folder.clone().filter(|_| kind.reads_agent_folder()),
            namespace: self.namespace.clone().filter(|_| kind.reads_namespace() || by_place),
            workload: self.workload.clone().filter(|_| by_place),
            zone: self.zone.clone().filter(|_| kind.reads_zone()),
        }
    }
}
