//! The mesh as the control plane understands it. No Kubernetes type, no YAML, no Envoy message: sources build a [`Model`],
//! rendering reads it.
//!
//! | module | holds |
//! |---|---|
//! | [`name`] | names of objects |
//! | [`config`] | what holds for the whole mesh; address ranges |
//! | [`service`] | services, their ports and endpoints |
//! | [`workload`] | pods, and the workloads they are replicas of |
//! | [`route`] | compiled routes in order of precedence |
//! | [`policy`] | policies as they apply to one service port or workload, conflicts resolved |
//!
//! A model never changes. Parts are shared between successive models where they are equal ([`Model::sharing`]), so that
//! whoever compares two models can stop at equal pointers.

pub mod config;
pub mod name;
pub mod policy;
pub mod route;
pub mod service;
pub mod workload;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use config::{Cidr, MeshConfig, UnknownDestination};
pub use name::ObjectName;
pub use service::{Endpoint, Health, MeshPeer, Protocol, Service, ServicePort};
pub use workload::{InboundPort, Pod, Workload};

/// Everything the control plane knows of the mesh at one moment.
#[derive(Debug)]
pub struct Model {
    config: Arc<MeshConfig>,
    services: BTreeMap<ObjectName, Arc<Service>>,
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    workloads: BTreeMap<ObjectName, Arc<Workload>>,
    by_address: HashMap<SocketAddr, ObjectName>,
    by_pod_address: HashMap<IpAddr, ObjectName>,
    /// Endpoints of headless services with the service and its port, or nothing where several have the endpoint.
    by_headless: HashMap<SocketAddr, Option<(ObjectName, u16)>>,
}

impl Model {
    /// Indexes the parts. Of two services with the same address and port, or two pods with the same address, the last by name is
    /// found; sources refuse both.
    #[must_use]
    pub fn new(
        config: Arc<MeshConfig>,
        services: impl IntoIterator<Item = Service>,
        pods: impl IntoIterator<Item = Pod>,
        workloads: impl IntoIterator<Item = Workload>,
    ) -> Self {
        let services: BTreeMap<_, _> = services.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect();
        let pods: BTreeMap<_, _> = pods.into_iter().map(|p| (p.name.clone(), Arc::new(p))).collect();
        let workloads = workloads.into_iter().map(|w| (w.name.clone(), Arc::new(w))).collect();
        let by_address = services
            .values()
            .flat_map(|s| {
                s.addresses
                    .iter()
                    .flat_map(move |ip| s.ports.iter().map(move |p| (SocketAddr::new(*ip, p.port), s.name.clone())))
            })
            .collect();
        let by_pod_address =
            pods.values().flat_map(|p| p.addresses.iter().map(move |ip| (*ip, p.name.clone()))).collect();
        let by_headless = headless(services.values());
        Self { config, services, pods, workloads, by_address, by_pod_address, by_headless }
    }

    /// A mesh without anything in it.
    #[must_use]
    pub fn empty(config: Arc<MeshConfig>) -> Self {
        Self::new(config, [], [], [])
    }

    /// This model, with every part that is equal in `previous` taken from there.
    #[must_use]
    pub fn sharing(mut self, previous: &Self) -> Self {
        share(&mut self.services, &previous.services);
        share(&mut self.pods, &previous.pods);
        share(&mut self.workloads, &previous.workloads);
        if self.config == previous.config {
            self.config = previous.config.clone();
        }
        self
    }

    /// What holds for the whole mesh.
    #[must_use]
    pub fn config(&self) -> &Arc<MeshConfig> {
        &self.config
    }

    /// All services by name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// All pods by name.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// All workloads by name.
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.services.get(&ObjectName::new(namespace, name))
    }

    /// The pod of this name.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(&ObjectName::new(namespace, name))
    }

    /// The workload (the pods' owner) of this name.
    #[must_use]
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(&ObjectName::new(namespace, name))
    }

    /// The service, and its port, that a connection to this address is for.
    #[must_use]
    pub fn service_at(&self, address: SocketAddr) -> Option<(&Arc<Service>, &ServicePort)> {
        let service = self.services.get(self.by_address.get(&address)?)?;
        Some((service, service.port(address.port())?))
    }

    /// The headless service, and its port, that a connection to this address of a pod is for: the only one that has an endpoint
    /// there. With two, nothing says which of them the caller meant.
    #[must_use]
    pub fn headless_at(&self, address: SocketAddr) -> Option<(&Arc<Service>, &ServicePort)> {
        let (name, port) = self.by_headless.get(&address)?.as_ref()?;
        let service = self.services.get(name)?;
        Some((service, service.port(*port)?))
    }

    /// The pod with this address.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.pods.get(self.by_pod_address.get(&address)?)
    }
}

fn headless<'a>(services: impl Iterator<Item = &'a Arc<Service>>) -> HashMap<SocketAddr, Option<(ObjectName, u16)>> {
    let mut owners = HashMap::new();
    for service in services.filter(|s| s.headless) {
        for port in &service.ports {
            for endpoint in port.endpoints.iter() {
                owners
                    .entry(endpoint.address)
                    .and_modify(|owner| *owner = None)
                    .or_insert_with(|| Some((service.name.clone(), port.port)));
            }
        }
    }
    owners
}

fn share<T: PartialEq>(parts: &mut BTreeMap<ObjectName, Arc<T>>, previous: &BTreeMap<ObjectName, Arc<T>>) {
    for (name, part) in parts {
        if let Some(old) = previous.get(name)
            && old == part
        {
            *part = old.clone();
        }
    }
}
