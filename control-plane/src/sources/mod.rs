//! Where the mesh's description comes from. What users write becomes a [`crate::model::Model`] here; no Kubernetes type goes further.
//!
//! - [`build()`](build::build): objects of `weft-api` → model, with everything that is wrong between them.
//! - [`folder`]: a watched folder of YAML files.
//! - [`kubernetes`]: a watched API server.
//! - `reports`: what became of each object of an API server.
//! - `source`: what the two have in common for whoever follows them.

pub mod build;
pub mod folder;
pub mod kubernetes;
mod reports;
mod source;

pub use build::{Built, build};
pub use folder::{FolderError, manifests_of, read_folder, watch_folder};
pub(crate) use kubernetes::{Kind, watch_kubernetes};
pub(crate) use reports::{Reported, Reports};
pub use source::{Source, SourceState, WatchState};
