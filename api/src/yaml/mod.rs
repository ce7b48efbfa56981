//! YAML with positions: text → tree of nodes that know their line → typed objects, every problem of a file at once.
//!
//! serde alone stops at the first error and has forgotten the line by the time our own checks run. So the
//! text becomes a [`tree::Node`] first; [`mod@decode`] turns that into any serde type, and a later check finds
//! a field's line by its path.

mod decode;
mod edit;
mod tree;

pub(crate) use decode::{Finding, Strictness, decode};
pub use edit::replace_values;
pub(crate) use tree::Node;
pub(crate) use tree::documents;
