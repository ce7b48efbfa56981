//! The node's agent of the CNI plugin `weft-cni`, run by a DaemonSet.
//!
//! | module | job |
//! |---|---|
//! | [`files`] | files of the node, replaced in one step |
//! | [`conflist`] | somebody else's CNI configuration with our plugin in it, and without it again |
//! | [`config_dir`] | the configuration that counts, among all in the folder |
//! | [`configuration`] | keeping the plugin in it |
//! | [`pods`] | the node's pods, watched |
//! | [`socket`] | answering the plugin |
//! | [`sandboxes`], [`repair`] | pods that started before the plugin was there |
//! | [`removal`] | whether the plugin goes when the agent does |
//! | [`http`], [`Metrics`] | readiness and metrics |
//!
//! Invariants: every file is replaced in one step; nobody else's part of a configuration is changed; the node's own network namespace is
//! never redirected.

pub mod config_dir;
pub mod configuration;
pub mod conflist;
pub mod files;
pub mod http;
mod metrics;
pub mod pods;
pub mod removal;
pub mod repair;
pub mod sandboxes;
pub mod socket;
#[cfg(test)]
mod testing;

pub use metrics::Metrics;
