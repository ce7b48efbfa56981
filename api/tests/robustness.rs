//! Whatever bytes an editor leaves behind, parsing ends with problems, never with a panic.

use proptest::prelude::*;
use weft_api::parse;

const SAMPLE: &str = r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: shop, labels: &labels {app: a}, annotations: *labels}
spec:
  parentRefs: [{group: "", kind: Service, name: a, port: 80}]
  rules:
  - name: one
    matches:
    - path: {type: RegularExpression, value: "/a(b|c)*"}
      headers: [{name: x, value: y, type: Exact}]
      queryParams: [{name: q, value: "1"}]
      method: GET
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, port: 443, path: {type: ReplaceFullPath, replaceFullPath: /b}}
    timeouts: {request: 1h30m, backendRequest: 10s}
  - backendRefs: [{name: b, port: 80, weight: 3}]
    retry: {codes: [500], attempts: 2, backoff: 10ms}
---
apiVersion: weft.mesh/v1alpha1
kind: AccessPolicy
metadata: {name: b}
spec:
  action: Allow
  rules: [{from: [{namespaces: [shop]}], to: [{ports: [80], paths: [/a*]}]}]
---
apiVersion: v1
kind: Service
metadata: {name: c}
spec: {ports: [{port: 80, targetPort: http}], selector: {app: c}}
"#;

fn mutated() -> impl Strategy<Value = String> {
    let edit = (0..SAMPLE.len(), 0_usize..40, "[ -~\n\t\u{e9}]{0,6}");
    proptest::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_never_panic_and_problems_have_a_line_of_the_file(text in mutated()) {
        let lines = text.lines().count().max(1) as u32 + 1;
        let manifest = parse("f.yaml", &text);
        for problem in &manifest.problems {
            prop_assert!((1..=lines).contains(&problem.line), "{problem}");
            prop_assert!(!problem.to_string().contains('\n'), "{problem}");
            prop_assert!(!problem.why.is_empty());
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        let _ = parse("f.yaml", &text);
    }
}

#[test]
fn the_sample_is_valid() {
    assert_eq!(parse("f.yaml", SAMPLE).problems, []);
}
