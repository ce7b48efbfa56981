//! `AccessPolicy`: who may call what.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Selector, TargetRef};

/// Who may call a workload. A matching `Deny` refuses; then, if any `Allow` policy governs the workload, one of them has
/// to match; a workload without policies accepts everyone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicy {
    /// `weft.mesh/v1alpha1`.
    pub api_version: String,
    /// `AccessPolicy`.
    pub kind: String,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// The policy.
    pub spec: AccessPolicySpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What an [`AccessPolicy`] says. Without `targetRefs` and `selector` it governs its whole namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicySpec {
    /// Services (meaning the workloads behind them) or Workloads.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// Workloads by label; instead of `targetRefs`.
    pub selector: Option<Selector>,
    /// What a matching rule does.
    pub action: AccessAction,
    /// Any one of these has to match. `Allow` without rules allows nothing.
    #[serde(default)]
    pub rules: Vec<AccessRule>,
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AccessAction {
    /// Lets the call pass, unless a `Deny` matches too.
    #[default]
    #[serde(alias = "allow")]
    Allow,
    /// Refuses the call: 403, or a closed connection for opaque TCP.
    #[serde(alias = "deny")]
    Deny,
}

/// A caller and a call; both have to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccessRule {
    /// Any one of these callers; none means everyone, authenticated or not.
    #[serde(default)]
    pub from: Vec<AccessFrom>,
    /// Any one of these calls; none means every call.
    #[serde(default)]
    pub to: Vec<AccessTo>,
}

/// A caller, known by its certificate. Lists that are set all have to match, each by any one of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AccessFrom {
    /// SPIFFE identities, such as `spiffe://weft.local/ns/shop/sa/front`; a `*` at the end matches any rest.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Service accounts as `namespace/name`, in whatever trust domain.
    #[serde(default)]
    pub service_accounts: Vec<String>,
    /// Namespaces, in whatever trust domain.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// A call. Lists that are set all have to match, each by any one of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccessTo {
    /// Ports on which the workload listens.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// HTTP methods.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Paths without the query; a `*` at the end matches any rest.
    #[serde(default)]
    pub paths: Vec<String>,
}
