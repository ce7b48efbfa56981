//! `weft explain`: which decisions are made about a request, and which object each came from.

// Clippy knows #[test] functions as tests, but not their helpers.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use weft_control_plane::{Config, ControlPlane};

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec: { selector: { app: reviews }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: reviews-v2, namespace: shop }
spec: { selector: { app: reviews, version: v2 }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: shop }
spec: { selector: { app: db }, ports: [{ name: tcp, port: 5432 }] }
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: { name: reviews-v2-0, namespace: shop, labels: { app: reviews, version: v2 } }
spec: { addresses: [198.18.0.7], serviceAccount: reviews, workload: reviews-v2 }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: reviews, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: reviews }]
  rules:
    - name: testers
      matches: [{ path: { value: /ratings }, headers: [{ name: x-user, value: ann }] }]
      backendRefs: [{ name: reviews-v2, port: 80, weight: 3 }, { name: reviews, port: 80, weight: 1 }]
      timeouts: { request: 7s }
    - matches: [{ path: { value: /old } }]
      filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplaceFullPath, replaceFullPath: /new }, statusCode: 301 } }]
---
apiVersion: weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: { name: limits, namespace: shop }
spec: { targetRefs: [{ kind: Service, name: reviews }], timeouts: { request: 9s }, retries: { attempts: 4, conditions: [reset] } }
---
apiVersion: weft.mesh/v1alpha1
kind: FaultPolicy
metadata: { name: slow, namespace: shop }
spec: { targetRefs: [{ kind: Service, name: reviews }], delay: { duration: 2s, percentage: 20 } }
---
apiVersion: weft.mesh/v1alpha1
kind: AccessPolicy
metadata: { name: readers, namespace: shop }
spec: { targetRefs: [{ kind: Service, name: reviews }], action: Deny, rules: [{ to: [{ methods: [POST] }] }] }
"#;

/// A control plane that reads the shop from a folder.
struct Shop {
    folder: tempfile::TempDir,
    control_plane: ControlPlane,
}

impl Shop {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shop = folder.path().join("shop");
        std::fs::create_dir(&shop).unwrap();
        std::fs::write(shop.join("shop.yaml"), SHOP).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            ..Config::new(shop, folder.path().join("state"))
        };
        Self { control_plane: ControlPlane::start(config).await.unwrap(), folder }
    }

    /// The exit code, the output, and what is said besides.
    async fn explain(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.arg("explain").args(arguments).args(["--control-plane", &self.control_plane.admin_addr.to_string()]);
        let folder: PathBuf = self.folder.path().join("shop");
        command.arg("--folder").arg(folder).env_remove("WEFT_CONTROL_PLANE").env_remove("WEFT_PROXY");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    async fn answer(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let (code, out, said) = self.explain(&[arguments, &["-o", "json"]].concat()).await;
        (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{said}")))
    }
}

/// `KIND NAME FIELD` of the decision about something.
fn origin(answer: &Value, about: &str) -> String {
    let decisions = answer["decisions"].as_array().unwrap();
    let found =
        decisions.iter().find(|decision| decision["about"] == about).unwrap_or_else(|| panic!("{about}: {answer:#}"));
    text(&found["from"])
}

fn text(origin: &Value) -> String {
    let part = |key: &str| origin[key].as_str().unwrap_or("-").to_owned();
    format!("{} {} {}", part("kind"), part("name"), part("field"))
}

fn says<'a>(answer: &'a Value, about: &str) -> &'a str {
    let decisions = answer["decisions"].as_array().unwrap();
    decisions
        .iter()
        .find(|decision| decision["about"] == about)
        .and_then(|decision| decision["says"].as_str())
        .unwrap_or_default()
}

#[tokio::test]
async fn each_decision_names_the_object_and_field_that_it_came_from() {
    let shop = Shop::start().await;
    let request = ["GET", "http://reviews.shop/ratings/1", "-H", "x-user: ann", "--from", "web.shop"];
    let (code, answer) = shop.answer(&request).await;
    assert_eq!((code, &answer["outcome"]), (Some(0), &"forwarded".into()), "{answer:#}");
    assert_eq!(answer["rule"], "shop/reviews/testers");
    assert_eq!(origin(&answer, "listener"), "Service shop/reviews spec.ports[0]");
    assert_eq!(origin(&answer, "rule"), "HTTPRoute shop/reviews spec.rules[0]");
    assert_eq!(
        (says(&answer, "timeout"), origin(&answer, "timeout")),
        ("7s", "HTTPRoute shop/reviews spec.rules[0].timeouts.request".into())
    );
    assert!(says(&answer, "retry").starts_with("up to 4 on "), "{answer:#}");
    assert_eq!(origin(&answer, "retry"), "TrafficPolicy shop/limits spec.retries");
    assert_eq!(origin(&answer, "fault"), "FaultPolicy shop/slow spec.delay");
    assert!(says(&answer, "access").contains("lets"), "{answer:#}");
    let backends = answer["backends"].as_array().unwrap();
    assert_eq!((&backends[0]["share"], &backends[0]["ready"]), (&75.0.into(), &1.into()), "{answer:#}");
    assert_eq!(backends[0]["identities"][0], "spiffe://weft.local/ns/shop/sa/reviews");
    assert_eq!(text(&backends[0]["from"]), "HTTPRoute shop/reviews spec.rules[0].backendRefs[0]");
    assert!(answer["notes"][0].as_str().unwrap().contains("no proxy was asked"), "{answer:#}");

    let (_, table, _) = shop.explain(&request).await;
    assert!(table.contains("75 % to service/shop/reviews-v2/80 (1 of 1 endpoints, peak-ewma"), "{table}");
}

#[tokio::test]
async fn a_request_that_goes_nowhere_or_is_refused_is_bad_news() {
    let shop = Shop::start().await;
    let (code, answer) = shop.answer(&["GET", "http://reviews.shop/ratings"]).await;
    assert_eq!((code, says(&answer, "rule")), (Some(1), "none matches: 404"), "without the header: {answer:#}");
    let (code, answer) = shop.answer(&["POST", "http://reviews.shop/ratings", "-H", "X-User: ann"]).await;
    assert_eq!(code, Some(1), "{answer:#}");
    assert_eq!(origin(&answer, "access"), "AccessPolicy shop/readers spec.rules[0]");
    let (code, answer) = shop.answer(&["GET", "http://reviews.shop/old"]).await;
    assert_eq!((code, &answer["outcome"]), (Some(0), &"redirected".into()));
    assert!(
        says(&answer, "redirect").starts_with("301 to ") && says(&answer, "redirect").ends_with("/new"),
        "{answer:#}"
    );
    assert_eq!(origin(&answer, "redirect"), "HTTPRoute shop/reviews spec.rules[1].filters");
    let (code, answer) = shop.answer(&["GET", "http://reviews-v2.shop/x"]).await;
    assert_eq!(
        (code, origin(&answer, "rule")),
        (Some(0), "Service shop/reviews-v2 spec".into()),
        "no route: {answer:#}"
    );
    let (_, answer) = shop.answer(&["GET", "http://db.shop:5432/"]).await;
    assert_eq!(answer["outcome"], "relayed");
}

#[tokio::test]
async fn an_unknown_service_or_port_gives_one_line_that_says_what_to_do() {
    let shop = Shop::start().await;
    for (url, hint) in
        [("http://revews.shop/", "did you mean reviews.shop?"), ("http://reviews.shop:81/", "its ports are 80")]
    {
        let (code, _, said) = shop.explain(&["GET", url]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(hint) && said.lines().count() == 1, "{said}");
    }
}
