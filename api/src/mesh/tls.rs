//! `MeshTLS`: whether workloads accept callers without mutual TLS.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Selector, TargetRef};

/// Whether workloads accept callers without mutual TLS. Without any such policy they do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTls {
    /// `weft.mesh/v1alpha1`.
    pub api_version: String,
    /// `MeshTLS`.
    pub kind: String,
    /// Name, namespace, creation time (the older policy wins a tie).
    pub metadata: ObjectMeta,
    /// The policy.
    pub spec: MeshTlsSpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What a [`MeshTls`] policy says. Without `targetRefs` and `selector` it governs its whole namespace; a
/// policy that names workloads goes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MeshTlsSpec {
    /// Services (meaning the workloads behind them) or Workloads.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// Workloads by label; instead of `targetRefs`.
    pub selector: Option<Selector>,
    /// The mode of all ports that `ports` does not name.
    pub mode: TlsMode,
    /// Ports with a mode of their own.
    #[serde(default)]
    pub ports: Vec<PortTls>,
}

/// The mode of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortTls {
    /// Port on which the workload listens.
    pub port: u16,
    /// Its mode.
    pub mode: TlsMode,
}

/// Which callers are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TlsMode {
    /// Mutual TLS and plaintext.
    #[default]
    #[serde(alias = "permissive")]
    Permissive,
    /// Mutual TLS only.
    #[serde(alias = "strict")]
    Strict,
}
