//! YAML in, every problem out: with its line, its field and what to do.

use weft_api::parse;

/// The problems of a text, one a line, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let manifest = parse("f.yaml", text);
    manifest.problems.iter().map(|p| p.to_string().trim_start_matches("f.yaml:").to_owned()).collect()
}

#[track_caller]
fn expect(text: &str, expected: &[&str]) {
    let found = problems(text);
    assert_eq!(found, expected, "found:\n{}", found.join("\n"));
}

#[test]
fn a_weight_that_is_none_is_told_with_file_line_field_value_reason_and_way_out() {
    expect(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - backendRefs:
    - {name: reviews-v1, port: 80, weight: 90}
    - name: reviews-v2
      port: 80
      weight: -5
",
        &["11: HTTPRoute shop/reviews: spec.rules[0].backendRefs[1].weight: \"-5\": is not a weight; \
           weights are whole numbers from 0 to 1000000"],
    );
}

#[test]
fn all_mistakes_of_a_document_are_told_at_once() {
    expect(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: Reviews_, lables: {a: b}}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews, port: 70000}]
  rules:
  - matches:
    - path: {type: Prefix, value: /a}
      method: get
    timeouts: {request: 1.5s, backendRequest: 2s}
    backendRef:
    - {name: a, port: 80}
  - backendRefs:
    - {name: a, port: eighty, weight: 1}
    - {port: 80}
    - {name: b, port: 80, weight: '3'}
",
        &[
            "3: HTTPRoute default/Reviews_: metadata.lables: unknown field; did you mean labels?",
            "3: HTTPRoute default/Reviews_: metadata.name: \"Reviews_\": is not a name (RFC 1123 subdomain); \
             use at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
            "5: HTTPRoute default/Reviews_: spec.parentRefs[0].port: \"70000\": is out of range: whole numbers from 0 to 65535",
            "8: HTTPRoute default/Reviews_: spec.rules[0].matches[0].path.type: \"Prefix\": \
             is not one of Exact, PathPrefix, RegularExpression; did you mean PathPrefix?",
            "9: HTTPRoute default/Reviews_: spec.rules[0].matches[0].method: \"get\": is not one of GET, HEAD, POST, PUT, \
             DELETE, CONNECT, OPTIONS, TRACE, PATCH; did you mean GET?",
            "10: HTTPRoute default/Reviews_: spec.rules[0].timeouts.request: \"1.5s\": is not a duration; \
             write up to four numbers with units h, m, s or ms, such as 10s, 1h30m or 250ms",
            "11: HTTPRoute default/Reviews_: spec.rules[0].backendRef: unknown field; did you mean backendRefs?",
            "14: HTTPRoute default/Reviews_: spec.rules[1].backendRefs[0].port: \"eighty\": is not a whole number",
            "15: HTTPRoute default/Reviews_: spec.rules[1].backendRefs[1].name: is missing",
            "16: HTTPRoute default/Reviews_: spec.rules[1].backendRefs[2].weight: \"3\": \
             expected a whole number, found a text; remove the quotes",
        ],
    );
}

#[test]
fn one_bad_document_does_not_hide_the_others() {
    let manifest = parse(
        "f.yaml",
        "apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{port: 0}]}
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 81}]}
",
    );
    let lines: Vec<_> = manifest.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "f.yaml:9: Service default/b: spec.ports[0].port: \"0\": is not a port; ports are 1 to 65535",
            "f.yaml:13: Service default/a: metadata.name: \"a\": is written twice, first in f.yaml:3; keep one of the two",
        ]
    );
    assert!(manifest.has_errors());
}

#[test]
fn text_that_is_no_yaml_is_told_by_line() {
    let found = problems("a: b\n  c: d\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("2: not YAML: "), "{found:#?}");
}

#[test]
fn unknown_kinds_and_versions_are_refused_with_the_right_name() {
    expect(
        "apiVersion: weft.mesh/v1alpha1
kind: TraficPolicy
metadata: {name: a}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {name: a}
---
kind: Service
metadata: {name: a}
---
- a
",
        &[
            "2: TraficPolicy default/a: kind: \"TraficPolicy\": is not a kind that Weft reads; did you mean TrafficPolicy?",
            "5: HTTPRoute default/a: apiVersion: \"gateway.networking.k8s.io/v1beta1\": is not a version of HTTPRoute that \
             Weft reads; write gateway.networking.k8s.io/v1",
            "9: Service default/a: apiVersion: is missing; every object starts with apiVersion and kind",
            "12: apiVersion: is missing; every object starts with apiVersion and kind",
        ],
    );
}

#[test]
fn unknown_fields_of_kubernetes_own_kinds_are_a_warning() {
    let manifest = parse(
        "f.yaml",
        "apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  selectr: {app: a}
  ports: [{port: 80}]
",
    );
    assert!(!manifest.has_errors());
    assert_eq!(manifest.objects.len(), 1);
    assert_eq!(
        manifest.problems[0].to_string(),
        "f.yaml:5: warning: Service default/a: spec.selectr: unknown field, ignored; did you mean selector?"
    );
}

#[test]
fn numbers_and_words_that_yaml_types_otherwise_have_to_be_quoted() {
    expect(
        "apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: a, labels: {version: 1.10, beta: true, tag: 0x1f, ok: v1, quoted: '2'}}
spec: {addresses: [198.18.0.7]}
",
        &[
            "3: Workload default/a: metadata.labels.beta: \"true\": expected a text, found true or false; write it in quotes: \"true\"",
            "3: Workload default/a: metadata.labels.tag: \"0x1f\": expected a text, found a number; write it in quotes: \"0x1f\"",
            "3: Workload default/a: metadata.labels.version: \"1.10\": expected a text, found a number; write it in quotes: \"1.10\"",
        ],
    );
}

#[test]
fn filters_have_exactly_the_field_of_their_type() {
    expect(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  parentRefs: [{group: '', kind: Service, name: a}]
  rules:
  - filters:
    - type: RequestHeaderModifier
      responseHeaderModifier: {set: [{name: x, value: y}]}
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {remove: [Content-Length]}
    matches:
    - path: {type: Exact, value: /a}
    backendRefs: [{name: a, port: 80}]
",
        &[
            "8: HTTPRoute default/a: spec.rules[0].filters[0].requestHeaderModifier: is missing, but type is RequestHeaderModifier; set it",
            "9: HTTPRoute default/a: spec.rules[0].filters[0].responseHeaderModifier: does not belong to type RequestHeaderModifier; \
             remove it, or write a filter of its own",
            "11: HTTPRoute default/a: spec.rules[0].filters[1].urlRewrite.path.type: \"ReplacePrefixMatch\": \
             needs PathPrefix in every match of the rule; use ReplaceFullPath, or split the rule",
            "12: HTTPRoute default/a: spec.rules[0].filters[2]: \"RequestHeaderModifier\": a filter of this type is already in filters[0]; \
             keep one of the two",
            "13: HTTPRoute default/a: spec.rules[0].filters[2].requestHeaderModifier.remove[0]: \"Content-Length\": \
             cannot be changed by a filter",
        ],
    );
}

#[test]
fn policies_are_checked_to_the_last_number() {
    expect(
        "apiVersion: weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: a}
spec:
  targetRefs: [{kind: Workload, name: a}, {kind: Service, name: b, group: apps}]
  retries: {attempts: 11, conditions: [5xx, teapot], budget: {percent: 120}, backoff: {base: 1s, max: 10ms}}
  outlierDetection: {maxEjectionPercent: 101, interval: 0s}
---
apiVersion: weft.mesh/v1alpha1
kind: FaultPolicy
metadata: {name: b}
spec:
  targetRefs: [{kind: Service, name: b}]
  abort: {httpStatus: 503, grpcStatus: 14, percentage: 0.5}
---
apiVersion: weft.mesh/v1alpha1
kind: AccessPolicy
metadata: {name: c}
spec:
  selector: {matchLabels: {app: c}}
  targetRefs: [{kind: Service, name: c}]
  action: Deny
  rules:
  - from: [{serviceAccounts: [web]}, {identities: ['spiffe://a/*/b']}]
    to: [{methods: [get], paths: [a]}]
---
apiVersion: weft.mesh/v1alpha1
kind: MeshTLS
metadata: {name: d}
spec: {mode: Off}
",
        &[
            "5: TrafficPolicy default/a: spec.targetRefs[0].kind: \"Workload\": cannot be a target of this policy; name a Service",
            "5: TrafficPolicy default/a: spec.targetRefs[1].group: \"apps\": is not the group of Service; write group: \"\"",
            "6: TrafficPolicy default/a: spec.retries.attempts: \"11\": is out of range: 0 to 10",
            "6: TrafficPolicy default/a: spec.retries.backoff.max: \"10ms\": is shorter than base (1s)",
            "6: TrafficPolicy default/a: spec.retries.budget.percent: \"120\": is not a percentage; write 0 to 100",
            "6: TrafficPolicy default/a: spec.retries.conditions[1]: \"teapot\": is not one of 5xx, gateway-error, reset, connect-failure, \
             refused-stream, retriable-4xx, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable",
            "7: TrafficPolicy default/a: spec.outlierDetection.interval: \"0s\": has to be longer than nothing; write a duration above 0s",
            "7: TrafficPolicy default/a: spec.outlierDetection.maxEjectionPercent: \"101\": is out of range: 0 to 100",
            "14: FaultPolicy default/b: spec.abort: needs exactly one of httpStatus and grpcStatus",
            "20: AccessPolicy default/c: spec.selector: targetRefs is set too; keep one of the two",
            "24: AccessPolicy default/c: spec.rules[0].from[0].serviceAccounts[0]: \"web\": names no namespace; write <namespace>/<service account>",
            "24: AccessPolicy default/c: spec.rules[0].from[1].identities[0]: \"spiffe://a/*/b\": a * stands only at the end, and once; \
             write several patterns",
            "25: warning: AccessPolicy default/c: spec.rules[0].to[0].methods[0]: \"get\": is not in upper case, and methods are compared \
             exactly; did you mean GET?",
            "25: AccessPolicy default/c: spec.rules[0].to[0].paths[0]: \"a\": does not start with '/'; \
             write an absolute path; a * at the end matches any rest",
            "30: MeshTLS default/d: spec.mode: \"Off\": is not one of Permissive, Strict",
        ],
    );
}

#[test]
fn objects_as_kubectl_prints_them_are_accepted() {
    let manifest = parse(
        "f.yaml",
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: a
  creationTimestamp: \"2026-01-02T03:04:05Z\"
  generation: 1
  resourceVersion: \"12\"
  uid: 3b1c4d52-8a0e-4f0f-9f0a-1c1f0e5a2b3c
  managedFields: []
spec:
  parentRefs: [{group: '', kind: Service, name: a}]
  rules:
  - backendRefs: [{group: '', kind: Service, name: a, port: 80, weight: 1}]
    matches: [{path: {type: PathPrefix, value: /}}]
status: {parents: [{anything: goes}]}
",
    );
    assert_eq!(manifest.problems, []);
    assert_eq!(manifest.objects.len(), 1);
}

#[test]
fn a_grant_that_grants_nothing_is_told() {
    expect(
        "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: a, namespace: shop}
spec:
  from: [{group: '', kind: HTTPRoute, namespace: client}]
  to: [{group: apps, kind: Service}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: b, namespace: shop}
spec: {to: [{group: '', kind: Service, names: b}]}
",
        &[
            "5: ReferenceGrant shop/a: spec.from[0].group: is not the group of HTTPRoute; write gateway.networking.k8s.io",
            "6: ReferenceGrant shop/a: spec.to[0].group: \"apps\": a Service is in the core group; write group: \"\"",
            "11: ReferenceGrant shop/b: spec.from: is missing; name the kind and namespace of the routes that may refer",
            "11: ReferenceGrant shop/b: spec.to[0].names: unknown field; did you mean name?",
        ],
    );
}

#[test]
fn a_mirror_is_refused_with_the_reason() {
    expect(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  parentRefs: [{group: '', kind: Service, name: a}]
  rules:
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}]
    backendRefs: [{name: a, port: 80}]
",
        &[
            "7: HTTPRoute default/a: spec.rules[0].filters[0].requestMirror: \"b\": Weft's proxy does not mirror requests, so no copy \
           would ever arrive there; remove this filter; to send that backend a share of the requests themselves, add it to \
           backendRefs with a weight",
        ],
    );
}
