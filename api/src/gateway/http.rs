//! `HTTPRoute`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{BackendReference, HeaderModifier, ParentReference, RequestMirror, ValueMatch};
use crate::Duration;

/// Routes HTTP requests to a Service's address and port by path, headers, query and method.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// `gateway.networking.k8s.io/v1`.
    pub api_version: String,
    /// `HTTPRoute`.
    pub kind: String,
    /// Name, namespace, creation time (the older route wins a tie).
    pub metadata: ObjectMeta,
    /// The route.
    pub spec: HttpRouteSpec,
    /// Written by controllers, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What an [`HttpRoute`] says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Services whose traffic this route governs.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Host names, used by gateways; in a mesh the Service's address decides, whatever the Host header says.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules; the most specific match wins, not the first.
    #[serde(default)]
    pub rules: Vec<HttpRouteRule>,
}

/// Matches and what happens to the requests they match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// Name of the rule, for policies and metrics.
    pub name: Option<String>,
    /// Any one of these has to match; none means every request.
    #[serde(default)]
    pub matches: Vec<HttpRouteMatch>,
    /// Changes to matched requests and their responses.
    #[serde(default)]
    pub filters: Vec<HttpRouteFilter>,
    /// Where matched requests go; none (without a redirect) answers 500.
    #[serde(default)]
    pub backend_refs: Vec<HttpBackendRef>,
    /// Time limits.
    pub timeouts: Option<RouteTimeouts>,
    /// Retries.
    pub retry: Option<HttpRouteRetry>,
}

/// All parts that are set have to match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// The request's path; unset means every path.
    pub path: Option<HttpPathMatch>,
    /// Headers that all have to match.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Query parameters that all have to match.
    #[serde(default)]
    pub query_params: Vec<ValueMatch>,
    /// The request's method.
    pub method: Option<HttpMethod>,
}

/// How a request's path is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HttpPathMatch {
    /// How `value` is compared; unset means [`PathMatchType::PathPrefix`].
    #[serde(default, rename = "type")]
    pub kind: PathMatchType,
    /// What the path is compared with; unset means `/`.
    #[serde(default = "slash")]
    pub value: String,
}

fn slash() -> String {
    "/".to_owned()
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PathMatchType {
    /// Byte for byte.
    Exact,
    /// Whole segments: `/foo` matches `/foo` and `/foo/bar`, not `/foobar`.
    #[default]
    PathPrefix,
    /// A regular expression (RE2 syntax) over the whole path.
    RegularExpression,
}

/// The methods that the Gateway API can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// As in a request line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// A backend with its share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpBackendRef {
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
    /// Share of the requests, in proportion to the sum of the weights; unset means 1.
    pub weight: Option<i32>,
    /// Changes to the requests that go to this backend.
    #[serde(default)]
    pub filters: Vec<HttpRouteFilter>,
}

impl HttpBackendRef {
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
pub struct HttpRouteFilter {
    /// Which filter this is.
    #[serde(rename = "type")]
    pub kind: HttpFilterType,
    /// Changes to the request's headers.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes to the response's headers.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with a redirect.
    pub request_redirect: Option<RequestRedirect>,
    /// Changes host or path of the forwarded request.
    pub url_rewrite: Option<UrlRewrite>,
    /// Copies requests.
    pub request_mirror: Option<RequestMirror>,
}

/// The filters that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)]
pub enum HttpFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestMirror,
}

/// Answers with a redirect whose location is the request's, with these parts replaced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathModifier>,
    /// Port; unset means the scheme's, when `scheme` is set.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308; unset means 302.
    pub status_code: Option<u16>,
}

/// Changes host or path of the forwarded request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewrite {
    /// The Host header that the backend sees.
    pub hostname: Option<String>,
    /// The path that the backend sees.
    pub path: Option<PathModifier>,
}

/// Replaces a path or the prefix that matched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// Which of the two.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// The new path.
    pub replace_full_path: Option<String>,
    /// What stands in the matched prefix's place.
    pub replace_prefix_match: Option<String>,
}

/// How a path is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PathModifierType {
    /// The whole path; the query stays.
    ReplaceFullPath,
    /// The prefix that a `PathPrefix` match matched.
    ReplacePrefixMatch,
}

/// Time limits of a rule; `0s` means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// From the request to the end of the response, retries included.
    pub request: Option<Duration>,
    /// For each try.
    pub backend_request: Option<Duration>,
}

/// Retries of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HttpRouteRetry {
    /// Response codes that are retried, 400 to 599.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Retries after the first try; unset means 1.
    pub attempts: Option<u32>,
    /// Least time before a retry.
    pub backoff: Option<Duration>,
}
