//! The compiled structures against naive ones, and what no input may do.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Request, config, table_of_routes};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use weft_rules::string::StringMatcher;
use weft_rules::{Action, RouteTable};
use weft_xds::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action as RouteActionKind,
    route_action::ClusterSpecifier, route_match::PathSpecifier,
};
use weft_xds::envoy::r#type::matcher::v3::{StringMatcher as StringMessage, string_matcher::MatchPattern};
use weft_xds::google::protobuf::BoolValue;

/// Paths from few letters, so that they collide.
fn path() -> impl Strategy<Value = String> {
    vec(prop_oneof![Just("/"), Just("a"), Just("B"), Just("/ab")], 0..6)
        .prop_map(|parts| format!("/{}", parts.concat()))
}

fn specifier() -> impl Strategy<Value = PathSpecifier> {
    (path(), 0..3).prop_map(|(path, kind)| match kind {
        0 => PathSpecifier::Path(path),
        1 => PathSpecifier::Prefix(path),
        _ => match path.trim_end_matches('/') {
            "" => PathSpecifier::Prefix(path),
            trimmed => PathSpecifier::PathSeparatedPrefix(trimmed.to_owned()),
        },
    })
}

fn routes() -> impl Strategy<Value = Vec<(PathSpecifier, bool)>> {
    vec((specifier(), prop::bool::weighted(0.8)), 0..40)
}

fn table_of(routes: &[(PathSpecifier, bool)]) -> RouteTable {
    let routes = routes.iter().enumerate().map(|(i, (specifier, case_sensitive))| Route {
        name: i.to_string(),
        r#match: Some(RouteMatch {
            path_specifier: Some(specifier.clone()),
            case_sensitive: Some(BoolValue { value: *case_sensitive }),
            ..Default::default()
        }),
        action: Some(RouteActionKind::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("c".into())),
            ..Default::default()
        })),
        ..Default::default()
    });
    let host = VirtualHost { domains: vec!["*".into()], routes: routes.collect(), ..Default::default() };
    RouteTable::compile(&RouteConfiguration { virtual_hosts: vec![host], ..Default::default() }, "").unwrap()
}

/// The specification, read literally.
fn naive(routes: &[(PathSpecifier, bool)], path: &str) -> Option<usize> {
    routes.iter().position(|(specifier, case_sensitive)| {
        let fold = |text: &str| if *case_sensitive { text.to_owned() } else { text.to_lowercase() };
        let path = fold(path);
        match specifier {
            PathSpecifier::Path(want) => path == fold(want),
            PathSpecifier::Prefix(want) => path.starts_with(&fold(want)),
            PathSpecifier::PathSeparatedPrefix(want) => path == fold(want) || path.starts_with(&(fold(want) + "/")),
            other => panic!("not generated: {other:?}"),
        }
    })
}

/// `*` stands for at least one character; exact before suffix before prefix before everything, and the longest first.
fn naive_host(domains: &[String], host: &str) -> Option<usize> {
    let host = host.to_lowercase();
    let rank = |domain: &str| {
        let domain = domain.to_lowercase();
        match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(""), _) => Some((3, 0)),
            (Some(suffix), _) => {
                (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, usize::MAX - suffix.len()))
            }
            (_, Some(prefix)) => {
                (host.len() > prefix.len() && host.starts_with(prefix)).then_some((2, usize::MAX - prefix.len()))
            }
            _ => (host == domain).then_some((0, 0)),
        }
    };
    (0..domains.len()).filter_map(|i| Some((rank(&domains[i])?, i))).min().map(|(_, i)| i)
}

fn domain() -> impl Strategy<Value = String> {
    let label = "[aB]{1,2}(\\.[ab]{1,2}){0,2}";
    prop_oneof![
        label.prop_map(|d: String| d),
        label.prop_map(|d| format!("*.{d}")),
        label.prop_map(|d| format!("{d}.*")),
        Just("*".to_owned())
    ]
}

fn get(authority: String, path: String, query: Option<String>) -> Request {
    Request { method: "GET".into(), scheme: "http".into(), authority, path, query, headers: vec![] }
}

proptest! {
    #[test]
    fn the_index_finds_the_route_a_scan_would(routes in routes(), paths in vec(path(), 1..20)) {
        let table = table_of(&routes);
        for path in paths {
            let found = table.find(&get("h".into(), path.clone(), None), 0).map(|route| route.name.parse::<usize>().unwrap());
            prop_assert_eq!(found, naive(&routes, &path), "{}", path);
        }
    }

    #[test]
    fn the_domain_maps_choose_the_host_the_precedence_says(
        domains in proptest::collection::hash_set(domain().prop_map(|d| d.to_lowercase()), 1..12),
        host in "[aB]{0,2}(\\.[ab]{1,2}){0,3}",
    ) {
        let domains: Vec<String> = domains.into_iter().collect();
        let hosts = domains.iter().enumerate().map(|(i, domain)| VirtualHost {
            name: i.to_string(),
            domains: vec![domain.clone()],
            routes: vec![Route {
                name: i.to_string(),
                r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix(String::new())), ..Default::default() }),
                action: Some(RouteActionKind::DirectResponse(weft_xds::envoy::config::route::v3::DirectResponseAction { status: 200, ..Default::default() })),
                ..Default::default()
            }],
            ..Default::default()
        });
        let table = RouteTable::compile(&RouteConfiguration { virtual_hosts: hosts.collect(), ..Default::default() }, "").unwrap();
        let found = table.find(&get(host.clone(), "/".into(), None), 0).map(|route| route.name.parse::<usize>().unwrap());
        prop_assert_eq!(found, naive_host(&domains, &host), "{} in {:?}", host, domains);
    }

    #[test]
    fn string_matchers_do_what_the_standard_library_does(pattern in "[aAbé]{0,3}", value in "[aAbé]{0,6}", kind in 0..4, ignore_case: bool) {
        let specifier = match kind {
            0 => MatchPattern::Exact(pattern.clone()),
            1 => MatchPattern::Prefix(pattern.clone()),
            2 => MatchPattern::Suffix(pattern.clone()),
            _ => MatchPattern::Contains(pattern.clone()),
        };
        let fold = |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        let (want, have) = (fold(&pattern), fold(&value));
        let expected = match kind {
            0 => have == want,
            1 => have.starts_with(&want),
            2 => have.ends_with(&want),
            _ => have.contains(&want),
        };
        let matcher = StringMatcher::compile(&StringMessage { ignore_case, match_pattern: Some(specifier) }, "m").unwrap();
        prop_assert_eq!(matcher.matches(value.as_bytes()), expected);
    }

    #[test]
    fn no_request_makes_a_table_panic(authority in "\\PC{0,20}", path in "\\PC{0,20}", query in proptest::option::of("\\PC{0,10}"), random: u64) {
        let table = table_of_routes(
            r"[{match: {path_separated_prefix: /ab}, route: {cluster: c, prefix_rewrite: '', auto_host_rewrite: true}},
               {match: {safe_regex: {regex: '.*é+.*'}}, route: {cluster: c, regex_rewrite: {pattern: {regex: '(.)'}, substitution: '\1\0'}}},
               {match: {prefix: '/', query_parameters: [{name: a}]}, redirect: {port_redirect: 1, prefix_rewrite: /x}},
               {match: {prefix: ''}, redirect: {https_redirect: true, strip_query: true}}]",
        );
        let request = get(authority, path, query);
        match &table.find(&request, random).unwrap().action {
            Action::Forward(forward) => {
                let _ = forward.rewritten_path(&request);
                let _ = forward.rewritten_authority(forward.pick(random), &request, None);
            }
            Action::Redirect(redirect) => prop_assert!(redirect.location(&request).starts_with(b"http")),
            Action::Direct { .. } => {}
        }
    }

    #[test]
    fn no_message_makes_the_compiler_panic(flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = config(
            r"{request_headers_to_add: [{header: {key: a, value: b}}], virtual_hosts: [{name: v, domains: ['*.a', b], routes: [
               {match: {safe_regex: {regex: '/[a-c]+(x|y)'}, headers: [{name: h, range_match: {start: 1, end: 5}}], query_parameters: [{name: q}]},
                route: {weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}, timeout: 3s, prefix_rewrite: /r,
                        retry_policy: {retry_on: 5xx, num_retries: 3, retry_back_off: {base_interval: 1s, max_interval: 2s}},
                        hash_policy: [{header: {header_name: x}}], upgrade_configs: [{upgrade_type: websocket}]},
                typed_per_filter_config: {f: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 500}}}},
               {match: {prefix: /}, redirect: {port_redirect: 80, path_redirect: /x}}]}]}",
        )
        .encode_to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = RouteConfiguration::decode(bytes.as_slice())
            && let Err(error) = RouteTable::compile(&message, "")
        {
            prop_assert!(!error.path.starts_with('.') && !error.problem.is_empty());
        }
    }
}
