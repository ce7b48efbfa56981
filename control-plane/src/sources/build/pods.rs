//! Workload objects → pods.

use std::collections::HashMap;
use std::net::IpAddr;

use weft_api::mesh::WorkloadPort;
use weft_xds::names::{PodName, SpiffeId};

use super::{Notes, Parts, spec};
use crate::model::{MeshConfig, Pod};

/// The label by which a node, and with it its pods, says its zone.
pub(in crate::sources) const ZONE: &str = "topology.kubernetes.io/zone";

/// A pod, and what only building needs of it.
pub(super) struct BuiltPod<'a> {
    pub(super) pod: Pod,
    pub(super) ports: &'a [WorkloadPort],
}

impl BuiltPod<'_> {
    /// Whether all labels of a selector are there.
    pub(super) fn has_labels<'l>(&self, labels: impl IntoIterator<Item = (&'l String, &'l String)>) -> bool {
        labels.into_iter().all(|(key, value)| self.pod.labels.get(key) == Some(value))
    }
}

pub(super) fn pods<'a>(parts: &Parts<'a>, config: &MeshConfig, notes: &mut Notes) -> Vec<BuiltPod<'a>> {
    let mut owners: HashMap<IpAddr, String> = HashMap::new();
    let mut pods = Vec::with_capacity(parts.workloads.len());
    for workload in &parts.workloads {
        let said = &workload.object.spec;
        let name = &workload.name;
        let account = said.service_account.as_deref().unwrap_or("default");
        let owner = said.workload.as_deref().unwrap_or(&name.name);
        let identity = match SpiffeId::new(&*config.trust_domain, &*name.namespace, account) {
            Ok(identity) => identity,
            Err(error) => {
                notes.error(workload.origin, &spec("serviceAccount"), account, error.to_string(), "");
                continue;
            }
        };
        let pod_name = match PodName::new(&*name.name, owner, &*name.namespace) {
            Ok(pod_name) => pod_name,
            Err(error) => {
                let hint = "the workload's name is a DNS label; set spec.workload where metadata.name is none";
                notes.error(workload.origin, &spec("workload"), owner, error.to_string(), hint);
                continue;
            }
        };
        let mut addresses = Vec::new();
        for (index, text) in said.addresses.iter().enumerate() {
            // Checked when the file was read.
            let Ok(address) = text.parse::<IpAddr>() else { continue };
            if let Some(other) = owners.insert(address, workload.origin.name().to_owned()) {
                let path = spec("addresses").index(index);
                notes.error(
                    workload.origin,
                    &path,
                    text,
                    format!("is also an address of {other}"),
                    "an address belongs to one workload",
                );
            }
            addresses.push(address);
        }
        pods.push(BuiltPod {
            pod: Pod {
                name: name.clone(),
                uid: workload.object.metadata.uid.clone(),
                created: workload.object.metadata.creation_timestamp.as_ref().map(|at| at.0.into()),
                workload: owner.to_owned(),
                addresses,
                identity,
                pod_name,
                zone: workload
                    .object
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|l| l.get(ZONE))
                    .map(|zone| zone.as_str().into()),
                labels: workload.object.metadata.labels.clone().unwrap_or_default(),
                ready: said.ready.unwrap_or(true),
                terminating: said.terminating.unwrap_or(false),
                meshed: said.meshed.unwrap_or(true),
            },
            ports: &said.ports,
        });
    }
    pods.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
    pods
}
