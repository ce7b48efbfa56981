//! Which pods and addresses stand behind each service port.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_api::k8s_openapi::api::core::v1::ObjectReference;
use weft_api::k8s_openapi::api::discovery::v1::EndpointSlice;

use super::index::PodIndex;
use super::pods::BuiltPod;
use super::services::{BuiltService, Services};
use super::{EndpointsFrom, Notes, Parts, Written};
use crate::model::{Endpoint, Health, ObjectName};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn fill(
    services: &mut Services<'_>,
    endpoints: EndpointsFrom,
    parts: &Parts<'_>,
    pods: &PodIndex<'_, '_>,
    notes: &mut Notes,
) {
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
            from_slices(built, at, slices, pods, with_unready, &mut found);
            if endpoints == EndpointsFrom::Selectors {
                selected(built, at, pods, with_unready, &mut found);
            }
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
            let zone = pod.pod.zone.clone();
            found.insert(address, Endpoint { address, peer: pod.pod.peer(), health, zone, for_zones: Vec::new() });
        }
    }
}

fn from_slices(
    built: &BuiltService<'_>,
    at: usize,
    slices: &[&Written<'_, EndpointSlice>],
    pods: &PodIndex<'_, '_>,
    with_unready: bool,
    found: &mut BTreeMap<SocketAddr, Endpoint>,
) {
    let is_of = |family: &str| slices.iter().any(|slice| slice.object.address_type == family);
    let dual_stack = is_of("IPv4") && is_of("IPv6");
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
            // All addresses of an endpoint are of the same pod (discovery.k8s.io/v1): the first stands for it.
            let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok()) else { continue };
            let pod = match endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod")) {
                // Slice and pod arrive on different ways, so the slice may be ahead of the pod, or behind its successor. Who is
                // not known is not called: a guess could send plaintext to a member of the mesh, or to whom the address went.
                Some(target) => match named(target, slice, pods) {
                    Some(pod) if pod.pod.addresses.is_empty() || pod.pod.addresses.contains(&ip) => Some(pod),
                    _ => continue,
                },
                None => pods.at(ip),
            };
            // One address for each pod, as where the selector finds it.
            if dual_stack && pod.is_some_and(|p| p.pod.addresses.first().is_some_and(|first| *first != ip)) {
                continue;
            }
            // The pod itself says first that it is going away or not ready.
            let leaves = pod.is_some_and(|p| p.pod.terminating);
            let rests = pod.is_some_and(|p| !p.pod.ready) && !with_unready;
            let health = match (terminating || leaves, ready && !rests, serving) {
                (true, _, true) => Health::Draining,
                (false, true, _) => Health::Healthy,
                _ => continue,
            };
            let address = SocketAddr::new(ip, port);
            let peer = pod.and_then(|p| p.pod.peer());
            let zone = endpoint.zone.as_deref().map(Into::into).or_else(|| pod.and_then(|p| p.pod.zone.clone()));
            let hints = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
            let for_zones = hints.map(|zone| zone.name.clone()).collect();
            found.insert(address, Endpoint { address, peer, health, zone, for_zones });
        }
    }
}

/// The pod that an endpoint names, if it is that very pod and not one of the same name before or after it.
fn named<'p, 'a>(
    target: &ObjectReference,
    slice: &Written<'_, EndpointSlice>,
    pods: &PodIndex<'p, 'a>,
) -> Option<&'p BuiltPod<'a>> {
    let namespace = target.namespace.as_deref().unwrap_or(&slice.name.namespace);
    let pod = pods.named(namespace, target.name.as_deref()?)?;
    match (target.uid.as_deref(), pod.pod.uid.as_deref()) {
        (Some(wanted), Some(found)) if wanted != found => None,
        _ => Some(pod),
    }
}
