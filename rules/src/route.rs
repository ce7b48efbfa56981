//! What a route does with a request (`envoy.config.route.v3.Route`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use weft_xds::FieldError;

use crate::hash::HashPolicy;
use crate::mutation::HeaderMutations;
use crate::overrides::{FilterOverride, FilterOverrides};
use crate::path::PathMatch;
use crate::proto::{core, optional_duration, refuse, route, unsupported};
use crate::redirect::Redirect;
use crate::retry::RetryPolicy;
use crate::rewrite::{HostRewrite, PathRewrite};
use crate::view::RequestView;

/// The route that a request got.
#[derive(Debug, Clone)]
pub struct Route {
    /// The route's name, for telemetry; may be empty.
    pub name: String,
    /// What to do.
    pub action: Action,
    /// Edits of the response where this proxy answers itself ([`Action::Redirect`], [`Action::Direct`]); a [`Forward`] has its own.
    pub response_headers: Arc<HeaderMutations>,
    overrides: FilterOverrides,
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send the request to a cluster.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with this.
    Direct {
        /// The HTTP status.
        status: u16,
        /// The body, possibly empty.
        body: Vec<u8>,
    },
}

/// How to forward a request.
#[derive(Debug, Clone)]
pub struct Forward {
    /// At least one; weights sum to `total_weight`, which is above zero.
    clusters: Vec<ClusterChoice>,
    total_weight: u32,
    /// From the end of the request to the end of the response, retries included. Unset in the message is 15 s; 0 s there is `None`, no limit.
    pub timeout: Option<Duration>,
    /// Longest time without a byte in either direction; `None` leaves the listener's.
    pub idle_timeout: Option<IdleTimeout>,
    /// `None`: failures are passed on.
    pub retry: Option<RetryPolicy>,
    /// Most bytes of a request's body to keep for a retry; `None` leaves the listener's.
    pub request_buffer_limit: Option<u64>,
    /// Status where the cluster is not known: 503 by default.
    pub cluster_not_found_status: u16,
    /// Keep the original authority in `x-forwarded-host` when it is rewritten.
    pub append_x_forwarded_host: bool,
    /// Longest life of the stream (`max_stream_duration`); `None` leaves the listener's. Zero in the message is `Some(None)`: no limit.
    pub max_stream_duration: Option<Option<Duration>>,
    /// How far `grpc-timeout` is believed; `None` ignores the header.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Upgrades this route turns on or off, beyond the listener's.
    pub upgrades: Vec<UpgradeRule>,
    /// What a consistent-hash balancer keys on.
    pub hash_policies: Vec<HashPolicy>,
    /// Tell the application which attempt this is (`x-envoy-attempt-count`).
    pub attempt_count_in_request: bool,
    /// Tell the client how many attempts it took.
    pub attempt_count_in_response: bool,
    path_rewrite: Option<PathRewrite>,
    host_rewrite: Option<HostRewrite>,
}

/// A route's own idle timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleTimeout {
    /// This long.
    After(Duration),
    /// 0 s in the message: none, whatever the listener says.
    Never,
}

/// Limits to a client's `grpc-timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// The most that is believed; `None` believes anything.
    pub max: Option<Duration>,
    /// Taken off, so that the answer arrives before the client gives up.
    pub offset: Duration,
}

/// One upgrade type on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRule {
    /// In lower case: `websocket`, `connect`.
    pub name: String,
    /// Whether it may pass.
    pub enabled: bool,
    /// For CONNECT: end it here and send its bytes alone (`connect_config`).
    pub terminate: bool,
}

/// One of a route's clusters, with what is particular to it.
#[derive(Debug, Clone)]
pub struct ClusterChoice {
    /// The cluster's name.
    pub name: Arc<str>,
    /// Share of the requests, out of all the choices' sum.
    pub weight: u32,
    /// Edits of the request, of all levels in their order.
    pub request_headers: Arc<HeaderMutations>,
    /// Edits of the response.
    pub response_headers: Arc<HeaderMutations>,
    host_rewrite: Option<HostRewrite>,
}

impl Route {
    pub(crate) fn compile(
        message: &route::Route,
        matched: &PathMatch,
        outer: &Outer<'_>,
        path: &str,
    ) -> Result<Self, FieldError> {
        use route::route::Action as Message;
        unsupported(!message.route_specifiers.is_empty(), path, "route_specifiers")?;
        let level = Level::of_route(message, path)?;
        let action = match message.action.as_ref() {
            Some(Message::Route(forward)) => {
                let mut forward = Forward::compile(forward, matched, outer, &level, &format!("{path}.route"))?;
                forward.request_buffer_limit = buffer_limit_of_route(message).or(outer.request_buffer_limit);
                Action::Forward(Box::new(forward))
            }
            Some(Message::Redirect(redirect)) => {
                Action::Redirect(Box::new(Redirect::compile(redirect, matched, &format!("{path}.redirect"))?))
            }
            Some(Message::DirectResponse(direct)) => {
                direct_response(direct, outer.max_direct_body, &format!("{path}.direct_response"))?
            }
            Some(Message::FilterAction(_)) => {
                return Err(refuse(&format!("{path}.filter_action"), ACTIONS));
            }
            Some(Message::NonForwardingAction(_)) => {
                return Err(refuse(&format!("{path}.non_forwarding_action"), ACTIONS));
            }
            None => {
                return Err(refuse(path, "no action; set route, redirect or direct_response"));
            }
        };
        Ok(Self {
            name: message.name.clone(),
            action,
            response_headers: outer.merge(&[&level.response]),
            overrides: FilterOverrides::compile(&message.typed_per_filter_config, path)?.over(outer.overrides),
        })
    }

    /// What the HTTP filter of this name (as the listener calls it) does differently here.
    pub fn filter_override(&self, filter: &str) -> Option<&FilterOverride> {
        self.overrides.get(filter)
    }
}

const ACTIONS: &str = "not supported; use route, redirect or direct_response";

/// What a virtual host and its route configuration give to each of their routes.
pub(crate) struct Outer<'a> {
    /// The edits of the wider levels: virtual host, route configuration.
    pub(crate) request: [&'a HeaderMutations; 2],
    pub(crate) response: [&'a HeaderMutations; 2],
    /// `most_specific_header_mutations_wins`: then the wider levels come first, so that the narrower overwrite them.
    pub(crate) specific_last: bool,
    pub(crate) overrides: &'a FilterOverrides,
    pub(crate) retry: Option<&'a RetryPolicy>,
    pub(crate) request_buffer_limit: Option<u64>,
    pub(crate) attempt_count_in_request: bool,
    pub(crate) attempt_count_in_response: bool,
    pub(crate) max_direct_body: usize,
}

impl Outer<'_> {
    /// Response edits: the given levels (narrowest first) and the wider ones, in the order in which they apply.
    fn merge(&self, narrow: &[&HeaderMutations]) -> Arc<HeaderMutations> {
        self.ordered(narrow, self.response)
    }

    fn merge_request(&self, narrow: &[&HeaderMutations]) -> Arc<HeaderMutations> {
        self.ordered(narrow, self.request)
    }

    fn ordered(&self, narrow: &[&HeaderMutations], wide: [&HeaderMutations; 2]) -> Arc<HeaderMutations> {
        let mut levels: Vec<_> = narrow.iter().copied().chain(wide).collect();
        if self.specific_last {
            levels.reverse();
        }
        Arc::new(HeaderMutations::concat(levels))
    }
}

/// Header edits of the route itself.
struct Level {
    request: HeaderMutations,
    response: HeaderMutations,
}

impl Level {
    fn of_route(m: &route::Route, path: &str) -> Result<Self, FieldError> {
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
        })
    }
}

#[allow(deprecated)]
fn buffer_limit_of_route(message: &route::Route) -> Option<u64> {
    let newer = message.request_body_buffer_limit.as_ref().map(|limit| limit.value);
    newer.or(message.per_request_buffer_limit_bytes.as_ref().map(|limit| limit.value.into()))
}

impl Forward {
    fn compile(
        message: &route::RouteAction,
        matched: &PathMatch,
        outer: &Outer<'_>,
        level: &Level,
        path: &str,
    ) -> Result<Self, FieldError> {
        refuse_unsupported(message, path)?;
        let field = |name: &str| format!("{path}.{name}");
        let (clusters, total_weight) = clusters(message, outer, level, path)?;
        let timeout = optional_duration(message.timeout.as_ref(), &field("timeout"))?.unwrap_or(DEFAULT_TIMEOUT);
        let idle = optional_duration(message.idle_timeout.as_ref(), &field("idle_timeout"))?;
        let retry = match message.retry_policy.as_ref() {
            Some(policy) => Some(RetryPolicy::compile(policy, &field("retry_policy"))?),
            None => outer.retry.cloned(),
        };
        let durations = message.max_stream_duration.as_ref();
        let durations_path = field("max_stream_duration");
        let in_durations = |value: Option<_>, name: &str| optional_duration(value, &format!("{durations_path}.{name}"));
        let max_stream_duration =
            in_durations(durations.and_then(|d| d.max_stream_duration.as_ref()), "max_stream_duration")?;
        let grpc_max =
            in_durations(durations.and_then(|d| d.grpc_timeout_header_max.as_ref()), "grpc_timeout_header_max")?;
        let grpc_offset =
            in_durations(durations.and_then(|d| d.grpc_timeout_header_offset.as_ref()), "grpc_timeout_header_offset")?;
        Ok(Self {
            clusters,
            total_weight,
            timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
            idle_timeout: idle.map(|idle| if idle.is_zero() { IdleTimeout::Never } else { IdleTimeout::After(idle) }),
            retry,
            request_buffer_limit: None,
            cluster_not_found_status: not_found_status(message.cluster_not_found_response_code, path)?,
            append_x_forwarded_host: message.append_x_forwarded_host,
            max_stream_duration: max_stream_duration.map(|max| Some(max).filter(|max| !max.is_zero())),
            grpc_timeout: grpc_max.map(|max| GrpcTimeout {
                max: Some(max).filter(|max| !max.is_zero()),
                offset: grpc_offset.unwrap_or_default(),
            }),
            upgrades: upgrades(&message.upgrade_configs, path)?,
            hash_policies: message
                .hash_policy
                .iter()
                .enumerate()
                .map(|(i, policy)| HashPolicy::compile(policy, &format!("{path}.hash_policy[{i}]")))
                .collect::<Result<_, _>>()?,
            attempt_count_in_request: outer.attempt_count_in_request,
            attempt_count_in_response: outer.attempt_count_in_response,
            path_rewrite: PathRewrite::compile(
                &message.prefix_rewrite,
                message.regex_rewrite.as_ref(),
                &message.path_rewrite,
                matched,
                path,
            )?,
            host_rewrite: host_rewrite(message, path)?,
        })
    }

    /// The cluster for one request. `random` is any number; its low 32 bits decide.
    pub fn pick(&self, random: u64) -> &ClusterChoice {
        // Multiply and shift spreads 2^32 values over the weights without a division.
        let point = ((random & 0xffff_ffff) * u64::from(self.total_weight)) >> 32;
        let mut left = point;
        for choice in &self.clusters {
            match left.checked_sub(choice.weight.into()) {
                None => return choice,
                Some(rest) => left = rest,
            }
        }
        // point is below the sum of the weights, so the loop has returned; there is at least one choice.
        &self.clusters[0]
    }

    /// All clusters the route may send to.
    pub fn clusters(&self) -> &[ClusterChoice] {
        &self.clusters
    }

    /// The path and query to send, or `None` to send what came.
    pub fn rewritten_path<V: RequestView + ?Sized>(&self, view: &V) -> Option<Vec<u8>> {
        let mut path = self.path_rewrite.as_ref()?.apply(view.path());
        if let Some(query) = view.query() {
            path.push(b'?');
            path.extend_from_slice(query);
        }
        Some(path)
    }

    /// The authority to send to this choice, or `None` to send what came. `endpoint` is the chosen endpoint's host name.
    pub fn rewritten_authority<'a, V: RequestView + ?Sized>(
        &'a self,
        choice: &'a ClusterChoice,
        view: &'a V,
        endpoint: Option<&'a str>,
    ) -> Option<Cow<'a, [u8]>> {
        choice.host_rewrite.as_ref().or(self.host_rewrite.as_ref())?.apply(view, endpoint)
    }

    /// What the route says about an upgrade of this name, in any case; `None` leaves it to the listener.
    pub fn upgrade(&self, name: &[u8]) -> Option<&UpgradeRule> {
        self.upgrades.iter().find(|rule| rule.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Envoy's route timeout where none is set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

#[allow(deprecated)]
fn refuse_unsupported(m: &route::RouteAction, path: &str) -> Result<(), FieldError> {
    unsupported(m.metadata_match.is_some(), path, "metadata_match")?;
    unsupported(m.path_rewrite_policy.is_some(), path, "path_rewrite_policy")?;
    unsupported(m.early_data_policy.is_some(), path, "early_data_policy")?;
    unsupported(m.retry_policy_typed_config.is_some(), path, "retry_policy_typed_config")?;
    unsupported(!m.request_mirror_policies.is_empty(), path, "request_mirror_policies")?;
    unsupported(m.priority != 0, path, "priority HIGH")?;
    unsupported(m.max_grpc_timeout.is_some(), path, "max_grpc_timeout")?;
    unsupported(m.grpc_timeout_offset.is_some(), path, "grpc_timeout_offset")?;
    unsupported(m.internal_redirect_policy.is_some(), path, "internal_redirect_policy")?;
    unsupported(m.internal_redirect_action != 0, path, "internal_redirect_action")?;
    unsupported(m.hedge_policy.is_some(), path, "hedge_policy")
}

fn clusters(
    message: &route::RouteAction,
    outer: &Outer<'_>,
    level: &Level,
    path: &str,
) -> Result<(Vec<ClusterChoice>, u32), FieldError> {
    use route::route_action::ClusterSpecifier;
    let named = |name: &str, path: &str| {
        if name.is_empty() { Err(refuse(path, "empty; name a cluster")) } else { Ok(name.into()) }
    };
    match message.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => {
            let choice = ClusterChoice {
                name: named(name, &format!("{path}.cluster"))?,
                weight: 1,
                request_headers: outer.merge_request(&[&level.request]),
                response_headers: outer.merge(&[&level.response]),
                host_rewrite: None,
            };
            Ok((vec![choice], 1))
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            weighted_clusters(weighted, outer, level, &format!("{path}.weighted_clusters"))
        }
        Some(ClusterSpecifier::ClusterHeader(_)) => Err(refuse(&format!("{path}.cluster_header"), CLUSTERS)),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            Err(refuse(&format!("{path}.cluster_specifier_plugin"), CLUSTERS))
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(refuse(&format!("{path}.inline_cluster_specifier_plugin"), CLUSTERS))
        }
        None => Err(refuse(path, "no cluster; set cluster or weighted_clusters")),
    }
}

const CLUSTERS: &str = "not supported; use cluster or weighted_clusters";

fn weighted_clusters(
    message: &route::WeightedCluster,
    outer: &Outer<'_>,
    level: &Level,
    path: &str,
) -> Result<(Vec<ClusterChoice>, u32), FieldError> {
    use route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    unsupported(message.random_value_specifier.is_some(), path, "header_name or use_hash_policy")?;
    let mut choices = Vec::with_capacity(message.clusters.len());
    let mut total: u32 = 0;
    for (i, cluster) in message.clusters.iter().enumerate() {
        let path = format!("{path}.clusters[{i}]");
        unsupported(!cluster.cluster_header.is_empty(), &path, "cluster_header")?;
        unsupported(cluster.metadata_match.is_some(), &path, "metadata_match")?;
        unsupported(!cluster.typed_per_filter_config.is_empty(), &path, "typed_per_filter_config")?;
        if cluster.name.is_empty() {
            return Err(refuse(&format!("{path}.name"), "empty; name a cluster"));
        }
        let weight = cluster
            .weight
            .as_ref()
            .ok_or_else(|| refuse(&format!("{path}.weight"), "missing; give a number, 0 for no requests"))?
            .value;
        total = total
            .checked_add(weight)
            .ok_or_else(|| refuse(&format!("{path}.weight"), "the weights' sum is above 4294967295"))?;
        let request = HeaderMutations::compile(
            &cluster.request_headers_to_add,
            &cluster.request_headers_to_remove,
            &path,
            "request",
        )?;
        let response = HeaderMutations::compile(
            &cluster.response_headers_to_add,
            &cluster.response_headers_to_remove,
            &path,
            "response",
        )?;
        choices.push(ClusterChoice {
            name: cluster.name.as_str().into(),
            weight,
            request_headers: outer.merge_request(&[&request, &level.request]),
            response_headers: outer.merge(&[&response, &level.response]),
            host_rewrite: cluster
                .host_rewrite_specifier
                .as_ref()
                .map(|HostRewriteSpecifier::HostRewriteLiteral(host)| HostRewrite::Literal(host.as_bytes().to_vec())),
        });
    }
    if total == 0 {
        return Err(refuse(&format!("{path}.clusters"), "the weights' sum is 0; give at least one cluster a weight"));
    }
    Ok((choices, total))
}

fn host_rewrite(message: &route::RouteAction, path: &str) -> Result<Option<HostRewrite>, FieldError> {
    use crate::rewrite::Substitution;
    use route::route_action::HostRewriteSpecifier as Specifier;
    Ok(match message.host_rewrite_specifier.as_ref() {
        None => None,
        Some(Specifier::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(host.as_bytes().to_vec())),
        Some(Specifier::AutoHostRewrite(auto)) => auto.value.then_some(HostRewrite::Endpoint),
        Some(Specifier::HostRewriteHeader(name)) => Some(HostRewrite::Header(name.to_ascii_lowercase())),
        Some(Specifier::HostRewritePathRegex(regex)) => {
            Some(HostRewrite::PathRegex(Substitution::compile(regex, &format!("{path}.host_rewrite_path_regex"))?))
        }
        Some(Specifier::HostRewrite(_)) => {
            return Err(refuse(&format!("{path}.host_rewrite"), "not supported; use host_rewrite_literal"));
        }
    })
}

fn upgrades(messages: &[route::route_action::UpgradeConfig], path: &str) -> Result<Vec<UpgradeRule>, FieldError> {
    messages
        .iter()
        .enumerate()
        .map(|(i, message)| {
            let path = format!("{path}.upgrade_configs[{i}]");
            if let Some(connect) = &message.connect_config {
                unsupported(
                    connect.proxy_protocol_config.is_some(),
                    &format!("{path}.connect_config"),
                    "proxy_protocol_config",
                )?;
                unsupported(connect.allow_post, &format!("{path}.connect_config"), "allow_post")?;
            }
            Ok(UpgradeRule {
                name: message.upgrade_type.to_ascii_lowercase(),
                enabled: message.enabled.as_ref().is_none_or(|enabled| enabled.value),
                terminate: message.connect_config.is_some(),
            })
        })
        .collect()
}

fn not_found_status(code: i32, path: &str) -> Result<u16, FieldError> {
    use route::route_action::ClusterNotFoundResponseCode as Code;
    match Code::try_from(code) {
        Ok(Code::ServiceUnavailable) => Ok(503),
        Ok(Code::NotFound) => Ok(404),
        Ok(Code::InternalServerError) => Ok(500),
        Err(_) => Err(refuse(&format!("{path}.cluster_not_found_response_code"), format!("unknown value {code}"))),
    }
}

fn direct_response(message: &route::DirectResponseAction, max_body: usize, path: &str) -> Result<Action, FieldError> {
    use core::data_source::Specifier;
    unsupported(message.body_format.is_some(), path, "body_format")?;
    let status = u16::try_from(message.status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| refuse(&format!("{path}.status"), format!("{} is not between 200 and 599", message.status)))?;
    let body = match message.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => Vec::new(),
        Some(Specifier::InlineBytes(bytes)) => bytes.clone(),
        Some(Specifier::InlineString(text)) => text.as_bytes().to_vec(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) => {
            return Err(refuse(&format!("{path}.body"), "must be inline; use inline_string or inline_bytes"));
        }
    };
    if body.len() > max_body {
        let problem = format!("{} bytes; max_direct_response_body_size_bytes allows {max_body}", body.len());
        return Err(refuse(&format!("{path}.body"), problem));
    }
    Ok(Action::Direct { status, body })
}
