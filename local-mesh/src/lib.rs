//! A whole mesh on this machine: the control plane, pods with real sidecars and real redirects, applications, load, and what is seen of
//! them from the outside. `weft demo` shows it, and the end-to-end tests look into it.
//!
//! The programs are those that users run, found next to this one; nothing here knows their insides.
//!
//! | module | job |
//! |---|---|
//! | [`mesh`] | the whole: start, add pods, edit the configuration and wait until it is in force, stop |
//! | [`control_plane`] | its process, and what it says about itself |
//! | [`pod`], [`app`] | one pod: sidecar, redirection, the file that declares it; its application |
//! | [`sidecar`] | what runs as its sidecar: our proxy, or an Envoy with `weft agent` beside it |
//! | [`proxyless`] | a pod without a sidecar whose application has a certificate |
//! | [`folder`] | the folder of YAML that the control plane watches |
//! | [`probe`], [`load`] | one call from inside a pod; many, counted |
//! | [`client`], [`metrics`] | small HTTP requests; Prometheus text |
//! | [`prometheus`] | a Prometheus that scrapes the mesh, and answers queries |
//! | [`programs`], [`wait`], [`error`] | where the programs are; waiting for what can be observed; what went wrong |

pub mod app;
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
pub mod prometheus;
pub mod proxyless;
pub mod sidecar;
pub mod wait;

pub use app::App;
pub use control_plane::{ControlPlane, Settings};
pub use error::Error;
pub use folder::Folder;
pub use load::{Counts, Load};
pub use mesh::Mesh;
pub use metrics::{Sample, Samples};
pub use pod::{Endpoint, MeshPod, Spec};
pub use probe::Outcome;
pub use programs::Programs;
pub use prometheus::Prometheus;
pub use proxyless::Proxyless;
pub use sidecar::{Counted, Dialect, Sidecar};

/// The trust domain of the identities.
pub const TRUST_DOMAIN: &str = "weft.local";

/// The SPIFFE identity of a service account.
pub fn identity(namespace: &str, service_account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{service_account}")
}
