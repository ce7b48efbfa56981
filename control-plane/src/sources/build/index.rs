//! Pods by what others find them by, so that a service looks at its own pods only, and not at every pod of the mesh.

use std::collections::HashMap;
use std::net::IpAddr;

use super::pods::BuiltPod;
use super::services::BuiltService;

/// The pods of a mesh.
pub(super) struct PodIndex<'p, 'a> {
    pods: &'p [BuiltPod<'a>],
    /// By namespace, label and the label's value; in the order of `pods`.
    by_label: HashMap<(&'p str, &'p str, &'p str), Vec<usize>>,
    by_address: HashMap<IpAddr, usize>,
    by_name: HashMap<(&'p str, &'p str), usize>,
}

impl<'p, 'a> PodIndex<'p, 'a> {
    pub(super) fn new(pods: &'p [BuiltPod<'a>]) -> Self {
        let mut by_label: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_address = HashMap::new();
        let mut by_name = HashMap::new();
        for (at, pod) in pods.iter().enumerate() {
            for (key, value) in &pod.pod.labels {
                by_label.entry((&*pod.pod.name.namespace, key.as_str(), value.as_str())).or_default().push(at);
            }
            by_name.insert((&*pod.pod.name.namespace, &*pod.pod.name.name), at);
            by_address.extend(pod.pod.addresses.iter().map(|ip| (*ip, at)));
        }
        Self { pods, by_label, by_address, by_name }
    }

    /// The pods that a service's selector chooses, by name.
    pub(super) fn selected<'i>(&'i self, service: &'i BuiltService<'_>) -> impl Iterator<Item = &'p BuiltPod<'a>> + 'i {
        let namespace = &*service.service.name.namespace;
        // Those with the rarest of the labels are looked at. A service without labels selects nothing.
        let candidates = service
            .selector()
            .map(|(key, value)| {
                self.by_label.get(&(namespace, key.as_str(), value.as_str())).map(Vec::as_slice).unwrap_or_default()
            })
            .min_by_key(|pods| pods.len())
            .unwrap_or_default();
        candidates.iter().map(|at| &self.pods[*at]).filter(|pod| service.selects(pod))
    }

    /// The pod of this name.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&'p BuiltPod<'a>> {
        self.by_name.get(&(namespace, name)).map(|at| &self.pods[*at])
    }

    /// The pod with this address.
    pub(super) fn at(&self, address: IpAddr) -> Option<&'p BuiltPod<'a>> {
        self.by_address.get(&address).map(|at| &self.pods[*at])
    }
}
