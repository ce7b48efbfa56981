//! The mesh's roots as a ConfigMap in every namespace: what a sidecar trusts the control plane by, before it has a certificate.
//!
//! In every namespace, because a pod anywhere may ask for a sidecar by annotation, and waits for the ConfigMap that it mounts
//! (Kubernetes does the same with `kube-root-ca.crt`); not in those whose pods are never touched.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use tokio::sync::watch;
use weft_inject::names::{CONTROL_PLANE, SYSTEM_NAMESPACES, TRUST_CONFIG_MAP, TRUST_KEY};

use super::{FIELD_MANAGER, RETRY, backoff, describe, in_time};
use crate::identity::authority::Trust;

/// Keeps the ConfigMaps as they should be, until dropped.
pub(super) async fn publish(client: kube::Client, mut trust: watch::Receiver<Arc<Trust>>) {
    let mut namespaces = pin!(watch_namespaces(client.clone()));
    let maps = Config::default().fields(&format!("metadata.name={TRUST_CONFIG_MAP}"));
    let mut maps = pin!(watcher(Api::<ConfigMap>::all(client.clone()), maps).backoff(backoff()));
    let mut seen = Seen::default();
    let mut retry = false;
    loop {
        tokio::select! {
            next = namespaces.next() => match next {
                Some(Ok(event)) => seen.namespaces.apply(event, |namespace| {
                    let going = namespace.metadata.deletion_timestamp.is_some();
                    let name = namespace.metadata.name?;
                    let wanted = !going && !SYSTEM_NAMESPACES.contains(&name.as_str());
                    Some((name, wanted))
                }),
                Some(Err(error)) => tracing::warn!("watching namespaces for the trust bundle: {}", describe(&error)),
                None => return,
            },
            next = maps.next() => match next {
                Some(Ok(event)) => seen.maps.apply(event, |map| {
                    let pem = map.data.and_then(|mut data| data.remove(TRUST_KEY)).unwrap_or_default();
                    Some((map.metadata.namespace?, pem))
                }),
                Some(Err(error)) => tracing::warn!("watching ConfigMaps {TRUST_CONFIG_MAP}: {}", describe(&error)),
                None => return,
            },
            // The sender lives in the authority, which outlives this.
            _ = trust.changed() => {}
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        let pem = trust.borrow_and_update().pem();
        retry = false;
        let lacking = seen.lacking(&pem);
        if lacking.is_empty() {
            continue;
        }
        let owner = owner(&client).await;
        for namespace in lacking {
            match write(&client, &namespace, &pem, owner.clone()).await {
                Ok(()) => {
                    seen.maps.now.insert(namespace, pem.clone());
                }
                // It is being deleted, or is gone.
                Err(kube::Error::Api(status))
                    if status.code == 404 || status.reason == "Forbidden" && is_ending(&status.message) => {}
                Err(error) => {
                    retry = true;
                    let problem = describe(&error);
                    tracing::warn!(namespace, "writing the ConfigMap {TRUST_CONFIG_MAP}: {problem}; trying again");
                }
            }
        }
    }
}

fn is_ending(message: &str) -> bool {
    message.contains("being terminated")
}

fn watch_namespaces(
    client: kube::Client,
) -> impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Namespace>>>> + Send {
    watcher(Api::<PartialObjectMeta<Namespace>>::all(client), Config::default()).backoff(backoff())
}

async fn write(
    client: &kube::Client,
    namespace: &str,
    pem: &str,
    owner: Option<OwnerReference>,
) -> Result<(), kube::Error> {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(TRUST_CONFIG_MAP.to_owned()),
            labels: Some(super::labels()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(TRUST_KEY.to_owned(), pem.to_owned())])),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    in_time(api.patch(TRUST_CONFIG_MAP, &parameters, &Patch::Apply(&map))).await?;
    Ok(())
}

/// What the ConfigMaps belong to: with it they go when Weft is uninstalled. An object in a namespace can own none in another.
async fn owner(client: &kube::Client) -> Option<OwnerReference> {
    let role = match in_time(Api::<ClusterRole>::all(client.clone()).get_metadata_opt(CONTROL_PLANE)).await {
        Ok(role) => role?,
        Err(error) => {
            tracing::debug!("ClusterRole {CONTROL_PLANE}: {}", describe(&error));
            return None;
        }
    };
    Some(OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: role.metadata.name?,
        uid: role.metadata.uid?,
        ..OwnerReference::default()
    })
}

/// What the API server has told.
#[derive(Default)]
struct Seen {
    /// Each namespace, and whether it should have the ConfigMap.
    namespaces: Table<bool>,
    /// The ConfigMaps' roots by namespace.
    maps: Table<String>,
}

impl Seen {
    /// Namespaces whose ConfigMap is not there or says something else; none before both kinds have been listed.
    fn lacking(&self, pem: &str) -> Vec<String> {
        if !(self.namespaces.listed && self.maps.listed) {
            return Vec::new();
        }
        let wanted = self.namespaces.now.iter().filter(|(_, wanted)| **wanted).map(|(name, _)| name);
        wanted.filter(|name| self.maps.now.get(*name).is_none_or(|has| has != pem)).cloned().collect()
    }
}

/// One kind's objects by namespace.
struct Table<V> {
    now: BTreeMap<String, V>,
    listing: BTreeMap<String, V>,
    listed: bool,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), listing: BTreeMap::new(), listed: false }
    }
}

impl<V> Table<V> {
    fn apply<K>(&mut self, event: Event<K>, read: impl Fn(K) -> Option<(String, V)>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => self.listing.extend(read(object)),
            Event::InitDone => {
                self.now = std::mem::take(&mut self.listing);
                self.listed = true;
            }
            Event::Apply(object) => self.now.extend(read(object)),
            Event::Delete(object) => {
                if let Some((name, _)) = read(object) {
                    self.now.remove(&name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(namespaces: &[(&str, bool)], maps: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        let read = |pair: (&str, bool)| Some((pair.0.to_owned(), pair.1));
        seen.namespaces.apply(Event::Init, read);
        for pair in namespaces {
            seen.namespaces.apply(Event::InitApply(*pair), read);
        }
        seen.namespaces.apply(Event::InitDone, read);
        let read = |pair: (&str, &str)| Some((pair.0.to_owned(), pair.1.to_owned()));
        seen.maps.apply(Event::Init, read);
        for pair in maps {
            seen.maps.apply(Event::InitApply(*pair), read);
        }
        seen.maps.apply(Event::InitDone, read);
        seen
    }

    #[test]
    fn only_what_is_missing_or_differs_is_written() {
        let seen = told(
            &[("new", true), ("old", true), ("same", true), ("kube-system", false)],
            &[("old", "roots 1"), ("same", "roots 2"), ("gone", "roots 1")],
        );
        assert_eq!(seen.lacking("roots 2"), ["new", "old"]);
    }

    #[test]
    fn nothing_is_written_before_it_is_known_what_is_there() {
        let mut seen = Seen::default();
        let read = |pair: (&str, bool)| Some((pair.0.to_owned(), pair.1));
        seen.namespaces.apply(Event::Init, read);
        seen.namespaces.apply(Event::InitApply(("shop", true)), read);
        seen.namespaces.apply(Event::InitDone, read);
        assert_eq!(seen.lacking("roots"), Vec::<String>::new());
    }

    #[test]
    fn a_map_that_somebody_deleted_is_lacking_again() {
        let mut seen = told(&[("shop", true)], &[("shop", "roots")]);
        assert_eq!(seen.lacking("roots"), Vec::<String>::new());
        seen.maps
            .apply(Event::Delete(("shop", "roots")), |pair: (&str, &str)| Some((pair.0.to_owned(), pair.1.to_owned())));
        assert_eq!(seen.lacking("roots"), ["shop"]);
    }
}
