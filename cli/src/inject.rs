//! `weft inject` and `weft uninject`: what the webhook does to pods, done to files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use weft_inject::{Outcome, Place};

use crate::command::{InjectArgs, UninjectArgs, exit};
use crate::install::Installation;
use crate::output;

pub(crate) fn inject(args: &InjectArgs) -> anyhow::Result<ExitCode> {
    let settings = Installation::from_args(false, args.cni, &args.set)?.injection;
    let mut refused = false;
    each_document(&args.files, |file, document| {
        visit(document, &mut |object, pod| {
            let namespace = object.namespace.as_deref().unwrap_or(&args.namespace);
            let who = format!("{}: {} {namespace}/{}", file.display(), object.kind, object.name);
            match weft_inject::inject(pod, &Place { namespace, enabled: true }, &settings) {
                Ok(Outcome::Injected(injected)) => Some(injected),
                Ok(Outcome::LeftAlone(because)) => {
                    eprintln!("{who}: left as it is: {because}");
                    None
                }
                Err(refusal) => {
                    eprintln!("{who}: {refusal}");
                    refused = true;
                    None
                }
            }
        });
    })?;
    Ok(ExitCode::from(if refused { exit::BAD_NEWS } else { 0 }))
}

pub(crate) fn uninject(args: &UninjectArgs) -> anyhow::Result<ExitCode> {
    each_document(&args.files, |_, document| {
        visit(document, &mut |_, pod| Some(weft_inject::uninject(pod)));
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads every file, lets `change` change every document, and prints them only if all could be read.
fn each_document(files: &[PathBuf], mut change: impl FnMut(&Path, &mut Value)) -> anyhow::Result<()> {
    let mut text = String::new();
    for file in files {
        let content = read(file)?;
        for document in serde_yaml_ng::Deserializer::from_str(&content) {
            let mut document =
                Value::deserialize(document).with_context(|| format!("{}: is not YAML", file.display()))?;
            if document.is_null() {
                continue;
            }
            change(file, &mut document);
            text.push_str(&output::yaml(&document)?);
        }
    }
    output::print(&text)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input; it must be UTF-8")?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}; name a YAML file, or `-` for standard input", file.display()))
}

/// An object that makes pods.
struct Named {
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// Where the pod's template is in an object of a kind; a pod is its own.
const TEMPLATES: [(&str, &str); 8] = [
    ("Pod", ""),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// Offers every pod of a document, also those of lists, and puts in what comes back.
fn visit(document: &mut Value, change: &mut impl FnMut(&Named, &Value) -> Option<Value>) {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "List" {
        document["items"].as_array_mut().into_iter().flatten().for_each(|item| visit(item, change));
        return;
    }
    let Some((_, template)) = TEMPLATES.iter().find(|(of, _)| *of == kind) else {
        return;
    };
    let text = |field: &str| document["metadata"][field].as_str().map(str::to_owned);
    let named = Named { kind, name: text("name").unwrap_or_default(), namespace: text("namespace") };
    let Some(pod) = document.pointer_mut(template) else {
        return;
    };
    if template.is_empty() {
        if let Some(changed) = change(&named, pod) {
            *pod = changed;
        }
        return;
    }
    // A template has no name; its pods belong to the object.
    let mut whole = pod.clone();
    if !whole["metadata"].is_object() {
        whole["metadata"] = serde_json::json!({});
    }
    whole["metadata"]["name"] = named.name.clone().into();
    if let Some(mut changed) = change(&named, &whole) {
        if let Some(metadata) = changed["metadata"].as_object_mut() {
            metadata.remove("name");
            if metadata.is_empty() {
                changed.as_object_mut().map(|template| template.remove("metadata"));
            }
        }
        *pod = changed;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_inject::Settings;

    use super::*;

    fn injected(document: &Value) -> Value {
        let mut document = document.clone();
        let settings = Settings::default();
        visit(&mut document, &mut |_, pod| match weft_inject::inject(
            pod,
            &Place { namespace: "shop", enabled: true },
            &settings,
        ) {
            Ok(Outcome::Injected(pod)) => Some(pod),
            other => panic!("{other:?}"),
        });
        document
    }

    fn uninjected(document: &Value) -> Value {
        let mut document = document.clone();
        visit(&mut document, &mut |_, pod| Some(weft_inject::uninject(pod)));
        document
    }

    fn template() -> Value {
        json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "app", "image": "a" }] } })
    }

    #[test]
    fn a_template_gets_its_objects_name_as_workload_and_no_name_of_its_own() {
        let deployment = json!({
            "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": 2, "template": template() },
        });
        let after = injected(&deployment);
        let template = &after["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["weft.mesh/workload"], "web");
        assert!(template["metadata"].get("name").is_none());
        assert_eq!(template["spec"]["initContainers"][1]["name"], "weft-proxy");
        assert_eq!(uninjected(&after), deployment);
    }

    #[test]
    fn pods_cron_jobs_and_lists_are_injected_and_given_back_as_they_were() {
        let pod = json!({ "kind": "Pod", "metadata": { "name": "tool" }, "spec": { "containers": [{ "name": "a" }] } });
        let bare = json!({ "spec": { "containers": [{ "name": "a" }] } });
        let job = json!({
            "kind": "CronJob", "metadata": { "name": "nightly" },
            "spec": { "jobTemplate": { "spec": { "template": bare } } },
        });
        let service = json!({ "kind": "Service", "metadata": { "name": "web" } });
        let list = json!({ "kind": "List", "items": [pod, job, service] });
        let after = injected(&list);
        assert_eq!(after["items"][0]["metadata"]["labels"]["weft.mesh/workload"], "tool");
        let template = &after["items"][1]["spec"]["jobTemplate"]["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["weft.mesh/workload"], "nightly");
        assert_eq!(after["items"][2], service);
        assert_eq!(uninjected(&after), list);
    }
}
