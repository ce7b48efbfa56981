//! Somebody else's CNI configuration with our plugin in it, and without it again.
//!
//! Only our own entry is written or cut out; every other byte stays where it is. So after removal the file is what it was, whatever its
//! order, spacing and numbers.

use std::ops::Range;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use weft_cni::{CNI_VERSIONS, PLUGIN, PluginSettings};

/// Why a configuration cannot have the plugin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read; perhaps it is only half written yet.
    #[error("it is no CNI configuration: {0}")]
    Unreadable(String),
    /// There is nobody to make the pod's network.
    #[error("its list `plugins` names no plugin that makes a network")]
    Empty,
    /// The plugin would refuse every pod.
    #[error("cniVersion: {0:?} is not spoken by the plugin: use one of {versions}", versions = CNI_VERSIONS.join(", "))]
    Version(String),
}

/// The list with `entry` at its end, or in the place of our entry it has; none if it has just that.
///
/// # Errors
/// If the plugin can have no place in it.
pub fn with_plugin(text: &str, entry: &str) -> Result<Option<String>, Unusable> {
    let list = List::read(text)?;
    check_versions(text)?;
    if let Some(own) = list.own.first() {
        if list.own.len() == 1 && is_same(&text[list.plugins[*own].clone()], entry) {
            return Ok(None);
        }
        // Keeps its place: another plugin may have been put behind it on purpose.
        let place = list.plugins[*own].clone();
        return Ok(Some(format!("{}{entry}{}", &text[..place.start], &text[place.end..])));
    }
    let Some(last) = list.plugins.last() else {
        return Err(Unusable::Empty);
    };
    let before = &text[..last.start];
    let indentation = &before[before.trim_end().len()..];
    Ok(Some(format!("{},{indentation}{entry}{}", &text[..last.end], &text[last.end..])))
}

/// The list without our entry; none if it has none.
///
/// # Errors
/// If it is no list.
pub fn without_plugin(text: &str) -> Result<Option<String>, Unusable> {
    let list = List::read(text)?;
    let Some(&own) = list.own.first() else {
        return Ok(None);
    };
    let cut: Range<usize> = match own.checked_sub(1) {
        // With the comma before it, as it was put in.
        Some(previous) => list.plugins[previous].end..list.plugins[own].end,
        None => list.plugins[own].start..list.plugins.get(1).map_or(list.plugins[own].end, |next| next.start),
    };
    let rest = format!("{}{}", &text[..cut.start], &text[cut.end..]);
    // More than one only if somebody copied it.
    Ok(Some(without_plugin(&rest)?.unwrap_or(rest)))
}

/// The list made of a configuration of a single plugin, which has no place for a second.
///
/// # Errors
/// If the plugin cannot follow that one.
pub fn list_of(single: &str, entry: &str) -> Result<String, Unusable> {
    let value: Value = serde_json::from_str(single).map_err(unreadable)?;
    if !value["type"].is_string() {
        return Err(Unusable::Unreadable("it has no `type`".into()));
    }
    check_versions(single)?;
    let (version, name) = (&value["cniVersion"], &value["name"]);
    Ok(format!(
        "{{\"cniVersion\":{version},\"name\":{name},\"{MARK}\":true,\"plugins\":[\n{},\n{entry}\n]}}\n",
        single.trim()
    ))
}

/// Whether the list as a whole is ours, made by [`list_of`].
pub fn is_made(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|list| list[MARK] == true)
}

/// Runtimes ignore what they do not know in a list.
const MARK: &str = "weft.mesh/made";

/// Our entry in a list: what the plugin is told.
///
/// # Errors
/// If a path is no UTF-8, which a configuration has to be.
pub fn entry(settings: &PluginSettings) -> serde_json::Result<String> {
    let mut entry = serde_json::to_value(settings)?;
    entry["type"] = PLUGIN.into();
    entry["capabilities"] = json!({ "io.kubernetes.cri.pod-annotations": true });
    Ok(entry.to_string())
}

/// Where the plugins of a list are in its text.
struct List {
    plugins: Vec<Range<usize>>,
    /// Which of them are ours.
    own: Vec<usize>,
}

impl List {
    fn read(text: &str) -> Result<Self, Unusable> {
        #[derive(serde::Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            plugins: Vec<&'a RawValue>,
        }
        #[derive(serde::Deserialize)]
        struct Typed {
            r#type: String,
        }
        let raw: Raw<'_> = serde_json::from_str(text).map_err(unreadable)?;
        let mut list = Self { plugins: Vec::new(), own: Vec::new() };
        for (index, plugin) in raw.plugins.iter().enumerate() {
            let plugin = plugin.get();
            let Typed { r#type } = serde_json::from_str(plugin).map_err(unreadable)?;
            if r#type == PLUGIN {
                list.own.push(index);
            }
            // Borrowed from the text, so the difference of the addresses is the place in it.
            let start = plugin.as_ptr() as usize - text.as_ptr() as usize;
            list.plugins.push(start..start + plugin.len());
        }
        if list.own.len() == list.plugins.len() {
            return Err(Unusable::Empty);
        }
        Ok(list)
    }
}

/// A list may offer several versions (CNI 1.1), of which the runtime takes what it likes best.
fn check_versions(text: &str) -> Result<(), Unusable> {
    let value: Value = serde_json::from_str(text).map_err(unreadable)?;
    let offered = value["cniVersions"].as_array().into_iter().flatten();
    for version in offered.chain([&value["cniVersion"]]) {
        let version = version.as_str().unwrap_or_default();
        if !CNI_VERSIONS.contains(&version) {
            return Err(Unusable::Version(version.into()));
        }
    }
    Ok(())
}

fn is_same(one: &str, other: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    value(one) == value(other)
}

#[allow(clippy::needless_pass_by_value)] // Made for `map_err`.
fn unreadable(error: serde_json::Error) -> Unusable {
    Unusable::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"type":"weft-cni","n":1}"#;

    #[test]
    fn what_the_agent_writes_is_what_the_plugin_reads() {
        let settings = PluginSettings {
            agent_socket: "/mesh/agent.sock".into(),
            agent_patience_seconds: 7,
            exclude_namespaces: vec!["mesh".into()],
            kubelet_dir: "/mesh/kubelet".into(),
            state_dir: "/mesh/attachments".into(),
        };
        let text = entry(&settings).unwrap();
        assert_eq!(serde_json::from_str::<PluginSettings>(&text).unwrap(), settings);
        let entry: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(entry["type"], "weft-cni");
        assert_eq!(entry["capabilities"]["io.kubernetes.cri.pod-annotations"], true);
        // Nodes have entries of other versions: these names are for good.
        for (name, value) in [
            ("agentSocket", json!("/mesh/agent.sock")),
            ("agentPatienceSeconds", json!(7)),
            ("excludeNamespaces", json!(["mesh"])),
            ("kubeletDir", json!("/mesh/kubelet")),
            ("stateDir", json!("/mesh/attachments")),
        ] {
            assert_eq!(entry[name], value, "{name}");
        }
    }

    #[test]
    fn the_plugin_comes_last_and_goes_without_a_trace() {
        for list in [
            "{\n  \"name\": \"net\", \"cniVersion\": \"1.0.0\",\n  \"plugins\": [\n    {\"type\": \"bridge\", \"mtu\": 1.50e3},\n    {\"type\": \"portmap\"}\n  ]\n}\n",
            r#"{"plugins":[{"type":"bridge"}],"cniVersion":"0.3.1","name":"net"}"#,
            "{\"cniVersion\":\"1.1.0\",\"plugins\" : [ {\"type\":\"bridge\"} ], \"z\":1, \"a\":\"\\u00e4ä\" }",
        ] {
            let with = with_plugin(list, ENTRY).unwrap().unwrap();
            let value: Value = serde_json::from_str(&with).unwrap();
            assert_eq!(
                value["plugins"].as_array().unwrap().last().unwrap(),
                &serde_json::from_str::<Value>(ENTRY).unwrap()
            );
            assert_eq!(with_plugin(&with, ENTRY).unwrap(), None, "a second time changes nothing");
            assert_eq!(without_plugin(&with).unwrap().unwrap(), list, "byte by byte");
        }
    }

    #[test]
    fn an_old_entry_is_replaced_where_it_is() {
        let list =
            r#"{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}, {"type":"weft-cni","n":0}, {"type":"last"}]}"#;
        assert_eq!(
            with_plugin(list, ENTRY).unwrap().unwrap(),
            r#"{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}, {"type":"weft-cni","n":1}, {"type":"last"}]}"#
        );
        assert_eq!(
            without_plugin(list).unwrap().unwrap(),
            r#"{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}, {"type":"last"}]}"#
        );
    }

    #[test]
    fn an_entry_somebody_reformatted_is_the_same() {
        let list =
            "{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"bridge\"},{\n \"n\": 1,\n \"type\": \"weft-cni\" }]}";
        assert_eq!(with_plugin(list, ENTRY).unwrap(), None);
    }

    #[test]
    fn entries_that_are_copied_or_first_go_too() {
        let list = r#"{"plugins":[{"type":"weft-cni"}, {"type":"bridge"}, {"type":"weft-cni"}]}"#;
        assert_eq!(without_plugin(list).unwrap().unwrap(), r#"{"plugins":[{"type":"bridge"}]}"#);
        assert_eq!(without_plugin(r#"{"plugins":[{"type":"bridge"}]}"#).unwrap(), None);
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        for text in ["", "{", "[]", "{}", r#"{"plugins":{}}"#, r#"{"plugins":[1]}"#] {
            assert!(matches!(with_plugin(text, ENTRY), Err(Unusable::Unreadable(_))), "{text}");
        }
        for text in
            [r#"{"cniVersion":"1.0.0","plugins":[]}"#, r#"{"cniVersion":"1.0.0","plugins":[{"type":"weft-cni"}]}"#]
        {
            assert_eq!(with_plugin(text, ENTRY), Err(Unusable::Empty), "{text}");
        }
    }

    #[test]
    fn a_version_the_plugin_does_not_speak_would_refuse_every_pod() {
        let list = |versions: &str| format!(r#"{{{versions}"plugins":[{{"type":"bridge"}}]}}"#);
        for (versions, refused) in [
            ("", ""),
            (r#""cniVersion":"0.2.0","#, "0.2.0"),
            (r#""cniVersion":"1.1.0","cniVersions":["1.0.0","2.0.0"],"#, "2.0.0"),
        ] {
            assert_eq!(with_plugin(&list(versions), ENTRY), Err(Unusable::Version(refused.into())));
        }
        assert!(with_plugin(&list(r#""cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"#), ENTRY).is_ok());
    }

    #[test]
    fn a_single_plugin_becomes_the_first_of_a_list() {
        let single = "{\n \"cniVersion\": \"0.3.1\", \"name\": \"cbr0\", \"type\": \"ptp\", \"mtu\": 1.5e3 }\n";
        let list = list_of(single, ENTRY).unwrap();
        assert!(list.contains(single.trim()), "{list}");
        let value: Value = serde_json::from_str(&list).unwrap();
        assert_eq!((&value["cniVersion"], &value["name"]), (&json!("0.3.1"), &json!("cbr0")));
        assert_eq!(value["plugins"][1]["type"], "weft-cni");
        assert!(is_made(&list) && !is_made(single));
        assert!(list_of(r#"{"type":"ptp"}"#, ENTRY).is_err(), "no version");
        assert!(list_of(r#"{"cniVersion":"1.0.0"}"#, ENTRY).is_err(), "no type");
    }
}
