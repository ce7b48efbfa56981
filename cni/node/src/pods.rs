//! The pods of this node, watched.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use weft_cni::agent::{Answer, Question};
use weft_cni::injection::{self, NOT_REDIRECTED, VALIDATOR};
use weft_cni::redirect::Redirect;

/// What is known of the node's pods.
#[derive(Clone)]
pub struct Pods {
    store: Store<Pod>,
    client: Client,
}

impl Pods {
    /// A view of the pods in `store`; the API server is asked for what is not there.
    pub fn new(store: Store<Pod>, client: Client) -> Self {
        Self { store, client }
    }

    /// Watches the pods of `node`. The stream must be polled for the view to stay current; each item says that something changed, or why
    /// the API server cannot be watched (it goes on trying).
    pub fn watch(client: Client, node: &str) -> (Self, impl Stream<Item = Result<(), watcher::Error>> + use<>) {
        let (store, writer) = reflector::store();
        let of_node = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let pods = watcher(Api::<Pod>::all(client.clone()), of_node).map(|event| {
            event.map(|event| {
                event.modify(|pod| {
                    // The bulk of a pod, which nobody here reads.
                    pod.managed_fields_mut().clear();
                    if let Some(spec) = &mut pod.spec {
                        spec.volumes = None;
                        spec.containers.clear();
                        spec.init_containers = None;
                    }
                })
            })
        });
        let changes = reflector::reflector(writer, pods).default_backoff().map(|event| event.map(|_| ()));
        (Self::new(store, client), changes)
    }

    /// Waits until all pods of the node are known.
    pub async fn ready(&self) {
        // The writer lives in the watched stream, which the program polls as long as it runs.
        let _ = self.store.wait_until_ready().await;
    }

    /// The injected pods that have, or will have, a network of their own.
    pub fn injected(&self) -> Vec<Injected> {
        self.store.state().iter().filter_map(|pod| Injected::of(pod)).collect()
    }

    /// Answers the plugin. A pod that is just being started may not have been seen yet, so then the API server is asked.
    pub async fn answer(&self, question: &Question) -> Answer {
        const PATIENCE: Duration = Duration::from_secs(3);
        let known = self.store.get(&ObjectRef::new(&question.name).within(&question.namespace));
        if let Some(pod) = known.filter(|pod| is_meant(pod, question)) {
            return answer_of(&pod);
        }
        let api = Api::<Pod>::namespaced(self.client.clone(), &question.namespace);
        match tokio::time::timeout(PATIENCE, api.get_opt(&question.name)).await {
            Ok(Ok(Some(pod))) if is_meant(&pod, question) => answer_of(&pod),
            Ok(Ok(Some(_))) => {
                Answer::Unknown("the API server has another pod of that name: this one has been deleted".into())
            }
            Ok(Ok(None)) => Answer::Unknown("the API server has no such pod: it has been deleted".into()),
            Ok(Err(error)) => Answer::Unknown(format!("the API server does not tell about the pod: {error}")),
            Err(_) => Answer::Unknown(format!("the API server does not answer within {PATIENCE:?}")),
        }
    }
}

/// A pod that the injector wants to be redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The redirection, or why the annotation does not say.
    pub redirect: Result<Redirect, String>,
    /// Whether its validator says that it is not redirected.
    pub is_invalid: bool,
}

impl Injected {
    fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let status = pod.status.as_ref();
        let has_ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        if spec.host_network == Some(true) || has_ended || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let redirect = injection::of_pod(pod.annotations()).map_err(|error| error.to_string()).transpose()?;
        Some(Self {
            namespace: pod.namespace()?,
            name: pod.name_any(),
            uid: pod.uid()?,
            redirect,
            is_invalid: is_invalid(pod),
        })
    }
}

/// Whether the validator ended by saying so, now or the last time.
fn is_invalid(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    let validator = statuses.into_iter().flatten().find(|status| status.name == VALIDATOR);
    let states = validator.into_iter().flat_map(|status| [&status.state, &status.last_state]);
    let mut ends = states.flatten().filter_map(|state| state.terminated.as_ref());
    ends.any(|end| end.exit_code == i32::from(NOT_REDIRECTED))
}

/// Whether the pod is the one the plugin asks about, not an earlier or later one of the same name. A static pod's image in the API server
/// has a UID of its own, and names the real one in an annotation.
fn is_meant(pod: &Pod, question: &Question) -> bool {
    let Some(uid) = &question.uid else {
        return true;
    };
    pod.uid().as_ref() == Some(uid) || pod.annotations().get("kubernetes.io/config.hash") == Some(uid)
}

fn answer_of(pod: &Pod) -> Answer {
    match injection::of_pod(pod.annotations()) {
        Ok(Some(redirect)) => Answer::Redirect(Box::new(redirect)),
        Ok(None) => Answer::Leave("it has no annotation of the injector".into()),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{api, pod, redirect};
    use serde_json::json;

    fn question(name: &str, uid: &str) -> Question {
        Question { namespace: "shop".into(), name: name.into(), uid: Some(uid.into()) }
    }

    fn pods(known: &[Pod], server: Vec<(&str, u16, serde_json::Value)>) -> Pods {
        let (store, mut writer) = reflector::store();
        for pod in known {
            writer.apply_watcher_event(&watcher::Event::Apply(pod.clone()));
        }
        Pods::new(store, api(server))
    }

    #[tokio::test]
    async fn a_pod_that_was_seen_is_answered_without_the_api_server() {
        let pods = pods(&[pod("web", "1", true), pod("job", "2", false)], vec![]);
        assert_eq!(pods.answer(&question("web", "1")).await, Answer::Redirect(Box::new(redirect())));
        assert!(matches!(pods.answer(&question("job", "2")).await, Answer::Leave(_)));
        let anyone = Question { uid: None, ..question("web", "") };
        assert_eq!(pods.answer(&anyone).await, Answer::Redirect(Box::new(redirect())));
    }

    #[tokio::test]
    async fn a_successor_of_the_same_name_is_asked_for() {
        let successor = serde_json::to_value(pod("web", "2", true)).unwrap();
        let pods = pods(&[pod("web", "1", false)], vec![("/api/v1/namespaces/shop/pods/web", 200, successor)]);
        assert_eq!(pods.answer(&question("web", "2")).await, Answer::Redirect(Box::new(redirect())));
        assert!(
            matches!(pods.answer(&question("web", "3")).await, Answer::Unknown(why) if why.contains("another pod"))
        );
    }

    #[tokio::test]
    async fn what_the_api_server_does_not_tell_is_not_guessed() {
        let failure = |code: u16, reason: &str| json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no" });
        let pods = pods(
            &[],
            vec![
                ("/api/v1/namespaces/shop/pods/gone", 404, failure(404, "NotFound")),
                ("/api/v1/namespaces/shop/pods/secret", 403, failure(403, "Forbidden")),
            ],
        );
        assert!(
            matches!(pods.answer(&question("gone", "1")).await, Answer::Unknown(why) if why.contains("has been deleted"))
        );
        assert!(
            matches!(pods.answer(&question("secret", "1")).await, Answer::Unknown(why) if why.contains("does not tell"))
        );
    }

    #[tokio::test]
    async fn an_annotation_that_makes_no_sense_is_not_guessed() {
        let mut odd = pod("web", "1", true);
        odd.annotations_mut().insert(injection::REDIRECT.into(), "{}".into());
        let pods = pods(&[odd], vec![]);
        assert!(
            matches!(pods.answer(&question("web", "1")).await, Answer::Unknown(why) if why.contains(injection::REDIRECT))
        );
    }

    #[tokio::test]
    async fn a_static_pod_is_known_by_the_hash_in_its_image() {
        let mut mirror = pod("etcd", "1", false);
        mirror.annotations_mut().insert("kubernetes.io/config.hash".into(), "f00".into());
        let pods = pods(&[mirror], vec![]);
        assert!(matches!(pods.answer(&question("etcd", "f00")).await, Answer::Leave(_)));
    }

    #[test]
    fn pods_without_a_network_of_their_own_are_not_repaired() {
        let web = Injected::of(&pod("web", "1", true)).unwrap();
        assert_eq!(
            (web.name.as_str(), web.uid.as_str(), web.redirect, web.is_invalid),
            ("web", "1", Ok(redirect()), false)
        );
        assert_eq!(Injected::of(&pod("job", "2", false)), None);
        let change = |change: serde_json::Value| {
            let mut value = serde_json::to_value(pod("web", "1", true)).unwrap();
            for (key, part) in change.as_object().unwrap() {
                for (field, set) in part.as_object().unwrap() {
                    value[key][field] = set.clone();
                }
            }
            Injected::of(&serde_json::from_value(value).unwrap())
        };
        assert_eq!(change(json!({ "spec": { "hostNetwork": true } })), None);
        assert_eq!(change(json!({ "status": { "phase": "Failed" } })), None);
        assert_eq!(change(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })), None);
        assert!(change(json!({ "status": { "phase": "Pending" } })).is_some());
    }

    #[test]
    fn a_validators_complaint_is_seen_while_it_waits_to_be_restarted() {
        let ended = |code: i32| json!({ "terminated": { "exitCode": code } });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let status = |name: &str, state: &serde_json::Value, last: &serde_json::Value| {
            let mut value = serde_json::to_value(pod("web", "1", true)).unwrap();
            value["status"]["initContainerStatuses"] = json!([{
                "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last,
            }]);
            Injected::of(&serde_json::from_value(value).unwrap()).unwrap().is_invalid
        };
        assert!(status("weft-validate", &ended(86), &json!({})));
        assert!(status("weft-validate", &waiting, &ended(86)));
        assert!(!status("weft-validate", &waiting, &ended(1)));
        assert!(!status("setup", &ended(86), &json!({})));
    }
}
