//! HTTPRoute and GRPCRoute: the Gateway API's own validation rules, as far as they concern a mesh.

use super::Check;
use super::values::is_token;
use crate::gateway::{
    BackendReference, GrpcFilterType, GrpcRoute, GrpcRouteFilter, GrpcRouteRule, HeaderModifier, HttpFilterType,
    HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, ParentReference, PathMatchType, PathModifier,
    PathModifierType, RequestMirror, ValueMatch, ValueMatchType,
};

const MAX_WEIGHT: i32 = 1_000_000;

pub(crate) fn http_route(c: &mut Check, route: &HttpRoute) {
    c.metadata(&route.metadata, false);
    c.field("spec", |c| {
        parents(c, &route.spec.parent_refs);
        c.each("rules", &route.spec.rules, http_rule);
        rule_names(c, route.spec.rules.iter().map(|r| r.name.as_deref()));
    });
}

pub(crate) fn grpc_route(c: &mut Check, route: &GrpcRoute) {
    c.metadata(&route.metadata, false);
    c.field("spec", |c| {
        parents(c, &route.spec.parent_refs);
        c.each("rules", &route.spec.rules, grpc_rule);
        rule_names(c, route.spec.rules.iter().map(|r| r.name.as_deref()));
    });
}

fn parents(c: &mut Check, parents: &[ParentReference]) {
    if parents.is_empty() {
        c.field("parentRefs", |c| {
            c.warning("", "is missing, so the route has no effect", "name the Service whose traffic it governs");
        });
    }
    c.each("parentRefs", parents, |c, parent| {
        if parent.kind.as_deref() == Some("Service")
            && parent.group.as_deref().is_none_or(|g| g == crate::gateway::GROUP)
        {
            c.field("group", |c| {
                c.error(
                    parent.group.as_deref().unwrap_or_default(),
                    "a Service is in the core group, and an unset group means the Gateway API's",
                    "write group: \"\"",
                );
            });
        } else if parent.kind.as_deref() != Some("Service") {
            c.field("kind", |c| {
                c.warning(
                    parent.kind.as_deref().unwrap_or("Gateway"),
                    "is not a Service, so the mesh ignores this parent",
                    "write group: \"\" and kind: Service",
                );
            });
        }
        if let Some(port) = parent.port {
            c.field("port", |c| c.port(port.into()));
        }
    });
    c.unique("parentRefs", parents, "the parent", |p| {
        ((p.namespace.clone(), p.kind.clone(), p.name.clone(), p.port, p.section_name.clone()), p.name.clone())
    });
}

fn rule_names<'a>(c: &mut Check, names: impl Iterator<Item = Option<&'a str>>) {
    let names: Vec<_> = names.collect();
    c.field("rules", |c| {
        for (index, name) in names.iter().enumerate() {
            if let Some(name) = name
                && let Some(first) = names.iter().position(|n| n == &Some(*name))
                && first < index
            {
                c.at.steps_mut().push(crate::path::Step::Index(index));
                c.field("name", |c| {
                    c.error(name, format!("rules[{first}] has the same name"), "names are unique in a route")
                });
                c.at.steps_mut().pop();
            }
        }
    });
}

fn http_rule(c: &mut Check, rule: &HttpRouteRule) {
    c.each("matches", &rule.matches, http_match);
    http_filters(c, &rule.filters, &rule.matches);
    let redirects = rule.filters.iter().any(|f| f.kind == HttpFilterType::RequestRedirect);
    if redirects && !rule.backend_refs.is_empty() {
        c.field("backendRefs", |c| {
            c.error("", "a rule that redirects has no backends", "remove backendRefs or the redirect")
        });
    }
    if !redirects && rule.backend_refs.is_empty() {
        c.field("backendRefs", |c| {
            c.warning("", "is missing, so matched requests are answered with 500", "name a backend")
        });
    }
    c.each("backendRefs", &rule.backend_refs, |c, backend| {
        backend_ref(c, &backend.target());
        weight(c, backend.weight);
        http_filters(c, &backend.filters, &rule.matches);
        only_headers(
            c,
            backend.filters.iter().map(|f| {
                matches!(f.kind, HttpFilterType::RequestHeaderModifier | HttpFilterType::ResponseHeaderModifier)
            }),
        );
    });
    if let Some(timeouts) = &rule.timeouts
        && let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request)
        && !request.0.is_zero()
        && backend > request
    {
        c.field("timeouts", |c| {
            c.field("backendRequest", |c| {
                c.error(backend, format!("is longer than request ({request})"), "each try fits into the whole");
            });
        });
    }
    if let Some(retry) = &rule.retry {
        c.field("retry", |c| {
            c.each("codes", &retry.codes, |c, code| c.range((*code).into(), 400, 599));
            if let Some(attempts) = retry.attempts {
                c.field("attempts", |c| c.range(attempts.into(), 0, 10));
            }
        });
    }
}

fn http_match(c: &mut Check, m: &HttpRouteMatch) {
    if let Some(path) = &m.path {
        c.field("path", |c| {
            c.field("value", |c| match path.kind {
                PathMatchType::RegularExpression => regular_expression(c, &path.value),
                PathMatchType::Exact | PathMatchType::PathPrefix => absolute_path(c, &path.value),
            });
        });
    }
    c.each("headers", &m.headers, |c, header| {
        c.field("name", |c| c.header_name(&header.name));
        value_match(c, header);
    });
    c.unique("headers", &m.headers, "the header", |h| (h.name.to_ascii_lowercase(), h.name.clone()));
    c.each("queryParams", &m.query_params, |c, parameter| {
        if parameter.name.is_empty() {
            c.field("name", |c| c.error("", "is empty", "name the query parameter"));
        }
        value_match(c, parameter);
    });
    c.unique("queryParams", &m.query_params, "the parameter", |p| (p.name.clone(), p.name.clone()));
}

fn value_match(c: &mut Check, value: &ValueMatch) {
    if value.kind == Some(ValueMatchType::RegularExpression) {
        c.field("value", |c| regular_expression(c, &value.value));
    }
}

fn absolute_path(c: &mut Check, path: &str) {
    if !path.starts_with('/') {
        c.error(path, "does not start with '/'", "write an absolute path");
    }
    for part in ["//", "/./", "/../", "#", "%2f", "%2F"] {
        if path.contains(part) {
            c.error(path, format!("holds {part:?}, which the Gateway API does not allow"), "write the path without it");
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        c.error(path, "ends with a dot segment", "write the path without it");
    }
    if path.len() > 1024 {
        c.error(path, "is longer than 1,024 bytes", "");
    }
}

fn regular_expression(c: &mut Check, expression: &str) {
    match regex::Regex::new(expression) {
        Ok(_) => {}
        Err(regex::Error::CompiledTooBig(limit)) => {
            c.error(expression, format!("compiles to more than {limit} bytes"), "use a smaller expression");
        }
        Err(error) => {
            // The library's message spans several lines; the last says what is wrong.
            let message = error.to_string();
            let why = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            c.error(
                expression,
                format!("is not a regular expression: {why}"),
                "RE2 syntax, without look-around and back-references",
            );
        }
    }
}

fn weight(c: &mut Check, weight: Option<i32>) {
    if let Some(weight) = weight
        && !(0..=MAX_WEIGHT).contains(&weight)
    {
        c.field("weight", |c| {
            c.error(weight, "is not a weight", format!("weights are whole numbers from 0 to {MAX_WEIGHT}"))
        });
    }
}

fn backend_ref(c: &mut Check, backend: &BackendReference) {
    if backend.group.as_deref().is_some_and(|g| !g.is_empty())
        || backend.kind.as_deref().is_some_and(|k| k != "Service")
    {
        c.field("kind", |c| {
            c.warning(
                backend.kind.as_deref().unwrap_or("Service"),
                "is not a Service, so its share of the requests is answered with 500",
                "route to a Service",
            );
        });
        return;
    }
    match backend.port {
        None => c.field("port", |c| c.error("", "is missing", "write the port of the Service")),
        Some(port) => c.field("port", |c| c.port(port.into())),
    }
}

fn http_filters(c: &mut Check, filters: &[HttpRouteFilter], matches: &[HttpRouteMatch]) {
    use HttpFilterType::{RequestHeaderModifier, RequestMirror, RequestRedirect, ResponseHeaderModifier, UrlRewrite};
    c.each("filters", filters, |c, filter| {
        let fields = [
            (RequestHeaderModifier, "requestHeaderModifier", filter.request_header_modifier.is_some()),
            (ResponseHeaderModifier, "responseHeaderModifier", filter.response_header_modifier.is_some()),
            (RequestRedirect, "requestRedirect", filter.request_redirect.is_some()),
            (UrlRewrite, "urlRewrite", filter.url_rewrite.is_some()),
            (RequestMirror, "requestMirror", filter.request_mirror.is_some()),
        ];
        union(c, filter.kind, &fields);
        if let Some(modifier) = &filter.request_header_modifier {
            c.field("requestHeaderModifier", |c| header_modifier(c, modifier));
        }
        if let Some(modifier) = &filter.response_header_modifier {
            c.field("responseHeaderModifier", |c| header_modifier(c, modifier));
        }
        if let Some(redirect) = &filter.request_redirect {
            c.field("requestRedirect", |c| {
                if let Some(scheme) = &redirect.scheme
                    && !["http", "https"].contains(&scheme.as_str())
                {
                    c.field("scheme", |c| c.error(scheme, "is neither http nor https", ""));
                }
                if let Some(host) = &redirect.hostname {
                    c.field("hostname", |c| c.subdomain(host));
                }
                if let Some(path) = &redirect.path {
                    c.field("path", |c| path_modifier(c, path, matches));
                }
                if let Some(port) = redirect.port {
                    c.field("port", |c| c.port(port.into()));
                }
                if let Some(code) = redirect.status_code
                    && ![301, 302, 303, 307, 308].contains(&code)
                {
                    c.field("statusCode", |c| {
                        c.error(code, "is not a redirect that is supported", "use 301, 302, 303, 307 or 308")
                    });
                }
            });
        }
        if let Some(rewrite) = &filter.url_rewrite {
            c.field("urlRewrite", |c| {
                if let Some(host) = &rewrite.hostname {
                    c.field("hostname", |c| c.subdomain(host));
                }
                if let Some(path) = &rewrite.path {
                    c.field("path", |c| path_modifier(c, path, matches));
                }
            });
        }
        if let Some(copy) = &filter.request_mirror {
            c.field("requestMirror", |c| mirror(c, copy));
        }
    });
    c.unique("filters", filters, "a filter of this type", |f| {
        // Only mirrors may repeat.
        let nth = if f.kind == RequestMirror { std::ptr::from_ref(f) as usize } else { 0 };
        ((f.kind, nth), format!("{:?}", f.kind))
    });
    if filters.iter().any(|f| f.kind == RequestRedirect) && filters.iter().any(|f| f.kind == UrlRewrite) {
        c.field("filters", |c| c.error("", "RequestRedirect and URLRewrite exclude each other", "keep one of the two"));
    }
}

fn grpc_rule(c: &mut Check, rule: &GrpcRouteRule) {
    c.each("matches", &rule.matches, |c, m| {
        if let Some(method) = &m.method {
            c.field("method", |c| {
                if method.service.is_none() && method.method.is_none() {
                    c.error("", "names neither service nor method", "set one of them, or leave out the match");
                }
                for (name, value) in [("service", &method.service), ("method", &method.method)] {
                    let Some(value) = value else { continue };
                    c.field(name, |c| match method.kind {
                        ValueMatchType::RegularExpression => regular_expression(c, value),
                        ValueMatchType::Exact => {
                            if value.is_empty() || !value.bytes().all(|b| is_token(b) && b != b'/') {
                                c.error(
                                    value,
                                    format!("is not a gRPC {name}"),
                                    "as in the .proto file, such as shop.Cart or AddItem",
                                );
                            }
                        }
                    });
                }
            });
        }
        c.each("headers", &m.headers, |c, header| {
            c.field("name", |c| c.header_name(&header.name));
            value_match(c, header);
        });
        c.unique("headers", &m.headers, "the header", |h| (h.name.to_ascii_lowercase(), h.name.clone()));
    });
    grpc_filters(c, &rule.filters);
    if rule.backend_refs.is_empty() {
        c.field("backendRefs", |c| {
            c.warning("", "is missing, so matched calls are answered with UNAVAILABLE", "name a backend")
        });
    }
    c.each("backendRefs", &rule.backend_refs, |c, backend| {
        backend_ref(c, &backend.target());
        weight(c, backend.weight);
        grpc_filters(c, &backend.filters);
        only_headers(c, backend.filters.iter().map(|f| f.kind != GrpcFilterType::RequestMirror));
    });
}

fn grpc_filters(c: &mut Check, filters: &[GrpcRouteFilter]) {
    use GrpcFilterType::{RequestHeaderModifier, RequestMirror, ResponseHeaderModifier};
    c.each("filters", filters, |c, filter| {
        let fields = [
            (RequestHeaderModifier, "requestHeaderModifier", filter.request_header_modifier.is_some()),
            (ResponseHeaderModifier, "responseHeaderModifier", filter.response_header_modifier.is_some()),
            (RequestMirror, "requestMirror", filter.request_mirror.is_some()),
        ];
        union(c, filter.kind, &fields);
        if let Some(modifier) = &filter.request_header_modifier {
            c.field("requestHeaderModifier", |c| header_modifier(c, modifier));
        }
        if let Some(modifier) = &filter.response_header_modifier {
            c.field("responseHeaderModifier", |c| header_modifier(c, modifier));
        }
        if let Some(copy) = &filter.request_mirror {
            c.field("requestMirror", |c| mirror(c, copy));
        }
    });
}

/// A backend's own filters change headers; the others belong to the rule.
fn only_headers(c: &mut Check, filters: impl Iterator<Item = bool>) {
    let are_headers: Vec<bool> = filters.collect();
    c.each("filters", &are_headers, |c, is_header| {
        if !is_header {
            c.field("type", |c| c.error("", "cannot stand at a backend", "move it to the rule's filters"));
        }
    });
}

/// Exactly the field that `type` names is set.
fn union<K: PartialEq + std::fmt::Debug>(c: &mut Check, kind: K, fields: &[(K, &'static str, bool)]) {
    for (of, name, set) in fields {
        match (*of == kind, set) {
            (true, false) => c.field(*name, |c| c.error("", format!("is missing, but type is {kind:?}"), "set it")),
            (false, true) => {
                c.field(*name, |c| {
                    c.error("", format!("does not belong to type {kind:?}"), "remove it, or write a filter of its own")
                });
            }
            _ => {}
        }
    }
}

fn header_modifier(c: &mut Check, modifier: &HeaderModifier) {
    for (list, values) in [("set", &modifier.set), ("add", &modifier.add)] {
        c.each(list, values, |c, header| {
            c.field("name", |c| changeable_header(c, &header.name));
            c.field("value", |c| c.header_value(&header.value));
        });
    }
    c.each("remove", &modifier.remove, |c, name| changeable_header(c, name));
}

fn changeable_header(c: &mut Check, name: &str) {
    // Framing is the proxy's business: changing it would open the door to request smuggling.
    const FIXED: [&str; 7] =
        ["connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"];
    c.header_name(name);
    if FIXED.contains(&name.to_ascii_lowercase().as_str()) {
        let hint = if name.eq_ignore_ascii_case("host") { "use a URLRewrite filter's hostname" } else { "" };
        c.error(name, "cannot be changed by a filter", hint);
    }
}

fn path_modifier(c: &mut Check, modifier: &PathModifier, matches: &[HttpRouteMatch]) {
    union(
        c,
        modifier.kind,
        &[
            (PathModifierType::ReplaceFullPath, "replaceFullPath", modifier.replace_full_path.is_some()),
            (PathModifierType::ReplacePrefixMatch, "replacePrefixMatch", modifier.replace_prefix_match.is_some()),
        ],
    );
    if modifier.kind == PathModifierType::ReplacePrefixMatch
        && matches.iter().any(|m| m.path.as_ref().is_some_and(|p| p.kind != PathMatchType::PathPrefix))
    {
        c.field("type", |c| {
            c.error(
                "ReplacePrefixMatch",
                "needs PathPrefix in every match of the rule",
                "use ReplaceFullPath, or split the rule",
            );
        });
    }
}

/// Accepting the filter would mean dropping it silently.
fn mirror(c: &mut Check, mirror: &RequestMirror) {
    c.error(
        &mirror.backend_ref.name,
        "Weft's proxy does not mirror requests, so no copy would ever arrive there",
        "remove this filter; to send that backend a share of the requests themselves, add it to backendRefs with a weight",
    );
}
