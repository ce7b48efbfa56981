//! Service objects → services with addresses and ports; endpoints, routes and policies come later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_api::FieldPath;
use weft_api::k8s_openapi::api::core::v1;
use weft_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_api::mesh::WorkloadPort;
use weft_inject::annotations::OPAQUE_PORTS;

use super::pods::BuiltPod;
use super::{Notes, Parts, Written, addresses, spec};
use crate::model::route::PortRoutes;
use crate::model::{MeshConfig, Model, ObjectName, Protocol, Service, ServicePort};

/// A service, and what only building needs of it.
pub(super) struct BuiltService<'a> {
    pub(super) service: Service,
    pub(super) written: Written<'a, v1::Service>,
    /// One for each of the service's ports.
    pub(super) targets: Vec<Target>,
}

/// The port on which a service's pods listen.
pub(super) enum Target {
    Number(u16),
    /// A name among the pod's own ports.
    Name(String),
}

impl Target {
    /// The number on one pod; `None` if the pod has no port of that name.
    pub(super) fn on(&self, pod: &BuiltPod<'_>) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => pod.ports.iter().find(|p| p.name.as_deref() == Some(name)).map(|p| p.port),
        }
    }
}

impl BuiltService<'_> {
    /// The labels that the service's pods have.
    pub(super) fn selector(&self) -> impl Iterator<Item = (&String, &String)> {
        self.written.object.spec.iter().flat_map(|s| s.selector.iter().flatten())
    }

    /// Whether the service's selector chooses the pod.
    pub(super) fn selects(&self, pod: &BuiltPod<'_>) -> bool {
        self.selector().next().is_some()
            && pod.pod.name.namespace == self.service.name.namespace
            && pod.has_labels(self.selector())
    }
}

pub(super) type Services<'a> = BTreeMap<ObjectName, BuiltService<'a>>;

pub(super) fn services<'a>(
    parts: &Parts<'a>,
    pods: &[BuiltPod<'_>],
    config: &MeshConfig,
    previous: Option<&Model>,
    notes: &mut Notes,
) -> Services<'a> {
    let mut services = Services::new();
    for written in &parts.services {
        let Some(said) = &written.object.spec else { continue };
        if said.type_.as_deref() == Some("ExternalName") {
            notes.warning(
                written.origin,
                &spec("type"),
                "ExternalName",
                "is not part of the mesh".to_owned(),
                "its traffic passes as it is",
            );
            continue;
        }
        let (ports, targets) = ports(said);
        let service = Service {
            name: written.name.clone(),
            addresses: explicit_addresses(said),
            headless: said.cluster_ip.as_deref() == Some("None"),
            ports,
        };
        services.insert(written.name.clone(), BuiltService { service, written: written.clone(), targets });
    }
    heed_opaque_ports(&mut services, pods, notes);
    refuse_shared_addresses(&services, pods, notes);
    give_addresses(&mut services, pods, config, previous, notes);
    services
}

/// What a Service's annotation or the pods behind it declare to be bytes is bytes for callers too, whatever the Service's port says: who
/// wrote the annotation did so because the port's name misleads.
fn heed_opaque_ports(services: &mut Services<'_>, pods: &[BuiltPod<'_>], notes: &mut Notes) {
    // Few pods say anything of the kind: the others are not looked at for every service.
    let saying: Vec<_> = pods.iter().filter(|pod| pod.ports.iter().any(is_opaque)).collect();
    for service in services.values_mut() {
        let opaque = annotated(&service.written, notes);
        for at in 0..service.targets.len() {
            let by_pod = || {
                saying.iter().any(|pod| {
                    let target = service.targets[at].on(pod);
                    service.selects(pod) && pod.ports.iter().any(|port| Some(port.port) == target && is_opaque(port))
                })
            };
            if opaque.contains(&service.service.ports[at].port) || by_pod() {
                service.service.ports[at].protocol = Protocol::Opaque;
            }
        }
    }
}

fn is_opaque(port: &WorkloadPort) -> bool {
    let said = port.app_protocol.as_deref();
    said.is_some() && Protocol::declared(said, None, port.port) == Protocol::Opaque
}

/// The ports of a Service's own annotation.
fn annotated(written: &Written<'_, v1::Service>, notes: &mut Notes) -> Vec<u16> {
    let Some(text) = written.object.metadata.annotations.as_ref().and_then(|all| all.get(OPAQUE_PORTS)) else {
        return Vec::new();
    };
    weft_inject::annotations::ports(OPAQUE_PORTS, text).unwrap_or_else(|error| {
        let path = FieldPath::root().key("metadata").key("annotations").key(OPAQUE_PORTS);
        notes.warning(written.origin, &path, &error.value, error.problem.clone(), "until then it says nothing");
        Vec::new()
    })
}

fn ports(said: &v1::ServiceSpec) -> (Vec<ServicePort>, Vec<Target>) {
    let mut pairs: Vec<_> = said
        .ports
        .iter()
        .flatten()
        .filter(|p| p.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
        .filter_map(|p| {
            // Checked when the file was read.
            let port = u16::try_from(p.port).ok()?;
            let target = match &p.target_port {
                Some(IntOrString::Int(number)) => Target::Number(u16::try_from(*number).ok()?),
                Some(IntOrString::String(name)) => match name.parse() {
                    Ok(number) => Target::Number(number),
                    Err(_) => Target::Name(name.clone()),
                },
                None => Target::Number(port),
            };
            Some((
                ServicePort {
                    port,
                    name: p.name.clone(),
                    protocol: Protocol::declared(p.app_protocol.as_deref(), p.name.as_deref(), port),
                    endpoints: Arc::default(),
                    routes: Arc::new(PortRoutes::default()),
                    traffic: Arc::default(),
                    fault: None,
                },
                target,
            ))
        })
        .collect();
    pairs.sort_by_key(|(port, _)| port.port);
    pairs.into_iter().unzip()
}

fn explicit_addresses(said: &v1::ServiceSpec) -> Vec<IpAddr> {
    let all = said.cluster_ips.iter().flatten();
    let mut addresses: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(said.cluster_ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok()));
    }
    addresses
}

/// One address and port means one service, and a service's address is no pod's.
fn refuse_shared_addresses(services: &Services<'_>, pods: &[BuiltPod<'_>], notes: &mut Notes) {
    let pods: HashMap<IpAddr, &ObjectName> =
        pods.iter().flat_map(|p| p.pod.addresses.iter().map(|ip| (*ip, &p.pod.name))).collect();
    let mut seen: HashMap<SocketAddr, &ObjectName> = HashMap::new();
    for BuiltService { service, written, .. } in services.values() {
        for ip in &service.addresses {
            if let Some(pod) = pods.get(ip) {
                notes.error(
                    written.origin,
                    &spec("clusterIP"),
                    ip,
                    format!("is the address of Workload {pod}"),
                    "give the Service another address, or none",
                );
            }
            for port in &service.ports {
                if let Some(other) = seen.insert(SocketAddr::new(*ip, port.port), &service.name) {
                    notes.error(
                        written.origin,
                        &spec("clusterIP"),
                        ip,
                        format!("is also the address of Service {other}, with the same port {}", port.port),
                        "give one of them another address, or none",
                    );
                }
            }
        }
    }
}

/// Every service that is not headless gets one address of each range whose family it lacks altogether.
fn give_addresses(
    services: &mut Services<'_>,
    pods: &[BuiltPod<'_>],
    config: &MeshConfig,
    previous: Option<&Model>,
    notes: &mut Notes,
) {
    let mut taken: HashSet<IpAddr> = pods.iter().flat_map(|p| p.pod.addresses.iter().copied()).collect();
    taken.extend(services.values().flat_map(|s| s.service.addresses.iter().copied()));
    let mut waiting: Vec<_> =
        services.values_mut().filter(|s| s.service.addresses.is_empty() && !s.service.headless).collect();
    // Those that had an address keep it; then the oldest choose first.
    for built in &mut waiting {
        let name = &built.service.name;
        let Some(old) = previous.and_then(|m| m.service(&name.namespace, &name.name)) else { continue };
        for ip in &old.addresses {
            if config.virtual_ranges.iter().any(|r| r.contains(*ip)) && taken.insert(*ip) {
                built.service.addresses.push(*ip);
            }
        }
    }
    waiting.sort_by_key(|s| s.written.seniority());
    for built in waiting {
        for range in &config.virtual_ranges {
            if built.service.addresses.iter().any(|ip| range.contains(*ip)) {
                continue;
            }
            match addresses::choose(range, &built.service.name, &taken) {
                Some(ip) => {
                    taken.insert(ip);
                    built.service.addresses.push(ip);
                }
                None => notes.error(
                    built.written.origin,
                    &spec("clusterIP"),
                    "",
                    format!("no address is left in the range {range}"),
                    "start the control plane with a larger range, or write an address",
                ),
            }
        }
    }
}
