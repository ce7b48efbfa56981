//! The Gateway API's route kinds (`gateway.networking.k8s.io/v1`, standard channel of v1.7) as far as a mesh uses them, and
//! the kind by which a namespace allows others to route to it.

mod grant;
mod grpc;
mod http;

pub use grant::*;
pub use grpc::*;
pub use http::*;
use serde::Deserialize;

/// API group of the Gateway API's kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// What a route attaches to: in a mesh, a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// API group; unset means the Gateway API's. A Service's is `""`.
    pub group: Option<String>,
    /// Kind; unset means `Gateway`. A mesh route says `Service`.
    pub kind: Option<String>,
    /// Namespace; unset means the route's own.
    pub namespace: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Name of one port of the Service; unset means all.
    pub section_name: Option<String>,
    /// Number of one port of the Service; unset means all.
    pub port: Option<u16>,
}

/// Where matched requests go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReference {
    /// API group; unset means core, as for a Service.
    pub group: Option<String>,
    /// Kind; unset means `Service`.
    pub kind: Option<String>,
    /// Namespace; unset means the route's own.
    pub namespace: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Port of the Service (not of its pods).
    pub port: Option<u16>,
}

/// A header or query parameter and the value it has to have.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueMatch {
    /// How `value` is compared; unset means [`ValueMatchType::Exact`].
    #[serde(rename = "type")]
    pub kind: Option<ValueMatchType>,
    /// Name of the header (compared without case) or parameter.
    pub name: String,
    /// What the value is compared with.
    pub value: String,
}

/// How a header's or parameter's value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ValueMatchType {
    /// Byte for byte.
    #[default]
    Exact,
    /// A regular expression (RE2 syntax) over the whole value.
    RegularExpression,
}

/// Changes to a message's headers, applied in the order set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderModifier {
    /// Replaces all values of a header.
    #[serde(default)]
    pub set: Vec<HeaderValue>,
    /// Adds a value beside those that are there.
    #[serde(default)]
    pub add: Vec<HeaderValue>,
    /// Removes headers.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A header to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HeaderValue {
    /// Header name.
    pub name: String,
    /// Header value.
    pub value: String,
}

/// Copies requests to another backend, whose answers are dropped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Where the copies go.
    pub backend_ref: BackendReference,
    /// Share of the requests in percent; unset (with `fraction` unset too) means all.
    pub percent: Option<u32>,
    /// Share of the requests as a fraction.
    pub fraction: Option<Fraction>,
}

/// `numerator / denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Fraction {
    /// Upper number.
    pub numerator: u32,
    /// Lower number; unset means 100.
    pub denominator: Option<u32>,
}
