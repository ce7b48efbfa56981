//! A pod in, a pod with a sidecar out.

use serde_json::{Map, Value, json};
use weft_cni::redirect::Redirect;

use crate::annotations::{self, InvalidAnnotation};
use crate::{Settings, names, owner, probes, sidecar};

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a sidecar now.
    Injected(Value),
    /// It is to stay as it is.
    LeftAlone(Because),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Because {
    /// Neither its namespace nor it asks for a sidecar.
    #[error("neither its namespace nor its own label or annotation weft.mesh/inject says enabled")]
    NotAsked,
    /// It asks for none.
    #[error("its label or annotation weft.mesh/inject says disabled")]
    OptedOut,
    /// It has the node's network, in which a redirect would catch the node's own connections.
    #[error("it uses the node's network (spec.hostNetwork)")]
    HostNetwork,
    /// The cluster's own namespaces, and the mesh's.
    #[error("it is in a system namespace, and the cluster must come up without the mesh")]
    SystemNamespace,
    /// A static pod's image in the API server; nothing there reaches the kubelet.
    #[error("it is a static pod, which its node's kubelet has from a file")]
    Static,
    /// The sidecar is a Linux program.
    #[error("it runs on Windows")]
    Windows,
}

/// Why a pod is refused. The texts are what who creates the pod reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An annotation makes no sense.
    #[error(transparent)]
    Annotation(#[from] InvalidAnnotation),
    /// `weft.mesh/inject` is neither of the two.
    #[error("metadata: weft.mesh/inject: {0:?} is neither enabled nor disabled")]
    Inject(String),
    /// The redirect would spare it, so it would pass the mesh by.
    #[error(
        "{path}: {uid} is the sidecar's user, whose connections are not redirected; run the container as another user, or annotate the pod with weft.mesh/inject: disabled",
        uid = names::PROXY_UID
    )]
    ProxyUser {
        /// The field.
        path: String,
    },
    /// A container has a name of ours.
    #[error("{path}: {name:?} is the name of a container that Weft adds; choose another name")]
    ReservedName {
        /// The field.
        path: String,
        /// The name.
        name: String,
    },
    /// A container listens where the sidecar does.
    #[error("{path}: {port} is a port of the sidecar; choose another port")]
    ReservedPort {
        /// The field.
        path: String,
        /// The port.
        port: u64,
    },
    /// There is nothing to name its workload after.
    #[error("metadata.name: is missing, and so is an owner")]
    Nameless,
}

/// Where a pod is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Whether the namespace (or who calls) asks for sidecars.
    pub enabled: bool,
}

/// Gives a pod (or a pod template with its owner's name as `metadata.name`) a sidecar, or says why not. A pod that has one gets the
/// same anew: a second pass changes nothing.
///
/// # Errors
/// What has to be changed in the pod before it can have a sidecar.
pub fn inject(pod: &Value, place: &Place<'_>, settings: &Settings) -> Result<Outcome, Refusal> {
    if let Some(because) = left_alone(pod, place, settings)? {
        return Ok(Outcome::LeftAlone(because));
    }
    let workload = owner::workload(&pod["metadata"]).ok_or(Refusal::Nameless)?;
    let mut pod = uninject(pod);
    refuse_collisions(&pod)?;
    let own = annotations::read(&pod["metadata"]["annotations"], settings)?;
    let mut redirect = Redirect { exclude_uid: Some(names::PROXY_UID), ..Redirect::default() };
    redirect.exclude_inbound_ports.extend(&own.skip_inbound);
    redirect.exclude_inbound_ports.sort_unstable();
    redirect.exclude_inbound_ports.dedup();
    redirect.exclude_outbound_ports.clone_from(&own.skip_outbound);
    redirect.exclude_outbound_cidrs.clone_from(&own.skip_networks);

    let service_account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
    let spec = object(&mut pod, "spec");
    let asked = probes::redirect(spec, &redirect.exclude_inbound_ports);
    let proxy = sidecar::proxy(&own, &workload, &service_account, asked);
    let redirection = sidecar::redirect(&own, &redirect);
    if own.native {
        list(spec, "initContainers").splice(0..0, [redirection, proxy]);
    } else {
        // Other init containers would wait for a proxy that does not run yet: the redirect comes last.
        list(spec, "initContainers").push(redirection);
        list(spec, "containers").insert(0, proxy);
    }
    list(spec, "volumes").extend(sidecar::volumes());
    let metadata = object(&mut pod, "metadata");
    let marks = entry(metadata, "annotations");
    marks.insert(names::INJECTED.to_owned(), env!("CARGO_PKG_VERSION").into());
    marks.insert(names::REDIRECT.to_owned(), sidecar::redirect_json(&redirect).into());
    entry(metadata, "labels").insert(names::WORKLOAD.to_owned(), workload.into());
    Ok(Outcome::Injected(pod))
}

/// Takes from a pod what [`inject`] adds; a pod without it comes back as it was.
#[must_use]
pub fn uninject(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if pod["metadata"]["annotations"].get(names::INJECTED).is_none() {
        return pod;
    }
    let spec = object(&mut pod, "spec");
    probes::restore(spec);
    for field in ["initContainers", "containers"] {
        remove_from(spec, field, |item| names::OWN_CONTAINERS.iter().any(|own| item["name"] == *own));
    }
    let volumes: Vec<_> = sidecar::volumes().into_iter().map(|volume| volume["name"].clone()).collect();
    remove_from(spec, "volumes", |item| volumes.contains(&item["name"]));
    let metadata = object(&mut pod, "metadata");
    remove_keys(metadata, "annotations", &[names::INJECTED, names::REDIRECT]);
    remove_keys(metadata, "labels", &[names::WORKLOAD]);
    pod
}

fn left_alone(pod: &Value, place: &Place<'_>, settings: &Settings) -> Result<Option<Because>, Refusal> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let asked = wish(&metadata["annotations"])?.or(wish(&metadata["labels"])?);
    let system = names::SYSTEM_NAMESPACES.contains(&place.namespace) || place.namespace == settings.system_namespace;
    Ok(if system {
        Some(Because::SystemNamespace)
    } else if asked == Some(false) {
        Some(Because::OptedOut)
    } else if asked.is_none() && !place.enabled {
        Some(Because::NotAsked)
    } else if spec["hostNetwork"] == true {
        Some(Because::HostNetwork)
    } else if metadata["annotations"].get("kubernetes.io/config.mirror").is_some() {
        Some(Because::Static)
    } else if spec["os"]["name"] == "windows" {
        Some(Because::Windows)
    } else {
        None
    })
}

fn wish(map: &Value) -> Result<Option<bool>, Refusal> {
    match map.get(names::INJECT).map(|value| value.as_str().unwrap_or_default()) {
        None => Ok(None),
        Some("enabled" | "true") => Ok(Some(true)),
        Some("disabled" | "false") => Ok(Some(false)),
        Some(other) => Err(Refusal::Inject(other.to_owned())),
    }
}

fn refuse_collisions(pod: &Value) -> Result<(), Refusal> {
    let spec = &pod["spec"];
    let is_proxy = |context: &Value| context["runAsUser"] == names::PROXY_UID;
    if is_proxy(&spec["securityContext"]) {
        return Err(Refusal::ProxyUser { path: "spec.securityContext.runAsUser".to_owned() });
    }
    for field in ["initContainers", "containers"] {
        for (i, container) in spec[field].as_array().into_iter().flatten().enumerate() {
            let path = format!("spec.{field}[{i}]");
            if is_proxy(&container["securityContext"]) {
                return Err(Refusal::ProxyUser { path: format!("{path}.securityContext.runAsUser") });
            }
            let name = container["name"].as_str().unwrap_or_default();
            if names::OWN_CONTAINERS.contains(&name) {
                return Err(Refusal::ReservedName { path: format!("{path}.name"), name: name.to_owned() });
            }
            for (k, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                let number = port["containerPort"].as_u64().unwrap_or_default();
                let is_tcp = port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
                if is_tcp && names::OWN_PORTS.iter().any(|own| u64::from(*own) == number) {
                    let path = format!("{path}.ports[{k}].containerPort");
                    return Err(Refusal::ReservedPort { path, port: number });
                }
            }
        }
    }
    Ok(())
}

/// The object in a field; made where there is none.
fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    // Invariant: just made one.
    #[allow(clippy::unwrap_used)]
    entry(value.as_object_mut().unwrap(), field)
}

fn entry<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    // Invariant: just made one.
    #[allow(clippy::unwrap_used)]
    value.as_object_mut().unwrap()
}

fn list<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = map.entry(field).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    // Invariant: just made one.
    #[allow(clippy::unwrap_used)]
    value.as_array_mut().unwrap()
}

fn remove_from(map: &mut Map<String, Value>, field: &str, is_ours: impl Fn(&Value) -> bool) {
    if let Some(items) = map.get_mut(field).and_then(Value::as_array_mut) {
        items.retain(|item| !is_ours(item));
        if items.is_empty() {
            map.remove(field);
        }
    }
}

fn remove_keys(map: &mut Map<String, Value>, field: &str, keys: &[&str]) {
    if let Some(entries) = map.get_mut(field).and_then(Value::as_object_mut) {
        entries.retain(|key, _| !keys.contains(&key.as_str()));
        if entries.is_empty() {
            map.remove(field);
        }
    }
}
