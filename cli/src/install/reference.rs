//! docs/reference/install.md, made from the settings.

use std::fmt::Write as _;

use anyhow::Context;

use super::Installation;
use super::settings::SETTINGS;

/// The reference page.
pub(crate) fn markdown() -> String {
    let mut text = String::from(
        "# Settings of an installation\n\n\
         <!-- Made from the program by `weft reference install > docs/reference/install.md`; a test compares. -->\n\n\
         `weft install --set key=value` changes one of these; `--set` can be repeated. An unknown key or a value that makes no sense is\n\
         refused. Without any of them the result is what `kubectl kustomize manifests/base` prints, with `--ha` and `--cni` that of the\n\
         components below `manifests/components`.\n\n\
         | key | default | value | meaning |\n|---|---|---|---|\n",
    );
    let defaults = Installation::default();
    for setting in SETTINGS {
        let default = match (setting.get)(&defaults) {
            empty if empty.is_empty() => "none".to_owned(),
            default => format!("`{default}`"),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "| `{}` | {default} | {} | {} |", setting.key, setting.values, setting.meaning);
    }
    text
}

/// docs/reference/annotations.md.
pub(crate) fn annotations() -> String {
    let mut text = String::from(
        "# Labels and annotations\n\n\
         <!-- Made from the program by `weft reference annotations > docs/reference/annotations.md`; a test compares. -->\n\n\
         What pods say about their sidecars. In a Deployment, StatefulSet, DaemonSet or Job these stand in the pod's template\n\
         (`spec.template.metadata.annotations`). A value that makes no sense, and a name that begins with `weft.mesh/` and is not known, is\n\
         refused when the pod is created, with what to write instead. What is not said is as the installation says\n\
         ([`weft install --set`](install.md)).\n\n\
         | annotation | value | meaning |\n|---|---|---|\n",
    );
    for annotation in weft_inject::annotations::ANNOTATIONS {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| `{}` | {} | {} |", annotation.name, annotation.values, annotation.meaning);
    }
    text.push_str(
        "\n## On a namespace\n\n\
         | label | value | meaning |\n|---|---|---|\n\
         | `weft.mesh/inject` | `enabled` | pods that start there get a sidecar, unless they opt out |\n\n\
         ## On a Service\n\n\
         | annotation | value | meaning |\n|---|---|---|\n\
         | `weft.mesh/opaque-ports` | ports and ranges | ports of the Service that carry bytes, whatever they look like |\n\n\
         ## Written by Weft\n\n\
         | name | on | meaning |\n|---|---|---|\n\
         | annotation `weft.mesh/injected` | an injected pod | Weft's version |\n\
         | annotation `weft.mesh/redirect` | an injected pod | which connections are redirected |\n\
         | label `weft.mesh/workload` | an injected pod | the Deployment, StatefulSet, DaemonSet, CronJob or other owner it belongs to |\n",
    );
    text
}

/// The files of `manifests/crds`: each a name and its text.
pub(crate) fn crds() -> anyhow::Result<Vec<(String, String)>> {
    let files = weft_api::crd::definitions().into_iter().map(|(name, definition)| {
        let text = serde_yaml_ng::to_string(&definition).context("writing YAML")?;
        Ok((name, format!("# Made from the types in api/ by `weft reference crds`; a test compares.\n{text}")))
    });
    files.collect()
}

/// All files of `manifests/crds`, one after the other, each below a comment with its name.
pub(crate) fn all_crds() -> anyhow::Result<String> {
    Ok(crds()?.into_iter().map(|(name, text)| format!("--- # {name}\n{text}")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_of_our_kinds_are_up_to_date() {
        let folder = "../manifests/crds";
        for (name, text) in super::crds().unwrap() {
            let file = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
            assert!(file == text, "manifests/crds/{name} is out of date: scripts/crds.sh");
        }
    }

    /// `kubectl` reads YAML 1.1, in which such words are booleans: a field `on` would reach the API server as `true`. Nobody writes a status.
    #[test]
    fn no_field_and_no_value_of_what_users_write_is_a_boolean_to_kubectl() {
        fn words(schema: &serde_json::Value, found: &mut Vec<String>) {
            let Some(fields) = schema.as_object() else { return };
            let properties = fields.get("properties").and_then(|properties| properties.as_object());
            found.extend(properties.into_iter().flat_map(|properties| properties.keys().cloned()));
            let values = fields.get("enum").and_then(|values| values.as_array());
            found.extend(values.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)));
            let inner = fields.values().chain(properties.into_iter().flat_map(|properties| properties.values()));
            for schema in inner {
                words(schema, found);
            }
        }
        let mut found = Vec::new();
        for (_, text) in super::crds().unwrap() {
            let definition: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
            for version in definition["spec"]["versions"].as_array().unwrap() {
                words(&version["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
            }
        }
        assert!(found.iter().any(|word| word == "retries"), "{found:?}");
        let booleans = ["y", "yes", "on", "n", "no", "off", "true", "false"];
        let wrong: Vec<_> = found.iter().filter(|word| booleans.contains(&word.to_lowercase().as_str())).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn the_page_of_annotations_is_up_to_date() {
        let path = "../docs/reference/annotations.md";
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == super::annotations(),
            "docs/reference/annotations.md is out of date: cargo run -p weft-cli -- reference annotations > docs/reference/annotations.md"
        );
    }

    #[test]
    fn the_page_of_checks_is_up_to_date() {
        let path = "../docs/reference/checks.md";
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == crate::check::markdown(),
            "docs/reference/checks.md is out of date: cargo run -p weft-cli -- reference checks --into docs/reference/checks > docs/reference/checks.md"
        );
    }

    #[test]
    fn each_check_has_its_page_and_each_page_its_check() {
        let again = tempfile::tempdir().unwrap();
        crate::check::write_pages(again.path()).unwrap();
        let pages = |folder: &std::path::Path| {
            let read = |entry: std::io::Result<std::fs::DirEntry>| {
                let path = entry.unwrap().path();
                (path.file_name().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
            };
            std::fs::read_dir(folder).unwrap().map(read).collect::<std::collections::BTreeMap<_, _>>()
        };
        assert!(
            pages("../docs/reference/checks".as_ref()) == pages(again.path()),
            "docs/reference/checks is out of date: cargo run -p weft-cli -- reference checks --into docs/reference/checks > docs/reference/checks.md"
        );
    }

    #[test]
    fn the_page_of_settings_is_up_to_date() {
        let path = "../docs/reference/install.md";
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == super::markdown(),
            "docs/reference/install.md is out of date: cargo run -p weft-cli -- reference install > docs/reference/install.md"
        );
    }
}
