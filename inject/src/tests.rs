//! Injection, pod in, pod out.

use serde_json::{Value, json};

use crate::{Because, Outcome, Place, Settings, inject, names, uninject};

const SHOP: Place<'static> = Place { namespace: "shop", enabled: true };

fn pod() -> Value {
    json!({
        "metadata": {
            "generateName": "reviews-7d4b9c6f5-", "labels": { "app": "reviews", "pod-template-hash": "7d4b9c6f5" },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "reviews-7d4b9c6f5", "controller": true }],
        },
        "spec": {
            "serviceAccountName": "reviews",
            "initContainers": [{ "name": "migrate", "image": "m" }],
            "containers": [{ "name": "app", "image": "a", "ports": [{ "containerPort": 8080 }] }],
        },
    })
}

fn annotated(name: &str, value: &str) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"][name] = value.into();
    pod
}

fn injected(pod: &Value, settings: &Settings) -> Value {
    match inject(pod, &SHOP, settings) {
        Ok(Outcome::Injected(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

fn init<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["spec"]["initContainers"].as_array().unwrap().iter().find(|container| container["name"] == name).unwrap()
}

#[test]
fn the_redirect_and_the_sidecar_come_before_everything_else() {
    let pod = injected(&pod(), &Settings::default());
    let names: Vec<_> = pod["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["weft-init", "weft-proxy", "migrate"]);
    assert_eq!(init(&pod, "weft-proxy")["restartPolicy"], "Always");
    assert_eq!(pod["metadata"]["labels"][names::WORKLOAD], "reviews");
}

#[test]
fn a_second_pass_changes_nothing() {
    let once = injected(&pod(), &Settings::default());
    assert_eq!(injected(&once, &Settings::default()), once);
}

#[test]
fn uninjecting_gives_the_pod_back() {
    for pod in [pod(), annotated("weft.mesh/skip-inbound-ports", "9100")] {
        assert_eq!(uninject(&injected(&pod, &Settings::default())), pod);
    }
    let bare = json!({ "metadata": { "name": "tool" }, "spec": { "containers": [{ "name": "app" }] } });
    assert_eq!(uninject(&injected(&bare, &Settings::default())), bare);
    assert_eq!(uninject(&bare), bare);
}

/// Without, the CNI plugin would let an injected pod start unredirected while the node's agent is away.
#[test]
fn every_volume_that_injection_adds_is_told_by_its_prefix() {
    let mut original = pod();
    original["spec"]["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
    for settings in [Settings::default(), Settings { cni: true, ..Settings::default() }] {
        let pod = injected(&original, &settings);
        let volumes = pod["spec"]["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap());
        let added: Vec<_> = volumes.filter(|name| *name != "data").collect();
        assert_eq!(added.len(), 3, "{added:?}");
        for name in added {
            assert!(name.starts_with(weft_cni::injection::VOLUME_PREFIX), "{name}");
        }
    }
}

#[test]
fn only_the_init_container_has_net_admin_and_with_cni_nothing_has_it() {
    let pod_with = |cni| injected(&pod(), &Settings { cni, ..Settings::default() });
    let with_init = pod_with(false);
    assert_eq!(init(&with_init, "weft-init")["securityContext"]["capabilities"]["add"], json!(["NET_ADMIN"]));
    assert_eq!(init(&with_init, "weft-proxy")["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    let with_cni = pod_with(true);
    for name in ["weft-validate", "weft-proxy"] {
        let context = &init(&with_cni, name)["securityContext"];
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
        assert_eq!(context["runAsNonRoot"], true, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    }
    assert!(!with_cni.to_string().contains("NET_ADMIN"));
}

#[test]
fn the_redirect_says_what_the_annotations_say() {
    let mut pod = annotated("weft.mesh/skip-inbound-ports", "9100, 8000-8001");
    pod["metadata"]["annotations"]["weft.mesh/skip-outbound-cidrs"] = "198.18.9.0/24".into();
    let pod = injected(&pod, &Settings::default());
    let text = pod["metadata"]["annotations"][names::REDIRECT].as_str().unwrap();
    let redirect: weft_cni::redirect::Redirect = serde_json::from_str(text).unwrap();
    assert_eq!(redirect.exclude_uid, Some(names::PROXY_UID));
    assert_eq!(redirect.exclude_inbound_ports, [8000, 8001, 9100, 15020]);
    assert_eq!(redirect.exclude_outbound_cidrs, ["198.18.9.0/24".parse().unwrap()]);
    assert_eq!(init(&pod, "weft-init")["args"], json!(["init", format!("--redirect={text}")]));
}

#[test]
fn annotations_change_the_sidecar() {
    let pod = annotated("weft.mesh/proxy-cpu-limit", "1500m");
    assert_eq!(init(&injected(&pod, &Settings::default()), "weft-proxy")["resources"]["limits"]["cpu"], "1500m");
    let pod = annotated("weft.mesh/drain-time", "45s");
    let args = init(&injected(&pod, &Settings::default()), "weft-proxy")["args"].to_string();
    assert!(args.contains(r#""--drain-time","45""#), "{args}");
}

#[test]
fn annotations_that_make_no_sense_are_refused_with_a_way_out() {
    for (name, value, says) in [
        ("weft.mesh/skip-inbound-ports", "80,http", r#""http" is not a port"#),
        ("weft.mesh/skip-outbound-ports", "9-8", r#""9-8" is not a port"#),
        ("weft.mesh/opaque-ports", "1-65535", "is more than 1000 ports"),
        ("weft.mesh/skip-outbound-cidrs", "everything", r#""everything" is not a network"#),
        ("weft.mesh/proxy-cpu-limit", "lots", r#""lots" is not a quantity"#),
        ("weft.mesh/drain-time", "1m", "write whole seconds"),
        ("weft.mesh/proxy-image", "a b", "is not an image"),
        ("weft.mesh/proxy-log-level", "in fo", "is not a log level"),
        ("weft.mesh/proxy-colour", "red", "is of no annotation that Weft knows"),
        ("weft.mesh/inject", "perhaps", "is neither enabled nor disabled"),
    ] {
        let text = inject(&annotated(name, value), &SHOP, &Settings::default()).unwrap_err().to_string();
        assert!(text.contains(says) && text.contains(name), "{name}: {text}");
    }
}

#[test]
fn pods_that_are_none_of_the_meshs_business_are_left_alone() {
    let left = |pod: &Value, place: Place<'_>| match inject(pod, &place, &Settings::default()) {
        Ok(Outcome::LeftAlone(because)) => because,
        other => panic!("{other:?}"),
    };
    let with = |field: &str, value: Value| {
        let mut pod = pod();
        pod["spec"][field] = value;
        pod
    };
    assert_eq!(left(&with("hostNetwork", true.into()), SHOP), Because::HostNetwork);
    assert_eq!(left(&with("os", json!({ "name": "windows" })), SHOP), Because::Windows);
    assert_eq!(left(&annotated("weft.mesh/inject", "disabled"), SHOP), Because::OptedOut);
    assert_eq!(left(&annotated("kubernetes.io/config.mirror", "x"), SHOP), Because::Static);
    assert_eq!(left(&pod(), Place { enabled: false, ..SHOP }), Because::NotAsked);
    for namespace in ["kube-system", "weft-system"] {
        let asks = annotated("weft.mesh/inject", "enabled");
        assert_eq!(left(&asks, Place { namespace, enabled: true }), Because::SystemNamespace);
    }
}

#[test]
fn a_pod_may_ask_where_its_namespace_does_not() {
    let place = Place { enabled: false, ..SHOP };
    let outcome = inject(&annotated("weft.mesh/inject", "enabled"), &place, &Settings::default()).unwrap();
    assert!(matches!(outcome, Outcome::Injected(_)));
}

#[test]
fn a_container_that_would_pass_the_mesh_by_or_collide_is_refused() {
    let mut as_proxy = pod();
    as_proxy["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 1337 });
    let mut whole_pod = pod();
    whole_pod["spec"]["securityContext"] = json!({ "runAsUser": 1337 });
    let mut name = pod();
    name["spec"]["containers"][0]["name"] = "weft-proxy".into();
    let mut port = pod();
    port["spec"]["containers"][0]["ports"][0]["containerPort"] = 15006.into();
    for (pod, says) in [
        (as_proxy, "spec.containers[0].securityContext.runAsUser: 1337 is the sidecar's user"),
        (whole_pod, "spec.securityContext.runAsUser: 1337"),
        (name, r#"spec.containers[0].name: "weft-proxy" is the name of a container that Weft adds"#),
        (port, "spec.containers[0].ports[0].containerPort: 15006 is a port of the sidecar"),
    ] {
        let text = inject(&pod, &SHOP, &Settings::default()).unwrap_err().to_string();
        assert!(text.starts_with(says), "{text}");
    }
}

#[test]
fn settings_that_would_break_every_pod_are_refused() {
    assert_eq!(Settings::default().check(), Ok(()));
    let with = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    };
    for (says, text) in [
        ("proxyImage: \"\" is not an image", with(|settings| settings.proxy_image.clear())),
        ("imagePullPolicy: \"Often\"", with(|settings| settings.image_pull_policy = "Often".into())),
        ("memoryLimit: \"lots\"", with(|settings| settings.memory_limit = "lots".into())),
        ("drainSeconds: \"3601\"", with(|settings| settings.drain_seconds = 3601)),
        ("trustDomain: \"a/b\"", with(|settings| settings.trust_domain = "a/b".into())),
    ] {
        assert!(text.starts_with(says), "{text}");
    }
}

#[test]
fn an_ordinary_container_comes_before_the_application_which_waits_for_it() {
    let original = annotated("weft.mesh/sidecar", "container");
    let pod = injected(&original, &Settings::default());
    let names = |field: &str| -> Vec<_> {
        pod["spec"][field].as_array().unwrap().iter().map(|container| container["name"].clone()).collect()
    };
    assert_eq!(names("containers"), ["weft-proxy", "app"]);
    assert_eq!(names("initContainers"), ["migrate", "weft-init"]);
    let proxy = &pod["spec"]["containers"][0];
    assert!(proxy.get("restartPolicy").is_none(), "{proxy}");
    assert_eq!(proxy["lifecycle"]["postStart"]["exec"]["command"], json!(["/weft-proxy", "wait"]));
    assert_eq!(injected(&pod, &Settings::default()), pod);
    assert_eq!(uninject(&pod), original);
}

#[test]
fn probes_ask_the_sidecar_and_are_given_back() {
    let mut original = pod();
    original["spec"]["containers"][0]["livenessProbe"] = json!({ "httpGet": { "path": "/$(X)", "port": 8080 } });
    let pod = injected(&original, &Settings::default());
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], 15020);
    let arguments = init(&pod, "weft-proxy")["args"].to_string();
    assert!(arguments.contains("/probe/app/liveness") && arguments.contains("/$$(X)"), "{arguments}");
    // Its own probe is its own.
    assert_eq!(init(&pod, "weft-proxy")["startupProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(injected(&pod, &Settings::default()), pod);
    assert_eq!(uninject(&pod), original);
}
