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
use kube::runtime::watcher::{self, Config, Event};
use tokio::sync::watch;
use weft_inject::names::{CONTROL_PLANE, SYSTEM_NAMESPACES, TRUST_CONFIG_MAP, TRUST_KEY};

use super::{FIELD_MANAGER, RETRY, describe, in_time, was_answered, watch_all};
use crate::identity::authority::Trust;

/// Keeps the ConfigMaps as they should be, until dropped.
pub(super) async fn publish(client: kube::Client, mut trust: watch::Receiver<Arc<Trust>>) {
    let mut namespaces = pin!(watch_namespaces(client.clone()));
    let maps = Config::default().fields(&format!("metadata.name={TRUST_CONFIG_MAP}"));
    let mut maps = pin!(watch_all(Api::<ConfigMap>::all(client.clone()), maps));
    let mut seen = Seen::default();
    let mut owner = Owner::Unknown;
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
                Some(Ok(event)) => seen.maps.apply(event, Map::read),
                Some(Err(error)) => tracing::warn!("watching ConfigMaps {TRUST_CONFIG_MAP}: {}", describe(&error)),
                None => return,
            },
            // The sender lives in the authority, which outlives this.
            _ = trust.changed() => {}
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        let pem = trust.borrow_and_update().pem();
        retry = false;
        if !seen.is_complete() {
            continue;
        }
        if owner == Owner::Unknown || !seen.lacking(&pem, &owner).is_empty() {
            match find_owner(&client).await {
                Ok(found) => owner = found,
                // What was known goes on; what was never known is made good later.
                Err(error) => {
                    tracing::warn!("reading ClusterRole {CONTROL_PLANE}: {}; trying again", describe(&error));
                    retry = true;
                    if !was_answered(&error) {
                        continue;
                    }
                }
            }
        }
        for namespace in seen.lacking(&pem, &owner) {
            let map = Map { pem: pem.clone(), owner: seen.owner_in(&namespace, &owner) };
            match write(&client, &namespace, &map).await {
                Ok(()) => {
                    seen.maps.now.insert(namespace, map);
                }
                // It is being deleted, or is gone.
                Err(kube::Error::Api(status))
                    if status.code == 404 || status.reason == "Forbidden" && is_ending(&status.message) => {}
                Err(error) => {
                    retry = true;
                    let problem = describe(&error);
                    tracing::warn!(namespace, "writing the ConfigMap {TRUST_CONFIG_MAP}: {problem}; trying again");
                    // What is refused concerns one namespace.
                    if !was_answered(&error) {
                        break;
                    }
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
    watch_all(Api::<PartialObjectMeta<Namespace>>::all(client), Config::default())
}

async fn write(client: &kube::Client, namespace: &str, map: &Map) -> Result<(), kube::Error> {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(TRUST_CONFIG_MAP.to_owned()),
            labels: Some(super::labels()),
            owner_references: map.owner.as_deref().map(|uid| vec![owner_reference(uid)]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(TRUST_KEY.to_owned(), map.pem.clone())])),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    in_time(api.patch(TRUST_CONFIG_MAP, &parameters, &Patch::Apply(&map))).await?;
    Ok(())
}

/// What the ConfigMaps belong to: with it they go when Weft is uninstalled. An object in a namespace can own none in another, so it is the
/// ClusterRole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    /// It could not be read yet.
    Unknown,
    /// There is none.
    Nobody,
    /// The ClusterRole with this uid.
    Role(String),
}

async fn find_owner(client: &kube::Client) -> Result<Owner, kube::Error> {
    let role = in_time(Api::<ClusterRole>::all(client.clone()).get_metadata_opt(CONTROL_PLANE)).await?;
    Ok(role.and_then(|role| role.metadata.uid).map_or(Owner::Nobody, Owner::Role))
}

fn owner_reference(uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: CONTROL_PLANE.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// One namespace's ConfigMap.
#[derive(Debug, PartialEq, Eq)]
struct Map {
    /// The roots.
    pem: String,
    /// The uid of the ClusterRole that owns it.
    owner: Option<String>,
}

impl Map {
    fn read(map: ConfigMap) -> Option<(String, Self)> {
        let pem = map.data.and_then(|mut data| data.remove(TRUST_KEY)).unwrap_or_default();
        let mut owners = map.metadata.owner_references.into_iter().flatten();
        let owner = owners.find(|owner| owner.kind == "ClusterRole" && owner.name == CONTROL_PLANE);
        Some((map.metadata.namespace?, Self { pem, owner: owner.map(|owner| owner.uid) }))
    }
}

/// What the API server has told.
#[derive(Default)]
struct Seen {
    /// Each namespace, and whether it should have the ConfigMap.
    namespaces: Table<bool>,
    /// The ConfigMaps.
    maps: Table<Map>,
}

impl Seen {
    /// Whether both kinds have been listed: before that nobody knows what is there.
    fn is_complete(&self) -> bool {
        self.namespaces.listed && self.maps.listed
    }

    /// Namespaces whose ConfigMap is not there, or is not as it should be; none before it is known what is there.
    fn lacking(&self, pem: &str, owner: &Owner) -> Vec<String> {
        if !self.is_complete() {
            return Vec::new();
        }
        let is_good = |namespace: &str| {
            let map = self.maps.now.get(namespace);
            map.is_some_and(|map| map.pem == pem && map.owner == self.owner_in(namespace, owner))
        };
        let wanted = self.namespaces.now.iter().filter(|(_, wanted)| **wanted).map(|(name, _)| name);
        wanted.filter(|name| !is_good(name)).cloned().collect()
    }

    /// Whom the ConfigMap of a namespace should belong to. It stays with whom it belongs to while that is not known, and when the
    /// ClusterRole has gone: the ConfigMap is to go with it.
    fn owner_in(&self, namespace: &str, owner: &Owner) -> Option<String> {
        match owner {
            Owner::Unknown | Owner::Nobody => self.maps.now.get(namespace).and_then(|map| map.owner.clone()),
            Owner::Role(uid) => Some(uid.clone()),
        }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::{Value, json};

    use super::super::fake::{api_server, refusal};
    use super::*;

    fn map(pem: &str, owner: Option<&str>) -> Map {
        Map { pem: pem.to_owned(), owner: owner.map(str::to_owned) }
    }

    fn told(namespaces: &[(&str, bool)], maps: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        let read = |pair: (&str, bool)| Some((pair.0.to_owned(), pair.1));
        seen.namespaces.apply(Event::Init, read);
        for pair in namespaces {
            seen.namespaces.apply(Event::InitApply(*pair), read);
        }
        seen.namespaces.apply(Event::InitDone, read);
        let read = |pair: (&str, &str)| Some((pair.0.to_owned(), map(pair.1, None)));
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
        assert_eq!(seen.lacking("roots 2", &Owner::Nobody), ["new", "old"]);
    }

    #[test]
    fn nothing_is_written_before_it_is_known_what_is_there() {
        let mut seen = Seen::default();
        let read = |pair: (&str, bool)| Some((pair.0.to_owned(), pair.1));
        seen.namespaces.apply(Event::Init, read);
        seen.namespaces.apply(Event::InitApply(("shop", true)), read);
        seen.namespaces.apply(Event::InitDone, read);
        assert_eq!(seen.lacking("roots", &Owner::Nobody), Vec::<String>::new());
    }

    #[test]
    fn a_map_that_somebody_deleted_is_lacking_again() {
        let mut seen = told(&[("shop", true)], &[("shop", "roots")]);
        assert_eq!(seen.lacking("roots", &Owner::Nobody), Vec::<String>::new());
        seen.maps.apply(Event::Delete("shop"), |name: &str| Some((name.to_owned(), map("roots", None))));
        assert_eq!(seen.lacking("roots", &Owner::Nobody), ["shop"]);
    }

    #[test]
    fn a_map_belongs_to_the_role_that_there_is_as_soon_as_that_is_known() {
        let mut seen = told(&[("shop", true)], &[]);
        let owner = Owner::Role("17".to_owned());
        seen.maps.now.insert("shop".to_owned(), map("roots", None));
        assert_eq!(seen.lacking("roots", &Owner::Unknown), Vec::<String>::new());
        assert_eq!(seen.lacking("roots", &owner), ["shop"], "of nobody");
        seen.maps.now.insert("shop".to_owned(), map("roots", Some("16")));
        assert_eq!(seen.lacking("roots", &owner), ["shop"], "of one that was before");
        for owner in [Owner::Unknown, Owner::Nobody] {
            assert_eq!(seen.owner_in("shop", &owner).as_deref(), Some("16"), "which it keeps");
        }
        seen.maps.now.insert("shop".to_owned(), map("roots", Some("17")));
        assert_eq!(seen.lacking("roots", &owner), Vec::<String>::new());
    }

    /// An API server's answer about namespaces a and b, and their ConfigMaps: none yet.
    fn listed(what: &str) -> Option<(u16, Value)> {
        let namespace = |name: &str| json!({ "metadata": { "name": name } });
        let list = |kind: &str, items: Vec<Value>| {
            let metadata = json!({ "resourceVersion": "1" });
            Some((200, json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata, "items": items })))
        };
        match what {
            "GET /api/v1/namespaces" => list("NamespaceList", vec![namespace("a"), namespace("b")]),
            "GET /api/v1/configmaps" => list("ConfigMapList", Vec::new()),
            _ => None,
        }
    }

    /// Publishes until this many ConfigMaps have been written; the namespaces and their owners' uids.
    async fn written(
        answers: impl Fn(&str) -> Option<(u16, Value)> + Send + Sync + 'static,
        count: usize,
    ) -> Vec<(String, Value)> {
        let (client, mut asked) = api_server(move |what, _| answers(what));
        let (_trust, seen) = watch::channel(Arc::new(Trust { bundle: Vec::new(), signer: 0 }));
        let mut written = Vec::new();
        let listen = async {
            while written.len() < count {
                let asked = asked.next().await;
                if let Some(path) = asked.what.strip_prefix("PATCH /api/v1/namespaces/") {
                    let owner = asked.object["metadata"]["ownerReferences"][0]["uid"].clone();
                    written.push((path.split('/').next().unwrap_or_default().to_owned(), owner));
                }
            }
        };
        tokio::select! {
            () = publish(client, seen) => unreachable!("the watches go on"),
            () = listen => {}
        }
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stops_to_answer_is_not_asked_for_each_namespace() {
        let answers = |what: &str| if what.contains("clusterroles") { refusal(404, "NotFound") } else { listed(what) };
        let nobody = Value::Null;
        let twice_the_first = [("a".to_owned(), nobody.clone()), ("a".to_owned(), nobody)];
        assert_eq!(written(answers, 2).await, twice_the_first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_can_be_read_only_later_owns_the_maps_from_then_on() {
        let asked = AtomicUsize::new(0);
        let answers = move |what: &str| match what {
            _ if what.contains("clusterroles") => match asked.fetch_add(1, Ordering::SeqCst) {
                0 => refusal(403, "Forbidden"),
                _ => Some((200, json!({ "metadata": { "name": CONTROL_PLANE, "uid": "17" } }))),
            },
            _ if what.starts_with("PATCH") => Some((200, json!({ "metadata": {} }))),
            _ => listed(what),
        };
        let (nobody, role) = (Value::Null, json!("17"));
        let expected = [("a", &nobody), ("b", &nobody), ("a", &role), ("b", &role)];
        let expected = expected.map(|(namespace, owner)| (namespace.to_owned(), owner.clone()));
        assert_eq!(written(answers, 4).await, expected);
    }
}
