//! The files below `manifests/`, with what was set.

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_inject::names;

use super::settings::Installation;

/// The same files as `manifests/base/kustomization.yaml` names, in this order.
pub(super) const BASE: &[(&str, &str)] = &[
    ("namespace.yaml", include_str!("../../../manifests/base/namespace.yaml")),
    ("rbac.yaml", include_str!("../../../manifests/base/rbac.yaml")),
    ("injection.yaml", include_str!("../../../manifests/base/injection.yaml")),
    ("control-plane.yaml", include_str!("../../../manifests/base/control-plane.yaml")),
    ("webhook.yaml", include_str!("../../../manifests/base/webhook.yaml")),
];

/// The same files as `manifests/crds/kustomization.yaml` names.
pub(super) const CRDS: &[(&str, &str)] = &[
    ("accesspolicies.yaml", include_str!("../../../manifests/crds/accesspolicies.yaml")),
    ("faultpolicies.yaml", include_str!("../../../manifests/crds/faultpolicies.yaml")),
    ("meshtlses.yaml", include_str!("../../../manifests/crds/meshtlses.yaml")),
    ("trafficpolicies.yaml", include_str!("../../../manifests/crds/trafficpolicies.yaml")),
    ("workloads.yaml", include_str!("../../../manifests/crds/workloads.yaml")),
];

const HA: &str = include_str!("../../../manifests/components/ha/ha.yaml");
const HA_DEPLOYMENT: &str = include_str!("../../../manifests/components/ha/deployment.yaml");
const CNI: &str = include_str!("../../../manifests/components/cni/cni.yaml");
const CNI_NAMESPACE: &str = include_str!("../../../manifests/components/cni/namespace.yaml");

/// The namespace that the files are written for.
const NAMESPACE: &str = names::SYSTEM_NAMESPACE;

/// All objects of an installation, in the order in which they can be applied.
pub(super) fn objects(installation: &Installation) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    let mut read = |files: &[(&str, &str)]| -> anyhow::Result<()> {
        for (name, text) in files {
            objects.extend(documents(text).with_context(|| format!("manifests: {name}"))?);
        }
        Ok(())
    };
    read(&BASE[..1])?;
    read(CRDS)?;
    read(&BASE[1..])?;
    if installation.ha {
        read(&[("ha.yaml", HA)])?;
    }
    if installation.injection.cni {
        read(&[("cni.yaml", CNI)])?;
    }
    if installation.ha {
        merge(find(&mut objects, "Deployment", names::CONTROL_PLANE)?, &single(HA_DEPLOYMENT)?);
    }
    control_plane(find(&mut objects, "Deployment", names::CONTROL_PLANE)?, installation)?;
    webhooks(find(&mut objects, "MutatingWebhookConfiguration", names::WEBHOOKS)?, installation);
    let validating = find(&mut objects, "ValidatingWebhookConfiguration", names::WEBHOOKS)?;
    validating["webhooks"][0]["timeoutSeconds"] = installation.webhook_timeout.into();
    let settings = serde_yaml_ng::to_string(&installation.injection).context("writing the injection settings")?;
    find(&mut objects, "ConfigMap", "weft-injection")?["data"]["injection.yaml"] = settings.into();
    if installation.injection.cni {
        merge(find(&mut objects, "Namespace", NAMESPACE)?, &single(CNI_NAMESPACE)?);
        node_agents(&mut objects, installation)?;
    }
    for object in &mut objects {
        move_to(object, &installation.injection.system_namespace);
    }
    Ok(objects)
}

/// The objects of a file.
pub(super) fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("is not YAML")?;
        if !value.is_null() {
            objects.push(value);
        }
    }
    Ok(objects)
}

fn single(text: &str) -> anyhow::Result<Value> {
    documents(text)?.into_iter().next().ok_or_else(|| anyhow!("manifests: a patch is empty"))
}

fn find<'a>(objects: &'a mut [Value], kind: &str, name: &str) -> anyhow::Result<&'a mut Value> {
    let found = objects.iter_mut().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("manifests: there is no {kind} {name}"))
}

fn control_plane(deployment: &mut Value, installation: &Installation) -> anyhow::Result<()> {
    deployment["spec"]["replicas"] = installation.replicas.into();
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = installation.control_plane_image.clone().into();
    container["imagePullPolicy"] = installation.injection.image_pull_policy.clone().into();
    container["resources"] = json!({
        "requests": { "cpu": installation.cpu_request, "memory": installation.memory_request },
        "limits": { "memory": installation.memory_limit },
    });
    variable(container, "WEFT_LOG", &installation.log_level)?;
    flag(container, "--trust-domain", &installation.injection.trust_domain)?;
    flag(container, "--certificate-lifetime", &installation.certificate_lifetime)?;
    let arguments = list(container, "args")?;
    arguments.extend(installation.mesh_ranges.iter().map(|range| format!("--mesh-range={range}").into()));
    Ok(())
}

fn webhooks(configuration: &mut Value, installation: &Installation) {
    for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
        webhook["failurePolicy"] = installation.failure_policy.clone().into();
        webhook["timeoutSeconds"] = installation.webhook_timeout.into();
    }
}

fn node_agents(objects: &mut [Value], installation: &Installation) -> anyhow::Result<()> {
    let settings = &mut find(objects, "ConfigMap", "weft-cni")?["data"];
    settings["WEFT_CNI_REPAIR"] = installation.cni_repair.clone().into();
    settings["WEFT_CNI_KUBELET_DIR"] = installation.kubelet_dir.clone().into();
    let excluded = names::SYSTEM_NAMESPACES.into_iter();
    let excluded: Vec<_> = excluded.chain([installation.injection.system_namespace.as_str()]).collect();
    settings["WEFT_CNI_EXCLUDE_NAMESPACES"] = excluded.join(",").into();
    let pod = &mut find(objects, "DaemonSet", "weft-cni")?["spec"]["template"]["spec"];
    for container in list(pod, "containers")? {
        container["image"] = installation.injection.cni_image.clone().into();
        container["imagePullPolicy"] = installation.injection.image_pull_policy.clone().into();
    }
    for volume in list(pod, "volumes")? {
        let path = match volume["name"].as_str() {
            Some("bin") => &installation.cni_bin_dir,
            Some("conf") => &installation.cni_conf_dir,
            _ => continue,
        };
        volume["hostPath"]["path"] = path.clone().into();
    }
    Ok(())
}

/// Sets an argument that is in the file as `flag=…`.
fn flag(container: &mut Value, flag: &str, value: &str) -> anyhow::Result<()> {
    let prefix = format!("{flag}=");
    let is_it = |argument: &&mut Value| argument.as_str().is_some_and(|text| text.starts_with(&prefix));
    let Some(argument) = list(container, "args")?.iter_mut().find(is_it) else {
        bail!("manifests: the control plane has no argument {flag}");
    };
    *argument = format!("{prefix}{value}").into();
    Ok(())
}

fn variable(container: &mut Value, name: &str, value: &str) -> anyhow::Result<()> {
    let Some(variable) = list(container, "env")?.iter_mut().find(|variable| variable["name"] == name) else {
        bail!("manifests: the control plane has no variable {name}");
    };
    variable["value"] = value.into();
    Ok(())
}

fn list<'a>(object: &'a mut Value, field: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    object[field].as_array_mut().with_context(|| format!("manifests: {field} is no list"))
}

/// Merges as Kustomize does where no list of objects is concerned; what is in a list is replaced.
pub(super) fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        (object, patch) => patch.clone_into(object),
    }
}

/// Replaces the control plane's namespace wherever it is said.
fn move_to(value: &mut Value, namespace: &str) {
    match value {
        Value::String(text) if text == NAMESPACE => namespace.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| move_to(item, namespace)),
        Value::Object(fields) => fields.values_mut().for_each(|field| move_to(field, namespace)),
        _ => {}
    }
}
