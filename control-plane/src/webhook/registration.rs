//! The roots in the webhook's configuration.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_inject::names;

use crate::identity::Authority;

/// How soon a failed update is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Who the API server says has written the field.
const MANAGER: &str = "weft-control-plane";

/// Keeps the trusted roots in the webhook's configuration, whoever changes which of the two, until told to stop. Without them the API server
/// does not trust the certificate that we serve with.
///
/// Every replica does so: they write the same, and only where it is not there yet.
pub(super) async fn keep_registered(client: Client, authority: Arc<Authority>, stop: CancellationToken) {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
    let selected = watcher::Config::default().fields(&format!("metadata.name={}", names::WEBHOOKS));
    let mut changes = pin!(watcher(configurations.clone(), selected).default_backoff().applied_objects());
    let mut trust = authority.trust();
    let mut last = None;
    loop {
        let retry = async {
            match &last {
                Some(_) => tokio::time::sleep(RETRY).await,
                None => std::future::pending().await,
            }
        };
        let configuration = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => match change {
                Some(Ok(configuration)) => configuration,
                Some(Err(error)) => {
                    tracing::warn!("watching the webhook configuration {}: {error}", names::WEBHOOKS);
                    continue;
                }
                // The watcher never ends by itself.
                None => return,
            },
            // The sender lives in `authority`.
            _ = trust.changed() => match configurations.get_opt(names::WEBHOOKS).await {
                Ok(Some(configuration)) => configuration,
                // What the watcher sees first brings us back here.
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("reading the webhook configuration {}: {error}", names::WEBHOOKS);
                    trust.mark_changed();
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            },
            () = retry => match last.take() {
                Some(configuration) => configuration,
                None => continue,
            },
        };
        let pem = trust.borrow_and_update().pem();
        let Some(patch) = missing(&configuration, &pem) else {
            last = None;
            continue;
        };
        let name = configuration.name_any();
        let written = configurations.patch(&name, &PatchParams::apply(MANAGER), &Patch::Strategic(&patch)).await;
        last = match written {
            Ok(_) => {
                tracing::info!("the API server is told to trust this control plane's webhook");
                None
            }
            Err(error) => {
                tracing::warn!("updating the webhook configuration {name}: {error}; trying again");
                Some(configuration)
            }
        };
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
