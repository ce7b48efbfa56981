//! What users of Weft write: Kubernetes' Service, ServiceAccount and EndpointSlice, the Gateway API's HTTPRoute and GRPCRoute, and
//! Weft's own kinds. No IO.
//!
//! - [`manifest`]: text of a YAML file → objects with their origin, and every [`Problem`] of the file.
//! - [`gateway`], [`mesh`]: the kinds. Kubernetes' own come from `k8s-openapi`, re-exported as [`k8s_openapi`].
//! - `yaml`: trees with positions, the decoder that goes on after an error, and changes of single values in a text.
//! - `check`: what the types alone cannot say.
//! - `crd` (feature `schema`): the definitions of Weft's kinds for a Kubernetes API server.

mod check;
#[cfg(feature = "schema")]
pub mod crd;
mod duration;
pub mod gateway;
pub mod manifest;
pub mod mesh;
mod path;
mod problem;
mod suggest;
mod yaml;

pub use duration::{Duration, InvalidDuration};
pub use k8s_openapi;
pub use manifest::{Located, Manifest, Object, Origin, parse};
pub use path::{FieldPath, Step};
pub use problem::{Problem, Severity};
pub use suggest::nearest;
pub use yaml::replace_values;
