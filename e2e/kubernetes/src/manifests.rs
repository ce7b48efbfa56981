//! Texts to apply. Applications are the shop's program, which knows nothing of the mesh.

/// The version of our images.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A namespace whose pods get a sidecar.
pub(crate) fn meshed_namespace(name: &str) -> String {
    namespace(name, "weft.mesh/inject: enabled")
}

/// A namespace with labels, as the inside of a flow mapping.
pub(crate) fn namespace(name: &str, labels: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{ {labels} }}
"
    )
}

/// A Deployment, and a service account of the same name.
pub(crate) struct Application<'a> {
    /// Its namespace.
    pub(crate) namespace: &'a str,
    /// Its name, and the value of its label `app`.
    pub(crate) name: &'a str,
    /// What `weft-shop` is to do.
    pub(crate) arguments: &'a [&'a str],
    /// How many pods.
    pub(crate) replicas: u32,
    /// The pods' annotations, as the inside of a flow mapping.
    pub(crate) annotations: &'a str,
}

impl Application<'_> {
    /// As YAML.
    pub(crate) fn yaml(&self) -> String {
        let Self { namespace, name, replicas, annotations, .. } = self;
        let account = service_account(namespace, name);
        // A load generator has no health page: it is ready when it runs.
        let probe = if self.arguments.first() == Some(&"loadgen") {
            ""
        } else {
            "
          readinessProbe:
            exec: { command: [/weft-shop, probe, 'http://127.0.0.1:9000/healthz'] }
            periodSeconds: 1
            timeoutSeconds: 10"
        };
        let container = container(self.arguments);
        format!(
            "{account}---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{ app: {name} }}
  strategy:
    rollingUpdate: {{ maxUnavailable: 0, maxSurge: 1 }}
  template:
    metadata:
      labels: {{ app: {name} }}
      annotations: {{ {annotations} }}
    spec:
      serviceAccountName: {name}
      containers:
        - {container}{probe}
"
        )
    }
}

/// A server of reviews over HTTP/1.1 with that many pods.
pub(crate) fn server(namespace: &str, name: &str, replicas: u32) -> String {
    Application { namespace, name, arguments: &["reviews"], replicas, annotations: "" }.yaml()
        + &service(namespace, name, "http", 80, 8080)
}

/// A pod that makes `rate` calls a second to a target, and tells how they went.
pub(crate) fn client(namespace: &str, name: &str, rate: u32, target: &str) -> String {
    let (rate, target) = (format!("--rate={rate}"), format!("--target={target}"));
    let arguments = ["loadgen", &rate, "--control=127.0.0.1:9100", "--quiet", &target];
    Application { namespace, name, arguments: &arguments, replicas: 1, annotations: "" }.yaml()
}

/// A Service for the pods with the label `app=<name>`.
pub(crate) fn service(namespace: &str, name: &str, protocol: &str, port: u16, target: u16) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  selector: {{ app: {name} }}
  ports:
    - {{ name: port, port: {port}, targetPort: {target}, appProtocol: {protocol} }}
"
    )
}

/// A service account.
pub(crate) fn service_account(namespace: &str, name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name}, namespace: {namespace} }}
"
    )
}

/// The container of an application that keeps to Pod Security's level "restricted", as an item of a list indented by 8.
pub(crate) fn container(arguments: &[&str]) -> String {
    // JSON is YAML.
    let arguments = serde_json::Value::from(arguments.to_vec());
    format!(
        "name: shop
          image: weft/shop:{VERSION}
          args: {arguments}
          securityContext:
            runAsNonRoot: true
            allowPrivilegeEscalation: false
            capabilities: {{ drop: [ALL] }}
            seccompProfile: {{ type: RuntimeDefault }}"
    )
}
