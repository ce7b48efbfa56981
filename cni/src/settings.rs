//! What the plugin is told in a network's configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is in the plugin's entry besides what every plugin's has: the node's agent writes it, the plugin reads it. Paths are the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginSettings {
    /// Where the node's agent listens.
    pub agent_socket: PathBuf,
    /// How long to wait for an agent that is being replaced, in seconds.
    pub agent_patience_seconds: u64,
    /// Namespaces whose pods are never the mesh's.
    pub exclude_namespaces: Vec<String>,
    /// The kubelet's `--root-dir`.
    pub kubelet_dir: PathBuf,
    /// Where the plugin notes what it installed.
    pub state_dir: PathBuf,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            agent_socket: crate::agent::SOCKET.into(),
            agent_patience_seconds: 5,
            exclude_namespaces: Vec::new(),
            kubelet_dir: "/var/lib/kubelet".into(),
            state_dir: "/run/weft-cni/attachments".into(),
        }
    }
}
