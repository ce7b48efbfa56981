//! The roots in the webhooks' configurations.

use std::pin::pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_inject::names;

use crate::identity::Authority;
use crate::kubernetes::{FIELD_MANAGER, RETRY, describe, in_time, watch_one};

/// The kinds of configurations: of webhooks that inject, and of those that validate.
pub(super) const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Keeps the trusted roots in the webhooks' configuration of a kind, whoever changes which of the two, until told to stop. Without them the API server
/// does not trust the certificate that we serve with.
///
/// Every replica does so: they write the same, and only where it is not there yet.
pub(super) async fn keep_registered(
    client: Client,
    kind: &'static str,
    authority: Arc<Authority>,
    stop: CancellationToken,
) {
    let configurations: Api<DynamicObject> = Api::all_with(client, &resource(kind));
    let mut changes = pin!(watch_one(configurations.clone(), names::WEBHOOKS));
    let mut trust = authority.trust();
    let mut found: Option<DynamicObject> = None;
    let mut retry = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => match change {
                Some(Ok(now)) => found = now,
                Some(Err(error)) => {
                    tracing::warn!("watching the {kind} {}: {}", names::WEBHOOKS, describe(&error));
                }
                // The watch never ends by itself.
                None => return,
            },
            // The sender lives in `authority`.
            _ = trust.changed() => {}
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        retry = false;
        let pem = trust.borrow_and_update().pem();
        let Some(patch) = found.as_ref().and_then(|found| missing(&found.data, &pem)) else { continue };
        let (parameters, patch) = (PatchParams::apply(FIELD_MANAGER), Patch::Strategic(&patch));
        let written = tokio::select! {
            () = stop.cancelled() => return,
            written = in_time(configurations.patch(names::WEBHOOKS, &parameters, &patch)) => written,
        };
        match written {
            Ok(now) => {
                tracing::info!(kind, "the API server is told to trust this control plane's webhooks");
                found = Some(now);
            }
            Err(error) => {
                let problem = describe(&error);
                tracing::warn!("updating the {kind} {}: {problem}; trying again", names::WEBHOOKS);
                retry = true;
            }
        }
    }
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = ("admissionregistration.k8s.io", "v1");
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    }
}

/// A strategic merge patch for the webhooks whose roots are not ours. Webhooks that call something else are none of our business.
fn missing(configuration: &Value, pem: &str) -> Option<Value> {
    let bundle = STANDARD.encode(pem);
    let of_ours = configuration["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|webhook| webhook["clientConfig"]["service"]["name"] == names::CONTROL_PLANE);
    let wrong = of_ours.filter(|webhook| webhook["clientConfig"]["caBundle"] != bundle);
    let webhooks: Vec<_> =
        wrong.map(|webhook| json!({ "name": webhook["name"], "clientConfig": { "caBundle": bundle } })).collect();
    (!webhooks.is_empty()).then(|| json!({ "webhooks": webhooks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: [Option<&str>; 2]) -> Value {
        let webhook = |(name, bundle): (&str, Option<&str>)| {
            let mut webhook = json!({
                "name": name, "clientConfig": { "service": { "name": "weft-control-plane", "namespace": "weft-system" } },
            });
            if let Some(bundle) = bundle {
                webhook["clientConfig"]["caBundle"] = STANDARD.encode(bundle).into();
            }
            webhook
        };
        let webhooks: Vec<_> = ["a", "b"].into_iter().zip(bundles).map(webhook).collect();
        json!({ "metadata": { "name": "weft" }, "webhooks": webhooks })
    }

    #[test]
    fn only_webhooks_with_other_roots_are_written() {
        assert_eq!(missing(&configuration([Some("roots"), Some("roots")]), "roots"), None);
        let patch = missing(&configuration([Some("roots"), None]), "roots").unwrap();
        let expected = json!({ "name": "b", "clientConfig": { "caBundle": STANDARD.encode("roots") } });
        assert_eq!(patch, json!({ "webhooks": [expected] }));
        let patch = missing(&configuration([Some("old"), Some("old")]), "roots").unwrap();
        assert_eq!(patch["webhooks"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn webhooks_that_call_others_are_left_alone() {
        let mut other = configuration([None, None]);
        for webhook in other["webhooks"].as_array_mut().unwrap() {
            webhook["clientConfig"]["service"]["name"] = "somebody".into();
        }
        assert_eq!(missing(&other, "roots"), None);
    }
}
