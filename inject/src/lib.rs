//! What makes a pod a member of the mesh.
//!
//! - [`names`]: annotations, ports, users: what injection, control plane and CNI plugin agree on.
//! - [`owner`]: which workload a pod belongs to.
//! - [`annotations`]: what a pod says about its sidecar; [`Settings`]: what the installation says.
//! - [`inject`], [`uninject`]: a pod with a sidecar, and without it again; `sidecar`: the containers and volumes;
//!   `probes`: probes that ask the sidecar, which asks the application.
//! - [`patch()`]: what an admission webhook answers with.
//!
//! Invariant: no IO; the same pod and settings give the same result.

pub mod annotations;
pub mod names;
pub mod owner;

mod patch;
mod pod;
mod probes;
mod settings;
mod sidecar;
#[cfg(test)]
mod tests;

pub use patch::patch;
pub use pod::{Because, Outcome, Place, Refusal, inject, uninject};
pub use settings::{InvalidSetting, Settings};
