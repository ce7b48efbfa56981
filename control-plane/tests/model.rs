//! What several objects mean together: addresses, endpoints, conflicts, references.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

mod support;

use support::{model, service, try_build};
use weft_control_plane::model::Model;

fn vip(model: &Model, name: &str) -> Vec<String> {
    model.service("shop", name).unwrap().addresses.iter().map(ToString::to_string).collect()
}

fn bare_service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n"
    )
}

#[test]
fn a_service_without_an_address_gets_one_of_each_family_that_depends_on_its_name_only() {
    let alone = model(&bare_service("reviews"));
    let crowd: String = (0..300).map(|n| bare_service(&format!("s{n}"))).collect();
    let among_others = model(&format!("{crowd}{}", bare_service("reviews")));
    assert_eq!(vip(&alone, "reviews"), ["198.19.68.211", "fd00:198:18:ffff:df3a:fa64:cc7:c49b"]);
    assert_eq!(vip(&among_others, "reviews"), vip(&alone, "reviews"));
}

#[test]
fn a_service_keeps_its_address_while_others_come_and_go() {
    // So many that some hashes collide: whoever was there first keeps the address.
    let crowd: String = (0..2000).map(|n| bare_service(&format!("s{n}"))).collect();
    let old = model(&crowd);
    let newcomers: String = (0..500).map(|n| bare_service(&format!("a{n}"))).collect();
    let (new, _) = try_build(&format!("{newcomers}{crowd}"), Some(&old)).unwrap();
    let mut seen = std::collections::HashSet::new();
    for service in new.services() {
        assert!(service.addresses.iter().all(|ip| seen.insert(*ip)), "{} shares an address", service.name);
    }
    for service in old.services() {
        let now = new.service("shop", &service.name.name).unwrap();
        assert_eq!(now.addresses, service.addresses, "{}", service.name);
    }
}

#[test]
fn an_opaque_port_is_one_for_callers_too_whoever_says_so() {
    use weft_control_plane::model::Protocol;
    let plain = service("db", "198.18.10.5", "{name: http, port: 80, targetPort: 8080}", "198.18.0.7");
    let protocol = |text: &str| model(text).service("shop", "db").unwrap().ports[0].protocol;
    assert_eq!(protocol(&plain), Protocol::Http);
    let name = "name: db,";
    assert!(plain.contains(name), "{plain}");
    let by_service = plain.replacen(name, "name: db, annotations: {weft.mesh/opaque-ports: '79-80'},", 1);
    assert_eq!(protocol(&by_service), Protocol::Opaque);
    let other = plain.replacen(name, "name: db, annotations: {weft.mesh/opaque-ports: '81'},", 1);
    assert_eq!(protocol(&other), Protocol::Http);
    let by_pod = plain.replace("addresses:", "ports: [{port: 8080, appProtocol: tcp}], addresses:");
    assert_ne!(by_pod, plain);
    assert_eq!(protocol(&by_pod), Protocol::Opaque);
}

#[test]
fn the_same_address_and_port_twice_is_refused() {
    let twice = service("a", "198.18.10.5", "{port: 80}", "198.18.0.7")
        + &service("b", "198.18.10.5", "{port: 80}", "198.18.0.7");
    assert_eq!(
        try_build(&twice, None).unwrap_err(),
        [
            "f.yaml:15: Service shop/b: spec.clusterIP: \"198.18.10.5\": is also the address of Service shop/a, with the same port 80; \
             give one of them another address, or none",
            "f.yaml:20: Workload shop/b-0: spec.addresses[0]: \"198.18.0.7\": is also an address of Workload shop/a-0; \
             an address belongs to one workload",
        ]
    );
    let other_port = service("a", "198.18.10.5", "{port: 80}", "198.18.0.7")
        + &service("b", "198.18.10.5", "{port: 81}", "198.18.0.8");
    assert!(try_build(&other_port, None).is_ok());
}

#[test]
fn what_is_written_in_two_files_is_refused_too() {
    let objects: Vec<_> =
        ["a.yaml", "b.yaml"].iter().flat_map(|file| weft_api::parse(file, &bare_service("a")).objects).collect();
    let problems = weft_control_plane::sources::build(&objects, &Default::default(), None).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "b.yaml:4: Service shop/a: metadata.name: \"a\": is written twice, first in a.yaml:4; keep one of the two"
    );
}

#[test]
fn a_reference_to_nothing_is_a_warning_at_its_line() {
    let yaml = service("a", "198.18.10.5", "{port: 80, name: http}", "198.18.0.7")
        + "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs:
  - {group: '', kind: Service, name: a}
  - {group: '', kind: Service, name: b}
  - {group: '', kind: Service, name: a, port: 81}
  rules:
  - backendRefs:
    - {name: a, port: 80}
    - {name: gone, port: 80}
    - {name: a, port: 82}
---
apiVersion: weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: t, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: gone}, {kind: Service, name: a, sectionName: grpc}]
---
apiVersion: weft.mesh/v1alpha1
kind: AccessPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: gone}}, action: Allow}
";
    let (_, warnings) = try_build(&yaml, None).unwrap();
    assert_eq!(
        warnings,
        [
            "f.yaml:18: warning: HTTPRoute shop/r: spec.parentRefs[1].name: \"b\": there is no Service shop/b; the route has no effect there",
            "f.yaml:19: warning: HTTPRoute shop/r: spec.parentRefs[2]: \"a\": Service shop/a has no such port; \
             the route has no effect there; check port and sectionName",
            "f.yaml:23: warning: HTTPRoute shop/r: spec.rules[0].backendRefs[1].name: \"gone\": there is no Service shop/gone; \
             its share of the requests is answered with 500",
            "f.yaml:24: warning: HTTPRoute shop/r: spec.rules[0].backendRefs[2].port: \"82\": Service shop/a has no such port; \
             its share of the requests is answered with 500",
            "f.yaml:30: warning: TrafficPolicy shop/t: spec.targetRefs[0].name: \"gone\": there is no Service shop/gone; \
             a policy's targets are in its own namespace",
            "f.yaml:30: warning: TrafficPolicy shop/t: spec.targetRefs[1].sectionName: \"grpc\": Service shop/a has no port of this name; \
             name one of its ports",
            "f.yaml:35: warning: AccessPolicy shop/p: spec.selector: selects no workload; check the labels",
        ]
    );
}

#[test]
fn of_two_policies_the_oldest_wins_then_the_first_by_name_and_the_loser_is_told() {
    let policy = |name: &str, created: &str, attempts: u32| {
        format!(
            "---
apiVersion: weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {{name: {name}, namespace: shop{created}}}
spec: {{targetRefs: [{{kind: Service, name: a}}], retries: {{attempts: {attempts}}}}}
"
        )
    };
    let base = service("a", "198.18.10.5", "{port: 80}", "198.18.0.7");
    let attempts = |yaml: String| {
        let (model, warnings) = try_build(&yaml, None).unwrap();
        let traffic = model.service("shop", "a").unwrap().ports[0].traffic.clone();
        (traffic.retries.as_ref().unwrap().attempts, warnings)
    };
    let (won, warnings) = attempts(base.clone() + &policy("b", "", 1) + &policy("a", "", 2));
    assert_eq!(won, 2, "a comes before b");
    assert_eq!(
        warnings,
        [
            "f.yaml:15: warning: TrafficPolicy shop/b: spec.targetRefs[0]: \"shop/a\": is governed by the older or first-named \
          TrafficPolicy shop/a (f.yaml); this policy has no effect there; merge the two"
        ]
    );
    let old = ", creationTimestamp: \"2026-01-01T00:00:00Z\"";
    let (won, _) =
        attempts(base + &policy("b", old, 1) + &policy("a", ", creationTimestamp: \"2026-01-02T00:00:00Z\"", 2));
    assert_eq!(won, 1, "b is older");
}

#[test]
fn endpoints_are_ready_pods_by_label_and_what_endpoint_slices_name() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {selector: {app: a}, ports: [{name: http, port: 80, targetPort: web}, {name: other, port: 81}]}
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: a-0, namespace: shop, labels: {app: a, v: '1'}}
spec: {addresses: [198.18.0.1, 'fd00:198:18::1'], workload: a, ports: [{name: web, port: 8080}]}
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: a-1, namespace: shop, labels: {app: a}}
spec: {addresses: [198.18.0.2], workload: a, ready: false, ports: [{name: web, port: 8080}]}
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: a-2, namespace: shop, labels: {app: a}}
spec: {addresses: [198.18.0.3], workload: a, terminating: true, meshed: false, ports: [{name: web, port: 9090}]}
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: a-3, namespace: elsewhere, labels: {app: a}}
spec: {addresses: [198.18.0.4], workload: a, ports: [{name: web, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-x, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8888}]
endpoints:
- {addresses: [198.18.0.4]}
- {addresses: [198.18.0.5], conditions: {ready: false}}
- {addresses: [198.18.0.6], conditions: {ready: false, serving: true, terminating: true}}
";
    let model = model(yaml);
    let service = model.service("shop", "a").unwrap();
    let shown = |port: u16| -> Vec<String> {
        let endpoints = service.port(port).unwrap().endpoints.iter();
        endpoints
            .map(|e| {
                format!("{} {:?} {}", e.address, e.health, e.peer.as_ref().map_or("-".into(), |p| p.pod.to_string()))
            })
            .collect()
    };
    assert_eq!(
        shown(80),
        [
            "198.18.0.1:8080 Healthy a-0.a.shop.pod.weft.mesh",
            "198.18.0.3:9090 Draining -",
            "198.18.0.4:8888 Healthy a-3.a.elsewhere.pod.weft.mesh",
            "198.18.0.6:8888 Draining -",
        ]
    );
    assert_eq!(shown(81), ["198.18.0.1:81 Healthy a-0.a.shop.pod.weft.mesh", "198.18.0.3:81 Draining -"]);
}

#[test]
fn parts_that_did_not_change_are_the_very_same_in_the_next_model() {
    let a = service("a", "198.18.10.5", "{port: 80}", "198.18.0.7");
    let old = model(&(a.clone() + &service("b", "198.18.10.6", "{port: 80}", "198.18.0.8")));
    let (new, _) = try_build(&(a + &service("b", "198.18.10.6", "{port: 80}", "198.18.0.9")), Some(&old)).unwrap();
    let same = |name| std::ptr::eq(&**old.service("shop", name).unwrap(), &**new.service("shop", name).unwrap());
    assert!(same("a"));
    assert!(!same("b"));
}
