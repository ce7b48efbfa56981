//! Pods as the mesh sees them: the few fields that matter, in the shape of a `Workload`.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_api::mesh::{Workload, WorkloadPort, WorkloadSpec};
use weft_inject::annotations::OPAQUE_PORTS;
use weft_inject::names;

/// The application protocol of a port that carries bytes.
const OPAQUE: &str = "tcp";

/// A pod as a workload; `None` when it has come to its end and its address may be another's.
pub(super) fn workload(pod: &Pod) -> Option<Workload> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    // The node's address is not the pod's: many share it, and no sidecar can stand before it.
    let on_host = spec.host_network == Some(true);
    let addresses = match status {
        Some(status) if !on_host => {
            let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
            let all: Vec<_> = all.filter(|ip| !ip.is_empty()).collect();
            if all.is_empty() { status.pod_ip.clone().into_iter().collect() } else { all }
        }
        _ => Vec::new(),
    };
    let ready = status
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let has = |key: &str| pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(key));
    let annotations = pod.metadata.annotations.as_ref();
    let opaque = annotations.and_then(|all| all.get(OPAQUE_PORTS)).map(String::as_str).unwrap_or_default();
    // Injection has refused what makes no sense; a pod that it did not see has nothing opaque then.
    let opaque = weft_inject::annotations::ports(OPAQUE_PORTS, opaque).unwrap_or_default();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports: Vec<_> = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some(WorkloadPort { name: port.name.clone(), port: number, app_protocol: None })
        })
        .collect();
    for number in opaque {
        let said = Some(OPAQUE.to_owned());
        match ports.iter_mut().find(|port| port.port == number) {
            Some(port) => port.app_protocol = said,
            None => ports.push(WorkloadPort { name: None, port: number, app_protocol: said }),
        }
    }
    let mut workload = Workload::default();
    workload.metadata = ObjectMeta {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        labels: pod.metadata.labels.clone(),
        creation_timestamp: pod.metadata.creation_timestamp.clone(),
        ..ObjectMeta::default()
    };
    workload.spec = WorkloadSpec {
        addresses,
        service_account: spec.service_account_name.clone().filter(|name| !name.is_empty()),
        workload: owner(&pod.metadata),
        ports,
        ready: Some(ready),
        // Set the moment somebody deletes the pod: earlier than its EndpointSlice can say so.
        terminating: Some(pod.metadata.deletion_timestamp.is_some()),
        meshed: Some(!on_host && has(names::INJECTED)),
    };
    Some(workload)
}

/// The workload of a pod: as its sidecar names itself, or as injection would find it.
fn owner(metadata: &ObjectMeta) -> Option<String> {
    let written = metadata.labels.as_ref().and_then(|labels| labels.get(names::WORKLOAD));
    match written.filter(|written| !written.is_empty()) {
        Some(written) => Some(written.clone()),
        None => weft_inject::owner::workload(&serde_json::to_value(metadata).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Option<Workload> {
        workload(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_deployments_pod_is_one_of_its_replicas() {
        let pod = pod(json!({
            "metadata": {
                "name": "web-7d4b9c6f5-x2x4z", "namespace": "shop",
                "labels": { "pod-template-hash": "7d4b9c6f5" }, "annotations": { "weft.mesh/injected": "0.1.0" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4b9c6f5",
                    "uid": "1", "controller": true }],
            },
            "spec": { "serviceAccountName": "web", "containers": [{ "name": "web", "ports": [{ "name": "http", "containerPort": 80 }] }] },
            "status": { "phase": "Running", "podIPs": [{ "ip": "198.18.0.7" }],
                "conditions": [{ "type": "Ready", "status": "True" }] },
        }))
        .unwrap();
        let said = pod.spec;
        assert_eq!(said.workload.as_deref(), Some("web"));
        assert_eq!(said.addresses, ["198.18.0.7"]);
        assert_eq!((said.ready, said.terminating, said.meshed), (Some(true), Some(false), Some(true)));
        assert_eq!(said.ports[0].name.as_deref(), Some("http"));
    }

    #[test]
    fn a_port_is_opaque_if_the_pods_annotation_says_so_declared_or_not() {
        let said = pod(json!({
            "metadata": { "name": "db-0", "annotations": { "weft.mesh/opaque-ports": "80,7000-7001" } },
            "spec": { "containers": [{ "name": "db", "ports": [{ "name": "http", "containerPort": 80 }, { "containerPort": 81 }] }] },
            "status": { "phase": "Running" },
        }));
        let ports = said.unwrap().spec.ports;
        let ports: Vec<_> = ports.iter().map(|port| (port.port, port.app_protocol.as_deref())).collect();
        assert_eq!(ports, [(80, Some("tcp")), (81, None), (7000, Some("tcp")), (7001, Some("tcp"))]);
    }

    #[test]
    fn a_deleted_pod_is_terminating_at_once_and_a_finished_one_is_gone() {
        let deleted = pod(json!({
            "metadata": { "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [] }, "status": { "phase": "Running" },
        }));
        assert_eq!(deleted.unwrap().spec.terminating, Some(true));
        let finished =
            json!({ "metadata": { "name": "a" }, "spec": { "containers": [] }, "status": { "phase": "Succeeded" } });
        assert!(pod(finished).is_none());
    }

    #[test]
    fn a_pod_on_the_hosts_network_has_no_address_of_its_own() {
        let pod = pod(json!({
            "metadata": { "name": "a", "annotations": { "weft.mesh/injected": "0.1.0" } },
            "spec": { "hostNetwork": true, "containers": [] }, "status": { "podIPs": [{ "ip": "198.18.255.1" }] },
        }));
        let said = pod.unwrap().spec;
        assert_eq!((said.addresses.len(), said.meshed), (0, Some(false)));
    }
}
