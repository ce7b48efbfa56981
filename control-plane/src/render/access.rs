//! Access rules as RBAC filters: one that denies, then one that allows.

use std::collections::HashMap;

use weft_xds::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use weft_xds::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use weft_xds::google::protobuf::Any;

use super::values::{hcm, listener, matcher, rbac, route, string};
use super::{http, wire};
use crate::model::policy::{Access, AccessRule, Call, Caller, Pattern};

/// The names of an Envoy's filters, in their order.
const DENY: &str = "weft.deny";
const ALLOW: &str = "weft.allow";

/// For requests.
pub(super) fn http_filters(access: &Access) -> Vec<hcm::HttpFilter> {
    messages(access, &|rule| Some(calls(&rule.to)))
        .into_iter()
        .map(|rules| {
            let message = http_rbac::Rbac { rules: Some(rules), ..Default::default() };
            http::http_filter("envoy.filters.http.rbac", wire::pack(&message, &wire::RBAC))
        })
        .collect()
}

/// For requests, as settings of an Envoy's filters by their names, for a route table: those of a listener hold only for new connections.
pub(super) fn by_route(access: &Access) -> HashMap<String, Any> {
    messages(access, &|rule| Some(calls(&rule.to)))
        .into_iter()
        .map(|rules| {
            let name = if rules.action == i32::from(rbac::rbac::Action::Deny) { DENY } else { ALLOW };
            let rbac = http_rbac::Rbac { rules: Some(rules), ..Default::default() };
            let message = http_rbac::RbacPerRoute { rbac: Some(rbac) };
            (name.to_owned(), wire::pack(&message, &wire::RBAC_PER_ROUTE))
        })
        .collect()
}

/// The filters that [`by_route`] sets: without settings they let everything pass.
pub(super) fn unset_filters() -> Vec<hcm::HttpFilter> {
    [DENY, ALLOW].map(|name| http::http_filter(name, weft_xds::pack(&http_rbac::Rbac::default()))).to_vec()
}

/// For requests, with a name for each filter: gRPC takes no two of one name.
pub(super) fn named_filters(access: &Access) -> Vec<hcm::HttpFilter> {
    let named = |filter: hcm::HttpFilter, name: &str| hcm::HttpFilter { name: name.to_owned(), ..filter };
    // If there is one only, either name will do.
    http_filters(access).into_iter().zip([DENY, ALLOW]).map(|(filter, name)| named(filter, name)).collect()
}

/// For connections of which nothing is known but the caller: what speaks of methods or paths allows nothing, and denies everything.
pub(super) fn network_filters(access: &Access, label: &str) -> Vec<listener::Filter> {
    let deny = |rule: &AccessRule| {
        let blind: Vec<Call> = rule.to.iter().map(|c| Call { ports: c.ports.clone(), ..Call::default() }).collect();
        Some(calls(&blind))
    };
    let allow = |rule: &AccessRule| {
        let certain: Vec<Call> = rule.to.iter().filter(|c| !c.needs_http()).cloned().collect();
        (rule.to.is_empty() || !certain.is_empty()).then(|| calls(&certain))
    };
    let by_action = Access { allow: None, ..access.clone() };
    let mut filters = messages(&by_action, &deny);
    filters.extend(messages(&Access { deny: Vec::new(), ..access.clone() }, &allow));
    filters
        .into_iter()
        .map(|rules| {
            let message =
                network_rbac::Rbac { rules: Some(rules), stat_prefix: label.to_owned(), ..Default::default() };
            http::filter("envoy.filters.network.rbac", wire::pack(&message, &wire::RBAC))
        })
        .collect()
}

/// The rules by action; a rule without permissions (`None`) is left out.
fn messages(access: &Access, permissions: &dyn Fn(&AccessRule) -> Option<Vec<rbac::Permission>>) -> Vec<rbac::Rbac> {
    let policies = |rules: &[AccessRule]| -> HashMap<String, rbac::Policy> {
        rules
            .iter()
            .filter_map(|rule| {
                let policy = rbac::Policy {
                    permissions: permissions(rule)?,
                    principals: callers(&rule.from),
                    ..Default::default()
                };
                Some((rule.name.clone(), policy))
            })
            .collect()
    };
    let mut messages = Vec::new();
    if !access.deny.is_empty() {
        messages.push(rbac::Rbac {
            action: rbac::rbac::Action::Deny.into(),
            policies: policies(&access.deny),
            ..Default::default()
        });
    }
    if let Some(allow) = &access.allow {
        messages.push(rbac::Rbac {
            action: rbac::rbac::Action::Allow.into(),
            policies: policies(allow),
            ..Default::default()
        });
    }
    messages
}

fn callers(from: &[Caller]) -> Vec<rbac::Principal> {
    use rbac::principal::{Authenticated, Identifier, Set};
    let principal = |identifier| rbac::Principal { identifier: Some(identifier) };
    if from.is_empty() {
        return vec![principal(Identifier::Any(true))];
    }
    let one_of = |patterns: &[Pattern]| {
        let ids = patterns
            .iter()
            .map(|p| principal(Identifier::Authenticated(Authenticated { principal_name: Some(text(p)) })))
            .collect();
        principal(Identifier::OrIds(Set { ids }))
    };
    from.iter()
        .map(|caller| {
            let lists = [&caller.identities, &caller.accounts, &caller.namespaces];
            let ids = lists.into_iter().filter(|l| !l.is_empty()).map(|l| one_of(l)).collect();
            principal(Identifier::AndIds(Set { ids }))
        })
        .collect()
}

fn calls(to: &[Call]) -> Vec<rbac::Permission> {
    use rbac::permission::{Rule, Set};
    let permission = |rule| rbac::Permission { rule: Some(rule) };
    let any_of = |rules: Vec<rbac::Permission>| permission(Rule::OrRules(Set { rules }));
    if to.is_empty() {
        return vec![permission(Rule::Any(true))];
    }
    to.iter()
        .map(|call| {
            let mut rules = Vec::new();
            if !call.ports.is_empty() {
                let ports = call.ports.iter().map(|p| permission(Rule::DestinationPort((*p).into())));
                rules.push(any_of(ports.collect()));
            }
            if !call.methods.is_empty() {
                let methods = call.methods.iter().map(|m| permission(Rule::Header(method(m))));
                rules.push(any_of(methods.collect()));
            }
            if !call.paths.is_empty() {
                let paths = call.paths.iter().map(|p| {
                    permission(Rule::UrlPath(matcher::PathMatcher {
                        rule: Some(matcher::path_matcher::Rule::Path(text(p))),
                    }))
                });
                rules.push(any_of(paths.collect()));
            }
            if rules.is_empty() { permission(Rule::Any(true)) } else { permission(Rule::AndRules(Set { rules })) }
        })
        .collect()
}

fn method(name: &str) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(text(&Pattern::Exact(
            name.to_owned(),
        )))),
        ..Default::default()
    }
}

fn text(pattern: &Pattern) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    string(match pattern {
        Pattern::Exact(text) => MatchPattern::Exact(text.clone()),
        // An empty prefix is not valid in Envoy's words; everything that is there matches.
        Pattern::Prefix(text) if text.is_empty() => MatchPattern::SafeRegex(super::values::regex(".*")),
        Pattern::Prefix(text) => MatchPattern::Prefix(text.clone()),
    })
}
