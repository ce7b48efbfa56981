//! The rules of a GRPCRoute: a gRPC method is a path, `/<service>/<method>`.

use weft_api::FieldPath;
use weft_api::gateway::{GrpcMethodMatch, GrpcRoute, GrpcRouteFilter, GrpcRouteMatch, GrpcRouteRule, ValueMatchType};

use super::backends::Backends;
use super::http::{is_dead, named, weight};
use super::routes::{header_changes, rule_name};
use super::{Written, spec};
use crate::model::route::{Action, Backend, Forward, PathMatch, Ranked, RequestMatch, Rule};

pub(super) fn rules(route: &Written<'_, GrpcRoute>, backends: &mut Backends<'_>) -> Vec<Ranked> {
    let mut ranked = Vec::new();
    for (index, rule) in route.object.spec.rules.iter().enumerate() {
        let path = spec("rules").index(index);
        let compiled = Rule {
            name: rule_name(&route.name, rule.name.as_deref(), index),
            matches: RequestMatch::default(),
            action: action(rule, &path, backends),
            request_headers: header_changes(rule.filters.iter().find_map(|f| f.request_header_modifier.as_ref())),
            response_headers: header_changes(rule.filters.iter().find_map(|f| f.response_header_modifier.as_ref())),
        };
        let everything = [GrpcRouteMatch::default()];
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
        for (at, m) in matches.iter().enumerate() {
            let matches = RequestMatch {
                path: m.method.as_ref().map_or_else(PathMatch::default, method_path),
                method: None,
                headers: named(&m.headers, str::to_ascii_lowercase),
                query: Vec::new(),
            };
            ranked.push(Ranked {
                rule: Rule { matches, ..compiled.clone() },
                seniority: route.seniority(),
                position: (index, at),
            });
        }
    }
    ranked
}

fn method_path(m: &GrpcMethodMatch) -> PathMatch {
    match (m.kind, &m.service, &m.method) {
        (_, None, None) => PathMatch::default(),
        (ValueMatchType::Exact, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (ValueMatchType::Exact, Some(service), None) => PathMatch::Prefix(format!("/{service}")),
        (ValueMatchType::Exact, None, Some(method)) => PathMatch::Regex(format!("/[^/]+/{}", escape(method))),
        (ValueMatchType::RegularExpression, service, method) => {
            let part = |text: &Option<String>| text.as_deref().map_or("[^/]+".to_owned(), |t| format!("(?:{t})"));
            PathMatch::Regex(format!("/{}/{}", part(service), part(method)))
        }
    }
}

/// A method's name is letters, digits and `_`, but may be written otherwise.
fn escape(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_ascii_alphanumeric() && c != '_').then_some('\\').into_iter().chain([c])).collect()
}

fn action(rule: &GrpcRouteRule, path: &FieldPath, resolver: &mut Backends<'_>) -> Action {
    let mut backends = Vec::new();
    for (index, reference) in rule.backend_refs.iter().enumerate() {
        let path = path.key("backendRefs").index(index);
        let (service, port, resolved) = resolver.resolve(&reference.target(), &path);
        let filter = |f: fn(&GrpcRouteFilter) -> Option<&_>| header_changes(reference.filters.iter().find_map(f));
        backends.push(Backend {
            service,
            port,
            reference: resolved,
            weight: weight(reference.weight),
            request_headers: filter(|f| f.request_header_modifier.as_ref()),
            response_headers: filter(|f| f.response_header_modifier.as_ref()),
        });
    }
    if is_dead(&backends) {
        // A gRPC client reads HTTP 503 as UNAVAILABLE, which the Gateway API asks for.
        return Action::Fail(503);
    }
    Action::Forward(Forward { backends, ..Forward::default() })
}
