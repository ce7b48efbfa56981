//! What an installation decides for all sidecars.

use serde::{Deserialize, Serialize};

use crate::annotations::{is_image, is_log_level, is_quantity};
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

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {value:?} {problem}")]
pub struct InvalidSetting {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Why, and what to write instead.
    pub problem: &'static str,
}

/// Longest drain that can be asked for, in seconds.
pub(crate) const LONGEST_DRAIN: u32 = 3600;

impl Settings {
    /// Looks for values that every pod would be refused for, or be broken by.
    ///
    /// # Errors
    /// The first such value.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let check = |name, value: &str, is_good: bool, problem| {
            if is_good { Ok(()) } else { Err(InvalidSetting { name, value: value.to_owned(), problem }) }
        };
        for (name, image) in [("proxyImage", &self.proxy_image), ("cniImage", &self.cni_image)] {
            check(name, image, is_image(image), "is not an image; write <registry>/<name>:<tag>")?;
        }
        let policy = &self.image_pull_policy;
        let known = ["Always", "IfNotPresent", "Never"].contains(&policy.as_str());
        check("imagePullPolicy", policy, known, "is none; there are Always, IfNotPresent and Never")?;
        for (name, quantity) in [
            ("cpuRequest", &self.cpu_request),
            ("memoryRequest", &self.memory_request),
            ("cpuLimit", &self.cpu_limit),
            ("memoryLimit", &self.memory_limit),
        ] {
            let is_good = quantity.is_empty() || is_quantity(quantity);
            check(name, quantity, is_good, "is not a quantity; write such as 100m or 64Mi, or nothing for none")?;
        }
        let level = &self.log_level;
        check("logLevel", level, is_log_level(level), "is not a log level; write error, warn, info, debug or trace")?;
        let drain = self.drain_seconds;
        check("drainSeconds", &drain.to_string(), drain <= LONGEST_DRAIN, "is more than an hour; write up to 3600")?;
        for (name, label) in [("systemNamespace", &self.system_namespace), ("trustDomain", &self.trust_domain)] {
            let is_good = !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
            check(name, label, is_good, "is not a DNS name; write lower-case letters, digits, - and .")?;
        }
        Ok(())
    }
}
