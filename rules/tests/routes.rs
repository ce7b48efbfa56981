//! Which route a request gets, and what the route does.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{config, first, forward, refusal, request, route_of, table, table_of_routes};
use weft_rules::mutation::HeaderMutation;
use weft_rules::route::{GrpcTimeout, IdleTimeout};
use weft_rules::{Action, FilterOverride, RouteTable};

#[test]
fn domains_match_exactly_then_by_longest_suffix_then_by_longest_prefix_then_anything() {
    let hosts = ["www.foo.com", "*.foo.com", "*-bar.foo.com", "foo.*", "foo.bar.*", "*"];
    let hosts: Vec<_> = hosts
        .iter()
        .map(|d| format!("{{name: '{d}', domains: ['{d}'], routes: [{{name: '{d}', match: {{prefix: '/'}}, route: {{cluster: c}}}}]}}"))
        .collect();
    let table = table(&format!("{{virtual_hosts: [{}]}}", hosts.join(", ")));
    for (host, expected) in [
        ("www.foo.com", "www.foo.com"),
        ("WWW.Foo.COM", "www.foo.com"),
        ("a.foo.com", "*.foo.com"),
        ("baz-bar.foo.com", "*-bar.foo.com"),
        ("-bar.foo.com", "*.foo.com"),
        (".foo.com", "foo.*|*"),
        ("foo.bar.x", "foo.bar.*"),
        ("foo.x", "foo.*"),
        ("www.foo.com:8080", "*"),
        ("other", "*"),
        ("", "*"),
    ] {
        let got = route_of(&table, &format!("GET http://{host}/"));
        assert!(expected.split('|').any(|expected| expected == got), "{host}: {got}");
    }
}

#[test]
fn a_port_in_the_authority_counts_unless_it_is_to_be_ignored() {
    let host = "virtual_hosts: [{name: v, domains: [foo.com, '[::1]'], routes: [{name: r, match: {prefix: '/'}, route: {cluster: c}}]}]";
    let strict = table(&format!("{{{host}}}"));
    let lenient = table(&format!("{{{host}, ignore_port_in_host_matching: true}}"));
    assert_eq!(route_of(&strict, "GET http://foo.com:80/"), "-");
    assert_eq!(route_of(&lenient, "GET http://foo.com:80/"), "r");
    assert_eq!(route_of(&lenient, "GET http://[::1]:80/"), "r");
    assert_eq!(route_of(&lenient, "GET http://[::1]/"), "r");
}

#[test]
fn each_path_specifier_matches_what_envoy_documents() {
    let table = table_of_routes(
        "[{name: exact, match: {path: /exact}, route: {cluster: c}},
          {name: segments, match: {path_separated_prefix: /seg}, route: {cluster: c}},
          {name: regex, match: {safe_regex: {regex: '/r[0-9]+'}}, route: {cluster: c}},
          {name: nocase, match: {prefix: /CaSe, case_sensitive: false}, route: {cluster: c}},
          {name: connect, match: {connect_matcher: {}}, route: {cluster: c}},
          {name: prefix, match: {prefix: /pre}, route: {cluster: c}}]",
    );
    for (line, expected) in [
        ("GET http://h/exact", "exact"),
        ("GET http://h/exact?q=/x", "exact"),
        ("GET http://h/exact/", "-"),
        ("GET http://h/seg", "segments"),
        ("GET http://h/seg/a", "segments"),
        ("GET http://h/seg?x", "segments"),
        ("GET http://h/segment", "-"),
        ("GET http://h/r12", "regex"),
        ("GET http://h/r12/x", "-"),
        ("GET http://h/cAsEx", "nocase"),
        ("GET http://h/PREfix", "-"),
        ("GET http://h/prefix", "prefix"),
        ("CONNECT http://h", "connect"),
    ] {
        assert_eq!(route_of(&table, line), expected, "{line}");
    }
}

#[test]
fn the_first_matching_route_wins_however_it_is_indexed() {
    let routes: Vec<_> =
        (0..20)
            .map(|i| format!("{{name: 'e{i}', match: {{path: '/a/{i}'}}, route: {{cluster: c}}}}"))
            .chain(["{name: early, match: {prefix: /a/2}, route: {cluster: c}}".into()])
            .chain((0..30).map(|i| {
                format!("{{name: 's{i}', match: {{path_separated_prefix: '/a/{i}'}}, route: {{cluster: c}}}}")
            }))
            .chain(["{name: late, match: {prefix: /}, route: {cluster: c}}".into()])
            .collect();
    let table = table_of_routes(&format!("[{}]", routes.join(", ")));
    for (path, expected) in [
        ("/a/2", "e2"),
        ("/a/19", "e19"),
        ("/a/25", "early"),
        ("/a/30", "late"),
        ("/a/7/x", "s7"),
        ("/a/20/x", "early"),
        ("/a", "late"),
    ] {
        assert_eq!(route_of(&table, &format!("GET http://h{path}")), expected, "{path}");
    }
}

#[test]
fn headers_queries_and_grpc_all_have_to_match() {
    let table = table_of_routes(
        "[{name: grpc, match: {prefix: '/', grpc: {}}, route: {cluster: c}},
          {name: method, match: {prefix: '/', headers: [{name: ':method', string_match: {exact: POST}}]}, route: {cluster: c}},
          {name: both, match: {prefix: '/', headers: [{name: x-a, string_match: {exact: '1,2'}}], query_parameters: [{name: v, string_match: {exact: '2'}}]}, route: {cluster: c}},
          {name: query, match: {prefix: '/', query_parameters: [{name: v, present_match: true}]}, route: {cluster: c}},
          {name: whole, match: {prefix: '/', headers: [{name: ':path', string_match: {exact: '/p?z'}}]}, route: {cluster: c}},
          {name: host, match: {prefix: '/', headers: [{name: Host, string_match: {exact: special}}]}, route: {cluster: c}}]",
    );
    for (text, expected) in [
        ("GET http://h/\ncontent-type: application/grpc+proto", "grpc"),
        ("GET http://h/\ncontent-type: application/grpcx", "-"),
        ("POST http://h/", "method"),
        ("GET http://h/?v=2\nx-a: 1\nx-a: 2", "both"),
        ("GET http://h/?v=3\nx-a: 1\nx-a: 2", "query"),
        ("GET http://h/p?z", "whole"),
        ("GET http://special/", "host"),
        ("GET http://h/", "-"),
    ] {
        assert_eq!(route_of(&table, text), expected, "{text}");
    }
}

#[test]
fn a_runtime_fraction_takes_its_share_by_the_high_half_of_the_random_number() {
    let table = table_of_routes(
        "[{name: some, match: {prefix: '/', runtime_fraction: {default_value: {numerator: 10}}}, route: {cluster: c}},
          {name: rest, match: {prefix: '/'}, route: {cluster: c}}]",
    );
    let name = |random: u64| table.find(&request("GET http://h/"), random).unwrap().name.clone();
    assert_eq!(name(9 << 32 | 0xffff), "some");
    assert_eq!(name(10 << 32), "rest");
}

#[test]
fn weighted_clusters_get_their_shares() {
    let table = table_of_routes(
        "[{match: {prefix: '/'}, route: {weighted_clusters: {clusters: [{name: a, weight: 90}, {name: none, weight: 0}, {name: b, weight: 10}]}}}]",
    );
    let forward = forward(&table);
    let steps = 10_000_u64;
    let a = (0..steps).filter(|i| &*forward.pick(i * (1 << 32) / steps).name == "a").count();
    assert!(a.abs_diff(9_000) <= 1, "evenly spread random numbers give exact shares: {a}");
    assert_eq!(&*forward.pick(u64::MAX).name, "b");
    assert!((0..steps).all(|i| &*forward.pick(i * 429_497).name != "none"));
}

#[test]
fn unset_timeouts_are_envoys_and_zero_means_none() {
    let unset = forward(&table_of_routes("[{match: {prefix: '/'}, route: {cluster: c}}]"));
    assert_eq!(unset.timeout, Some(Duration::from_secs(15)));
    assert!(unset.retry.is_none() && unset.idle_timeout.is_none() && unset.max_stream_duration.is_none());
    let zero = forward(&table_of_routes(
        "[{match: {prefix: '/'}, route: {cluster: c, timeout: 0s, idle_timeout: 0s, max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.1s}}}]",
    ));
    assert_eq!(zero.timeout, None);
    assert_eq!(zero.idle_timeout, Some(IdleTimeout::Never));
    assert_eq!(zero.max_stream_duration, Some(None));
    assert_eq!(zero.grpc_timeout, Some(GrpcTimeout { max: None, offset: Duration::from_millis(100) }));
}

#[test]
fn paths_and_hosts_are_rewritten_and_the_query_stays() {
    for (route_match, rewrite, line, path) in [
        ("prefix: /old/", "prefix_rewrite: /", "GET http://h/old/a?q=/old/", "/a?q=/old/"),
        ("path_separated_prefix: /old", "prefix_rewrite: /new", "GET http://h/old/a", "/new/a"),
        ("path: /old", "prefix_rewrite: /new", "GET http://h/old?", "/new?"),
        ("safe_regex: {regex: '/.*'}", "prefix_rewrite: /new", "GET http://h/a/b", "/new"),
        (
            "prefix: /",
            r"regex_rewrite: {pattern: {regex: '^/v([0-9])/'}, substitution: '/\1/'}",
            "GET http://h/v2/a?v3/",
            "/2/a?v3/",
        ),
        ("prefix: /", "path_rewrite: /fixed", "GET http://h/a?b", "/fixed?b"),
    ] {
        let table = table_of_routes(&format!("[{{match: {{{route_match}}}, route: {{cluster: c, {rewrite}}}}}]"));
        let rewritten = forward(&table).rewritten_path(&request(line)).unwrap();
        assert_eq!(String::from_utf8(rewritten).unwrap(), path, "{rewrite}");
    }
    for (rewrite, expected) in [
        ("host_rewrite_literal: other", Some("other")),
        ("auto_host_rewrite: true", Some("endpoint.example")),
        ("host_rewrite_header: X-Host", Some("from-header")),
        (r"host_rewrite_path_regex: {pattern: {regex: '^/(.+)/.*$'}, substitution: '\1'}", Some("tenant")),
        ("auto_host_rewrite: false", None),
    ] {
        let table = table_of_routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: c, {rewrite}}}}}]"));
        let forward = forward(&table);
        let request = request("GET http://h/tenant/x\nx-host: from-header");
        let host = forward.rewritten_authority(forward.pick(0), &request, Some("endpoint.example"));
        assert_eq!(host.as_deref(), expected.map(str::as_bytes), "{rewrite}");
    }
}

#[test]
fn header_edits_of_all_levels_apply_from_the_narrowest_to_the_widest_or_the_other_way() {
    let yaml = |wins: bool| {
        let add = |value: &str| {
            format!(
                "request_headers_to_add: [{{header: {{key: x, value: {value}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]"
            )
        };
        format!(
            "{{most_specific_header_mutations_wins: {wins}, {}, virtual_hosts: [{{name: v, domains: ['*'], {}, routes: [{{match: {{prefix: /}}, {}, route: {{weighted_clusters: {{clusters: [{{name: c, weight: 1, {}}}]}}}}}}]}}]}}",
            add("config"),
            add("host"),
            add("route"),
            add("cluster"),
        )
    };
    let order = |wins| {
        let forward = forward(&table(&yaml(wins)));
        let edits = forward.pick(0).request_headers.edits().to_vec();
        edits
            .into_iter()
            .map(|edit| match edit {
                HeaderMutation::Overwrite(_, value) => String::from_utf8(value).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(order(false), ["cluster", "route", "host", "config"]);
    assert_eq!(order(true), ["config", "host", "route", "cluster"]);
}

#[test]
fn a_redirect_says_where_to() {
    for (redirect, line, location) in [
        ("https_redirect: true", "GET http://h:80/a?b", "https://h/a?b"),
        ("https_redirect: true", "GET http://h:8080/a?b", "https://h:8080/a?b"),
        ("https_redirect: true, port_redirect: 8443", "GET http://h:8080/a", "https://h:8443/a"),
        ("scheme_redirect: http", "GET https://h:443/", "http://h/"),
        ("port_redirect: 81", "GET http://[::1]:80/", "http://[::1]:81/"),
        ("port_redirect: 81", "GET http://[::1]/", "http://[::1]:81/"),
        ("host_redirect: other", "GET http://h:80/a", "http://other/a"),
        ("path_redirect: /new", "GET http://h/a?b", "http://h/new?b"),
        ("path_redirect: '/new?c'", "GET http://h/a?b", "http://h/new?c"),
        ("path_redirect: '/new?c', strip_query: true", "GET http://h/a?b", "http://h/new?c"),
        ("strip_query: true", "GET http://h/a?b", "http://h/a"),
        ("prefix_rewrite: /x", "GET http://h/pre/a?b", "http://h/x/a?b"),
        (r"regex_rewrite: {pattern: {regex: 'pre'}, substitution: 'post'}", "GET http://h/pre/a", "http://h/post/a"),
    ] {
        let table = table_of_routes(&format!(
            "[{{match: {{prefix: '/pre'}}, redirect: {{{redirect}}}}}, {{match: {{prefix: '/'}}, redirect: {{{redirect}}}}}]"
        ));
        let request = request(line);
        let Action::Redirect(redirect_to) = &table.find(&request, 0).unwrap().action else { panic!("no redirect") };
        assert_eq!(String::from_utf8(redirect_to.location(&request)).unwrap(), location, "{redirect} for {line}");
        assert_eq!(redirect_to.status, 301);
    }
}

#[test]
fn a_direct_response_has_status_and_body() {
    let table =
        table_of_routes("[{match: {prefix: '/'}, direct_response: {status: 418, body: {inline_string: short}}}]");
    assert!(matches!(&first(&table).action, Action::Direct { status: 418, body } if body == b"short"));
}

#[test]
fn the_narrowest_filter_override_counts() {
    let fault = |ms: u32| {
        format!(
            "envoy.filters.http.fault: {{'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, delay: {{fixed_delay: 0.{ms:03}s, percentage: {{numerator: 100}}}}}}"
        )
    };
    let rbac_off =
        "envoy.filters.http.rbac: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}";
    let disabled =
        "envoy.filters.http.fault: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}";
    let table = table(&format!(
        "{{typed_per_filter_config: {{{}, {rbac_off}}}, virtual_hosts: [{{name: v, domains: ['*'], routes: [
            {{name: inherits, match: {{path: /a}}, route: {{cluster: c}}}},
            {{name: own, match: {{path: /b}}, route: {{cluster: c}}, typed_per_filter_config: {{{disabled}}}}}]}}]}}",
        fault(1)
    ));
    let over = |line: &str, filter: &str| table.find(&request(line), 0).unwrap().filter_override(filter).cloned();
    let Some(FilterOverride::Fault(fault)) = over("GET http://h/a", "envoy.filters.http.fault") else {
        panic!("no fault")
    };
    assert_eq!(fault.decide(&request("GET http://h/a"), "c", 0).delay, Some(Duration::from_millis(1)));
    assert!(matches!(over("GET http://h/b", "envoy.filters.http.fault"), Some(FilterOverride::Disabled)));
    assert!(matches!(over("GET http://h/b", "envoy.filters.http.rbac"), Some(FilterOverride::Disabled)));
    assert!(over("GET http://h/b", "envoy.filters.http.other").is_none());
}

#[test]
fn what_is_wrong_or_not_supported_is_refused_with_the_fields_path() {
    let route = |route: &str| format!("{{virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]}}");
    for (yaml, start) in [
        (route("{route: {cluster: c}}"), "virtual_hosts[0].routes[0].match: missing"),
        (route("{match: {}, route: {cluster: c}}"), "virtual_hosts[0].routes[0].match: no path specifier"),
        (route("{match: {prefix: /}}"), "virtual_hosts[0].routes[0]: no action"),
        (route("{match: {prefix: /}, route: {}}"), "virtual_hosts[0].routes[0].route: no cluster"),
        (route("{match: {prefix: /}, route: {cluster: ''}}"), "virtual_hosts[0].routes[0].route.cluster: empty"),
        (
            route("{match: {path_separated_prefix: /a/}, route: {cluster: c}}"),
            "virtual_hosts[0].routes[0].match.path_separated_prefix: ",
        ),
        (
            route("{match: {safe_regex: {regex: '('}}, route: {cluster: c}}"),
            "virtual_hosts[0].routes[0].match.safe_regex.regex: \"(\" does not compile",
        ),
        (
            route("{match: {prefix: /}, route: {cluster: c, timeout: -1s}}"),
            "virtual_hosts[0].routes[0].route.timeout: ",
        ),
        (
            route("{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: '5xx,typo'}}}"),
            "virtual_hosts[0].routes[0].route.retry_policy.retry_on: unknown condition \"typo\"",
        ),
        (
            route("{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: d}]}}"),
            "virtual_hosts[0].routes[0].route.request_mirror_policies: not supported",
        ),
        (
            route("{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /a, path_rewrite: /b}}"),
            "virtual_hosts[0].routes[0].route: more than one of",
        ),
        (
            route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}}"),
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters: the weights' sum is 0",
        ),
        (
            route("{match: {prefix: /}, direct_response: {status: 99}}"),
            "virtual_hosts[0].routes[0].direct_response.status: 99",
        ),
        (
            route("{match: {prefix: /, cookies: [{name: a}]}, route: {cluster: c}}"),
            "virtual_hosts[0].routes[0].match.cookies: not supported",
        ),
        (
            "{virtual_hosts: [{name: a, domains: [foo]}, {name: b, domains: [FOO]}]}".into(),
            "virtual_hosts[1].domains[0]: \"FOO\" already",
        ),
        (
            "{virtual_hosts: [{name: a, domains: [foo]}, {name: a, domains: [bar]}]}".into(),
            "virtual_hosts[1].name: \"a\"",
        ),
        ("{virtual_hosts: [{name: a, domains: ['a*b']}]}".into(), "virtual_hosts[0].domains[0]: \"a*b\" may hold one"),
        ("{vhds: {}}".into(), "vhds: not supported"),
    ] {
        let refusal = refusal(&yaml);
        assert!(refusal.starts_with(start), "{yaml}\n{refusal}");
    }
}

#[test]
fn an_error_carries_the_path_the_caller_gave() {
    let error = RouteTable::compile(&config("{vhds: {}}"), "http.route_config").unwrap_err();
    assert_eq!(error.path, "http.route_config.vhds");
}
