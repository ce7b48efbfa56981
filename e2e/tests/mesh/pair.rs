//! Two pods that accept nothing but mutual TLS of each other.

use weft_e2e::Mesh;
use weft_e2e::yaml::mesh_tls;
use weft_local_mesh::{MeshPod, Spec};
use weft_sandbox::testing::{self, Failure};

/// A caller, and a callee behind `service`.
pub(crate) async fn strict_pair(callee: Spec, service: String) -> Result<(Mesh, MeshPod, MeshPod), Failure> {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[service]).await?;
    mesh.apply("tls.yaml", &mesh_tls("Strict")).await?;
    let callee = mesh.add(callee).await?;
    let caller = mesh.add(Spec::client("client")).await?;
    Ok((mesh, caller, callee))
}
