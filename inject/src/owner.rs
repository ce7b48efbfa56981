//! Which workload a pod belongs to: the name that all replicas share.
//!
//! From the pod alone, without asking the API server, so that injection and every control plane find the same.

use serde_json::Value;

/// Longest name of a workload: a DNS label (it is part of the pod's name in its certificate).
const LONGEST: usize = 63;

/// The workload of a pod: the Deployment, StatefulSet, DaemonSet, CronJob, Job or other controller behind it, or the pod
/// itself. A DNS label: dots become `-`, and of a longer name the end becomes its hash.
///
/// `metadata` is the pod's metadata in JSON. `None` when it has neither owner nor name.
///
/// ```
/// use serde_json::json;
/// let metadata = json!({
///     "name": "reviews-v1-7d4b9c6f5-x2x4z",
///     "labels": { "pod-template-hash": "7d4b9c6f5" },
///     "ownerReferences": [{ "kind": "ReplicaSet", "name": "reviews-v1-7d4b9c6f5", "controller": true }],
/// });
/// assert_eq!(weft_inject::owner::workload(&metadata).as_deref(), Some("reviews-v1"));
/// ```
#[must_use]
pub fn workload(metadata: &Value) -> Option<String> {
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let controller = owners.iter().find(|owner| owner["controller"] == true);
    let name = match controller.and_then(|owner| Some((owner["kind"].as_str()?, owner["name"].as_str()?))) {
        Some(("ReplicaSet", name)) => without_hash(name, &metadata["labels"]),
        Some(("Job", name)) => without_time(name),
        Some((_, name)) => name,
        None => match metadata["generateName"].as_str().filter(|name| !name.is_empty()) {
            Some(prefix) => prefix.trim_end_matches(['-', '.']),
            None => metadata["name"].as_str()?,
        },
    };
    Some(label(name)).filter(|name| !name.is_empty())
}

/// A ReplicaSet of a Deployment (or of an Argo Rollout) is named after it and the hash of its template.
fn without_hash<'a>(name: &'a str, labels: &Value) -> &'a str {
    ["pod-template-hash", "rollouts-pod-template-hash"]
        .iter()
        .filter_map(|key| labels[*key].as_str())
        .find_map(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
        .unwrap_or(name)
}

/// A Job of a CronJob is named after it and its time in minutes (eight digits until the year 2160).
fn without_time(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((cron_job, time)) if time.len() == 8 && time.bytes().all(|b| b.is_ascii_digit()) => cron_job,
        _ => name,
    }
}

/// Makes a label of a name in which Kubernetes allows dots and up to 253 characters.
fn label(name: &str) -> String {
    let label = name.replace('.', "-");
    if label.len() <= LONGEST {
        return label;
    }
    // FNV-1a: stable for ever, and two long names that differ only at the end stay two.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // Kubernetes allows only ASCII in names.
    let start: String = label.chars().take(LONGEST - 9).collect();
    format!("{}-{hash:08x}", start.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owned(kind: &str, owner: &str, labels: Value) -> Option<String> {
        workload(&json!({
            "name": "some-pod", "labels": labels,
            "ownerReferences": [{ "kind": kind, "name": owner, "controller": true }],
        }))
    }

    #[test]
    fn a_deployments_pod_belongs_to_the_deployment() {
        let hash = json!({ "pod-template-hash": "7d4b9c6f5" });
        assert_eq!(owned("ReplicaSet", "reviews-v1-7d4b9c6f5", hash.clone()).as_deref(), Some("reviews-v1"));
        assert_eq!(owned("ReplicaSet", "by-hand", json!({})).as_deref(), Some("by-hand"));
        assert_eq!(owned("ReplicaSet", "by-hand", hash).as_deref(), Some("by-hand"));
    }

    #[test]
    fn a_cron_jobs_pod_belongs_to_the_cron_job() {
        assert_eq!(owned("Job", "report-29384756", json!({})).as_deref(), Some("report"));
        assert_eq!(owned("Job", "import-2026", json!({})).as_deref(), Some("import-2026"));
        assert_eq!(owned("Job", "29384756", json!({})).as_deref(), Some("29384756"));
    }

    #[test]
    fn other_controllers_give_their_own_name() {
        for kind in ["StatefulSet", "DaemonSet", "ReplicationController", "SparkApplication"] {
            assert_eq!(owned(kind, "db", json!({})).as_deref(), Some("db"));
        }
    }

    #[test]
    fn an_owner_that_does_not_control_is_none() {
        let pod = json!({ "name": "tool", "ownerReferences": [{ "kind": "Node", "name": "n1" }] });
        assert_eq!(workload(&pod).as_deref(), Some("tool"));
    }

    #[test]
    fn bare_pods_are_workloads_of_their_own() {
        assert_eq!(workload(&json!({ "name": "tool" })).as_deref(), Some("tool"));
        // At admission the name is not made yet; afterwards both are there.
        assert_eq!(workload(&json!({ "generateName": "tool-" })).as_deref(), Some("tool"));
        assert_eq!(workload(&json!({ "generateName": "tool-", "name": "tool-x7k2p" })).as_deref(), Some("tool"));
        assert_eq!(workload(&json!({})), None);
    }

    #[test]
    fn names_become_labels_and_stay_different() {
        assert_eq!(workload(&json!({ "name": "web.example" })).as_deref(), Some("web-example"));
        let long = |end| workload(&json!({ "name": format!("{}{end}", "a".repeat(80)) })).unwrap();
        assert_eq!(long("b").len(), 63);
        assert_ne!(long("b"), long("c"));
    }
}
