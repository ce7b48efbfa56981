//! What the plugin says: a result or an error, in JSON on stdout.

use serde_json::{Value, json};
use weft_cni::CNI_VERSIONS as VERSIONS;

/// The newest version of the specification the plugin speaks.
pub(super) const NEWEST: &str = "1.1.0";

/// An error as the specification wants it ("Error" in section 2); codes from 100 are the plugin's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
}

/// The error codes in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    ContainerUnknown = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Undecodable = 6,
    InvalidConfiguration = 7,
    TryAgainLater = 11,
    /// The pod's annotation makes no sense.
    Annotation = 100,
    /// The kernel did not take or give the rules.
    Redirection = 101,
    /// The pod is not redirected as it should be.
    NotRedirected = 102,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The error as the runtime of a configuration of `version` reads it; one of an unknown version gets the newest.
    pub(super) fn to_json(&self, version: &str) -> Value {
        let version = VERSIONS.into_iter().find(|known| *known == version).unwrap_or(NEWEST);
        json!({ "cniVersion": version, "code": self.code as u32, "msg": self.message })
    }
}

/// The answer to VERSION. What is asked in a version the plugin speaks is answered in it.
pub(super) fn versions(asked: Option<&str>) -> Value {
    let version = VERSIONS.into_iter().find(|known| Some(*known) == asked).unwrap_or(NEWEST);
    json!({ "cniVersion": version, "supportedVersions": VERSIONS })
}

/// The previous plugin's result as ADD passes it on: unchanged, but in the version of the configuration.
///
/// Between 0.x and 1.x one thing was dropped that readers of the other insist on: the `version` of an address.
pub(super) fn pass_on(mut result: Value, version: &str) -> Value {
    if result["cniVersion"] == version {
        return result;
    }
    let addresses = result.get_mut("ips").and_then(Value::as_array_mut);
    for address in addresses.into_iter().flatten().filter_map(Value::as_object_mut) {
        if version.starts_with("0.") {
            let is_ipv6 = address.get("address").and_then(Value::as_str).is_some_and(|text| text.contains(':'));
            address.entry("version").or_insert_with(|| if is_ipv6 { "6" } else { "4" }.into());
        } else {
            address.remove("version");
        }
    }
    if let Some(result) = result.as_object_mut() {
        result.insert("cniVersion".into(), version.into());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_the_same_version_is_passed_on_unchanged() {
        let result =
            json!({ "cniVersion": "0.4.0", "ips": [{ "address": "198.18.0.2/24", "odd": [1] }], "extra": null });
        assert_eq!(pass_on(result.clone(), "0.4.0"), result);
    }

    #[test]
    fn a_result_of_another_version_gets_the_shape_of_the_configurations() {
        let old = json!({ "cniVersion": "0.3.1", "ips": [
            { "version": "4", "address": "198.18.0.2/24" }, { "version": "6", "address": "fd00:198:18::2/64" },
        ] });
        let new = json!({ "cniVersion": "1.1.0", "ips": [
            { "address": "198.18.0.2/24" }, { "address": "fd00:198:18::2/64" },
        ] });
        assert_eq!(pass_on(old.clone(), "1.1.0"), new);
        assert_eq!(pass_on(new, "0.3.1"), old);
    }

    #[test]
    fn a_result_without_a_version_gets_the_configurations() {
        assert_eq!(pass_on(json!({ "dns": {} }), "1.0.0"), json!({ "cniVersion": "1.0.0", "dns": {} }));
    }
}
