//! Which pods and addresses stand behind each service port.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_api::k8s_openapi::api::discovery::v1::EndpointSlice;

use super::index::PodIndex;
use super::services::{BuiltService, Services};
use super::{Notes, Parts, Written};
use crate::model::{Endpoint, Health, ObjectName};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn fill(services: &mut Services<'_>, parts: &Parts<'_>, pods: &PodIndex<'_, '_>, notes: &mut Notes) {
    let mut slices: HashMap<ObjectName, Vec<&Written<'_, EndpointSlice>>> = HashMap::new();
    for slice in &parts.slices {
        let Some(service) = slice.object.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) else {
            continue;
        };
        let name = ObjectName::new(slice.name.namespace.clone(), service.as_str());
        if !services.contains_key(&name) {
            let path = weft_api::FieldPath::root().key("metadata").key("labels").key(SERVICE_NAME);
            notes.warning(slice.origin, &path, service, format!("there is no Service {name}"), "check the name");
        }
        slices.entry(name).or_default().push(slice);
    }
    for (name, built) in services {
        let slices = slices.get(name).map(Vec::as_slice).unwrap_or_default();
        let with_unready =
            built.written.object.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true));
        for at in 0..built.service.ports.len() {
            // A map: slices may name what the selector found already, and the order is that of the addresses.
            let mut found: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
            from_slices(built, at, slices, pods, &mut found);
            selected(built, at, pods, with_unready, &mut found);
            built.service.ports[at].endpoints = Arc::new(found.into_values().collect());
        }
    }
}

fn selected(
    built: &BuiltService<'_>,
    at: usize,
    pods: &PodIndex<'_, '_>,
    with_unready: bool,
    found: &mut BTreeMap<SocketAddr, Endpoint>,
) {
    for pod in pods.selected(built) {
        let health = match (pod.pod.terminating, pod.pod.ready || with_unready) {
            (true, _) => Health::Draining,
            (false, true) => Health::Healthy,
            (false, false) => continue,
        };
        // One address for each pod, or a dual-stack pod would count twice in balancing and outlier detection.
        if let (Some(port), Some(ip)) = (built.targets[at].on(pod), pod.pod.addresses.first()) {
            let address = SocketAddr::new(*ip, port);
            found.insert(address, Endpoint { address, peer: pod.pod.peer(), health });
        }
    }
}

fn from_slices(
    built: &BuiltService<'_>,
    at: usize,
    slices: &[&Written<'_, EndpointSlice>],
    pods: &PodIndex<'_, '_>,
    found: &mut BTreeMap<SocketAddr, Endpoint>,
) {
    let port_name = built.service.ports[at].name.as_deref().unwrap_or_default();
    for slice in slices {
        let port = slice
            .object
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == port_name)
            .and_then(|p| u16::try_from(p.port?).ok());
        let Some(port) = port else { continue };
        for endpoint in &slice.object.endpoints {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let health = match (terminating, ready, serving) {
                (true, _, true) => Health::Draining,
                (false, true, _) => Health::Healthy,
                _ => continue,
            };
            // All addresses of an endpoint are of the same pod (discovery.k8s.io/v1): the first stands for it.
            let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok()) else { continue };
            let address = SocketAddr::new(ip, port);
            let peer = pods.at(ip).and_then(|p| p.pod.peer());
            found.insert(address, Endpoint { address, peer, health });
        }
    }
}
