//! YAML in, Envoy resources out, described in a few lines each; and the proxy's own rules have to take them.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

mod support;

use prost::Message;
use support::{described, model, resource, service, try_build};
use weft_control_plane::ResourceType::{Cluster, Endpoint, Listener, Route};
use weft_control_plane::model::Model;
use weft_control_plane::render::{may_differ, render};
use weft_control_plane::xds::Version;
use weft_control_plane::{ClientKind, ResourceKey, ResourceType, View};

#[track_caller]
fn expect(found: &str, expected: &str) {
    let trim = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned();
    assert_eq!(trim(found), trim(expected), "found:\n{found}");
}

#[test]
fn a_service_and_a_workload_become_listeners_a_route_a_cluster_and_endpoints() {
    let model =
        model(&service("reviews", "198.18.10.5", "{port: 80, targetPort: 8080, appProtocol: http}", "198.18.0.7"));
    let all = [
        described(&model, Listener, "inbound/shop/reviews", "shop"),
        described(&model, Listener, "198.18.10.5:80", "shop"),
        described(&model, Route, "outbound/shop/reviews/80", "shop"),
        described(&model, Cluster, "service/shop/reviews/80", "shop"),
        described(&model, Endpoint, "service/shop/reviews/80", "shop"),
    ]
    .concat();
    expect(
        &all,
        r#"
listener inbound/shop/reviews
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  8080-mesh-http: port 8080 tls weft-http/1.1|weft-h2 => mtls http(router) inbound/8080, timeout 0s
  8080-plaintext: port 8080 raw_buffer => http(router) inbound/8080, timeout 0s
  8080-own-tls: port 8080 tls => tcp inbound/8080
  any-mesh-tcp: tls weft-tcp => mtls tcp inbound/0
  any-plaintext: raw_buffer => tcp inbound/0
  any-own-tls: tls => tcp inbound/0
listener 198.18.10.5:80
  http: => http(router) rds outbound/shop/reviews/80
routes outbound/shop/reviews/80
  shop/reviews/default: ^ / => service/shop/reviews/80, timeout 0s, 2 retries on connect-failure,refused-stream,reset-before-request each 0s after 0.025s-0.25s
  shop/reviews/default: CONNECT => service/shop/reviews/80, timeout 0s, 2 retries on connect-failure,refused-stream,reset-before-request each 0s after 0.025s-0.25s
cluster service/shop/reviews/80
  balance LeastRequest peak-ewma, connect 1s
  limits 1000000 connections, 1000000 pending, 1000000 requests, retries 20% or 3
  socket weft-mtls weft-http/1.1|weft-h2 to p80.reviews.shop.svc
  socket plaintext
endpoints service/shop/reviews/80
  198.18.0.7:8080 Healthy mtls spiffe://weft.local/ns/shop/sa/reviews reviews-0.reviews.shop.pod.weft.mesh
"#,
    );
}

#[test]
fn each_protocol_has_its_chains() {
    let yaml = service("h2", "198.18.10.1", "{port: 80, appProtocol: kubernetes.io/h2c}", "198.18.0.1")
        + &service("grpc", "198.18.10.2", "{port: 80, name: grpc}", "198.18.0.2")
        + &service("tcp", "198.18.10.3", "{port: 5432}", "198.18.0.3")
        + &service("unknown", "198.18.10.4", "{port: 80}", "198.18.0.4");
    let model = model(&yaml);
    let mut all = String::new();
    for (name, port) in [("h2", 80), ("grpc", 80), ("tcp", 5432), ("unknown", 80)] {
        let ip = model.service("shop", name).unwrap().addresses[0];
        all += &described(&model, Listener, &format!("{ip}:{port}"), "shop");
        all += described(&model, Cluster, &format!("service/shop/{name}/{port}"), "shop")
            .lines()
            .find(|l| l.contains("mtls"))
            .unwrap();
        all += "\n";
        all += &described(&model, Listener, &format!("inbound/shop/{name}"), "shop");
    }
    expect(
        &all,
        r#"
listener 198.18.10.1:80
  http: => http(router) rds outbound/shop/h2/80
  socket weft-mtls weft-h2 to p80.h2.shop.svc
listener inbound/shop/h2
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  80-mesh-http: port 80 tls weft-http/1.1|weft-h2 => mtls http(router) inbound/80, timeout 0s
  80-plaintext: port 80 raw_buffer => http(router) inbound/80, timeout 0s
  80-own-tls: port 80 tls => tcp inbound/80
  any-mesh-tcp: tls weft-tcp => mtls tcp inbound/0
  any-plaintext: raw_buffer => tcp inbound/0
  any-own-tls: tls => tcp inbound/0
listener 198.18.10.2:80
  http: => http(router) rds outbound/shop/grpc/80
  socket weft-mtls weft-h2 to p80.grpc.shop.svc
listener inbound/shop/grpc
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  80-mesh-http: port 80 tls weft-http/1.1|weft-h2 => mtls http(router) inbound/80, timeout 0s
  80-mesh-grpc: port 80 tls h2 => mtls http(router) inbound/80, timeout 0s
  80-plaintext: port 80 raw_buffer => http(router) inbound/80, timeout 0s
  80-own-tls: port 80 tls => tcp inbound/80
  any-mesh-tcp: tls weft-tcp => mtls tcp inbound/0
  any-plaintext: raw_buffer => tcp inbound/0
  any-own-tls: tls => tcp inbound/0
listener 198.18.10.3:5432
  tcp: => tcp service/shop/tcp/5432
  socket weft-mtls weft-tcp to p5432.tcp.shop.svc
listener inbound/shop/tcp
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  5432-mesh-tcp: port 5432 tls weft-tcp => mtls tcp inbound/5432
  5432-plaintext: port 5432 raw_buffer => tcp inbound/5432
  5432-own-tls: port 5432 tls => tcp inbound/5432
  any-mesh-tcp: tls weft-tcp => mtls tcp inbound/0
  any-plaintext: raw_buffer => tcp inbound/0
  any-own-tls: tls => tcp inbound/0
listener 198.18.10.4:80
  http: raw_buffer http/1.0|http/1.1|h2c => http(router) rds outbound/shop/unknown/80
  tcp: raw_buffer => tcp service/shop/unknown/80
  own-tls: tls => tcp service/shop/unknown/80
  socket weft-mtls weft-http/1.1|weft-h2|weft-tcp to p80.unknown.shop.svc
listener inbound/shop/unknown
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  80-mesh-http: port 80 tls weft-http/1.1|weft-h2 => mtls http(router) inbound/80, timeout 0s
  80-detected-http: port 80 raw_buffer http/1.0|http/1.1|h2c => http(router) inbound/80, timeout 0s
  80-mesh-tcp: port 80 tls weft-tcp => mtls tcp inbound/80
  80-plaintext: port 80 raw_buffer => tcp inbound/80
  80-own-tls: port 80 tls => tcp inbound/80
  any-mesh-tcp: tls weft-tcp => mtls tcp inbound/0
  any-plaintext: raw_buffer => tcp inbound/0
  any-own-tls: tls => tcp inbound/0
"#,
    );
}

#[test]
fn strict_ports_take_no_plaintext_and_a_permissive_port_beside_them_does_not_open_others() {
    let yaml = service("web", "198.18.10.5", "{port: 80, targetPort: 8080, appProtocol: http}", "198.18.0.7")
        + "---
apiVersion: weft.mesh/v1alpha1
kind: MeshTLS
metadata: {name: namespace, namespace: shop}
spec: {mode: Strict}
---
apiVersion: weft.mesh/v1alpha1
kind: MeshTLS
metadata: {name: web, namespace: shop}
spec: {targetRefs: [{kind: Service, name: web}], mode: Strict, ports: [{port: 9090, mode: Permissive}]}
";
    expect(
        &described(&model(&yaml), Listener, "inbound/shop/web", "shop"),
        r#"
listener inbound/shop/web
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  8080-mesh-http: port 8080 tls weft-http/1.1|weft-h2 => mtls http(router) inbound/8080, timeout 0s
  9090-mesh-tcp: port 9090 tls weft-tcp => mtls tcp inbound/9090
  9090-plaintext: port 9090 raw_buffer => tcp inbound/9090
  9090-own-tls: port 9090 tls => tcp inbound/9090
  any-mesh-tcp: tls weft-tcp => mtls tcp inbound/0
"#,
    );
}

#[test]
fn a_pod_called_by_its_own_address_is_a_cluster_of_one() {
    let model =
        model(&service("reviews", "198.18.10.5", "{port: 80, targetPort: 8080, appProtocol: http}", "198.18.0.7"));
    let all = [
        described(&model, Listener, "198.18.0.7:8080", "shop"),
        described(&model, Cluster, "pod/198.18.0.7/8080", "shop"),
        described(&model, Endpoint, "pod/198.18.0.7/8080", "shop"),
        described(&model, Listener, "198.18.0.7:9999", "shop"),
        described(&model, Cluster, "inbound/8080", "shop"),
    ]
    .concat();
    expect(
        &all,
        r#"
listener 198.18.0.7:8080
  http: => http(router) pod/198.18.0.7/8080, timeout 0s, 2 retries on connect-failure,refused-stream,reset-before-request each 0s after 0.025s-0.25s
cluster pod/198.18.0.7/8080
  balance LeastRequest peak-ewma, connect 1s
  limits 1000000 connections, 1000000 pending, 1000000 requests, retries 20% or 3
  socket weft-mtls weft-http/1.1|weft-h2 to reviews-0.reviews.shop.pod.weft.mesh
  socket plaintext
endpoints pod/198.18.0.7/8080
  198.18.0.7:8080 Healthy mtls spiffe://weft.local/ns/shop/sa/reviews reviews-0.reviews.shop.pod.weft.mesh
listener 198.18.0.7:9999
  tcp: => tcp pod/198.18.0.7/9999
cluster inbound/8080
  balance ClusterProvided -, connect 1s
  limits 1000000 connections, 1000000 pending, 1000000 requests
"#,
    );
    for (kind, name) in [
        (Listener, "198.18.10.5:81"),
        (Listener, "198.18.99.99:80"),
        (Listener, "inbound/shop/nobody"),
        (Cluster, "pod/198.18.99.99/80"),
        (Cluster, "service/shop/reviews/81"),
        (Endpoint, "inbound/80"),
        (Route, "outbound/shop/nobody/80"),
        (ResourceType::Secret, "identity"),
    ] {
        assert_eq!(resource(&model, kind, name, "shop"), None, "{kind} {name}");
    }
}

#[test]
fn callers_prefer_the_endpoints_that_are_meant_for_their_zone() {
    let endpoint = |address: &str, zone: &str, hints: &str| {
        format!(
            "- {{addresses: [{address}], zone: {zone}, conditions: {{ready: true}}, hints: {{forZones: [{hints}]}}}}\n"
        )
    };
    let shop = |third: &str| {
        let slice = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 198.18.10.5, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints:
";
        let hinted = [endpoint("198.18.0.7", "a", "{name: a}"), endpoint("198.18.0.8", "b", "{name: b}, {name: c}")];
        model(&format!("{slice}{}{third}", hinted.concat()))
    };
    let seen_from = |model: &Model, zone: Option<&str>| {
        let view = View::weft("shop").in_zone(zone.map(Into::into));
        let key = ResourceKey::new(Endpoint, "service/shop/web/80");
        support::describe::describe(&render(model, &key, &view).unwrap())
    };
    let all_hinted = shop(&endpoint("198.18.0.9", "b", "{name: b}"));
    expect(
        &seen_from(&all_hinted, Some("b")),
        r#"
endpoints service/shop/web/80
  198.18.0.8:8080 Healthy plaintext, priority 0 in b
  198.18.0.9:8080 Healthy plaintext, priority 0 in b
  198.18.0.7:8080 Healthy plaintext, priority 1 in a
"#,
    );
    // From another zone's caller the endpoint of zone b is the nearest.
    expect(
        &seen_from(&all_hinted, Some("c")),
        r#"
endpoints service/shop/web/80
  198.18.0.8:8080 Healthy plaintext, priority 0 in b
  198.18.0.7:8080 Healthy plaintext, priority 1 in a
  198.18.0.9:8080 Healthy plaintext, priority 1 in b
"#,
    );
    let flat = r#"
endpoints service/shop/web/80
  198.18.0.7:8080 Healthy plaintext
  198.18.0.8:8080 Healthy plaintext
  198.18.0.9:8080 Healthy plaintext
"#;
    expect(&seen_from(&all_hinted, None), flat);
    expect(&seen_from(&all_hinted, Some("nobody's")), flat);
    let one_without = shop("- {addresses: [198.18.0.9], zone: b, conditions: {ready: true}}\n");
    expect(&seen_from(&one_without, Some("b")), flat);
}

#[test]
fn traffic_and_fault_policies_reach_routes_clusters_and_filters() {
    let yaml = service("a", "198.18.10.5", "{port: 80, name: http}", "198.18.0.7")
        + "---
apiVersion: weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: a, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: a}]
  timeouts: {request: 3s, backendRequest: 500ms, connect: 250ms}
  retries: {attempts: 4, conditions: [unavailable, 5xx, reset], codes: [429], backoff: {base: 10ms, max: 1s}, budget: {percent: 12.5, minConcurrency: 1}}
  loadBalancing: {algorithm: RoundRobin, panicThreshold: 30}
  outlierDetection: {consecutiveErrors: 3, failurePercentage: 40, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 60}
  circuitBreaker: {maxConnections: 10, maxPendingRequests: 20, maxRequests: 30}
---
apiVersion: weft.mesh/v1alpha1
kind: FaultPolicy
metadata: {name: a, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: a, sectionName: http}]
  delay: {duration: 1s500ms, percentage: 0.25}
  abort: {grpcStatus: 14}
";
    let model = model(&yaml);
    let all = [
        described(&model, Listener, "198.18.10.5:80", "shop"),
        described(&model, Route, "outbound/shop/a/80", "shop"),
        described(&model, Cluster, "service/shop/a/80", "shop"),
    ]
    .concat();
    expect(
        &all,
        r#"
listener 198.18.10.5:80
  http: => http(fault delay FixedDelay(Duration { seconds: 1, nanos: 500000000 }) of 2500 abort GrpcStatus(14) of 1000000, router) rds outbound/shop/a/80
routes outbound/shop/a/80
  shop/a/default: ^ / => service/shop/a/80, timeout 3s, 4 retries on connect-failure,refused-stream,reset-before-request,5xx,reset,unavailable,retriable-status-codes 429 each 0.5s after 0.01s-1s
  shop/a/default: CONNECT => service/shop/a/80, timeout 3s, 4 retries on connect-failure,refused-stream,reset-before-request,5xx,reset,unavailable,retriable-status-codes 429 each 0.5s after 0.01s-1s
cluster service/shop/a/80
  balance RoundRobin -, connect 0.25s
  limits 10 connections, 20 pending, 30 requests, retries 12.5% or 1
  outliers 3x5xx(100%) 5xgateway(0%) 40%(100%) every 1s, out 5s to 300s, at most 60%
  socket weft-mtls weft-http/1.1|weft-h2 to p80.a.shop.svc
  socket plaintext
"#,
    );
}

#[test]
fn access_policies_become_a_filter_that_denies_and_one_that_allows() {
    let yaml = service("a", "198.18.10.5", "{port: 80, name: http}", "198.18.0.7")
        + "---
apiVersion: weft.mesh/v1alpha1
kind: AccessPolicy
metadata: {name: readers, namespace: shop}
spec:
  action: Allow
  rules:
  - {from: [{serviceAccounts: [shop/web]}], to: [{methods: [GET], paths: [/a*, /b]}]}
  - {from: [{namespaces: [ops]}]}
---
apiVersion: weft.mesh/v1alpha1
kind: AccessPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{kind: Workload, group: weft.mesh, name: a}]
  action: Deny
  rules: [{to: [{paths: [/admin*]}]}]
";
    let model = model(&yaml);
    expect(
        &described(&model, Listener, "inbound/shop/a", "shop"),
        r#"
listener inbound/shop/a
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  80-mesh-http: port 80 tls weft-http/1.1|weft-h2 => mtls http(deny shop/no-admin[0], allow shop/readers[0] shop/readers[1], router) inbound/80, timeout 0s
  80-plaintext: port 80 raw_buffer => http(deny shop/no-admin[0], allow shop/readers[0] shop/readers[1], router) inbound/80, timeout 0s
  80-own-tls: port 80 tls => deny shop/no-admin[0], allow shop/readers[1], tcp inbound/80
  any-mesh-tcp: tls weft-tcp => mtls deny shop/no-admin[0], allow shop/readers[1], tcp inbound/0
  any-plaintext: raw_buffer => deny shop/no-admin[0], allow shop/readers[1], tcp inbound/0
  any-own-tls: tls => deny shop/no-admin[0], allow shop/readers[1], tcp inbound/0
"#,
    );
}

#[test]
fn rendering_is_the_same_in_every_run() {
    let policies: String = (0..8)
        .map(|n| {
            format!(
                "---\napiVersion: weft.mesh/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p{n}, namespace: shop}}\n\
                 spec: {{action: Deny, rules: [{{to: [{{paths: [/{n}]}}]}}]}}\n"
            )
        })
        .collect();
    let yaml = service("a", "198.18.10.5", "{port: 80, name: http}", "198.18.0.7") + &policies;
    let names = [
        (Listener, "inbound/shop/a"),
        (Listener, "198.18.10.5:80"),
        (Route, "outbound/shop/a/80"),
        (Cluster, "service/shop/a/80"),
        (Endpoint, "service/shop/a/80"),
    ];
    let first = model(&yaml);
    for _ in 0..20 {
        // Every HashMap has its own random order.
        let again = model(&yaml);
        for (kind, name) in names {
            assert_eq!(resource(&first, kind, name, "shop"), resource(&again, kind, name, "shop"), "{kind} {name}");
        }
    }
    let any = resource(&first, Endpoint, "service/shop/a/80", "shop").unwrap();
    assert_eq!(Version::of(&any.encode_to_vec()).to_string(), "95e65d8bf024480d");
}

#[test]
fn only_what_a_change_touches_may_differ() {
    let (a, b) = (
        service("a", "198.18.10.5", "{port: 80}", "198.18.0.7"),
        service("b", "198.18.10.6", "{port: 80}", "198.18.0.8"),
    );
    let old = model(&(a.clone() + &b));
    let (new, _) = try_build(&(a + &b.replace("[198.18.0.8]", "[198.18.0.9]")), Some(&old)).unwrap();
    let differs = |kind, name: &str| may_differ(&old, &new, &ResourceKey::new(kind, name));
    for (kind, name) in [
        (Listener, "198.18.10.5:80"),
        (Listener, "inbound/shop/a"),
        (Cluster, "service/shop/a/80"),
        (Endpoint, "service/shop/a/80"),
        (Endpoint, "pod/198.18.0.7/80"),
        (Cluster, "inbound/80"),
    ] {
        assert!(!differs(kind, name), "{kind} {name}");
    }
    for (kind, name) in
        [(Endpoint, "service/shop/b/80"), (Endpoint, "pod/198.18.0.8/80"), (Endpoint, "pod/198.18.0.9/80")]
    {
        assert!(differs(kind, name), "{kind} {name}");
    }
    // What is certain to be the same is the same.
    let key = |name: &str| resource(&old, Endpoint, name, "shop") == resource(&new, Endpoint, name, "shop");
    assert!(key("service/shop/a/80") && !key("service/shop/b/80"));
}

/// Everything that the sample shop's files say.
fn shop() -> Model {
    let folder = "../manifests/samples/shop";
    let mut yaml = String::new();
    for file in ["services.yaml", "routes.yaml", "traffic.yaml", "security.yaml"] {
        yaml += "---\n";
        yaml += &std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
    }
    for (n, (pod, app, version)) in
        [("web-0", "web", ""), ("reviews-v1-0", "reviews", ", version: v1"), ("payments-0", "payments", "")]
            .iter()
            .enumerate()
    {
        yaml += &format!(
            "---\napiVersion: weft.mesh/v1alpha1\nkind: Workload\nmetadata: {{name: {pod}, namespace: shop, labels: {{app: {app}{version}}}}}\n\
             spec: {{addresses: [198.18.0.1{n}], serviceAccount: {app}, workload: {app}}}\n"
        );
    }
    try_build(&yaml, None).unwrap().0
}

/// No field is refused by the proxy, and none that matters is ignored.
#[track_caller]
fn supported(any: &weft_xds::google::protobuf::Any) {
    let ignored = weft_xds::support::check(&any.type_url, &any.value).unwrap();
    // Labels, and what says what Envoy has to be told but Weft does anyway.
    // There is one locality only, so its weight decides nothing.
    let known = [
        "stat_prefix",
        "overprovisioning_factor",
        "validate_clusters",
        "drain_timeout",
        "generate_request_id",
        "server_header_transformation",
        "skip_xff_append",
        // No session is resumed, whatever is said.
        "max_session_keys",
        "disable_stateless_session_resumption",
        "disable_stateful_session_resumption",
    ];
    let surprising: Vec<_> = ignored
        .iter()
        .filter(|f| *f != "endpoints[].load_balancing_weight" && !known.iter().any(|k| f.ends_with(k)))
        .collect();
    assert!(surprising.is_empty(), "{surprising:?}");
}

/// A workload that asks for everything.
const OWN: (&str, &str) = ("shop", "payments");

#[test]
fn the_proxys_rules_take_all_that_is_rendered() {
    let model = shop();
    for kind in [Route, Cluster, Endpoint, Listener] {
        for name in weft_control_plane::render::names(&model, kind, ClientKind::Weft, OWN) {
            supported(&resource(&model, kind, &name, "shop").unwrap());
        }
    }
    for name in weft_control_plane::render::names(&model, Route, ClientKind::Weft, OWN) {
        let any = resource(&model, Route, &name, "shop").unwrap();
        let message = weft_xds::unpack(&any, "").unwrap();
        weft_rules::RouteTable::compile(&message, &name).unwrap();
    }
    for (kind, name) in [
        (Listener, "inbound/shop/payments"),
        (Listener, "198.18.0.10:8080"),
        (Cluster, "pod/198.18.0.10/8080"),
        (Cluster, "inbound/8080"),
    ] {
        supported(&resource(&model, kind, name, "shop").unwrap());
    }
    expect(
        &described(&model, Listener, "inbound/shop/payments", "shop"),
        r#"
listener inbound/shop/payments
  mesh 198.18.0.0/15 fd00:198:18::/48, unknown passthrough
  50051-mesh-http: port 50051 tls weft-http/1.1|weft-h2 => mtls http(allow shop/payments[0], router) inbound/50051, timeout 0s
  50051-mesh-grpc: port 50051 tls h2 => mtls http(allow shop/payments[0], router) inbound/50051, timeout 0s
  any-mesh-tcp: tls weft-tcp => mtls allow , tcp inbound/0
"#,
    );
    expect(
        &described(&model, Route, "outbound/shop/reviews/80", "shop"),
        r#"
routes outbound/shop/reviews/80
  shop/reviews/beta: ^ / x-shop-cohort=beta => service/shop/reviews-v2/80, timeout 3s, 2 retries on connect-failure,refused-stream,reset-before-request,5xx,reset each 1s after 0.025s-0.25s
  shop/reviews/canary: ^ / => 90 service/shop/reviews-v1/80 | 10 service/shop/reviews-v2/80, timeout 3s, 2 retries on connect-failure,refused-stream,reset-before-request,5xx,reset each 1s after 0.025s-0.25s
"#,
    );
}
