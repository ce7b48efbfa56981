//! What the runtime says: environment variables, and the network's configuration on stdin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use weft_cni::CNI_VERSIONS as VERSIONS;
use weft_cni::PluginSettings;
use weft_cni::agent::Question;

use super::reply::{Code, Failure};

/// The environment variables of one call (`CNI_…`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's.
    pub(crate) fn of_process() -> Self {
        // Whatever is not Unicode is not from a runtime.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// A variable that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn need(&self, name: &str) -> Result<&str, Failure> {
        let missing = || Failure::new(Code::InvalidEnvironment, format!("{name} is missing: the runtime sets it"));
        self.get(name).ok_or_else(missing)
    }
}

/// The configuration, as far as the plugin looks at it.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Configuration {
    #[serde(rename = "cniVersion", default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(rename = "prevResult")]
    pub(super) previous: Option<Value>,
    #[serde(rename = "runtimeConfig", default)]
    runtime: RuntimeConfiguration,
    #[serde(flatten)]
    pub(super) settings: PluginSettings,
    #[serde(rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    pub(super) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// What the runtime passes to plugins that have the capability of the name.
#[derive(Debug, Clone, Default, serde::Deserialize)]
struct RuntimeConfiguration {
    /// containerd and CRI-O know the pod's annotations from the kubelet.
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    annotations: Option<BTreeMap<String, String>>,
}

/// A container's interface that still exists.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    #[serde(rename = "ifname")]
    pub(super) interface: String,
}

impl Configuration {
    /// Reads it, for a command that came with version `since` of the specification. An error comes with the version to say it in.
    pub(super) fn read(text: &[u8], command: &str, since: &str) -> Result<Self, (Failure, String)> {
        let raw: Value = serde_json::from_slice(text).map_err(|error| {
            let message = format!("the network's configuration on stdin is no JSON: {error}");
            (Failure::new(Code::Undecodable, message), String::new())
        })?;
        let version = raw["cniVersion"].as_str().unwrap_or_default().to_owned();
        let fail = |code, message: String| (Failure::new(code, message), version.clone());
        let position = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
        let Some(spoken) = position(&version) else {
            let message = format!("cniVersion: {version:?} is not supported: use one of {}", VERSIONS.join(", "));
            return Err(fail(Code::IncompatibleVersion, message));
        };
        if position(since).is_some_and(|since| spoken < since) {
            let message = format!("cniVersion: {version:?} has no {command}: it came with {since}");
            return Err(fail(Code::IncompatibleVersion, message));
        }
        let read: Self = serde_json::from_value(raw).map_err(|error| {
            fail(Code::InvalidConfiguration, format!("the network's configuration makes no sense: {error}"))
        })?;
        if !is_identifier(&read.name) {
            return Err(fail(
                Code::InvalidConfiguration,
                format!("name: {:?} is no network's name: {IDENTIFIER}", read.name),
            ));
        }
        Ok(read)
    }

    /// The pod's annotations, if the runtime passes them.
    pub(super) fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        self.runtime.annotations.as_ref()
    }
}

/// One interface of one container: what ADD, DEL and CHECK are about.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    pub(super) container: String,
    pub(super) interface: String,
    /// None only for DEL, after the namespace has gone.
    pub(super) netns: Option<PathBuf>,
    /// The pod the container is of, as far as the runtime says.
    pub(super) pod: Option<Question>,
}

impl Attachment {
    pub(super) fn read(environment: &Environment, needs_netns: bool) -> Result<Self, Failure> {
        let invalid = |message: String| Failure::new(Code::InvalidEnvironment, message);
        let container = environment.need("CNI_CONTAINERID")?;
        if !is_identifier(container) {
            return Err(invalid(format!("CNI_CONTAINERID: {container:?} is no container's name: {IDENTIFIER}")));
        }
        let interface = environment.need("CNI_IFNAME")?;
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if interface.len() > 15 || matches!(interface, "." | "..") || interface.contains(odd) {
            let rule = "at most 15 characters without '/', ':' and spaces";
            return Err(invalid(format!("CNI_IFNAME: {interface:?} is no interface's name: {rule}")));
        }
        let netns = if needs_netns { Some(environment.need("CNI_NETNS")?) } else { environment.get("CNI_NETNS") };
        Ok(Self {
            container: container.into(),
            interface: interface.into(),
            netns: netns.map(PathBuf::from),
            pod: pod(environment.get("CNI_ARGS").unwrap_or_default()).map_err(invalid)?,
        })
    }
}

/// The pod that `CNI_ARGS` name; none for a container that is not Kubernetes'.
fn pod(arguments: &str) -> Result<Option<Question>, String> {
    let mut values = BTreeMap::new();
    for pair in arguments.split(';').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("CNI_ARGS: {pair:?} is no NAME=value; several are separated by ';'"))?;
        values.insert(name, value);
    }
    let value = |name: &str| values.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
    let (Some(namespace), Some(name)) = (value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME")) else {
        return Ok(None);
    };
    Ok(Some(Question { namespace, name, uid: value("K8S_POD_UID") }))
}

/// What the specification allows as a network's or container's name; so it is safe in a file's name, too.
fn is_identifier(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain) && text.chars().all(|c| plain(c) || "_.-".contains(c))
}

const IDENTIFIER: &str = "use letters, digits, '_', '.' and '-', and begin with a letter or digit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_what_the_runtime_passes() {
        let text =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=ab;K8S_POD_UID=7";
        let expected = Question { namespace: "shop".into(), name: "web-1".into(), uid: Some("7".into()) };
        assert_eq!(pod(text).unwrap(), Some(expected));
        assert_eq!(pod("").unwrap(), None);
        assert_eq!(pod("IgnoreUnknown=1").unwrap(), None);
        assert!(pod("K8S_POD_NAME").unwrap_err().contains("is no NAME=value"));
    }

    #[test]
    fn the_plugins_settings_stand_beside_what_every_plugin_is_told() {
        let settings = PluginSettings { agent_patience_seconds: 7, ..PluginSettings::default() };
        let mut text = serde_json::to_value(&settings).unwrap();
        text["cniVersion"] = "1.1.0".into();
        text["name"] = "net".into();
        let read = |text: &Value| Configuration::read(text.to_string().as_bytes(), "ADD", "0.3.0").unwrap();
        assert_eq!(read(&text).settings, settings);
        let bare = serde_json::json!({ "cniVersion": "1.1.0", "name": "net" });
        assert_eq!(read(&bare).settings, PluginSettings::default());
    }

    #[test]
    fn names_that_could_leave_a_folder_are_none() {
        for text in ["", ".", "..", "../x", "a/b", "-a", "a b", "ä"] {
            assert!(!is_identifier(text), "{text:?}");
        }
        assert!(is_identifier("0a_.-Z"));
    }
}
