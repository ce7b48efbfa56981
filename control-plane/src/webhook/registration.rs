//! The roots in the webhook's configuration.

use std::pin::pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher::watch_object};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_inject::names;

use crate::identity::Authority;
use crate::kubernetes::{FIELD_MANAGER, RETRY, backoff, describe, in_time};

/// Keeps the trusted roots in the webhook's configuration, whoever changes which of the two, until told to stop. Without them the API server
/// does not trust the certificate that we serve with.
///
/// Every replica does so: they write the same, and only where it is not there yet.
pub(super) async fn keep_registered(client: Client, authority: Arc<Authority>, stop: CancellationToken) {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
    let mut changes = pin!(watch_object(configurations.clone(), names::WEBHOOKS).backoff(backoff()));
    let mut trust = authority.trust();
    let mut found: Option<MutatingWebhookConfiguration> = None;
    let mut retry = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => match change {
                Some(Ok(now)) => found = now,
                Some(Err(error)) => {
                    tracing::warn!("watching the webhook configuration {}: {}", names::WEBHOOKS, describe(&error));
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
        let Some(patch) = found.as_ref().and_then(|found| missing(found, &pem)) else { continue };
        let (parameters, patch) = (PatchParams::apply(FIELD_MANAGER), Patch::Strategic(&patch));
        let written = tokio::select! {
            () = stop.cancelled() => return,
            written = in_time(configurations.patch(names::WEBHOOKS, &parameters, &patch)) => written,
        };
        match written {
            Ok(now) => {
                tracing::info!("the API server is told to trust this control plane's webhook");
                found = Some(now);
            }
            Err(error) => {
                let problem = describe(&error);
                tracing::warn!("updating the webhook configuration {}: {problem}; trying again", names::WEBHOOKS);
                retry = true;
            }
        }
    }
}

/// A strategic merge patch for the webhooks whose roots are not ours. Webhooks that call something else are none of our business.
fn missing(configuration: &MutatingWebhookConfiguration, pem: &str) -> Option<Value> {
    let of_ours = configuration.webhooks.iter().flatten().filter(|webhook| {
        webhook.client_config.service.as_ref().is_some_and(|service| service.name == names::CONTROL_PLANE)
    });
    let wrong = of_ours.filter(|webhook| {
        let ByteString(bundle) = webhook.client_config.ca_bundle.clone().unwrap_or_default();
        bundle != pem.as_bytes()
    });
    let bundle = STANDARD.encode(pem);
    let webhooks: Vec<_> =
        wrong.map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } })).collect();
    (!webhooks.is_empty()).then(|| json!({ "webhooks": webhooks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: [Option<&str>; 2]) -> MutatingWebhookConfiguration {
        let webhook = |(name, bundle): (&str, Option<&str>)| {
            let mut webhook = json!({
                "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": { "service": { "name": "weft-control-plane", "namespace": "weft-system" } },
            });
            if let Some(bundle) = bundle {
                webhook["clientConfig"]["caBundle"] = STANDARD.encode(bundle).into();
            }
            webhook
        };
        let webhooks: Vec<_> = ["a", "b"].into_iter().zip(bundles).map(webhook).collect();
        serde_json::from_value(json!({ "metadata": { "name": "weft" }, "webhooks": webhooks })).unwrap()
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
        for webhook in other.webhooks.iter_mut().flatten() {
            webhook.client_config.service.as_mut().unwrap().name = "somebody".to_owned();
        }
        assert_eq!(missing(&other, "roots"), None);
    }
}
