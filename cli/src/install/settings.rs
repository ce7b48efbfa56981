//! What an installation decides.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use weft_control_plane::model::Cidr;
use weft_inject::Settings;

/// A decision of an installation, by its name in `--set`.
pub(crate) struct Setting {
    /// Its name.
    pub(crate) key: &'static str,
    /// What it may be.
    pub(crate) values: &'static str,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// What it is, as it would be written.
    pub(crate) get: fn(&Installation) -> String,
    set: fn(&mut Installation, &str) -> Result<(), String>,
}

/// All decisions of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) ha: bool,
    pub(crate) injection: Settings,
    pub(crate) control_plane_image: String,
    pub(crate) replicas: u32,
    pub(crate) log_level: String,
    pub(crate) cpu_request: String,
    pub(crate) memory_request: String,
    pub(crate) memory_limit: String,
    pub(crate) certificate_lifetime: String,
    pub(crate) mesh_ranges: Vec<Cidr>,
    pub(crate) failure_policy: String,
    pub(crate) webhook_timeout: u32,
    pub(crate) cni_bin_dir: String,
    pub(crate) cni_conf_dir: String,
    pub(crate) kubelet_dir: String,
    pub(crate) cni_repair: String,
}

impl Default for Installation {
    fn default() -> Self {
        Self {
            ha: false,
            injection: Settings::default(),
            control_plane_image: concat!("weft/control-plane:", env!("CARGO_PKG_VERSION")).to_owned(),
            replicas: 1,
            log_level: "info".to_owned(),
            cpu_request: "100m".to_owned(),
            memory_request: "128Mi".to_owned(),
            memory_limit: "1Gi".to_owned(),
            certificate_lifetime: "24h".to_owned(),
            mesh_ranges: Vec::new(),
            failure_policy: "Fail".to_owned(),
            webhook_timeout: 5,
            cni_bin_dir: "/opt/cni/bin".to_owned(),
            cni_conf_dir: "/etc/cni/net.d".to_owned(),
            kubelet_dir: "/var/lib/kubelet".to_owned(),
            cni_repair: "install".to_owned(),
        }
    }
}

macro_rules! text {
    ($key:literal, $values:literal, $meaning:literal, $($field:ident).+, $check:expr) => {
        Setting {
            key: $key,
            values: $values,
            meaning: $meaning,
            get: |installation| installation.$($field).+.clone(),
            set: |installation, value| {
                let check: fn(&str) -> bool = $check;
                if !check(value) {
                    return Err(format!("{value:?} is not {}", $values));
                }
                value.clone_into(&mut installation.$($field).+);
                Ok(())
            },
        }
    };
}

macro_rules! number {
    ($key:literal, $values:literal, $meaning:literal, $($field:ident).+, $range:expr) => {
        Setting {
            key: $key,
            values: $values,
            meaning: $meaning,
            get: |installation| installation.$($field).+.to_string(),
            set: |installation, value| {
                let number = value.parse().ok().filter(|number| $range.contains(number));
                installation.$($field).+ = number.ok_or_else(|| format!("{value:?} is not {}", $values))?;
                Ok(())
            },
        }
    };
}

/// Whether an image or a quantity is one is known where it is used: [`Settings::check`] says it for all of them at the end.
const ANY: fn(&str) -> bool = |value| !value.is_empty();
const MAY_BE_EMPTY: fn(&str) -> bool = |_| true;

/// Every decision that `--set` can change.
pub(crate) const SETTINGS: &[Setting] = &[
    text!("namespace", "a name", "the control plane's namespace", injection.system_namespace, is_label),
    text!("trustDomain", "a DNS name", "the trust domain of all identities", injection.trust_domain, ANY),
    text!("image.controlPlane", "an image", "the control plane's image", control_plane_image, is_image),
    text!("image.proxy", "an image", "the sidecar's image", injection.proxy_image, is_image),
    text!(
        "image.cni",
        "an image",
        "image of redirection: init containers and node agents",
        injection.cni_image,
        is_image
    ),
    text!(
        "imagePullPolicy",
        "Always, IfNotPresent or Never",
        "when images are pulled",
        injection.image_pull_policy,
        |value| ["Always", "IfNotPresent", "Never"].contains(&value)
    ),
    number!(
        "controlPlane.replicas",
        "a number from 1 to 20",
        "how many control planes run; 3 with --ha",
        replicas,
        1..=20
    ),
    text!(
        "controlPlane.logLevel",
        "a log level, such as info or debug",
        "what the control plane logs",
        log_level,
        is_word
    ),
    text!(
        "controlPlane.cpuRequest",
        "a quantity, such as 100m",
        "CPU that a control plane asks for",
        cpu_request,
        is_quantity
    ),
    text!(
        "controlPlane.memoryRequest",
        "a quantity, such as 128Mi",
        "memory that a control plane asks for",
        memory_request,
        is_quantity
    ),
    text!(
        "controlPlane.memoryLimit",
        "a quantity, such as 1Gi",
        "memory that a control plane may use at most",
        memory_limit,
        is_quantity
    ),
    text!(
        "certificateLifetime",
        "a time, such as 24h",
        "how long certificates are valid; they are renewed at half of it",
        certificate_lifetime,
        |value| value.parse::<weft_api::Duration>().is_ok()
    ),
    Setting {
        key: "meshRanges",
        values: "networks, such as 198.18.0.0/17,198.19.0.0/16",
        meaning: "addresses of pods and Services: a connection to one that is not known yet waits, and fails rather than pass the mesh by",
        get: |installation| {
            let ranges: Vec<_> = installation.mesh_ranges.iter().map(ToString::to_string).collect();
            ranges.join(",")
        },
        set: |installation, value| {
            let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
            let ranges: Result<_, _> = parts
                .map(|part| {
                    part.parse::<Cidr>().map_err(|_| format!("{part:?} is not a network, such as 198.18.0.0/17"))
                })
                .collect();
            installation.mesh_ranges = ranges?;
            Ok(())
        },
    },
    text!(
        "webhook.failurePolicy",
        "Fail or Ignore",
        "what becomes of a pod that is to have a sidecar while no control plane answers: it is not created, or has none",
        failure_policy,
        |value| ["Fail", "Ignore"].contains(&value)
    ),
    number!(
        "webhook.timeoutSeconds",
        "a number from 1 to 30",
        "how long the API server waits for the control plane's answer",
        webhook_timeout,
        1..=30
    ),
    text!("proxy.logLevel", "a log level, such as info or debug", "what sidecars log", injection.log_level, is_word),
    number!(
        "proxy.drainSeconds",
        "a number from 0 to 3600",
        "longest drain of a sidecar",
        injection.drain_seconds,
        0..=3600
    ),
    text!(
        "proxy.cpuRequest",
        "a quantity or nothing",
        "CPU that a sidecar asks for",
        injection.cpu_request,
        MAY_BE_EMPTY
    ),
    text!(
        "proxy.memoryRequest",
        "a quantity or nothing",
        "memory that a sidecar asks for",
        injection.memory_request,
        MAY_BE_EMPTY
    ),
    text!(
        "proxy.cpuLimit",
        "a quantity or nothing",
        "CPU that a sidecar may use at most",
        injection.cpu_limit,
        MAY_BE_EMPTY
    ),
    text!(
        "proxy.memoryLimit",
        "a quantity or nothing",
        "memory that a sidecar may use at most",
        injection.memory_limit,
        MAY_BE_EMPTY
    ),
    text!("cni.binDir", "an absolute path", "the node's folder of CNI plugins, with --cni", cni_bin_dir, is_path),
    text!(
        "cni.confDir",
        "an absolute path",
        "the node's folder of CNI configurations, with --cni",
        cni_conf_dir,
        is_path
    ),
    text!("cni.kubeletDir", "an absolute path", "the kubelet's folder, with --cni", kubelet_dir, is_path),
    text!(
        "cni.repair",
        "install, delete or off",
        "what is done about pods that started before the plugin was there, with --cni",
        cni_repair,
        |value| ["install", "delete", "off"].contains(&value)
    ),
];

impl Installation {
    /// The defaults, with what the flags say.
    pub(crate) fn from_args(ha: bool, cni: bool, set: &[String]) -> anyhow::Result<Self> {
        let mut installation = Self { ha, replicas: if ha { 3 } else { 1 }, ..Self::default() };
        installation.injection.cni = cni;
        for assignment in set {
            let (key, value) = assignment
                .split_once('=')
                .with_context(|| format!("--set {assignment}: has no value; write --set key=value"))?;
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                bail!("--set {key}: there is no such setting{}", known(key));
            };
            if let Err(problem) = (setting.set)(&mut installation, value) {
                bail!("--set {key}: {problem}");
            }
        }
        installation.injection.check().context("--set")?;
        Ok(installation)
    }
}

fn known(key: &str) -> String {
    let keys = || SETTINGS.iter().map(|setting| setting.key);
    let mut text = String::new();
    if let Some(near) = weft_api::nearest(key, keys()) {
        // Writing to a String does not fail.
        let _ = write!(text, "; did you mean {near}?");
    }
    let keys: Vec<_> = keys().collect();
    let _ = write!(text, "\nThere are {}", keys.join(", "));
    text
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_image(text: &str) -> bool {
    with(|settings| text.clone_into(&mut settings.proxy_image))
}

fn is_quantity(text: &str) -> bool {
    !text.is_empty() && with(|settings| text.clone_into(&mut settings.memory_limit))
}

fn is_word(text: &str) -> bool {
    with(|settings| text.clone_into(&mut settings.log_level))
}

/// Injection knows what images, quantities and log levels are.
fn with(change: impl FnOnce(&mut Settings)) -> bool {
    let mut settings = Settings::default();
    change(&mut settings);
    settings.check().is_ok()
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains("..") && !text.contains(char::is_whitespace)
}
