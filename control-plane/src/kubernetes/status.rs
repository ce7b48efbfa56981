//! Writes what became of users' objects into their status.
//!
//! Only what differs is written, one object at a time, with the version that was read: whoever else writes to the same status loses
//! nothing, and is read before the next attempt.

use std::collections::HashMap;

use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_api::Problem;

use super::conditions::desired;
use super::{FIELD_MANAGER, RETRY, describe, in_time, was_answered};
use crate::metrics::Metrics;
use crate::sources::{Kind, Reported, Reports};

/// Whose status it is.
type Name = (Kind, String, String);

/// Keeps every status as it should be, until dropped or the source ends.
pub(super) async fn write(client: kube::Client, mut reports: watch::Receiver<Reports>, metrics: &Metrics) {
    // What was written, and over which version: until the watch tells of it, the object still looks as before.
    let mut written: HashMap<Name, String> = HashMap::new();
    reports.mark_changed();
    let mut retry = false;
    loop {
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        let Reports { objects, problems } = reports.borrow_and_update().clone();
        let mut by_object: HashMap<&str, Vec<&Problem>> = HashMap::new();
        for problem in &*problems {
            by_object.entry(&problem.object).or_default().push(problem);
        }
        let seen: HashMap<_, _> = objects.iter().map(|object| (name_of(object), &object.version)).collect();
        written.retain(|name, version| seen.get(name) == Some(&&*version));
        let now = now();
        retry = false;
        for object in objects {
            let problems = by_object.get(&*object.title()).map(Vec::as_slice).unwrap_or_default();
            let Some(status) = desired(&object, problems, &now) else { continue };
            let name = name_of(&object);
            if written.contains_key(&name) {
                continue;
            }
            match apply(&client, &object, &status).await {
                Ok(()) => {
                    metrics.status_write("written");
                    written.insert(name, object.version.clone());
                }
                // It has changed or is gone: the watch tells.
                Err(kube::Error::Api(error)) if error.is_conflict() || error.is_not_found() => {
                    metrics.status_write("overtaken");
                }
                Err(error) => {
                    metrics.status_write("failed");
                    tracing::warn!("writing the status of {}: {}; trying again", object.title(), describe(&error));
                    retry = true;
                    // What is refused concerns one object.
                    if !was_answered(&error) {
                        break;
                    }
                }
            }
        }
    }
}

async fn apply(client: &kube::Client, object: &Reported, status: &Value) -> Result<(), kube::Error> {
    let resource = object.kind.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &object.namespace, &resource);
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": object.name, "namespace": object.namespace, "resourceVersion": object.version },
        "status": status,
    });
    // By force: a list of conditions or parents that somebody else wrote to is taken over with what they wrote.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    in_time(api.patch_status(&object.name, &parameters, &Patch::Apply(&patch))).await?;
    Ok(())
}

fn name_of(object: &Reported) -> Name {
    (object.kind, object.namespace.clone(), object.name.clone())
}

/// In whole seconds, as `metav1.Time` has it.
fn now() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{api_server, refusal};
    use super::*;

    const PATH: &str = "PATCH /apis/weft.mesh/v1alpha1/namespaces/shop/workloads";

    fn workloads(names: &[&str]) -> Reports {
        let object = |name: &&str| Reported {
            kind: Kind::Workload,
            namespace: "shop".into(),
            name: (*name).to_owned(),
            generation: 1,
            version: "17".into(),
            references: Vec::new(),
            status: Value::Null,
        };
        Reports { objects: names.iter().map(object).map(Into::into).collect(), ..Reports::default() }
    }

    /// Whose statuses are asked to be written, as they are.
    async fn asked_for(answers: fn(&str) -> Option<(u16, Value)>, count: usize) -> Vec<String> {
        let (client, mut asked) = api_server(move |what, _| answers(what));
        let (_reports, seen) = watch::channel(workloads(&["a", "b", "c"]));
        let mut names = Vec::new();
        let listen = async {
            while names.len() < count {
                let what = asked.next().await.what;
                names.push(what.trim_start_matches(PATH).to_owned());
            }
        };
        let metrics = Metrics::new();
        tokio::select! {
            () = write(client, seen, &metrics) => unreachable!("the reports go on"),
            () = listen => {}
        }
        names
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_that_is_refused_keeps_no_other_from_being_written() {
        let written = |what: &str| match what.ends_with("/a/status") {
            true => refusal(422, "Invalid"),
            false => Some((200, json!({ "metadata": {} }))),
        };
        assert_eq!(asked_for(written, 4).await, ["/a/status", "/b/status", "/c/status", "/a/status"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_asked_once_and_then_later() {
        assert_eq!(asked_for(|_| None, 3).await, ["/a/status"; 3]);
    }
}
