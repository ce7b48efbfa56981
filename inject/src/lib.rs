//! What makes a pod a member of the mesh.
//!
//! - [`names`]: annotations, ports, users: what injection, control plane and CNI plugin agree on.
//! - [`owner`]: which workload a pod belongs to.
//!
//! Invariant: no IO; the same pod and settings give the same result.

pub mod names;
pub mod owner;
