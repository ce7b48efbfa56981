//! What is added to a pod: containers and volumes.

use serde_json::{Map, Value, json};
use weft_cni::redirect::Redirect;

use crate::annotations::PodSettings;
use crate::{names, probes};

const RUN: &str = "/var/run/weft";

/// The sidecar: an init container that goes on running (native since Kubernetes 1.29), and that the application waits for; or an ordinary
/// container. `asked` are the application's probes, which it asks for the kubelet.
pub(crate) fn proxy(pod: &PodSettings, workload: &str, service_account: &str, asked: Map<String, Value>) -> Value {
    let settings = &pod.settings;
    let ready = json!({ "path": "/ready", "port": names::PROBE_PORT });
    let mut arguments = vec![
        "--config-yaml".to_owned(),
        bootstrap(pod, workload, service_account),
        "--drain-time".to_owned(),
        settings.drain_seconds.to_string(),
        "--log-level".to_owned(),
        settings.log_level.clone(),
    ];
    if !asked.is_empty() {
        // The kubelet would take $(…) for a variable.
        let table = Value::Object(asked).to_string().replace("$(", "$$(");
        arguments.extend([probes::FLAG.to_owned(), table]);
    }
    let mut container = json!({
        "name": names::PROXY_CONTAINER,
        "image": settings.proxy_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "env": [
            // The kubelet puts them into the bootstrap: at admission a pod may have no name yet.
            field("WEFT_POD", "metadata.name"),
            field("WEFT_NAMESPACE", "metadata.namespace"),
        ],
        "ports": [{ "name": "weft-metrics", "containerPort": names::PROBE_PORT, "protocol": "TCP" }],
        // Until certificate and configuration are there, the application does not start.
        "startupProbe": { "httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 600 },
        "readinessProbe": { "httpGet": ready, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3 },
        // Runs when the pod's termination begins; SIGTERM comes only after the application has gone.
        "lifecycle": { "preStop": { "exec": { "command": ["/weft-proxy", "drain"] } } },
        "resources": resources(pod),
        "securityContext": restricted(names::PROXY_UID),
        "volumeMounts": [
            { "name": "weft-token", "mountPath": format!("{RUN}/token"), "readOnly": true },
            { "name": "weft-trust", "mountPath": format!("{RUN}/trust"), "readOnly": true },
            { "name": "weft-state", "mountPath": format!("{RUN}/state") },
        ],
    });
    if pod.native {
        container["restartPolicy"] = "Always".into();
    } else {
        // The kubelet starts the next container when this hook has ended.
        container["lifecycle"]["postStart"] = json!({ "exec": { "command": ["/weft-proxy", "wait"] } });
    }
    container
}

/// The init container that installs the redirect (the only one with NET_ADMIN), or proves the CNI plugin's.
pub(crate) fn redirect(pod: &PodSettings, redirect: &Redirect) -> Value {
    let settings = &pod.settings;
    let (name, command, security) = if settings.cni {
        (names::VALIDATE_CONTAINER, "validate", restricted(names::VALIDATE_UID))
    } else {
        let security = json!({
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        });
        (names::INIT_CONTAINER, "init", security)
    };
    json!({
        "name": name,
        "image": settings.cni_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [command, format!("--redirect={}", redirect_json(redirect))],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
        "securityContext": security,
    })
}

pub(crate) fn redirect_json(redirect: &Redirect) -> String {
    // Invariant: the type has string keys only and no failing serializer.
    serde_json::to_string(redirect).unwrap_or_default()
}

/// Token, roots and a memory-backed folder for the key. Their names begin with [`VOLUME_PREFIX`](weft_cni::injection::VOLUME_PREFIX).
pub(crate) fn volumes() -> Vec<Value> {
    vec![
        json!({
            "name": "weft-token",
            "projected": { "sources": [
                { "serviceAccountToken": { "audience": names::TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token" } },
            ] },
        }),
        json!({ "name": "weft-trust", "configMap": { "name": names::TRUST_CONFIG_MAP } }),
        json!({ "name": "weft-state", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } }),
    ]
}

/// Envoy's format. `$(NAME)` is the kubelet's syntax for a variable; nothing else in it holds a dollar sign.
fn bootstrap(pod: &PodSettings, workload: &str, service_account: &str) -> String {
    let settings = &pod.settings;
    let host = format!("{}.{}.svc", names::CONTROL_PLANE, settings.system_namespace);
    json!({
        "node": { "metadata": { "weft.mesh": {
            "namespace": "$(WEFT_NAMESPACE)",
            "pod": "$(WEFT_POD)",
            "workload": workload,
            "service_account": service_account,
            "trust_domain": settings.trust_domain,
            "token_file": format!("{RUN}/token/token"),
            // Below the volume, whose own folder everyone may read.
            "state_dir": format!("{RUN}/state/proxy"),
        } } },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 15000 } } },
        "dynamic_resources": { "ads_config": {
            "api_type": "DELTA_GRPC",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "control-plane" } }],
        } },
        "static_resources": { "clusters": [{
            "name": "control-plane",
            "type": "STRICT_DNS",
            "load_assignment": { "cluster_name": "control-plane", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                "address": { "socket_address": { "address": host, "port_value": names::CONTROL_PLANE_PORT } },
            } }] }] },
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": names::CONTROL_PLANE,
                    "common_tls_context": { "validation_context": {
                        "trusted_ca": { "filename": format!("{RUN}/trust/{}", names::TRUST_KEY) },
                    } },
                },
            },
        }] },
    })
    .to_string()
}

/// What Pod Security's level "restricted" asks for, said explicitly because a pod's own defaults may be laxer.
fn restricted(user: u32) -> Value {
    json!({
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn resources(pod: &PodSettings) -> Value {
    let settings = &pod.settings;
    let set = |cpu: &str, memory: &str| {
        let pairs = [("cpu", cpu), ("memory", memory)];
        let set = pairs.into_iter().filter(|(_, quantity)| !quantity.is_empty());
        Value::Object(set.map(|(name, quantity)| (name.to_owned(), quantity.into())).collect())
    };
    json!({
        "requests": set(&settings.cpu_request, &settings.memory_request),
        "limits": set(&settings.cpu_limit, &settings.memory_limit),
    })
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } })
}
