//! Where the mesh's description comes from. What users write becomes a [`crate::model::Model`] here; no Kubernetes type goes further.
//!
//! - [`build()`](build::build): objects of `weft-api` → model, with everything that is wrong between them.
//! - [`folder`]: a watched folder of YAML files.

pub mod build;
pub mod folder;

pub use build::{Built, build};
pub use folder::{Folder, FolderError, FolderState, read_folder, watch_folder};
