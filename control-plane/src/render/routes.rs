//! Route configurations: the rules of a service port in order of precedence.

use std::net::SocketAddr;
use std::time::Duration;

use weft_xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use weft_xds::google::protobuf::Any;
use weft_xds::names::{self, ServicePort as At};

use super::values::{any, core, duration, limit, matcher, number, regex, route, string, truth};
use super::{envoy, grpc, http, wire};
use crate::model::Model;
use crate::model::policy::{Fault, Retries, Traffic};
use crate::model::route::{
    Action, Backend, Forward, HeaderChanges, NamedMatch, PathChange, PathMatch, Redirect, Reference, RequestMatch,
    Rule, ValueMatch,
};
use crate::{ClientKind, View};

/// A request that certainly reached no application is sent again, whatever its method and whatever policies say.
const ALWAYS_RETRIED: [&str; 3] = ["connect-failure", "refused-stream", "reset-before-request"];
const ALWAYS_RETRIES: u32 = 2;
const BACKOFF: Duration = Duration::from_millis(25);

pub(super) fn configuration(model: &Model, at: At<'_>, view: &View) -> Option<Any> {
    let service = model.service(at.namespace, at.service)?;
    let port = service.port(at.port)?;
    let cluster = names::service_cluster(at.namespace, at.service, at.port);
    let routes = match port.routes.for_namespace(view.namespace.as_deref()) {
        // Requests that no rule matches are answered with 404 (Gateway API, HTTPRouteRule).
        Some(rules) => rules.iter().map(|rule| rule_route(rule, &port.traffic)).collect(),
        None => everything(&format!("{}/default", service.name), &cluster, &port.traffic),
    };
    let name = names::outbound_route(at.namespace, at.service, at.port);
    Some(pack_for(view, table(name, routes), port.fault.as_deref()))
}

/// Calls to a pod's own address by the routes of the headless service that owns it. Where they lead to that service they lead to this
/// pod, which is what the caller chose.
pub(super) fn to_pod(model: &Model, at: SocketAddr, view: &View) -> Option<Any> {
    let (service, port) = model.headless_at(at)?;
    let pod = names::pod_cluster(at);
    let routes = match port.routes.for_namespace(view.namespace.as_deref()) {
        Some(rules) => {
            let of_service = names::service_cluster(&service.name.namespace, &service.name.name, port.port);
            let mut routes: Vec<_> = rules.iter().map(|rule| rule_route(rule, &port.traffic)).collect();
            routes.iter_mut().for_each(|route| replace_cluster(route, &of_service, &pod));
            routes
        }
        None => everything(&format!("{}/default", service.name), &pod, &port.traffic),
    };
    Some(pack_for(view, table(pod, routes), port.fault.as_deref()))
}

/// With what our own proxy knows by itself, or has in its listener.
fn pack_for(view: &View, mut table: route::RouteConfiguration, fault: Option<&Fault>) -> Any {
    match view.client {
        ClientKind::Weft => return weft_xds::pack(&table),
        ClientKind::Grpc => return grpc::routes(table),
        ClientKind::Envoy => {}
    }
    for host in &mut table.virtual_hosts {
        host.routes = std::mem::take(&mut host.routes).into_iter().flat_map(envoy::retried_as_ours).collect();
        host.typed_per_filter_config = http::fault_by_route(fault);
    }
    wire::pack(&table, &wire::ROUTES)
}

fn replace_cluster(route: &mut route::Route, old: &str, new: &str) {
    use route::route_action::ClusterSpecifier;
    let Some(route::route::Action::Route(action)) = &mut route.action else { return };
    let replace = |name: &mut String| {
        if name == old {
            new.clone_into(name);
        }
    };
    match &mut action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => replace(name),
        Some(ClusterSpecifier::WeightedClusters(all)) => all.clusters.iter_mut().for_each(|c| replace(&mut c.name)),
        _ => {}
    }
}

/// Everything to one cluster. `retried` is for a call that leaves this pod; one that arrives is tried once.
pub(super) fn only(label: &str, name: &str, cluster: &str, retried: bool) -> route::RouteConfiguration {
    let mut routes = everything(name, cluster, &Traffic::default());
    if !retried {
        for route in &mut routes {
            if let Some(route::route::Action::Route(action)) = &mut route.action {
                action.retry_policy = None;
            }
        }
    }
    table(label.to_owned(), routes)
}

fn table(name: String, routes: Vec<route::Route>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        virtual_hosts: vec![route::VirtualHost {
            name: name.clone(),
            // The original destination chose the service; the Host header says nothing.
            domains: vec!["*".to_owned()],
            routes,
            ..Default::default()
        }],
        name,
        validate_clusters: truth(false),
        ..Default::default()
    }
}

fn everything(name: &str, cluster: &str, traffic: &Traffic) -> Vec<route::Route> {
    use route::route_match::{ConnectMatcher, PathSpecifier};
    let paths = [PathSpecifier::Prefix("/".to_owned()), PathSpecifier::ConnectMatcher(ConnectMatcher {})];
    paths
        .map(|path| route::Route {
            name: name.to_owned(),
            r#match: Some(route::RouteMatch { path_specifier: Some(path), ..Default::default() }),
            action: Some(route::route::Action::Route(route::RouteAction {
                cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
                timeout: limit(traffic.request_timeout),
                retry_policy: Some(retry_policy(&Forward::default(), traffic)),
                ..Default::default()
            })),
            ..Default::default()
        })
        .to_vec()
}

fn rule_route(rule: &Rule, traffic: &Traffic) -> route::Route {
    let action = match &rule.action {
        Action::Forward(forward) => route::route::Action::Route(forward_action(forward, &rule.matches.path, traffic)),
        Action::Redirect(to) => route::route::Action::Redirect(redirect(to)),
        Action::Fail(status) => route::route::Action::DirectResponse(route::DirectResponseAction {
            status: u32::from(*status),
            body: Some(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineString(format!(
                    "weft: route {} has no valid backend\n",
                    rule.name
                ))),
                ..Default::default()
            }),
            ..Default::default()
        }),
    };
    route::Route {
        name: rule.name.clone(),
        r#match: Some(request_match(&rule.matches)),
        action: Some(action),
        request_headers_to_add: additions(&rule.request_headers),
        request_headers_to_remove: rule.request_headers.remove.clone(),
        response_headers_to_add: additions(&rule.response_headers),
        response_headers_to_remove: rule.response_headers.remove.clone(),
        ..Default::default()
    }
}

fn request_match(m: &RequestMatch) -> route::RouteMatch {
    use route::header_matcher::HeaderMatchSpecifier;
    use route::query_parameter_matcher::QueryParameterMatchSpecifier;
    use route::route_match::PathSpecifier;
    let mut headers: Vec<_> = m
        .method
        .map(|method| NamedMatch { name: ":method".to_owned(), value: ValueMatch::Exact(method.to_owned()) })
        .into_iter()
        .collect();
    headers.extend(m.headers.iter().cloned());
    route::RouteMatch {
        path_specifier: Some(match &m.path {
            PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
            PathMatch::Prefix(prefix) if prefix.is_empty() => PathSpecifier::Prefix("/".to_owned()),
            PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
            PathMatch::Regex(text) => PathSpecifier::SafeRegex(regex(text)),
        }),
        case_sensitive: truth(true),
        headers: headers
            .iter()
            .map(|h| route::HeaderMatcher {
                name: h.name.clone(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value(&h.value))),
                ..Default::default()
            })
            .collect(),
        query_parameters: m
            .query
            .iter()
            .map(|q| route::QueryParameterMatcher {
                name: q.name.clone(),
                query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(value(&q.value))),
            })
            .collect(),
        ..Default::default()
    }
}

/// One of the methods that this regular expression matches.
pub(super) fn method_in(methods: &str) -> route::HeaderMatcher {
    use matcher::string_matcher::MatchPattern::SafeRegex;
    route::HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(string(SafeRegex(
            regex(methods),
        )))),
        ..Default::default()
    }
}

fn value(m: &ValueMatch) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    string(match m {
        ValueMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        ValueMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    })
}

/// Time limits and retries are those of the service that was called, connections those of the backend's.
fn forward_action(forward: &Forward, matched: &PathMatch, traffic: &Traffic) -> route::RouteAction {
    use route::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier};
    let mut action = route::RouteAction {
        timeout: limit(forward.timeout.unwrap_or(traffic.request_timeout)),
        retry_policy: Some(retry_policy(forward, traffic)),
        // A backend that does not exist or may not be referred to: its share is answered with 500 (Gateway API, HTTPBackendRef).
        cluster_not_found_response_code: ClusterNotFoundResponseCode::InternalServerError.into(),
        host_rewrite_specifier: forward.host.clone().map(HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    };
    match (&forward.path, matched) {
        (None, _) => {}
        (Some(PathChange::Full(path)), _) => {
            // Not path_rewrite, which newer Envoys read as a format string.
            action.regex_rewrite = Some(substitute("^[^?]*", path));
        }
        (Some(PathChange::Prefix(new)), PathMatch::Prefix(old)) => {
            let new = new.trim_end_matches('/');
            // With the slashes that follow, or "/" in place of "/old" would leave "//rest".
            if old.is_empty() || new.is_empty() {
                action.regex_rewrite = Some(substitute(&format!("^{}/*", escape(old)), &format!("{new}/")));
            } else {
                action.prefix_rewrite = new.to_owned();
            }
        }
        // Checked when the file was read: a prefix is replaced only where one was matched.
        (Some(PathChange::Prefix(_)), _) => {}
    }
    let plain = HeaderChanges::default();
    action.cluster_specifier = Some(match forward.backends.as_slice() {
        [one] if one.request_headers == plain && one.response_headers == plain => {
            ClusterSpecifier::Cluster(cluster_of(one))
        }
        many => ClusterSpecifier::WeightedClusters(route::WeightedCluster {
            clusters: many.iter().map(weighted).collect(),
            ..Default::default()
        }),
    });
    action
}

fn weighted(backend: &Backend) -> route::weighted_cluster::ClusterWeight {
    route::weighted_cluster::ClusterWeight {
        name: cluster_of(backend),
        weight: number(backend.weight),
        request_headers_to_add: additions(&backend.request_headers),
        request_headers_to_remove: backend.request_headers.remove.clone(),
        response_headers_to_add: additions(&backend.response_headers),
        response_headers_to_remove: backend.response_headers.remove.clone(),
        ..Default::default()
    }
}

fn cluster_of(backend: &Backend) -> String {
    // The service may well exist, and then its cluster does: a name that nothing has keeps requests away.
    if backend.reference == Reference::NotPermitted {
        return names::refused_cluster(&backend.service.namespace, &backend.service.name, backend.port);
    }
    names::service_cluster(&backend.service.namespace, &backend.service.name, backend.port)
}

fn retry_policy(forward: &Forward, traffic: &Traffic) -> route::RetryPolicy {
    let mut on: Vec<&str> = ALWAYS_RETRIED.to_vec();
    let mut codes: Vec<u32> = Vec::new();
    let mut attempts = ALWAYS_RETRIES;
    let (mut base, mut max) = (BACKOFF, BACKOFF * 10);
    // A rule's own retries stand in place of the policy's.
    if let Some(retry) = &forward.retry {
        if retry.attempts > 0 {
            codes.extend(retry.codes.iter().map(|c| u32::from(*c)));
            attempts = retry.attempts;
        }
        base = retry.backoff.unwrap_or(base);
        max = base * 10;
    } else if let Some(Retries { attempts: n, on: conditions, codes: more, backoff_base, backoff_max }) =
        &traffic.retries
    {
        on.extend(conditions.iter().filter(|c| !ALWAYS_RETRIED.contains(c)));
        codes.extend(more.iter().map(|c| u32::from(*c)));
        (attempts, base, max) = (*n, *backoff_base, *backoff_max);
    }
    if !codes.is_empty() {
        on.push("retriable-status-codes");
    }
    route::RetryPolicy {
        retry_on: on.join(","),
        num_retries: number(attempts),
        per_try_timeout: limit(forward.try_timeout.unwrap_or(traffic.try_timeout)),
        // Another endpoint, if there is one: the same would probably fail again.
        retry_host_predicate: vec![route::retry_policy::RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: any(&PreviousHostsPredicate {})
                .map(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig),
        }],
        host_selection_retry_max_attempts: 5,
        retriable_status_codes: codes,
        retry_back_off: Some(route::retry_policy::RetryBackOff {
            base_interval: duration(base),
            max_interval: duration(max),
        }),
        ..Default::default()
    }
}

fn redirect(to: &Redirect) -> route::RedirectAction {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let port = to.port.or(match to.scheme.as_deref() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    });
    route::RedirectAction {
        host_redirect: to.host.clone().unwrap_or_default(),
        port_redirect: port.map_or(0, u32::from),
        scheme_rewrite_specifier: to.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: to.path.as_ref().map(|path| match path {
            PathChange::Full(path) => PathRewriteSpecifier::PathRedirect(path.clone()),
            PathChange::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.clone()),
        }),
        response_code: match to.status {
            301 => RedirectResponseCode::MovedPermanently,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::Found,
        }
        .into(),
        ..Default::default()
    }
}

fn additions(changes: &HeaderChanges) -> Vec<core::HeaderValueOption> {
    use core::header_value_option::HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    let option = |(key, value): &(String, String), action: core::header_value_option::HeaderAppendAction| {
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: key.clone(),
                // A literal percent sign: values are format strings in Envoy's words.
                value: value.replace('%', "%%"),
                ..Default::default()
            }),
            append_action: action.into(),
            keep_empty_value: true,
            ..Default::default()
        }
    };
    let set = changes.set.iter().map(|h| option(h, OverwriteIfExistsOrAdd));
    set.chain(changes.add.iter().map(|h| option(h, AppendIfExistsOrAdd))).collect()
}

fn substitute(pattern: &str, substitution: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        // A backslash would name a group.
        substitution: substitution.replace('\\', r"\\"),
    }
}

/// A text as a regular expression that matches just it.
pub(super) fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| (!c.is_ascii_alphanumeric() && !"/-_~".contains(c)).then_some('\\').into_iter().chain([c]))
        .collect()
}
