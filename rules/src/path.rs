//! Matching a request against one route (`envoy.config.route.v3.RouteMatch`).

use regex::bytes::Regex;
use weft_xds::FieldError;

use crate::header::{HeaderMatcher, compile_all};
use crate::proto::{Fraction, refuse, route, unsupported};
use crate::query::QueryMatcher;
use crate::string::full_match;
use crate::view::RequestView;

/// A compiled `RouteMatch`: every part has to match.
#[derive(Debug, Clone)]
pub struct RouteMatch {
    pub(crate) path: PathMatch,
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
    grpc: bool,
    fraction: Option<Fraction>,
}

/// How a route matches the path (without query).
#[derive(Debug, Clone)]
pub(crate) enum PathMatch {
    Exact {
        path: Vec<u8>,
        ignore_case: bool,
    },
    Prefix {
        prefix: Vec<u8>,
        ignore_case: bool,
    },
    /// The prefix itself, or the prefix followed by `/`.
    Segments {
        prefix: Vec<u8>,
        ignore_case: bool,
    },
    Regex(Regex),
    /// CONNECT requests, whatever their path.
    Connect,
}

impl RouteMatch {
    /// Compiles the message. Cookies, TLS contexts, metadata and filter state are refused.
    pub fn compile(message: &route::RouteMatch, path: &str) -> Result<Self, FieldError> {
        unsupported(!message.cookies.is_empty(), path, "cookies")?;
        unsupported(message.tls_context.is_some(), path, "tls_context")?;
        unsupported(!message.dynamic_metadata.is_empty(), path, "dynamic_metadata")?;
        unsupported(!message.filter_state.is_empty(), path, "filter_state")?;
        let fraction = match &message.runtime_fraction {
            None => None,
            Some(fraction) => {
                let path = format!("{path}.runtime_fraction.default_value");
                let default = fraction
                    .default_value
                    .as_ref()
                    .ok_or_else(|| refuse(&path, "missing; give numerator and denominator"))?;
                Some(Fraction::compile(default, &path)?)
            }
        };
        let query = message.query_parameters.iter().enumerate();
        Ok(Self {
            path: PathMatch::compile(message, path)?,
            headers: compile_all(&message.headers, &format!("{path}.headers"))?,
            query: query
                .map(|(i, q)| QueryMatcher::compile(q, &format!("{path}.query_parameters[{i}]")))
                .collect::<Result<_, _>>()?,
            grpc: message.grpc.is_some(),
            fraction,
        })
    }

    /// Whether the request, its path given apart, belongs to the route. `random` decides fractions.
    pub(crate) fn matches<V: RequestView + ?Sized>(&self, view: &V, path: &[u8], random: u32) -> bool {
        self.path.matches(path, view) && self.rest_matches(view, random)
    }

    /// Everything but the path, for callers that have matched it already.
    pub(crate) fn rest_matches<V: RequestView + ?Sized>(&self, view: &V, random: u32) -> bool {
        self.fraction.is_none_or(|fraction| fraction.hits(random))
            && (!self.grpc || is_grpc(view))
            && self.headers.iter().all(|header| header.matches(view))
            && (self.query.is_empty() || self.query.iter().all(|query| query.matches(view.query())))
    }
}

impl PathMatch {
    fn compile(message: &route::RouteMatch, path: &str) -> Result<Self, FieldError> {
        use route::route_match::PathSpecifier;
        let ignore_case = message.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
        let bytes = |text: &String| text.as_bytes().to_vec();
        Ok(match message.path_specifier.as_ref() {
            Some(PathSpecifier::Prefix(text)) => Self::Prefix { prefix: bytes(text), ignore_case },
            Some(PathSpecifier::Path(text)) => Self::Exact { path: bytes(text), ignore_case },
            Some(PathSpecifier::PathSeparatedPrefix(text)) => {
                // The proto's own rule: ^[^?#]+[^?#/]$, so "/" has to be written as prefix.
                if text.len() < 2 || text.ends_with('/') || text.contains(['?', '#']) {
                    let problem = format!(
                        "{text:?} must be at least two characters, not end in '/' and hold no '?' or '#'; for everything use prefix \"/\""
                    );
                    return Err(refuse(&format!("{path}.path_separated_prefix"), problem));
                }
                Self::Segments { prefix: bytes(text), ignore_case }
            }
            Some(PathSpecifier::SafeRegex(regex)) => Self::Regex(full_match(regex, &format!("{path}.safe_regex"))?),
            Some(PathSpecifier::ConnectMatcher(_)) => Self::Connect,
            Some(PathSpecifier::PathMatchPolicy(_)) => {
                return Err(refuse(
                    &format!("{path}.path_match_policy"),
                    "not supported; use prefix, path, path_separated_prefix or safe_regex",
                ));
            }
            None => {
                return Err(refuse(path, "no path specifier; use prefix \"/\" to match every path"));
            }
        })
    }

    fn matches<V: RequestView + ?Sized>(&self, path: &[u8], view: &V) -> bool {
        match self {
            Self::Exact { path: want, ignore_case } => same(path, want, *ignore_case),
            Self::Prefix { prefix, ignore_case } => {
                path.get(..prefix.len()).is_some_and(|head| same(head, prefix, *ignore_case))
            }
            Self::Segments { prefix, ignore_case } => {
                path.get(..prefix.len()).is_some_and(|head| same(head, prefix, *ignore_case))
                    && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path),
            Self::Connect => view.method() == b"CONNECT",
        }
    }

    /// How much of a matching path the matcher covers: what a prefix rewrite replaces. `None` for all of it.
    pub(crate) fn matched_len(&self) -> Option<usize> {
        match self {
            Self::Prefix { prefix, .. } | Self::Segments { prefix, .. } => Some(prefix.len()),
            Self::Exact { .. } | Self::Regex(_) | Self::Connect => None,
        }
    }
}

fn same(value: &[u8], want: &[u8], ignore_case: bool) -> bool {
    if ignore_case { value.eq_ignore_ascii_case(want) } else { value == want }
}

/// `application/grpc`, alone or with a subtype after `+`.
pub(crate) fn is_grpc<V: RequestView + ?Sized>(view: &V) -> bool {
    view.header("content-type").is_some_and(|value| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    })
}
