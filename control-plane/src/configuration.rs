//! What is served: the model, and the trust bundle beside it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_xds::google::protobuf::Any;
use weft_xds::names::SECRET_BUNDLE;

use crate::identity::authority::Trust;
use crate::identity::bundle_secret;
use crate::model::{Health, Model, Pod, Service, ServicePort};
use crate::{ClientKind, ResourceKey, ResourceType, View, render};

/// One immutable state of everything that is served.
#[derive(Clone)]
pub(crate) struct Configuration {
    pub(crate) model: Arc<Model>,
    pub(crate) trust: Arc<Trust>,
}

impl Configuration {
    /// The resource as this view sees it; `None` if it is known not to exist.
    pub(crate) fn render(&self, key: &ResourceKey, view: &View) -> Option<Any> {
        match (key.kind, &*key.name) {
            (ResourceType::Secret, SECRET_BUNDLE) => Some(bundle_secret(&self.trust)),
            // Workloads' own keys and certificates never exist here.
            (ResourceType::Secret, _) => None,
            _ => render::render(&self.model, key, view),
        }
    }

    /// Whether a resource may differ between two configurations; `false` is certain.
    pub(crate) fn may_differ(&self, old: &Self, key: &ResourceKey) -> bool {
        match key.kind {
            ResourceType::Secret => self.trust != old.trust,
            _ => render::may_differ(&old.model, &self.model, key),
        }
    }

    /// Whether any pod is another, or of another workload or account; `false` is certain.
    pub(crate) fn pods_differ(&self, old: &Self) -> bool {
        let (new, old) = (self.model.pods(), old.model.pods());
        new.len() != old.len() || new.zip(old).any(|(new, old)| !Arc::ptr_eq(new, old))
    }

    /// Every resource of a type that a wildcard subscription of such a client in the place of `workload` (namespace and name) covers, but for
    /// the listener that belongs to that workload alone.
    pub(crate) fn names(&self, kind: ResourceType, client: ClientKind, workload: (&str, &str)) -> Vec<Arc<str>> {
        match kind {
            ResourceType::Secret => vec![SECRET_BUNDLE.into()],
            kind => render::names(&self.model, kind, client, workload),
        }
    }

    /// The pod of this name.
    pub(crate) fn pod(&self, namespace: &str, pod: &str) -> Option<&Pod> {
        self.model.pod(namespace, pod).map(Arc::as_ref)
    }

    /// The services, for `weft status`.
    pub(crate) fn services(&self) -> Vec<ServiceStatus> {
        self.model.services().map(|service| ServiceStatus::of(service)).collect()
    }
}

/// A service as `weft status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The addresses clients call, given by the user or assigned.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Endpoints that take new requests.
    pub ready: usize,
    /// All endpoints.
    pub endpoints: usize,
}

impl ServiceStatus {
    fn of(service: &Service) -> Self {
        // The same pods stand behind every port, except where a named port exists in only some of them.
        let most = |count: fn(&ServicePort) -> usize| service.ports.iter().map(count).max().unwrap_or(0);
        Self {
            namespace: service.name.namespace.to_string(),
            name: service.name.name.to_string(),
            addresses: service.addresses.clone(),
            ports: service.ports.iter().map(|port| port.port).collect(),
            ready: most(|port| {
                let healthy = port.endpoints.iter().filter(|e| e.health == Health::Healthy);
                healthy.count()
            }),
            endpoints: most(|port| port.endpoints.len()),
        }
    }
}
