//! What the cluster says.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::{Value, json};
use weft_control_plane::Status;
use weft_inject::names;

use crate::cluster::Cluster;
use crate::status;

/// A part of the answer, or why there is none.
pub(super) type Fact<T = Value> = Result<T, String>;

/// What an installation creates that only an administrator may.
pub(super) const TO_CREATE: [&str; 7] = [
    "namespaces",
    "customresourcedefinitions.apiextensions.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "deployments.apps",
];

/// What the control plane must be allowed to, each as kubectl's verb and resource.
pub(super) const TO_DO: [(&str, &str); 10] = [
    ("list", "services"),
    ("list", "pods"),
    ("list", "nodes"),
    ("list", "endpointslices.discovery.k8s.io"),
    ("list", "httproutes.gateway.networking.k8s.io"),
    ("list", "trafficpolicies.weft.mesh"),
    ("create", "tokenreviews.authentication.k8s.io"),
    ("create", "configmaps"),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io/weft"),
    ("patch", "validatingwebhookconfigurations.admissionregistration.k8s.io/weft"),
];

/// Everything that the checks look at.
pub(super) struct Facts {
    /// This machine's clock, in seconds of Unix time.
    pub(super) now: u64,
    pub(super) weft_namespace: String,
    pub(super) version: Fact,
    pub(super) nodes: Fact,
    pub(super) crds: Fact,
    /// What a dry run of a creation answers: its time is the API server's.
    pub(super) server_object: Fact,
    pub(super) leases: Fact,
    /// Whether we may create each of [`TO_CREATE`].
    pub(super) may_create: Vec<Fact<bool>>,
    /// Whether the control plane may do each of [`TO_DO`].
    pub(super) may_do: Vec<Fact<bool>>,
    pub(super) deployment: Fact<Option<Value>>,
    pub(super) webhook: Fact<Option<Value>>,
    pub(super) validation: Fact<Option<Value>>,
    pub(super) settings: Fact<Option<Value>>,
    pub(super) agents: Fact<Option<Value>>,
    /// The ConfigMaps with the mesh's roots, of all namespaces.
    pub(super) trust: Fact,
    /// A pod that asks for a sidecar, as a dry run of its creation answers.
    pub(super) injected: Fact,
    pub(super) namespaces: Fact,
    pub(super) pods: Fact,
    /// What each control plane says.
    pub(super) statuses: Fact<Vec<Status>>,
}

impl Facts {
    /// Asks for everything that is looked at before an installation, or after it.
    pub(super) async fn gather(cluster: &Cluster, pre: bool) -> Self {
        let not_asked = || Err::<Value, _>("not asked".to_owned());
        let mut facts = Self {
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            weft_namespace: cluster.weft_namespace().to_owned(),
            version: json_of(cluster, &["version", "-o", "json"]).await,
            nodes: not_asked(),
            crds: not_asked(),
            server_object: not_asked(),
            leases: not_asked(),
            may_create: Vec::new(),
            may_do: Vec::new(),
            deployment: Err("not asked".to_owned()),
            webhook: Err("not asked".to_owned()),
            validation: Err("not asked".to_owned()),
            settings: Err("not asked".to_owned()),
            agents: Err("not asked".to_owned()),
            trust: not_asked(),
            injected: not_asked(),
            namespaces: not_asked(),
            pods: not_asked(),
            statuses: Err("not asked".to_owned()),
        };
        // Without an API server every other question would only take its time.
        if facts.version.as_ref().is_ok_and(|version| version.get("serverVersion").is_some()) {
            facts.about_the_cluster(cluster, pre).await;
            if !pre {
                facts.about_weft(cluster).await;
            }
        }
        facts
    }

    async fn about_the_cluster(&mut self, cluster: &Cluster, pre: bool) {
        let dry_run = ["create", "configmap", "weft-check", "-n", "default", "--dry-run=server", "-o", "json"];
        (self.nodes, self.crds, self.server_object, self.leases) = tokio::join!(
            list(cluster, &["nodes"]),
            list(cluster, &["crds"]),
            json_of(cluster, &dry_run),
            list(cluster, &["leases", "-n", "kube-node-lease"]),
        );
        if pre {
            let questions = TO_CREATE.map(|resource| async move { may(cluster, &["create", resource]).await });
            self.may_create = join_all(questions).await;
        }
    }

    async fn about_weft(&mut self, cluster: &Cluster) {
        let namespace = cluster.weft_namespace();
        let (deployment, agents) = (format!("deployment/{}", names::CONTROL_PLANE), "daemonset/weft-cni");
        let webhook = format!("mutatingwebhookconfigurations/{}", names::WEBHOOKS);
        let validation = format!("validatingwebhookconfigurations/{}", names::WEBHOOKS);
        let by_name = format!("metadata.name={}", names::TRUST_CONFIG_MAP);
        let pod = asking_pod().to_string();
        let (deployment, settings) = (["-n", namespace, &deployment], ["-n", namespace, "configmap/weft-injection"]);
        let agents = ["-n", namespace, agents];
        (self.deployment, self.webhook, self.validation, self.settings, self.agents) = tokio::join!(
            find(cluster, &deployment),
            find(cluster, std::slice::from_ref(&webhook)),
            find(cluster, std::slice::from_ref(&validation)),
            find(cluster, &settings),
            find(cluster, &agents),
        );
        let roots = ["configmaps", "-A", "--field-selector", &by_name];
        (self.trust, self.namespaces, self.pods, self.injected) = tokio::join!(
            list(cluster, &roots),
            list(cluster, &["namespaces"]),
            list(cluster, &["pods", "-A"]),
            created(cluster, &pod),
        );
        let account = format!("system:serviceaccount:{namespace}:{}", names::CONTROL_PLANE);
        let questions = TO_DO
            .iter()
            .map(|(verb, resource)| async { may(cluster, &[verb, resource, "-A", "--as", &account]).await });
        self.may_do = join_all(questions).await;
        self.statuses = status::statuses(cluster).await.map_err(|error| format!("{error:#}"));
    }
}

/// A pod that asks for a sidecar in a namespace that may not.
fn asking_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "weft-check", "namespace": "default", "annotations": { names::INJECT: "enabled" } },
        "spec": { "containers": [{ "name": "app", "image": "weft-check" }] },
    })
}

async fn list(cluster: &Cluster, arguments: &[&str]) -> Fact {
    cluster.get(arguments).await.map_err(|error| format!("{error:#}"))
}

async fn find<T: AsRef<str>>(cluster: &Cluster, arguments: &[T]) -> Fact<Option<Value>> {
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    cluster.find(&arguments).await.map_err(|error| format!("{error:#}"))
}

async fn json_of(cluster: &Cluster, arguments: &[&str]) -> Fact {
    let said = cluster.ask(arguments).await.map_err(|error| format!("{error:#}"))?;
    match serde_json::from_str(&said.out) {
        Ok(value) if said.is_success => Ok(value),
        _ => Err(said.error),
    }
}

async fn created(cluster: &Cluster, object: &str) -> Fact {
    let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    let said = cluster.tell(&arguments, Some(object)).await.map_err(|error| format!("{error:#}"))?;
    if !said.is_success {
        return Err(said.error);
    }
    serde_json::from_str(&said.out).map_err(|error| error.to_string())
}

async fn may(cluster: &Cluster, arguments: &[&str]) -> Fact<bool> {
    let mut all = vec!["auth", "can-i"];
    all.extend(arguments);
    let said = cluster.ask(&all).await.map_err(|error| format!("{error:#}"))?;
    match said.out.trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(said.error),
    }
}
