//! Where the mesh's description comes from. What users write becomes a [`crate::model::Model`] here; no Kubernetes type goes further.
//!
//! - [`build()`](build::build): objects of `weft-api` → model, with everything that is wrong between them.
//! - [`folder`]: a watched folder of YAML files.
//! - [`kubernetes`]: a watched API server.
//! - `source`: what the two have in common for whoever follows them.

pub mod build;
pub mod folder;
pub mod kubernetes;
mod source;

pub use build::{Built, build};
pub use folder::{FolderError, read_folder, watch_folder};
pub use kubernetes::watch_kubernetes;
pub use source::{Source, SourceState, WatchState};
