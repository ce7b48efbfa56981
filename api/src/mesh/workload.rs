//! `Workload`: a process outside Kubernetes that is part of the mesh.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// One running process (what a pod is in Kubernetes). Services select workloads by label as they select pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `weft.mesh/v1alpha1`.
    pub api_version: String,
    /// `Workload`.
    pub kind: String,
    /// Name (of the pod, so to say), namespace, labels.
    pub metadata: ObjectMeta,
    /// The process.
    pub spec: WorkloadSpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What a [`Workload`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// IP addresses, at most one of each family.
    pub addresses: Vec<String>,
    /// Service account, the last part of the SPIFFE identity; unset means `default`.
    pub service_account: Option<String>,
    /// Name shared by all replicas (a Deployment's name in Kubernetes); unset means `metadata.name`.
    pub workload: Option<String>,
    /// Ports on which it listens, beside the target ports of the Services that select it.
    #[serde(default)]
    pub ports: Vec<WorkloadPort>,
    /// Whether Services send requests to it; unset means true.
    pub ready: Option<bool>,
    /// Whether it is going away: it finishes what it has and gets nothing new; unset means false.
    pub terminating: Option<bool>,
    /// Whether a sidecar runs beside it; unset means true.
    pub meshed: Option<bool>,
}

/// A port on which a workload listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadPort {
    /// Name, to which a Service's `targetPort` may refer.
    pub name: Option<String>,
    /// Number.
    pub port: u16,
    /// Application protocol, as in a Service's port; unset means by name, or detected.
    pub app_protocol: Option<String>,
}
