//! A real API server with its etcd, in a pod of a sandbox: no node, no controller, so that tests say what happens in the cluster.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_control_plane::{Config, ControlPlane, Installation, SourceConfig, WebhookConfig};
use weft_sandbox::testing::{Failure, eventually, sandbox, skip};
use weft_sandbox::{PodSpec, Process, Sandbox};

/// How long a test waits for something that must happen. An API server on a busy machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

const TOKEN: &str = "the-administrators";

/// The API server. Its processes end with the sandbox.
pub(crate) struct ApiServer {
    programs: PathBuf,
    folder: TempDir,
    sandbox: Sandbox,
    pod: weft_sandbox::Pod,
    serving: Process,
    pub(crate) client: Client,
}

impl ApiServer {
    /// Starts one; skips the test where its programs have not been built.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let programs = programs().ok_or_else(|| skip("there is no kube-apiserver; `make cluster` builds one, once"))?;
        let sandbox = sandbox().await?;
        let pod = sandbox.add_pod(PodSpec::named("kubernetes")).await?;
        let folder = tempfile::tempdir()?;
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(folder.path().join("accounts.key"), key.serialize_pem())?;
        std::fs::write(folder.path().join("accounts.pub"), key.public_key_pem())?;
        std::fs::write(folder.path().join("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n"))?;
        let mut etcd = Command::new(programs.join("etcd"));
        etcd.arg("--data-dir").arg(folder.path().join("etcd")).args(["--unsafe-no-fsync", "--log-level", "warn"]);
        pod.spawn("etcd", etcd).await?;
        let serving = serve(&programs, folder.path(), &pod).await?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{}:6443", pod.v4()),
                "certificate-authority": folder.path().join("certificates/apiserver.crt"),
            } }],
            "users": [{ "name": "admin", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "admin" } }],
        });
        std::fs::write(folder.path().join("kubeconfig"), config.to_string())?;
        let certificate = folder.path().join("certificates/apiserver.crt");
        eventually("the API server has a certificate", PATIENCE, async || certificate.exists()).await;
        let file = kube::config::Kubeconfig::read_from(folder.path().join("kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
        let server = Self { programs, folder, sandbox, pod, serving, client: Client::try_from(config)? };
        server.ready().await;
        for name in ["weft-system", "shop"] {
            server.create::<Namespace>("", json!({ "metadata": { "name": name } })).await?;
        }
        Ok(server)
    }

    async fn ready(&self) {
        eventually("the API server is ready", PATIENCE, async || {
            match http::Request::get("/readyz").body(Vec::new()) {
                Ok(request) => self.client.request_text(request).await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    /// This process' address, as its pod sees it.
    pub(crate) fn host(&self) -> Ipv4Addr {
        self.sandbox.host_addresses().v4
    }

    /// Ends it as a power cut does.
    pub(crate) async fn kill(&self) {
        self.serving.kill();
        self.serving.wait().await;
    }

    pub(crate) async fn serve_again(&mut self) -> Result<(), Failure> {
        self.serving = serve(&self.programs, self.folder.path(), &self.pod).await?;
        self.ready().await;
        Ok(())
    }

    /// A control plane in this process.
    pub(crate) async fn control_plane(&self, replica: &str) -> Result<ControlPlane, Failure> {
        let installation = Installation {
            namespace: "weft-system".into(),
            replica: replica.into(),
            kubeconfig: Some(self.folder.path().join("kubeconfig")),
        };
        let config = Config {
            listen: "127.0.0.1:0".parse()?,
            admin: "127.0.0.1:0".parse()?,
            source: SourceConfig::Kubernetes(installation),
            webhook: Some(WebhookConfig {
                // Where the API server, which is in a pod, can reach it.
                listen: (self.host(), 0).into(),
                settings: None,
                namespace: "weft-system".into(),
            }),
            ..Config::new(PathBuf::new(), PathBuf::new())
        };
        let control_plane = ControlPlane::start(config).await?;
        eventually("the control plane is ready", PATIENCE, async || ask(&control_plane, "/ready").await.0 == 200).await;
        Ok(control_plane)
    }

    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> Result<K, Failure>
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize
            + AnyScope,
    {
        let object = serde_json::from_value(object)?;
        Ok(K::api(&self.client, namespace).create(&PostParams::default(), &object).await?)
    }

    /// The objects of a kind that has a definition, in namespace `shop`.
    pub(crate) fn defined(&self, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(group, version, kind);
        Api::namespaced_with(self.client.clone(), "shop", &ApiResource::from_gvk_with_plural(&kind, plural))
    }

    /// A pod with a sidecar that is ready, as a kubelet would say; its service account has its name.
    pub(crate) async fn pod(&self, name: &str, address: &str) -> Result<Pod, Failure> {
        self.create::<ServiceAccount>("shop", json!({ "metadata": { "name": name } })).await?;
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": name }, "annotations": { "weft.mesh/injected": "0.1.0" } },
            "spec": { "serviceAccountName": name, "containers": [{ "name": "web", "image": "web" }] },
        });
        let pod: Pod = self.create("shop", pod).await?;
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "shop");
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(pod)
    }

    pub(crate) async fn delete<K>(&self, name: &str) -> Result<(), Failure>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + AnyScope,
    {
        K::api(&self.client, "shop").delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// A token of a service account, as a kubelet projects it into a pod, or bound to nothing.
    pub(crate) async fn token(&self, account: &str, audience: &str, pod: Option<&Pod>) -> Result<String, Failure> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.to_owned()],
                bound_object_ref: pod.map(|pod| BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
                expiration_seconds: Some(3600),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "shop");
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(answer.status.map(|status| status.token).unwrap_or_default())
    }
}

/// One GET of a control plane's admin server: status code and body.
pub(crate) async fn ask(control_plane: &ControlPlane, path: &str) -> (u16, String) {
    crate::support::request(control_plane.admin_addr, http::Request::get(path)).await
}

/// The value of one metric; 0 where there is none.
pub(crate) async fn metric(control_plane: &ControlPlane, name: &str) -> f64 {
    let text = ask(control_plane, "/metrics").await.1;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Kinds of a namespace and kinds of none.
pub(crate) trait AnyScope: Sized {
    fn api(client: &Client, namespace: &str) -> Api<Self>;
}

macro_rules! in_a_namespace {
    ($($kind:ty),*) => { $(impl AnyScope for $kind {
        fn api(client: &Client, namespace: &str) -> Api<Self> {
            Api::namespaced(client.clone(), namespace)
        }
    })* };
}

in_a_namespace!(Pod, ServiceAccount, k8s_openapi::api::core::v1::Service);

impl AnyScope for Namespace {
    fn api(client: &Client, _: &str) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl AnyScope for k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
    fn api(client: &Client, _: &str) -> Api<Self> {
        Api::all(client.clone())
    }
}

async fn serve(programs: &Path, folder: &Path, pod: &weft_sandbox::Pod) -> Result<Process, Failure> {
    let mut command = Command::new(programs.join("kube-apiserver"));
    let address = pod.v4().to_string();
    command
        .args(["--advertise-address", &address, "--bind-address", "0.0.0.0", "--endpoint-reconciler-type", "none"])
        .args(["--etcd-servers", "http://127.0.0.1:2379", "--service-cluster-ip-range", "198.19.0.0/16"])
        .args(["--service-account-issuer", "https://kubernetes.default.svc", "--authorization-mode", "RBAC"])
        .args(["--shutdown-delay-duration", "0s", "--profiling=false"])
        .arg("--cert-dir")
        .arg(folder.join("certificates"))
        .arg("--token-auth-file")
        .arg(folder.join("tokens.csv"))
        .arg("--service-account-key-file")
        .arg(folder.join("accounts.pub"))
        .arg("--service-account-signing-key-file")
        .arg(folder.join("accounts.key"));
    Ok(pod.spawn("kube-apiserver", command).await?)
}

/// Where `e2e/cluster/build.sh` has put its latest programs.
fn programs() -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let builds = std::fs::read_dir(cache.join("weft/cluster")).ok()?.filter_map(Result::ok);
    let complete = builds.map(|build| build.path()).filter(|path| path.join("kube-apiserver").exists());
    complete.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}
