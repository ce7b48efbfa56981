//! Facts in, verdicts out.

use serde_json::{Value, json};

use super::facts::{Facts, TO_CREATE, TO_DO};
use super::{CATEGORIES, Verdict, make, report};
use crate::command::CheckFormat;

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;

fn node(kubelet: &str, kernel: &str) -> Value {
    json!({
        "metadata": { "name": "n1" },
        "status": {
            "nodeInfo": { "kubeletVersion": kubelet, "kernelVersion": kernel, "operatingSystem": "linux" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn list(items: &[Value]) -> Value {
    json!({ "items": items })
}

/// A cluster in which Weft is well.
fn facts() -> Facts {
    let crds = weft_api::crd::definitions().into_iter().map(|(_, mut definition)| {
        definition["status"] = json!({ "conditions": [{ "type": "Established", "status": "True" }] });
        definition
    });
    let gateway = ["httproutes", "grpcroutes", "referencegrants"]
        .map(|plural| json!({ "metadata": { "name": format!("{plural}.gateway.networking.k8s.io") } }));
    let excluded = ["kube-system", "kube-public", "kube-node-lease", "weft-system"];
    let webhook = json!({
        "name": "namespace.inject.weft.mesh", "failurePolicy": "Fail", "clientConfig": { "caBundle": "cm9vdHM=" },
        "namespaceSelector": { "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded },
        ] },
    });
    let web = json!({
        "metadata": { "name": "web-0", "namespace": "shop", "annotations": { "weft.mesh/injected": env!("CARGO_PKG_VERSION") } },
        "spec": { "containers": [{ "name": "app" }] },
        "status": { "phase": "Running", "initContainerStatuses": [{ "name": "weft-proxy", "ready": true }] },
    });
    let roots = |namespace: &str| json!({ "metadata": { "namespace": namespace }, "data": { "roots.pem": "roots" } });
    let status = serde_json::from_value(json!({
        "version": env!("CARGO_PKG_VERSION"), "ready": true, "trust_domain": "weft.local", "roots": [],
        "source": { "folder": "kubernetes", "loaded": true, "generation": 1, "refused": false, "problems": [] },
        "services": [],
        "proxies": [{ "namespace": "shop", "pod": "web-0", "workload": "web", "node": "shop/web-0", "user_agent": "weft-proxy",
            "dialect": "delta", "connected_since": 1, "state": "SYNCED", "types": [] }],
    }));
    Facts {
        now: NOW,
        weft_namespace: "weft-system".to_owned(),
        version: Ok(json!({ "serverVersion": { "gitVersion": "v1.34.4" } })),
        nodes: Ok(list(&[node("v1.34.4", "6.1.0-13-amd64")])),
        crds: Ok(list(&crds.chain(gateway).collect::<Vec<_>>())),
        server_object: Ok(json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" } })),
        leases: Ok(list(&[
            json!({ "metadata": { "name": "n1" }, "spec": { "renewTime": "2025-12-31T23:59:55.123456Z" } }),
        ])),
        may_create: TO_CREATE.map(|_| Ok(true)).to_vec(),
        may_do: TO_DO.map(|_| Ok(true)).to_vec(),
        deployment: Ok(Some(json!({
            "spec": { "replicas": 1 }, "status": { "readyReplicas": 1, "updatedReplicas": 1 },
        }))),
        webhook: Ok(Some(json!({ "webhooks": [webhook, webhook] }))),
        validation: Ok(Some(json!({ "webhooks": [webhook] }))),
        settings: Ok(Some(json!({ "data": { "injection.yaml": "cni: false" } }))),
        agents: Ok(None),
        trust: Ok(list(&[roots("weft-system"), roots("shop")])),
        injected: Ok(json!({ "spec": { "initContainers": [{ "name": "weft-init" }, { "name": "weft-proxy" }] } })),
        namespaces: Ok(list(&[json!({ "metadata": { "name": "shop", "labels": { "weft.mesh/inject": "enabled" } } })])),
        pods: Ok(list(&[web])),
        statuses: Ok(vec![status.unwrap()]),
    }
}

/// What a check finds.
fn verdict(facts: &Facts, name: &str) -> Verdict {
    let mut made = make(facts, false);
    made.extend(make(facts, true));
    made.into_iter().find(|made| made.check.name == name).unwrap().verdict
}

#[test]
fn at_least_twenty_checks_have_names_of_their_own() {
    let mut names: Vec<_> = CATEGORIES.iter().flat_map(|category| category.checks).map(|check| check.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(all >= 20, "{all}");
}

#[test]
fn where_all_is_well_nothing_is_told_but_that_these_roots_are_none() {
    let bad = make(&facts(), false)
        .into_iter()
        .filter(|made| matches!(made.verdict, Verdict::Warning(_) | Verdict::Failure(_)));
    let bad: Vec<_> = bad.map(|made| (made.check.name, made.verdict)).collect();
    assert_eq!(bad, [("ca-expiry", Verdict::Failure("no root can be read".to_owned()))]);
    let bad =
        make(&facts(), true).into_iter().any(|made| matches!(made.verdict, Verdict::Warning(_) | Verdict::Failure(_)));
    assert!(!bad);
}

#[test]
fn every_check_that_can_fail_does_when_its_facts_are_bad() {
    type Change = fn(&mut Facts);
    let cases: [(&str, Change); 17] = [
        ("cluster-reachable", |facts| facts.version = Err("refused".into())),
        ("cluster-version", |facts| facts.version = Ok(json!({ "serverVersion": { "gitVersion": "v1.28.9" } }))),
        ("node-versions", |facts| facts.nodes = Ok(list(&[node("v1.28.1", "6.1.0")]))),
        ("node-kernels", |facts| facts.nodes = Ok(list(&[node("v1.34.1", "4.18.0-553.el8")]))),
        ("clock-skew", |facts| facts.now += 301),
        ("node-clocks", |facts| {
            facts.leases =
                Ok(list(&[json!({ "metadata": { "name": "n1" }, "spec": { "renewTime": "2026-01-01T00:10:00Z" } })]));
        }),
        ("install-permissions", |facts| facts.may_create[1] = Ok(false)),
        ("crds", |facts| facts.crds = Ok(list(&[]))),
        ("control-plane-ready", |facts| facts.deployment = Ok(None)),
        ("control-plane-permissions", |facts| facts.may_do[0] = Ok(false)),
        ("webhook-configured", |facts| facts.webhook = Ok(Some(json!({ "webhooks": [{ "name": "x" }] })))),
        ("webhook-roots", |facts| {
            let Ok(Some(webhook)) = &mut facts.webhook else { panic!() };
            webhook["webhooks"][1]["clientConfig"]["caBundle"] = "b3RoZXJz".into();
        }),
        ("webhook-answers", |facts| facts.injected = Ok(json!({ "spec": {} }))),
        ("ca-expiry", |_| ()),
        ("trust-published", |facts| {
            let weft = json!({ "metadata": { "namespace": "weft-system" }, "data": { "roots.pem": "roots" } });
            facts.trust = Ok(list(&[weft]));
        }),
        ("cni-agents", |facts| facts.settings = Ok(Some(json!({ "data": { "injection.yaml": "cni: true" } })))),
        ("proxies-in-sync", |facts| {
            let Ok(statuses) = &mut facts.statuses else { panic!() };
            statuses[0].proxies[0].state = weft_control_plane::xds::ProxyState::Nack;
        }),
    ];
    for (name, change) in cases {
        let mut facts = facts();
        change(&mut facts);
        let verdict = verdict(&facts, name);
        assert!(matches!(verdict, Verdict::Failure(_)), "{name}: {verdict:?}");
    }
}

#[test]
fn what_only_wants_a_look_is_no_failure() {
    type Change = fn(&mut Facts);
    let cases: [(&str, Change, &str); 10] = [
        ("gateway-api", |facts| facts.crds = Ok(list(&[])), "httproutes.gateway.networking.k8s.io"),
        (
            "control-plane-version",
            |facts| {
                facts.statuses.as_mut().unwrap()[0].version = "0.0.1".to_owned();
            },
            "it is 0.0.1",
        ),
        (
            "configuration-accepted",
            |facts| {
                let problem = json!({ "severity": "error", "file": "", "line": 0, "object": "HTTPRoute shop/web",
                    "field": "spec.rules", "message": "HTTPRoute shop/web: spec.rules: is odd" });
                let problems = &mut facts.statuses.as_mut().unwrap()[0].source.problems;
                problems.push(serde_json::from_value(problem).unwrap());
            },
            "HTTPRoute shop/web: spec.rules: is odd",
        ),
        ("validation-trusted", |facts| facts.validation = Ok(None), "there is no ValidatingWebhookConfiguration"),
        (
            "validation-trusted",
            |facts| {
                let Ok(Some(validation)) = &mut facts.validation else { panic!() };
                validation["webhooks"][0]["clientConfig"]["caBundle"] = "b3RoZXJz".into();
            },
            "they are others than",
        ),
        (
            "watches",
            |facts| {
                let watch = json!({ "kind": "HTTPRoute", "synced": false, "absent": false, "lists": 0, "failures": 1,
                    "error": "is forbidden", "last_event": null });
                let watches = &mut facts.statuses.as_mut().unwrap()[0].source.watches;
                watches.push(serde_json::from_value(watch).unwrap());
            },
            "HTTPRoute: is forbidden",
        ),
        (
            "pods-injected",
            |facts| {
                let pods = facts.pods.as_mut().unwrap();
                pods["items"][0]["metadata"]["annotations"] = json!({});
            },
            "without: web-0.shop",
        ),
        (
            "proxies-ready",
            |facts| {
                facts.pods.as_mut().unwrap()["items"][0]["status"]["initContainerStatuses"][0]["ready"] = false.into();
            },
            "not ready: web-0.shop",
        ),
        (
            "proxies-version",
            |facts| {
                facts.pods.as_mut().unwrap()["items"][0]["metadata"]["annotations"]["weft.mesh/injected"] =
                    "0.0.1".into();
            },
            "web-0.shop",
        ),
        (
            "proxies-connected",
            |facts| {
                facts.statuses.as_mut().unwrap()[0].proxies.clear();
            },
            "not connected: web-0.shop",
        ),
    ];
    for (name, change, says) in cases {
        let mut facts = facts();
        change(&mut facts);
        match verdict(&facts, name) {
            Verdict::Warning(words) => assert!(words.contains(says), "{name}: {words}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_asked_is_not_checked_and_no_failure() {
    let mut facts = facts();
    facts.may_do[2] = Err("you may not impersonate".into());
    facts.statuses = Err("no port-forward".into());
    for name in ["control-plane-permissions", "proxies-connected", "proxies-in-sync", "watches"] {
        assert!(matches!(verdict(&facts, name), Verdict::Skipped(_)), "{name}");
    }
}

#[test]
fn the_report_names_what_is_wrong_and_where_it_is_explained() {
    let mut facts = facts();
    facts.deployment = Ok(None);
    let made = make(&facts, false);
    let short = report::text(CheckFormat::Short, &made).unwrap();
    assert!(short.contains("  × the control plane's replicas are ready: there is no Deployment"), "{short}");
    assert!(short.contains("docs/reference/checks/control-plane-ready.md"), "{short}");
    assert!(!short.contains('√'), "{short}");
    let json: Value = serde_json::from_str(&report::text(CheckFormat::Json, &made).unwrap()).unwrap();
    let found = json.as_array().unwrap().iter().find(|one| one["name"] == "control-plane-ready").unwrap();
    assert_eq!(found["verdict"], "failure");
}
