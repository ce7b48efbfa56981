//! Weft's own kinds (`weft.mesh/v1alpha1`): what the Gateway API lacks.

mod access;
mod fault;
mod tls;
mod traffic;
mod workload;

pub use access::*;
pub use fault::*;
use serde::Deserialize;
pub use tls::*;
pub use traffic::*;
pub use workload::*;

/// API group of Weft's kinds.
pub const GROUP: &str = "weft.mesh";
/// The only version of Weft's kinds so far.
pub const VERSION: &str = "v1alpha1";

/// What a policy governs: an object of the policy's own namespace (GEP-713, direct attachment).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group: empty for a Service, `weft.mesh` for a Workload.
    #[serde(default)]
    pub group: String,
    /// Kind: `Service`, or `Workload` where the policy governs a receiver.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Name of one port of a Service; unset means all.
    pub section_name: Option<String>,
}

/// Chooses workloads by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that all have to be there with these values.
    #[serde(default)]
    pub match_labels: std::collections::BTreeMap<String, String>,
}
