//! From a request to its route (`envoy.config.route.v3.RouteConfiguration`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;
use weft_xds::FieldError;

use crate::mutation::HeaderMutations;
use crate::overrides::FilterOverrides;
use crate::path::{PathMatch, RouteMatch};
use crate::proto::{refuse, route, unsupported};
use crate::redirect::split_port;
use crate::retry::RetryPolicy;
use crate::route::{Outer, Route};
use crate::view::RequestView;

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteTable {
    name: String,
    hosts: Vec<VirtualHost>,
    domains: Domains,
    ignore_port: bool,
    ignore_path_parameters: bool,
}

#[derive(Debug)]
struct VirtualHost {
    routes: Vec<(RouteMatch, Arc<Route>)>,
    index: Index,
}

impl RouteTable {
    /// Compiles the message; `path` is where it sits, empty for a resource of its own.
    ///
    /// # Errors
    /// The first field that is wrong or not supported, by its path.
    pub fn compile(message: &route::RouteConfiguration, path: &str) -> Result<Self, FieldError> {
        Self::compile_at(message, path).map_err(|error| match error.path.strip_prefix('.') {
            Some(rooted) if path.is_empty() => FieldError::new(rooted, error.problem),
            _ => error,
        })
    }

    fn compile_at(message: &route::RouteConfiguration, path: &str) -> Result<Self, FieldError> {
        unsupported(message.vhds.is_some(), path, "vhds")?;
        unsupported(!message.internal_only_headers.is_empty(), path, "internal_only_headers")?;
        unsupported(!message.cluster_specifier_plugins.is_empty(), path, "cluster_specifier_plugins")?;
        unsupported(!message.request_mirror_policies.is_empty(), path, "request_mirror_policies")?;
        unsupported(!message.vhost_header.is_empty(), path, "vhost_header")?;
        unsupported(!message.route_specifiers.is_empty(), path, "route_specifiers")?;
        let config = ConfigLevel::compile(message, path)?;
        let mut hosts = Vec::with_capacity(message.virtual_hosts.len());
        let mut domains = Domains::default();
        let mut names = HashSet::new();
        for (i, host) in message.virtual_hosts.iter().enumerate() {
            let path = format!("{path}.virtual_hosts[{i}]");
            if !names.insert(host.name.as_str()) {
                return Err(refuse(
                    &format!("{path}.name"),
                    format!("{:?} is the name of an earlier virtual host too", host.name),
                ));
            }
            domains.add(host, i, &path)?;
            hosts.push(VirtualHost::compile(host, &config, &path)?);
        }
        Ok(Self {
            name: message.name.clone(),
            hosts,
            domains,
            ignore_port: message.ignore_port_in_host_matching,
            ignore_path_parameters: message.ignore_path_parameters_in_path_matching,
        })
    }

    /// The configuration's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first route that matches, in the virtual host that the authority selects. `random` decides `runtime_fraction` by its high 32
    /// bits, so the low ones remain for [`crate::Forward::pick`].
    pub fn find<V: RequestView + ?Sized>(&self, view: &V, random: u64) -> Option<&Arc<Route>> {
        let host = &self.hosts[self.domains.find(view.authority(), self.ignore_port)?];
        let path = match view.path() {
            path if self.ignore_path_parameters => path.split(|&byte| byte == b';').next().unwrap_or_default(),
            path => path,
        };
        host.find(view, path, (random >> 32) as u32)
    }

    /// Every route, in the order of the message.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.hosts.iter().flat_map(|host| host.routes.iter().map(|(_, route)| route))
    }
}

/// What the route configuration gives to all its virtual hosts.
struct ConfigLevel {
    request: HeaderMutations,
    response: HeaderMutations,
    overrides: FilterOverrides,
    specific_last: bool,
    max_direct_body: usize,
}

impl ConfigLevel {
    fn compile(m: &route::RouteConfiguration, path: &str) -> Result<Self, FieldError> {
        /// Envoy's limit for the body of a direct response.
        const DEFAULT_DIRECT_BODY: u32 = 4096;
        let max_direct_body =
            m.max_direct_response_body_size_bytes.as_ref().map_or(DEFAULT_DIRECT_BODY, |max| max.value);
        Ok(Self {
            request: HeaderMutations::compile(
                &m.request_headers_to_add,
                &m.request_headers_to_remove,
                path,
                "request",
            )?,
            response: HeaderMutations::compile(
                &m.response_headers_to_add,
                &m.response_headers_to_remove,
                path,
                "response",
            )?,
            overrides: FilterOverrides::compile(&m.typed_per_filter_config, path)?,
            specific_last: m.most_specific_header_mutations_wins,
            max_direct_body: usize::try_from(max_direct_body).unwrap_or(usize::MAX),
        })
    }
}

impl VirtualHost {
    fn compile(m: &route::VirtualHost, config: &ConfigLevel, path: &str) -> Result<Self, FieldError> {
        unsupported(m.matcher.is_some(), path, "matcher")?;
        unsupported(m.require_tls != 0, path, "require_tls")?;
        unsupported(m.retry_policy_typed_config.is_some(), path, "retry_policy_typed_config")?;
        unsupported(m.hedge_policy.is_some(), path, "hedge_policy")?;
        unsupported(m.include_is_timeout_retry_header, path, "include_is_timeout_retry_header")?;
        unsupported(!m.request_mirror_policies.is_empty(), path, "request_mirror_policies")?;
        unsupported(!m.route_specifiers.is_empty(), path, "route_specifiers")?;
        let request =
            HeaderMutations::compile(&m.request_headers_to_add, &m.request_headers_to_remove, path, "request")?;
        let response =
            HeaderMutations::compile(&m.response_headers_to_add, &m.response_headers_to_remove, path, "response")?;
        let overrides = FilterOverrides::compile(&m.typed_per_filter_config, path)?.over(&config.overrides);
        let retry = m
            .retry_policy
            .as_ref()
            .map(|policy| RetryPolicy::compile(policy, &format!("{path}.retry_policy")))
            .transpose()?;
        #[allow(deprecated)]
        let older_limit = m.per_request_buffer_limit_bytes.as_ref().map(|limit| limit.value.into());
        let outer = Outer {
            request: [&request, &config.request],
            response: [&response, &config.response],
            specific_last: config.specific_last,
            overrides: &overrides,
            retry: retry.as_ref(),
            request_buffer_limit: m.request_body_buffer_limit.as_ref().map(|limit| limit.value).or(older_limit),
            attempt_count_in_request: m.include_request_attempt_count,
            attempt_count_in_response: m.include_attempt_count_in_response,
            max_direct_body: config.max_direct_body,
        };
        let mut routes = Vec::with_capacity(m.routes.len());
        for (i, route) in m.routes.iter().enumerate() {
            let path = format!("{path}.routes[{i}]");
            let matcher = route
                .r#match
                .as_ref()
                .ok_or_else(|| refuse(&format!("{path}.match"), "missing; match prefix \"/\" for everything"))?;
            let matcher = RouteMatch::compile(matcher, &format!("{path}.match"))?;
            let route = Arc::new(Route::compile(route, &matcher.path, &outer, &path)?);
            routes.push((matcher, route));
        }
        let index = Index::build(&routes);
        Ok(Self { routes, index })
    }

    fn find<V: RequestView + ?Sized>(&self, view: &V, path: &[u8], random: u32) -> Option<&Arc<Route>> {
        let mut indexed = self.index.candidates(path).into_iter().peekable();
        let mut scanned = self.index.scanned.iter().copied().peekable();
        // Two ascending lists merged: the order of the message decides, wherever a route is found.
        loop {
            let (matcher, route, path_matched) = match (indexed.peek(), scanned.peek()) {
                (None, None) => return None,
                (Some(i), Some(s)) if i < s => self.take(indexed.next()?, true),
                (Some(_), None) => self.take(indexed.next()?, true),
                (_, Some(_)) => self.take(scanned.next()?, false),
            };
            let matches =
                if path_matched { matcher.rest_matches(view, random) } else { matcher.matches(view, path, random) };
            if matches {
                return Some(route);
            }
        }
    }

    fn take(&self, position: u32, path_matched: bool) -> (&RouteMatch, &Arc<Route>, bool) {
        let (matcher, route) = &self.routes[position as usize];
        (matcher, route, path_matched)
    }
}

/// Positions of routes by exact path and by whole-segment prefix; the others are scanned.
#[derive(Debug, Default)]
struct Index {
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    segments: HashMap<Box<[u8]>, Vec<u32>>,
    /// Length of the longest key of `segments`.
    longest_segments: usize,
    scanned: Vec<u32>,
}

impl Index {
    /// Below this many routes comparing bytes is faster than hashing.
    const WORTH_HASHING: usize = 8;

    fn build(routes: &[(RouteMatch, Arc<Route>)]) -> Self {
        let mut index = Self::default();
        for (position, (matcher, _)) in (0_u32..).zip(routes) {
            if let PathMatch::Segments { prefix, .. } = &matcher.path {
                index.longest_segments = index.longest_segments.max(prefix.len());
            }
            let map = match &matcher.path {
                _ if routes.len() < Self::WORTH_HASHING => None,
                PathMatch::Exact { path, ignore_case: false } => Some((&mut index.exact, path)),
                PathMatch::Segments { prefix, ignore_case: false } => Some((&mut index.segments, prefix)),
                _ => None,
            };
            match map {
                Some((map, key)) => map.entry(key.as_slice().into()).or_default().push(position),
                None => index.scanned.push(position),
            }
        }
        index
    }

    /// Positions of indexed routes whose path matcher holds, ascending.
    fn candidates(&self, path: &[u8]) -> SmallVec<[u32; 8]> {
        let mut found = SmallVec::new();
        if !self.exact.is_empty()
            && let Some(positions) = self.exact.get(path)
        {
            found.extend_from_slice(positions);
        }
        if !self.segments.is_empty() {
            // Each prefix that ends before a slash or at the end of the path, but none longer than the table's longest: a path of slashes
            // must not cost the square of its length.
            let ends = memchr::memchr_iter(b'/', path)
                .filter(|&end| end > 0)
                .chain([path.len()])
                .take_while(|&end| end <= self.longest_segments);
            for positions in ends.filter_map(|end| self.segments.get(&path[..end])) {
                found.extend_from_slice(positions);
            }
        }
        found.sort_unstable();
        found
    }
}

/// Positions of virtual hosts by a domain, or by what is beside its `*`, in lower case.
type ByBytes = HashMap<Box<[u8]>, usize>;

/// Which virtual host an authority selects. Envoy's precedence: exact, longest suffix (`*.example.com`), longest prefix (`example.*`), `*`.
#[derive(Debug, Default)]
struct Domains {
    exact: ByBytes,
    /// By length, longest first.
    suffixes: Vec<(usize, ByBytes)>,
    prefixes: Vec<(usize, ByBytes)>,
    default: Option<usize>,
}

impl Domains {
    fn add(&mut self, host: &route::VirtualHost, position: usize, path: &str) -> Result<(), FieldError> {
        if host.domains.is_empty() {
            return Err(refuse(&format!("{path}.domains"), "empty; give at least one, \"*\" for every host"));
        }
        for (i, domain) in host.domains.iter().enumerate() {
            let path = format!("{path}.domains[{i}]");
            let lower = domain.to_ascii_lowercase();
            let unique = match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
                (Some(""), _) => self.default.replace(position).is_none(),
                (Some(suffix), _) if !suffix.contains('*') => {
                    by_length(&mut self.suffixes, suffix.len()).insert(suffix.as_bytes().into(), position).is_none()
                }
                (None, Some(prefix)) if !prefix.contains('*') => {
                    by_length(&mut self.prefixes, prefix.len()).insert(prefix.as_bytes().into(), position).is_none()
                }
                (None, None) if !lower.contains('*') => self.exact.insert(lower.as_bytes().into(), position).is_none(),
                _ => {
                    return Err(refuse(&path, format!("{domain:?} may hold one `*`, at its start or its end")));
                }
            };
            if !unique {
                return Err(refuse(&path, format!("{domain:?} already belongs to a virtual host")));
            }
        }
        Ok(())
    }

    fn find(&self, authority: &[u8], ignore_port: bool) -> Option<usize> {
        // The mesh's own tables have one virtual host, "*".
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.default;
        }
        let host = if ignore_port { split_port(authority).0 } else { authority };
        let lower: SmallVec<[u8; 128]> = host.iter().map(u8::to_ascii_lowercase).collect();
        let exact = self.exact.get(&lower[..]).copied();
        exact
            .or_else(|| longest(&self.suffixes, lower.len(), |length| &lower[lower.len() - length..]))
            .or_else(|| longest(&self.prefixes, lower.len(), |length| &lower[..length]))
            .or(self.default)
    }
}

fn by_length(lists: &mut Vec<(usize, ByBytes)>, length: usize) -> &mut ByBytes {
    let at = match lists.binary_search_by(|(have, _)| length.cmp(have)) {
        Ok(at) => at,
        Err(at) => {
            lists.insert(at, (length, HashMap::new()));
            at
        }
    };
    &mut lists[at].1
}

/// A wildcard stands for at least one character, hence lengths below the host's.
fn longest<'a>(lists: &[(usize, ByBytes)], host: usize, part: impl Fn(usize) -> &'a [u8]) -> Option<usize> {
    lists.iter().filter(|(length, _)| *length < host).find_map(|(length, map)| map.get(part(*length)).copied())
}
