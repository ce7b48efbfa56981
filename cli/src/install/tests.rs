//! Installations, objects out.

use serde_json::{Value, json};

use super::settings::SETTINGS;
use super::{Installation, render, to_delete};

fn installation(ha: bool, cni: bool, set: &[&str]) -> Installation {
    let set: Vec<_> = set.iter().map(|text| (*text).to_owned()).collect();
    Installation::from_args(ha, cni, &set).unwrap()
}

fn refused(set: &str) -> String {
    format!("{:#}", Installation::from_args(false, false, &[set.to_owned()]).unwrap_err())
}

fn objects(installation: &Installation) -> Vec<Value> {
    render::objects(installation).unwrap()
}

fn object(objects: &[Value], kind: &str, name: &str) -> Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}")).clone()
}

fn manifest(path: &str) -> Vec<Value> {
    let path = format!("../manifests/{path}");
    render::documents(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What Kustomize makes of a component on top of `objects`.
fn add_component(objects: &mut Vec<Value>, name: &str) {
    let files = |kustomization: &Value| -> Vec<Vec<Value>> {
        let names = kustomization.as_array().unwrap().iter().map(|file| file.as_str().unwrap());
        names.map(|file| manifest(&format!("components/{name}/{file}"))).collect()
    };
    let kustomization = manifest(&format!("components/{name}/kustomization.yaml")).remove(0);
    objects.extend(files(&kustomization["resources"]).concat());
    let patches = kustomization["patches"].as_array().unwrap().iter().map(|patch| patch["path"].clone());
    for patch in files(&patches.collect()).concat() {
        let is_patched = |object: &&mut Value| {
            object["kind"] == patch["kind"] && object["metadata"]["name"] == patch["metadata"]["name"]
        };
        render::merge(objects.iter_mut().find(is_patched).unwrap(), &patch);
    }
}

#[test]
fn without_settings_the_files_are_printed_as_they_are() {
    for (ha, cni) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut files: Vec<_> =
            render::BASE.iter().chain(render::CRDS).flat_map(|(_, text)| render::documents(text).unwrap()).collect();
        for (component, _) in [("ha", ha), ("cni", cni)].into_iter().filter(|(_, wanted)| *wanted) {
            add_component(&mut files, component);
        }
        let mut rendered = objects(&installation(ha, cni, &[]));
        // Compared as what it says: the file has another order and no quotes.
        for objects in [&mut files, &mut rendered] {
            for object in objects.iter_mut().filter(|object| object["kind"] == "ConfigMap") {
                let text = object["data"]["injection.yaml"].as_str().unwrap_or_default().to_owned();
                object["data"]["injection.yaml"] = serde_yaml_ng::from_str::<Value>(&text).unwrap();
            }
            objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
        }
        assert_eq!(rendered, files, "ha: {ha}, cni: {cni}");
    }
}

#[test]
fn kustomize_and_the_command_read_the_same_files() {
    for (folder, files) in [("base", render::BASE), ("crds", render::CRDS)] {
        let path = format!("../manifests/{folder}/kustomization.yaml");
        let kustomization: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let listed: Vec<_> = kustomization["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let listed: Vec<_> = listed.into_iter().filter(|name| !name.starts_with("..")).collect();
        let embedded: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, embedded, "{folder}");
    }
}

#[test]
fn every_default_can_be_set_to_itself() {
    let default = Installation::default();
    for setting in SETTINGS {
        let assignment = format!("{}={}", setting.key, (setting.get)(&default));
        assert_eq!(installation(false, false, &[&assignment]), default, "{assignment}");
    }
}

#[test]
fn every_setting_is_kept_and_changes_the_objects() {
    let others = [
        ("namespace", "mesh"),
        ("trustDomain", "example.org"),
        ("image.controlPlane", "registry/control-plane:2"),
        ("image.proxy", "registry/proxy:2"),
        ("image.cni", "registry/cni:2"),
        ("imagePullPolicy", "Always"),
        ("controlPlane.replicas", "5"),
        ("controlPlane.logLevel", "debug"),
        ("controlPlane.cpuRequest", "200m"),
        ("controlPlane.memoryRequest", "64Mi"),
        ("controlPlane.memoryLimit", "2Gi"),
        ("certificateLifetime", "12h"),
        ("meshRanges", "198.18.0.0/17,198.19.0.0/16"),
        ("webhook.failurePolicy", "Ignore"),
        ("webhook.timeoutSeconds", "7"),
        ("proxy.logLevel", "warn"),
        ("proxy.drainSeconds", "45"),
        ("proxy.cpuRequest", "20m"),
        ("proxy.memoryRequest", "48Mi"),
        ("proxy.cpuLimit", "3"),
        ("proxy.memoryLimit", "512Mi"),
        ("cni.binDir", "/home/kubernetes/bin"),
        ("cni.confDir", "/etc/kubernetes/cni"),
        ("cni.kubeletDir", "/var/lib/k0s/kubelet"),
        ("cni.repair", "delete"),
    ];
    let keys = SETTINGS.iter().map(|setting| setting.key);
    assert!(keys.eq(others.iter().map(|(key, _)| *key)), "every setting has its line above, in the same order");
    let plain = objects(&installation(true, true, &[]));
    for (setting, (key, value)) in SETTINGS.iter().zip(others) {
        let assignment = format!("{key}={value}");
        let changed = installation(true, true, &[&assignment]);
        assert_eq!((setting.get)(&changed), value, "{assignment}");
        assert_ne!(objects(&changed), plain, "{assignment}");
    }
}

#[test]
fn settings_reach_the_objects() {
    let objects = objects(&installation(
        false,
        true,
        &[
            "namespace=mesh",
            "image.controlPlane=registry/cp:2",
            "image.cni=registry/cni:2",
            "controlPlane.logLevel=debug",
            "trustDomain=example.org",
            "meshRanges=198.18.0.0/17,198.19.0.0/16",
            "webhook.failurePolicy=Ignore",
            "proxy.memoryLimit=1Gi",
            "cni.binDir=/home/kubernetes/bin",
        ],
    ));
    let deployment = object(&objects, "Deployment", "weft-control-plane");
    assert_eq!(deployment["metadata"]["namespace"], "mesh");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry/cp:2");
    assert_eq!(container["env"][0], json!({ "name": "WEFT_LOG", "value": "debug" }));
    let arguments = container["args"].to_string();
    for argument in ["--trust-domain=example.org", "--mesh-range=198.18.0.0/17", "--mesh-range=198.19.0.0/16"] {
        assert!(arguments.contains(argument), "{argument}: {arguments}");
    }
    let webhook = object(&objects, "MutatingWebhookConfiguration", "weft");
    for webhook in webhook["webhooks"].as_array().unwrap() {
        assert_eq!(webhook["failurePolicy"], "Ignore");
        assert_eq!(webhook["clientConfig"]["service"]["namespace"], "mesh");
        let excluded = webhook["namespaceSelector"]["matchExpressions"].to_string();
        assert!(excluded.contains("\"mesh\"") && !excluded.contains("weft-system"), "{excluded}");
    }
    let settings = object(&objects, "ConfigMap", "weft-injection")["data"]["injection.yaml"].clone();
    let settings: weft_inject::Settings = serde_yaml_ng::from_str(settings.as_str().unwrap()).unwrap();
    assert_eq!((settings.memory_limit.as_str(), settings.system_namespace.as_str()), ("1Gi", "mesh"));
    assert!(settings.cni);
    let agents = object(&objects, "DaemonSet", "weft-cni");
    assert_eq!(agents["spec"]["template"]["spec"]["containers"][0]["image"], "registry/cni:2");
    assert!(agents.to_string().contains("/home/kubernetes/bin"));
    let excluded = object(&objects, "ConfigMap", "weft-cni")["data"]["WEFT_CNI_EXCLUDE_NAMESPACES"].clone();
    assert_eq!(excluded, "kube-system,kube-public,kube-node-lease,mesh");
}

#[test]
fn high_availability_is_three_replicas_apart_of_which_one_may_be_away() {
    let three = objects(&installation(true, false, &[]));
    let deployment = object(&three, "Deployment", "weft-control-plane");
    assert_eq!(deployment["spec"]["replicas"], 3);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "weft-control-plane");
    assert_eq!(pod["topologySpreadConstraints"].as_array().unwrap().len(), 2);
    assert_eq!(pod["containers"][0]["name"], "control-plane", "the patch must not take the container away");
    assert_eq!(object(&three, "PodDisruptionBudget", "weft-control-plane")["spec"]["maxUnavailable"], 1);
    let five = objects(&installation(true, false, &["controlPlane.replicas=5"]));
    assert_eq!(object(&five, "Deployment", "weft-control-plane")["spec"]["replicas"], 5);
}

#[test]
fn no_namespace_of_the_cluster_can_be_blocked_by_a_webhook() {
    let objects = objects(&Installation::default());
    let of = |kind| object(&objects, kind, "weft")["webhooks"].as_array().unwrap().clone();
    let validating = of("ValidatingWebhookConfiguration");
    assert!(validating.iter().all(|webhook| webhook["failurePolicy"] == "Ignore"));
    for webhook in of("MutatingWebhookConfiguration").iter().chain(&validating) {
        let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
        let excluded = expressions.iter().find(|one| one["key"] == "kubernetes.io/metadata.name").unwrap();
        assert_eq!(excluded["operator"], "NotIn");
        for namespace in weft_inject::names::SYSTEM_NAMESPACES.into_iter().chain(["weft-system"]) {
            assert!(excluded["values"].as_array().unwrap().contains(&namespace.into()), "{namespace}");
        }
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 10);
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_refused_with_a_way_out() {
    for (set, says) in [
        ("colour=red", "--set colour: there is no such setting"),
        ("colour=red", "There are namespace, trustDomain"),
        ("controlplane.replicas=3", "did you mean controlPlane.replicas?"),
        ("controlPlane.replicas", "write --set key=value"),
        ("controlPlane.replicas=0", "\"0\" is not a number from 1 to 20"),
        ("imagePullPolicy=often", "is not Always, IfNotPresent or Never"),
        ("meshRanges=all", "\"all\" is not a network"),
        ("proxy.memoryLimit=lots", "memoryLimit: \"lots\" is not a quantity"),
        ("trustDomain=a/b", "trustDomain: \"a/b\" is not a DNS name"),
        ("certificateLifetime=1 day", "is not a time, such as 24h"),
    ] {
        let error = refused(set);
        assert!(error.contains(says), "{set}: {error}");
    }
}

#[test]
fn uninstalling_names_everything_and_the_webhook_first() {
    let all = objects(&installation(true, true, &[]));
    let deleted = to_delete(all.clone());
    assert_eq!(deleted.len(), all.len());
    let kinds: Vec<_> = deleted.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let first = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "DaemonSet", "Deployment"];
    assert_eq!(kinds[..4], first);
    assert_eq!(kinds.last(), Some(&"Namespace"));
    assert!(deleted.iter().all(|object| object.get("spec").is_none() && object.get("data").is_none()));
}
