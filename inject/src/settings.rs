//! What an installation decides for all sidecars.

use serde::{Deserialize, Serialize};

use crate::names;

/// What an installation decides for all sidecars; a pod's annotations go before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The sidecar's image.
    pub proxy_image: String,
    /// Image of `weft-cni`, for the init container that installs or proves the redirect.
    pub cni_image: String,
    /// When images are pulled: `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Whether the CNI plugin installs the redirect. If not, an init container with NET_ADMIN does.
    pub cni: bool,
    /// Namespace of the control plane.
    pub system_namespace: String,
    /// Trust domain of all identities.
    pub trust_domain: String,
    /// The sidecar's log level.
    pub log_level: String,
    /// Longest drain of a sidecar, in seconds.
    pub drain_seconds: u32,
    /// CPU that a sidecar asks for.
    pub cpu_request: String,
    /// Memory that a sidecar asks for.
    pub memory_request: String,
    /// CPU that a sidecar may use at most; empty means no limit.
    pub cpu_limit: String,
    /// Memory that a sidecar may use at most; empty means no limit.
    pub memory_limit: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_image: concat!("weft/proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            cni_image: concat!("weft/cni:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            cni: false,
            system_namespace: names::SYSTEM_NAMESPACE.to_owned(),
            trust_domain: "weft.local".to_owned(),
            log_level: "info".to_owned(),
            drain_seconds: 30,
            cpu_request: "10m".to_owned(),
            memory_request: "32Mi".to_owned(),
            cpu_limit: String::new(),
            memory_limit: "256Mi".to_owned(),
        }
    }
}
