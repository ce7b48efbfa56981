//! The mesh that tests look into: [`weft_local_mesh`] with the logs of its processes shown at the end, and texts to put into its folder.

pub mod mesh;
pub mod yaml;

pub use mesh::Mesh;

/// The namespace of everything in a test's mesh.
pub const NAMESPACE: &str = "mesh";

/// The SPIFFE identity of a service account of that namespace.
pub fn identity(service_account: &str) -> String {
    weft_local_mesh::identity(NAMESPACE, service_account)
}
