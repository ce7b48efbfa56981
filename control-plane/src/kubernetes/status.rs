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
use super::{FIELD_MANAGER, RETRY, describe, in_time};
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
                    // What fails for one may fail for all, and each failure takes time.
                    break;
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
