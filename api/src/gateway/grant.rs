//! `ReferenceGrant`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// Allows objects of other namespaces to refer to objects of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrant {
    /// `gateway.networking.k8s.io/v1` or `v1beta1`, which say the same.
    pub api_version: String,
    /// `ReferenceGrant`.
    pub kind: String,
    /// Name and namespace: the namespace whose objects may be referred to.
    pub metadata: ObjectMeta,
    /// The grant.
    pub spec: ReferenceGrantSpec,
}

/// What a [`ReferenceGrant`] says: each of `from` may refer to each of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[serde(default)]
    pub from: Vec<ReferenceGrantFrom>,
    /// To what.
    #[serde(default)]
    pub to: Vec<ReferenceGrantTo>,
}

/// All objects of one kind in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantFrom {
    /// API group, such as `gateway.networking.k8s.io`.
    pub group: String,
    /// Kind, such as `HTTPRoute`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// All objects of one kind in the grant's own namespace, or one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantTo {
    /// API group; empty for a Service.
    pub group: String,
    /// Kind, such as `Service`.
    pub kind: String,
    /// Name; unset means all.
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    /// Whether a route of this kind in this namespace may refer to a Service of the grant's namespace.
    #[must_use]
    pub fn permits(&self, route_kind: &str, route_namespace: &str, service: &str) -> bool {
        let from =
            |f: &ReferenceGrantFrom| f.group == super::GROUP && f.kind == route_kind && f.namespace == route_namespace;
        let to = |t: &ReferenceGrantTo| {
            t.group.is_empty() && t.kind == "Service" && t.name.as_deref().is_none_or(|n| n.is_empty() || n == service)
        };
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}
