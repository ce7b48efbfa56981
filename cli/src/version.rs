//! `weft version`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;
use weft_inject::names;

use crate::cluster::items;
use crate::command::VersionArgs;
use crate::output;

pub(crate) async fn run(args: VersionArgs) -> anyhow::Result<ExitCode> {
    let mut text = format!("weft {}\n", env!("CARGO_PKG_VERSION"));
    if args.all {
        let pods = args.cluster.get(&["pods", "-A"]).await?;
        text.push_str(&in_cluster(&pods, args.cluster.weft_namespace()));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// How many control planes run which image, and how many sidecars were injected by which version.
fn in_cluster(pods: &Value, weft_namespace: &str) -> String {
    let (mut control_planes, mut sidecars) = (BTreeMap::new(), BTreeMap::new());
    for pod in items(pods) {
        let metadata = &pod["metadata"];
        let name = &metadata["labels"]["app.kubernetes.io/name"];
        if metadata["namespace"] == weft_namespace && name == names::CONTROL_PLANE {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            *control_planes.entry(image).or_insert(0) += 1;
        }
        if let Some(version) = metadata["annotations"][names::INJECTED].as_str() {
            *sidecars.entry(version).or_insert(0) += 1;
        }
    }
    let mut text = String::new();
    for (what, versions) in [("control plane", control_planes), ("sidecar", sidecars)] {
        for (version, count) in versions {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{what} {version} ({count})");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn versions_are_counted() {
        let control_plane = json!({
            "metadata": { "namespace": "weft-system", "labels": { "app.kubernetes.io/name": "weft-control-plane" } },
            "spec": { "containers": [{ "image": "weft/control-plane:0.1.0" }] },
        });
        let web = json!({ "metadata": { "namespace": "shop", "annotations": { "weft.mesh/injected": "0.1.0" } } });
        let pods = json!({ "items": [control_plane, web, web, { "metadata": { "namespace": "shop" } }] });
        let expected = "control plane weft/control-plane:0.1.0 (1)\nsidecar 0.1.0 (2)\n";
        assert_eq!(super::in_cluster(&pods, "weft-system"), expected);
    }
}
