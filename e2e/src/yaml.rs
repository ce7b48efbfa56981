//! Texts to put into the folder.

use crate::NAMESPACE;

/// An object of the test's namespace: its kind with version (`weft.mesh/v1alpha1 MeshTLS`), its name, and its spec as one line of
/// YAML or as an indented block.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    let (version, kind) = kind.split_once(' ').unwrap_or(("v1", kind));
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\nspec: {spec}\n---\n"
    )
}

/// A Service for the workloads that these labels (`app: reviews`) choose.
pub fn service(name: &str, labels: &str, port: u16, target_port: u16, protocol: &str) -> String {
    let port = format!("{{ name: main, port: {port}, targetPort: {target_port}, appProtocol: {protocol} }}");
    object("v1 Service", name, &format!("{{ selector: {{ {labels} }}, ports: [{port}] }}"))
}

/// A policy of ours that governs a Service.
pub fn policy(kind: &str, service: &str, spec: &str) -> String {
    let spec = format!("\n  targetRefs: [{{ kind: Service, name: {service} }}]\n  {}", spec.replace('\n', "\n  "));
    object(&format!("weft.mesh/v1alpha1 {kind}"), service, &spec)
}

/// The whole namespace's mode of mutual TLS: `Strict` or `Permissive`.
pub fn mesh_tls(mode: &str) -> String {
    object("weft.mesh/v1alpha1 MeshTLS", "namespace", &format!("{{ mode: {mode} }}"))
}

/// A service account.
pub(crate) fn account(name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\n")
}
