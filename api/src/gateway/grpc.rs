//! `GRPCRoute`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{BackendReference, HeaderModifier, ParentReference, RequestMirror, ValueMatch, ValueMatchType};

/// Routes gRPC calls to a Service's address and port by gRPC service, method and headers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRoute {
    /// `gateway.networking.k8s.io/v1`.
    pub api_version: String,
    /// `GRPCRoute`.
    pub kind: String,
    /// Name, namespace, creation time (the older route wins a tie).
    pub metadata: ObjectMeta,
    /// The route.
    pub spec: GrpcRouteSpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What a [`GrpcRoute`] says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// The Services whose traffic this route governs.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Host names, used by gateways; in a mesh the Service's address decides.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules; the most specific match wins, not the first.
    #[serde(default)]
    pub rules: Vec<GrpcRouteRule>,
}

/// Matches and what happens to the calls they match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteRule {
    /// Name of the rule, for policies and metrics.
    pub name: Option<String>,
    /// Any one of these has to match; none means every call.
    #[serde(default)]
    pub matches: Vec<GrpcRouteMatch>,
    /// Changes to matched calls and their responses.
    #[serde(default)]
    pub filters: Vec<GrpcRouteFilter>,
    /// Where matched calls go; none answers UNAVAILABLE.
    #[serde(default)]
    pub backend_refs: Vec<GrpcBackendRef>,
}

/// All parts that are set have to match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteMatch {
    /// gRPC service and method; unset means all.
    pub method: Option<GrpcMethodMatch>,
    /// Metadata that all has to match.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
}

/// A gRPC service, a method, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GrpcMethodMatch {
    /// How both are compared; unset means exactly.
    #[serde(default, rename = "type")]
    pub kind: ValueMatchType,
    /// Full name of the gRPC service, such as `shop.Cart`.
    pub service: Option<String>,
    /// Name of the method, such as `AddItem`.
    pub method: Option<String>,
}

/// A backend with its share of the calls.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcBackendRef {
    /// API group; unset means core.
    pub group: Option<String>,
    /// Kind; unset means `Service`.
    pub kind: Option<String>,
    /// Namespace; unset means the route's own.
    pub namespace: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Port of the Service.
    pub port: Option<u16>,
    /// Share of the calls, in proportion to the sum of the weights; unset means 1.
    pub weight: Option<i32>,
    /// Changes to the calls that go to this backend.
    #[serde(default)]
    pub filters: Vec<GrpcRouteFilter>,
}

impl GrpcBackendRef {
    /// The reference without weight and filters.
    #[must_use]
    pub fn target(&self) -> BackendReference {
        BackendReference {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            port: self.port,
        }
    }
}

/// One filter: `type` names which of the other fields is set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteFilter {
    /// Which filter this is.
    #[serde(rename = "type")]
    pub kind: GrpcFilterType,
    /// Changes to the call's metadata.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes to the response's initial metadata.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Copies calls.
    pub request_mirror: Option<RequestMirror>,
}

/// The filters that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)]
pub enum GrpcFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
}
