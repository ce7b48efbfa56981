//! A whole mesh in a sandbox: the control plane, pods with real sidecars and real redirects, applications, and what is seen of them
//! from the outside.
//!
//! The programs are those that users run, found next to the test's own executable; nothing here knows their insides.
//!
//! | module | job |
//! |---|---|
//! | [`mesh`] | the whole: start, add pods, edit the configuration and wait until it is in force |
//! | [`control_plane`] | its process, and what it says about itself |
//! | [`pod`] | one pod: application, sidecar, redirection, the file that declares it |
//! | [`folder`] | the folder of YAML, and texts to put into it |
//! | [`probe`], [`load`] | one call from inside a pod; many, counted |
//! | [`client`], [`metrics`] | small HTTP requests; Prometheus text |
//! | [`programs`], [`wait`], [`error`] | where the programs are; waiting for what can be observed; what went wrong |

pub mod client;
pub mod control_plane;
pub mod error;
pub mod folder;
pub mod load;
pub mod mesh;
pub mod metrics;
pub mod pod;
pub mod probe;
pub mod programs;
pub mod wait;

pub use control_plane::ControlPlane;
pub use error::Error;
pub use folder::Folder;
pub use load::{Counts, Load};
pub use mesh::{Mesh, Settings};
pub use metrics::Samples;
pub use pod::{Endpoint, MeshPod, Spec};
pub use probe::Outcome;

/// The namespace of everything in a test's mesh.
pub const NAMESPACE: &str = "mesh";

/// The trust domain of the identities.
pub const TRUST_DOMAIN: &str = "weft.local";

/// The SPIFFE identity of a service account.
pub fn identity(service_account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{service_account}")
}
