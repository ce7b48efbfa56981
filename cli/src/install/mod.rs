//! `weft install` and `weft uninstall`: the manifests of an installation.
//!
//! | module | job |
//! |---|---|
//! | [`settings`] | what `--set` may say: names, types, defaults, meanings |
//! | [`render`] | the files below `manifests/`, with what was set |
//! | [`mod@reference`] | docs/reference/install.md |
//!
//! Nothing here asks or changes a cluster: what is printed goes to `kubectl apply -f -` or `kubectl delete -f -`.

pub(crate) mod reference;
mod render;
mod settings;

use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

pub(crate) use settings::Installation;

use crate::command::{InstallArgs, UninstallArgs};
use crate::output;

pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    let installation = Installation::from_args(args.ha, args.cni, &args.set)?;
    output::print(&yaml(&render::objects(&installation)?)?)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn uninstall(args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    // With everything that any installation may have: `kubectl delete --ignore-not-found` passes over what there is not.
    let installation = Installation::from_args(true, true, &args.set)?;
    let mut objects = render::objects(&installation)?;
    if args.keep_crds {
        objects.retain(|object| object["kind"] != "CustomResourceDefinition");
    }
    output::print(&yaml(&to_delete(objects))?)?;
    Ok(ExitCode::SUCCESS)
}

/// Names only, in an order in which nothing is in the way of what comes after it: first the webhooks, or they would refuse pods for want of an
/// answer; the DaemonSet before its rights, by which its agents see that this is no upgrade.
fn to_delete(objects: Vec<Value>) -> Vec<Value> {
    const LAST: [&str; 5] = ["ServiceAccount", "ClusterRole", "CustomResourceDefinition", "PriorityClass", "Namespace"];
    let rank = |object: &Value| match object["kind"].as_str().unwrap_or_default() {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 0,
        "DaemonSet" => 1,
        "Deployment" => 2,
        kind => LAST.iter().position(|last| *last == kind).map_or(3, |at| 4 + at),
    };
    let mut objects: Vec<_> = objects.iter().map(name_only).collect();
    objects.sort_by_key(rank);
    objects
}

fn name_only(object: &Value) -> Value {
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    serde_json::json!({ "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata })
}

fn yaml(objects: &[Value]) -> anyhow::Result<String> {
    if objects.is_empty() {
        bail!("there is nothing to print");
    }
    objects.iter().map(output::yaml).collect()
}

#[cfg(test)]
mod tests;
