//! HTTPRoute and GRPCRoute by the Gateway API's rules: precedence, merging, changes, and what fails.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

mod support;

use std::borrow::Cow;

use support::{described, model, resource, service, try_build};
use weft_control_plane::ResourceType::Route;
use weft_control_plane::model::Model;
use weft_rules::{Action, RequestView, RouteTable};

/// A request as the rules see it.
#[derive(Default)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
}

impl RequestView for Request<'_> {
    fn method(&self) -> &[u8] {
        if self.method.is_empty() { b"GET" } else { self.method.as_bytes() }
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }
    fn authority(&self) -> &[u8] {
        b"whatever.example"
    }
    fn scheme(&self) -> &[u8] {
        b"http"
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes().into())
    }
}

fn a_service() -> String {
    service("a", "198.18.10.5", "{port: 80, name: http}, {port: 81, name: also}", "198.18.0.7")
        + &service("b", "198.18.10.6", "{port: 80, name: http}", "198.18.0.8")
}

fn route(name: &str, metadata: &str, rules: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop{metadata}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: a, port: 80}}]
  rules:
{rules}"
    )
}

/// A rule that sends what it matches to b.
fn rule(name: &str, matches: &str) -> String {
    format!("  - {{name: {name}, matches: [{matches}], backendRefs: [{{name: b, port: 80}}]}}\n")
}

fn table(model: &Model, namespace: &str) -> RouteTable {
    let any = resource(model, Route, "outbound/shop/a/80", namespace).unwrap();
    RouteTable::compile(&weft_xds::unpack(&any, "").unwrap(), "test").unwrap()
}

#[track_caller]
fn taken(table: &RouteTable, request: &Request<'_>) -> String {
    table.find(request, 0).map_or("none".to_owned(), |r| r.name.rsplit('/').next().unwrap_or_default().to_owned())
}

#[test]
fn the_most_specific_match_wins_whatever_the_order_of_the_rules() {
    let rules = [
        rule("everything", "{path: {value: /}}"),
        rule("prefix", "{path: {type: PathPrefix, value: /shop}}"),
        rule("longer-prefix", "{path: {type: PathPrefix, value: /shop/cart/}}"),
        rule("regex", "{path: {type: RegularExpression, value: '/shop/[0-9]+'}}"),
        rule("prefix-and-method", "{path: {type: PathPrefix, value: /shop}, method: POST}"),
        rule("prefix-and-header", "{path: {type: PathPrefix, value: /shop}, headers: [{name: X-Beta, value: 'yes'}]}"),
        rule(
            "prefix-and-two-headers",
            "{path: {type: PathPrefix, value: /shop}, headers: [{name: x-beta, value: 'yes'}, {name: x-b, value: '2'}]}",
        ),
        rule("prefix-and-query", "{path: {type: PathPrefix, value: /shop}, queryParams: [{name: q, value: '1'}]}"),
        rule("exact", "{path: {type: Exact, value: /shop/cart/1}}"),
    ];
    let beta: &[(&str, &str)] = &[("x-beta", "yes"), ("x-b", "2")];
    let cases = [
        (Request { path: "/other", ..Request::default() }, "everything"),
        (Request { path: "/shop", ..Request::default() }, "prefix"),
        (Request { path: "/shopping", ..Request::default() }, "everything"),
        (Request { path: "/shop/cart", ..Request::default() }, "longer-prefix"),
        (Request { path: "/shop/cart/2", ..Request::default() }, "longer-prefix"),
        (Request { path: "/shop/cart/1", method: "POST", ..Request::default() }, "exact"),
        (Request { path: "/shop/12", ..Request::default() }, "regex"),
        (Request { path: "/shop/12/x", ..Request::default() }, "prefix"),
        (Request { path: "/shop/x", method: "POST", headers: beta, ..Request::default() }, "prefix-and-method"),
        (
            Request { path: "/shop/x", headers: &beta[..1], query: Some("q=1"), ..Request::default() },
            "prefix-and-header",
        ),
        (Request { path: "/shop/x", headers: beta, ..Request::default() }, "prefix-and-two-headers"),
        (Request { path: "/shop/x", query: Some("q=1"), ..Request::default() }, "prefix-and-query"),
        (Request { path: "/shop/x", query: Some("q=2"), ..Request::default() }, "prefix"),
    ];
    let forwards: String = rules.concat();
    let backwards: String = rules.iter().rev().cloned().collect();
    for text in [forwards, backwards] {
        let model = model(&(a_service() + &route("r", "", &text)));
        let table = table(&model, "shop");
        for (request, expected) in &cases {
            assert_eq!(taken(&table, request), *expected, "{} {}", request.method, request.path);
        }
    }
}

#[test]
fn a_tie_goes_to_the_oldest_route_then_the_first_by_name_then_the_first_rule() {
    let same = "{path: {value: /x}}";
    let at = |day: u8| format!(", creationTimestamp: \"2026-01-0{day}T00:00:00Z\"");
    let yaml = |young: &str, old: &str| {
        a_service()
            + &route("a", young, &rule("of-a", same))
            + &route("b", old, &(rule("of-b", same) + &rule("second", same)))
    };
    let request = Request { path: "/x", ..Request::default() };
    assert_eq!(taken(&table(&model(&yaml(&at(2), &at(1))), "shop"), &request), "of-b");
    assert_eq!(taken(&table(&model(&yaml(&at(1), &at(1))), "shop"), &request), "of-a");
    assert_eq!(taken(&table(&model(&yaml("", &at(1))), "shop"), &request), "of-b", "no date counts as young");
}

#[test]
fn a_consumers_route_goes_before_the_producers_for_the_consumers_namespace_only() {
    let consumer = route("mine", "", &rule("consumer", "{path: {value: /}}"))
        .replace("namespace: shop", "namespace: client")
        .replace("name: a, port: 80", "name: a, namespace: shop, port: 80")
        .replace("{name: b, port: 80}", "{name: b, namespace: shop, port: 80}");
    let yaml = a_service() + &route("theirs", "", &rule("producer", "{path: {value: /}}")) + &consumer;
    let model = model(
        &(yaml
            + &grant(
                "v1",
                "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: client}",
                "{group: '', kind: Service}",
            )),
    );
    let request = Request { path: "/x", ..Request::default() };
    assert_eq!(taken(&table(&model, "client"), &request), "consumer");
    assert_eq!(taken(&table(&model, "shop"), &request), "producer");
    assert_eq!(taken(&table(&model, "elsewhere"), &request), "producer");
}

#[test]
fn requests_that_no_rule_matches_have_no_route_and_ports_without_routes_take_all() {
    let model = model(&(a_service() + &route("r", "", &rule("only", "{path: {type: Exact, value: /x}}"))));
    assert_eq!(taken(&table(&model, "shop"), &Request { path: "/y", ..Request::default() }), "none");
    let other = described(&model, Route, "outbound/shop/a/81", "shop");
    assert!(other.contains("shop/a/default: ^ / => service/shop/a/81"), "{other}");
}

#[test]
fn a_backend_that_does_not_exist_answers_500_for_its_share() {
    let rules = "  - {backendRefs: [{name: b, port: 80, weight: 3}, {name: gone, port: 80}]}
  - {matches: [{path: {value: /dead}}], backendRefs: [{name: gone, port: 80}]}
  - {matches: [{path: {value: /zero}}], backendRefs: [{name: b, port: 80, weight: 0}]}
";
    let (model, warnings) = try_build(&(a_service() + &route("r", "", rules)), None).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    let table = table(&model, "shop");
    let at = |path| table.find(&Request { path, ..Request::default() }, 0).unwrap().action.clone();
    for path in ["/dead", "/zero"] {
        assert!(matches!(at(path), Action::Direct { status: 500, .. }), "{path}: {:?}", at(path));
    }
    let Action::Forward(forward) = at("/") else { panic!() };
    assert_eq!(forward.cluster_not_found_status, 500);
    let shares: Vec<_> = forward.clusters().iter().map(|c| (c.weight, &*c.name)).collect();
    assert_eq!(shares, [(3, "service/shop/b/80"), (1, "service/shop/gone/80")]);
}

/// A ReferenceGrant of namespace shop.
fn grant(version: &str, from: &str, to: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/{version}
kind: ReferenceGrant
metadata: {{name: g, namespace: shop}}
spec: {{from: [{from}], to: [{to}]}}
"
    )
}

/// Namespace client has a service, whose route sends requests to b of namespace shop.
fn across_namespaces(kind: &str) -> String {
    let client = service("c", "198.18.10.7", "{port: 80, name: http}", "198.18.0.9")
        .replace("namespace: shop", "namespace: client");
    let route = format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: out, namespace: client}}
spec:
  parentRefs: [{{group: '', kind: Service, name: c}}]
  rules: [{{backendRefs: [{{name: c, port: 80, weight: 3}}, {{name: b, namespace: shop, port: 80}}]}}]
"
    );
    a_service() + &client + &route
}

fn clusters(model: &Model) -> Vec<String> {
    let any = resource(model, Route, "outbound/client/c/80", "client").unwrap();
    let table = RouteTable::compile(&weft_xds::unpack(&any, "").unwrap(), "test").unwrap();
    let Action::Forward(forward) = table.find(&Request { path: "/", ..Request::default() }, 0).unwrap().action.clone()
    else {
        panic!()
    };
    assert_eq!(forward.cluster_not_found_status, 500);
    forward.clusters().iter().map(|c| format!("{} {}", c.weight, c.name)).collect()
}

#[test]
fn a_backend_in_another_namespace_is_refused_without_a_grant() {
    let (model, warnings) = try_build(&across_namespaces("HTTPRoute"), None).unwrap();
    assert_eq!(
        warnings,
        [
            "f.yaml:37: warning: HTTPRoute client/out: spec.rules[0].backendRefs[1].namespace: \"shop\": namespace shop does not allow \
          HTTPRoutes of this namespace; its share of the requests is answered with 500; write a ReferenceGrant in namespace shop, from \
          HTTPRoute of namespace client to Service"
        ]
    );
    // The share of b goes to a cluster that nothing has, for b itself exists.
    assert_eq!(clusters(&model), ["3 service/client/c/80", "1 refused/shop/b/80"]);
    assert!(resource(&model, weft_control_plane::ResourceType::Cluster, "refused/shop/b/80", "client").is_none());
}

#[test]
fn a_grant_permits_the_kind_namespace_and_service_that_it_names() {
    let http = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: client}";
    let all = "{group: '', kind: Service}";
    let permitted = ["3 service/client/c/80", "1 service/shop/b/80"];
    for (version, from, to) in [
        ("v1", http, all),
        ("v1beta1", http, all),
        ("v1", http, "{group: '', kind: Secret}, {group: '', kind: Service, name: b}"),
    ] {
        let model = model(&(across_namespaces("HTTPRoute") + &grant(version, from, to)));
        assert_eq!(clusters(&model), permitted, "{version} {from} {to}");
    }
    for (from, to) in [
        (http, "{group: '', kind: Service, name: a}"),
        (http, "{group: '', kind: Secret}"),
        ("{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: client}", all),
        ("{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: elsewhere}", all),
    ] {
        let (model, warnings) = try_build(&(across_namespaces("HTTPRoute") + &grant("v1", from, to)), None).unwrap();
        assert_ne!(clusters(&model), permitted, "{from} {to}");
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
    }
    let grpc = across_namespaces("GRPCRoute");
    assert!(
        try_build(&(grpc.clone() + &grant("v1", http, all)), None).unwrap().1[0].contains("does not allow GRPCRoutes")
    );
    let model =
        model(&(grpc + &grant("v1", "{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: client}", all)));
    assert_eq!(clusters(&model), permitted);
}

#[test]
fn a_consumers_route_to_the_very_service_that_was_called_needs_no_grant() {
    let consumer = route("mine", "", "  - {name: consumer, backendRefs: [{name: a, namespace: shop, port: 80}]}\n")
        .replace("namespace: shop}\nspec", "namespace: client}\nspec")
        .replace("name: a, port: 80}]\n  rules", "name: a, namespace: shop, port: 80}]\n  rules");
    let model = model(&(a_service() + &consumer));
    assert_eq!(taken(&table(&model, "client"), &Request { path: "/", ..Request::default() }), "consumer");
}

#[test]
fn filters_timeouts_and_retries_of_a_rule() {
    let rules = "  - matches: [{path: {value: /old}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: 100%}], add: [{name: x-b, value: b}], remove: [x-c]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}
    - {type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
    timeouts: {request: 2s, backendRequest: 0s}
    retry: {codes: [502, 503], attempts: 3, backoff: 100ms}
    backendRefs:
    - {name: b, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-own, value: b}]}}]}
  - matches: [{path: {value: /root}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: b, port: 80}]
  - matches: [{path: {value: /full}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]
    backendRefs: [{name: b, port: 80}]
  - matches: [{path: {value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: shop.example, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /here}}
";
    let model = model(&(a_service() + &route("r", "", rules)));
    assert_eq!(
        described(&model, Route, "outbound/shop/a/80", "shop"),
        r#"routes outbound/shop/a/80
  shop/r/3: / /moved => redirect Some(SchemeRedirect("https")) "shop.example" port 443 Some(PrefixRewrite("/here")) code 4
  shop/r/1: / /root => service/shop/b/80, timeout 0s, ^/root/* -> /, 2 retries on connect-failure,refused-stream,reset-before-request each 0s after 0.025s-0.25s
  shop/r/2: / /full => service/shop/b/80, timeout 0s, ^[^?]* -> /x, 2 retries on connect-failure,refused-stream,reset-before-request each 0s after 0.025s-0.25s
  shop/r/0: / /old => 1 service/shop/b/80, request headers x-own=b, timeout 2s, prefix -> /new, host -> b.example, 3 retries on connect-failure,refused-stream,reset-before-request,retriable-status-codes 502 503 each 0s after 0.1s-1s, request headers x-a=100%% +x-b=b -x-c, response headers -server
"#
    );
    table(&model, "shop");
}

#[test]
fn grpc_methods_are_paths() {
    let yaml = a_service()
        + "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: a, sectionName: http}]
  rules:
  - {name: rest, backendRefs: [{name: a, port: 80}]}
  - {name: method, matches: [{method: {method: Add}}], backendRefs: [{name: b, port: 80}]}
  - {name: service, matches: [{method: {service: shop.Cart}}], backendRefs: [{name: b, port: 80}]}
  - {name: both, matches: [{method: {service: shop.Cart, method: Add}}], backendRefs: [{name: b, port: 80}]}
  - {name: regex, matches: [{method: {type: RegularExpression, service: 'shop[.](A|B)', method: Get.*}}], backendRefs: [{name: b, port: 80}]}
  - {name: none, matches: [{method: {service: shop.Gone}}]}
";
    let (model, _) = try_build(&yaml, None).unwrap();
    let table = table(&model, "shop");
    for (path, expected) in [
        ("/shop.Cart/Add", "both"),
        ("/shop.Cart/Get", "service"),
        ("/shop.Other/Add", "method"),
        ("/shop.B/GetAll", "regex"),
        ("/shop.C/GetAll", "rest"),
        ("/shop.Cartoon/Get", "rest"),
    ] {
        assert_eq!(taken(&table, &Request { method: "POST", path, ..Request::default() }), expected, "{path}");
    }
    let gone = table.find(&Request { path: "/shop.Gone/Any", ..Request::default() }, 0).unwrap().action.clone();
    assert!(matches!(gone, Action::Direct { status: 503, .. }), "a gRPC client reads 503 as UNAVAILABLE");
}

#[test]
fn one_port_takes_one_kind_of_route() {
    let yaml = a_service()
        + &route("r", "", &rule("http", "{path: {value: /}}"))
        + "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: s, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: a, port: 80}]
  rules: [{name: grpc, backendRefs: [{name: a, port: 80}]}]
";
    let (model, warnings) = try_build(&yaml, None).unwrap();
    assert_eq!(taken(&table(&model, "shop"), &Request { path: "/x", ..Request::default() }), "http");
    assert_eq!(
        warnings,
        [
            "f.yaml:34: warning: GRPCRoute shop/s: spec.parentRefs[0]: an older or first-named HTTPRoute is attached to this port, \
          which takes one kind of route; the route has no effect there"
        ]
    );
}

/// A headless service over the pod of service a.
fn headless(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{clusterIP: None, selector: {{app: a}}, ports: [{{port: 80, name: http}}]}}
"
    )
}

#[test]
fn a_pod_called_by_its_own_address_has_the_routes_of_the_one_headless_service_that_owns_it() {
    let route = route(
        "r",
        "",
        "  - {name: all, timeouts: {request: 2s}, backendRefs: [{name: db, port: 80}, {name: b, port: 80}]}\n",
    )
    .replace("kind: Service, name: a", "kind: Service, name: db");
    let model = model(&(a_service() + &headless("db") + &route));
    assert_eq!(
        described(&model, Route, "pod/198.18.0.7/80", "shop"),
        "routes pod/198.18.0.7/80
  shop/r/all: ^ / => 1 pod/198.18.0.7/80 | 1 service/shop/b/80, timeout 2s, 2 retries on connect-failure,refused-stream,reset-before-request each 0s after 0.025s-0.25s
"
    );
    let listener = described(&model, weft_control_plane::ResourceType::Listener, "198.18.0.7:80", "shop");
    assert!(listener.contains("pod/198.18.0.7/80") && !listener.contains("timeout"), "by reference: {listener}");
}

#[test]
fn a_pod_of_two_headless_services_has_the_routes_of_neither() {
    let route =
        route("r", "", &rule("all", "{path: {value: /}}")).replace("kind: Service, name: a", "kind: Service, name: db");
    let model = model(&(a_service() + &headless("db") + &headless("metrics") + &route));
    assert_eq!(described(&model, Route, "pod/198.18.0.7/80", "shop"), "absent\n");
    let listener = described(&model, weft_control_plane::ResourceType::Listener, "198.18.0.7:80", "shop");
    assert!(listener.contains("http(router) pod/198.18.0.7/80, timeout 0s"), "{listener}");
}
