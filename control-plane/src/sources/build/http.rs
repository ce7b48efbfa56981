//! The rules of an HTTPRoute.

use std::time::Duration;

use weft_api::FieldPath;
use weft_api::gateway::{
    HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, PathMatchType, PathModifier, PathModifierType,
    ValueMatch as WrittenMatch, ValueMatchType,
};

use super::backends::Backends;
use super::routes::{header_changes, rule_name};
use super::{Written, spec};
use crate::model::route::{
    Action, Backend, Forward, NamedMatch, PathChange, PathMatch, Ranked, Redirect, Reference, RequestMatch, Rule,
    RuleRetry, ValueMatch,
};

pub(super) fn rules(route: &Written<'_, HttpRoute>, backends: &mut Backends<'_>) -> Vec<Ranked> {
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
        let everything = [HttpRouteMatch::default()];
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
        for (at, m) in matches.iter().enumerate() {
            ranked.push(Ranked {
                rule: Rule { matches: request_match(m), ..compiled.clone() },
                seniority: route.seniority(),
                position: (index, at),
            });
        }
    }
    ranked
}

fn request_match(m: &HttpRouteMatch) -> RequestMatch {
    RequestMatch {
        path: m.path.as_ref().map_or_else(PathMatch::default, |path| match path.kind {
            PathMatchType::Exact => PathMatch::Exact(path.value.clone()),
            // "/foo/" and "/foo" are the same prefix (HTTPPathMatch).
            PathMatchType::PathPrefix => PathMatch::Prefix(path.value.trim_end_matches('/').to_owned()),
            PathMatchType::RegularExpression => PathMatch::Regex(path.value.clone()),
        }),
        method: m.method.map(|method| method.as_str()),
        headers: named(&m.headers, str::to_ascii_lowercase),
        query: named(&m.query_params, str::to_owned),
    }
}

pub(super) fn named(matches: &[WrittenMatch], name: fn(&str) -> String) -> Vec<NamedMatch> {
    matches
        .iter()
        .map(|m| NamedMatch {
            name: name(&m.name),
            value: match m.kind.unwrap_or_default() {
                ValueMatchType::Exact => ValueMatch::Exact(m.value.clone()),
                ValueMatchType::RegularExpression => ValueMatch::Regex(m.value.clone()),
            },
        })
        .collect()
}

fn action(rule: &HttpRouteRule, path: &FieldPath, resolver: &mut Backends<'_>) -> Action {
    if let Some(redirect) = rule.filters.iter().find_map(|f| f.request_redirect.as_ref()) {
        return Action::Redirect(Redirect {
            scheme: redirect.scheme.clone(),
            host: redirect.hostname.clone(),
            port: redirect.port,
            path: redirect.path.as_ref().and_then(path_change),
            status: redirect.status_code.unwrap_or(302),
        });
    }
    let mut backends = Vec::new();
    for (index, reference) in rule.backend_refs.iter().enumerate() {
        let path = path.key("backendRefs").index(index);
        let (service, port, resolved) = resolver.resolve(&reference.target(), &path);
        let filter = |f: fn(&HttpRouteFilter) -> Option<&_>| header_changes(reference.filters.iter().find_map(f));
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
        return Action::Fail(500);
    }
    let rewrite = rule.filters.iter().find_map(|f| f.url_rewrite.as_ref());
    let limit = |d: weft_api::Duration| (!d.0.is_zero()).then_some(d.0);
    Action::Forward(Forward {
        backends,
        path: rewrite.and_then(|r| r.path.as_ref()).and_then(path_change),
        host: rewrite.and_then(|r| r.hostname.clone()),
        timeout: rule.timeouts.and_then(|t| t.request).map(limit),
        try_timeout: rule.timeouts.and_then(|t| t.backend_request).map(limit),
        retry: rule.retry.as_ref().map(|retry| RuleRetry {
            codes: retry.codes.clone(),
            attempts: retry.attempts.unwrap_or(1),
            backoff: retry.backoff.map(|d| d.0).filter(|d: &Duration| !d.is_zero()),
        }),
    })
}

/// 0 to 1,000,000, checked when the file was read; 1 where not said.
pub(super) fn weight(written: Option<i32>) -> u32 {
    written.map_or(1, |w| u32::try_from(w).unwrap_or(0))
}

/// Whether no request can reach any backend: none is there and permitted, or all weights are 0.
pub(super) fn is_dead(backends: &[Backend]) -> bool {
    backends.iter().all(|b| b.reference != Reference::Resolved || b.weight == 0)
}

fn path_change(modifier: &PathModifier) -> Option<PathChange> {
    match modifier.kind {
        PathModifierType::ReplaceFullPath => modifier.replace_full_path.clone().map(PathChange::Full),
        PathModifierType::ReplacePrefixMatch => modifier.replace_prefix_match.clone().map(PathChange::Prefix),
    }
}
