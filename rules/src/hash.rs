//! Hash policies (`envoy.config.route.v3.RouteAction.HashPolicy`): what a consistent-hash balancer keys on.

use std::net::IpAddr;

use weft_xds::FieldError;

use crate::proto::{refuse, route, unsupported};
use crate::query::parameter;
use crate::view::{RequestView, field};

/// One compiled hash policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPolicy {
    source: HashSource,
    /// Stop at this policy if it gave a hash.
    terminal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HashSource {
    Header(String),
    /// An existing cookie only: none is generated.
    Cookie(String),
    SourceIp,
    Query(String),
}

impl HashPolicy {
    pub(crate) fn compile(message: &route::route_action::HashPolicy, path: &str) -> Result<Self, FieldError> {
        use route::route_action::hash_policy::PolicySpecifier;
        let source = match message.policy_specifier.as_ref() {
            Some(PolicySpecifier::Header(header)) => {
                unsupported(header.regex_rewrite.is_some(), &format!("{path}.header"), "regex_rewrite")?;
                HashSource::Header(header.header_name.to_ascii_lowercase())
            }
            Some(PolicySpecifier::Cookie(cookie)) => {
                unsupported(cookie.ttl.is_some(), &format!("{path}.cookie"), "ttl")?;
                HashSource::Cookie(cookie.name.clone())
            }
            Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => HashSource::SourceIp,
            Some(PolicySpecifier::QueryParameter(query)) => HashSource::Query(query.name.clone()),
            _ => {
                return Err(refuse(
                    path,
                    "not supported; use header, cookie, query_parameter or connection_properties.source_ip",
                ));
            }
        };
        Ok(Self { source, terminal: message.terminal })
    }
}

/// The request's hash by these policies; `None` if none of them finds anything to hash.
pub fn hash<V: RequestView + ?Sized>(policies: &[HashPolicy], view: &V, source: IpAddr) -> Option<u64> {
    let mut combined: Option<u64> = None;
    for policy in policies {
        if let Some(value) = policy.source.hash(view, source) {
            // Envoy's way of combining: rotate, then exclusive or.
            combined = Some(combined.map_or(value, |hash| hash.rotate_left(1) ^ value));
        }
        if policy.terminal && combined.is_some() {
            break;
        }
    }
    combined
}

impl HashSource {
    fn hash<V: RequestView + ?Sized>(&self, view: &V, source: IpAddr) -> Option<u64> {
        match self {
            Self::Header(name) => field(view, name).map(|value| bytes(&value)),
            Self::Cookie(name) => {
                view.header("cookie").and_then(|cookies| cookie(&cookies, name.as_bytes()).map(bytes))
            }
            Self::SourceIp => Some(bytes(source.to_canonical().to_string().as_bytes())),
            Self::Query(name) => view.query().and_then(|query| parameter(query, name.as_bytes())).map(bytes),
        }
    }
}

/// FNV-1a, which is the same in every process and version, so that all sidecars send a key to the same endpoint.
fn bytes(value: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    value.iter().fold(OFFSET_BASIS, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn cookie<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    // Repeated Cookie fields (HTTP/2 splits them) arrive joined by a comma.
    cookies.split(|&byte| byte == b';' || byte == b',').find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name)?.strip_prefix(b"=")
    })
}
