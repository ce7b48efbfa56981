//! AdmissionReview in, AdmissionReview out, and what is answered about pods.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_inject::{Outcome, Place, Settings};

/// What the API server posts (`admission.k8s.io/v1`), as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Review {
    #[serde(rename = "apiVersion")]
    api_version: String,
    request: Request,
}

/// What is asked about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) namespace: String,
    /// Null in a review of a deletion, which nobody sends here.
    #[serde(default)]
    pub(super) object: Value,
    /// What it was before an update; else null.
    #[serde(default)]
    pub(super) old_object: Value,
}

impl Review {
    /// The object, for the log: one that a controller makes may have only the beginning of a name yet.
    pub(super) fn who(&self) -> String {
        let metadata = &self.request.object["metadata"];
        let name = [&metadata["name"], &metadata["generateName"]].into_iter().find_map(Value::as_str);
        format!("{}/{}", self.request.namespace, name.unwrap_or_default())
    }

    /// The question, if it is in a version that is spoken here.
    pub(super) fn known(self) -> Result<Request, UnknownVersion> {
        if self.api_version != VERSION {
            return Err(UnknownVersion(self.api_version));
        }
        Ok(self.request)
    }
}

/// The version of question and answer.
const VERSION: &str = "admission.k8s.io/v1";

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    response: Response,
    /// For logs and metrics.
    #[serde(skip)]
    pub(super) verdict: Verdict,
}

impl Answer {
    pub(super) fn new(response: Response, verdict: Verdict) -> Self {
        Self { api_version: VERSION, kind: "AdmissionReview", response, verdict }
    }
}

/// What the API server is to do, and to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64 of a JSON patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    /// In the API server's audit log, below the webhook's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_annotations: Option<Value>,
    /// Said to whoever asked the API server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Response {
    /// As it is.
    pub(super) fn allowed(uid: String) -> Self {
        Self {
            uid,
            allowed: true,
            patch_type: None,
            patch: None,
            status: None,
            audit_annotations: None,
            warnings: Vec::new(),
        }
    }

    /// With the reason for whoever asked the API server. 422, as for every other invalid object.
    pub(super) fn refused(uid: String, because: &str) -> Self {
        let status = json!({ "code": 422, "reason": "Invalid", "message": format!("weft: {because}") });
        Self { allowed: false, status: Some(status), ..Self::allowed(uid) }
    }

    /// And something to be said beside.
    pub(super) fn with(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

/// What became of an object, in a word and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) word: &'static str,
    pub(super) because: String,
}

/// Whether a review can be answered at all.
#[derive(Debug, thiserror::Error)]
#[error("apiVersion: {0:?} is not admission.k8s.io/v1, the only version spoken here")]
pub(super) struct UnknownVersion(String);

/// Injects the pod of a review. `enabled` says whether the pod's namespace asks for sidecars: the API server knows that from the
/// namespace's labels, and calls another path.
pub(super) fn answer(review: Review, enabled: bool, settings: &Settings) -> Result<Answer, UnknownVersion> {
    let Request { uid, namespace, object: pod, .. } = review.known()?;
    let (response, word, because) = match weft_inject::inject(&pod, &Place { namespace: &namespace, enabled }, settings)
    {
        Ok(Outcome::Injected(injected)) => {
            let patch = weft_inject::patch(&pod, &injected);
            let allowed = Response::allowed(uid);
            let response = if patch.is_empty() {
                allowed
            } else {
                let patch = Some(STANDARD.encode(Value::from(patch).to_string()));
                Response { patch_type: Some("JSONPatch"), patch, ..allowed }
            };
            (response, "injected", String::new())
        }
        Ok(Outcome::LeftAlone(because)) => {
            let note = json!({ "left-alone": because.to_string() });
            (Response { audit_annotations: Some(note), ..Response::allowed(uid) }, "left-alone", because.to_string())
        }
        Err(refusal) => {
            let because = refusal.to_string();
            (Response::refused(uid, &because), "refused", because)
        }
    };
    Ok(Answer::new(response, Verdict { word, because }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(pod: Value) -> Review {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "705ab4f5", "namespace": "shop", "operation": "CREATE", "object": pod },
        });
        serde_json::from_value(review).unwrap()
    }

    fn pod() -> Value {
        json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "app", "image": "a" }] } })
    }

    fn said(review: Review, enabled: bool) -> Value {
        serde_json::to_value(answer(review, enabled, &Settings::default()).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_of_a_meshed_namespace_gets_a_patch() {
        let answer = said(review(pod()), true);
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("705ab4f5"), &json!(true)));
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        let containers = patch.iter().find(|operation| operation["path"] == "/spec/initContainers").unwrap();
        assert_eq!(containers["value"][1]["name"], "weft-proxy");
    }

    #[test]
    fn a_pod_that_nobody_asked_for_is_allowed_as_it_is_and_the_audit_log_says_why() {
        let answer = said(review(pod()), false);
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"].get("patch").is_none());
        let note = answer["response"]["auditAnnotations"]["left-alone"].as_str().unwrap();
        assert!(note.contains("weft.mesh/inject"), "{note}");
    }

    #[test]
    fn a_pod_that_runs_as_the_sidecars_user_is_refused_with_the_field_and_a_way_out() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = 1337.into();
        let answer = said(review(pod), true);
        let response = &answer["response"];
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.starts_with("weft: spec.containers[0].securityContext.runAsUser: 1337"), "{message}");
        assert!(message.contains("run the container as another user"), "{message}");
    }

    #[test]
    fn an_injected_pod_that_comes_again_needs_no_patch() {
        let place = Place { namespace: "shop", enabled: true };
        let Ok(Outcome::Injected(injected)) = weft_inject::inject(&pod(), &place, &Settings::default()) else {
            panic!()
        };
        let answer = said(review(injected), true);
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"].get("patch").is_none());
    }

    #[test]
    fn another_version_of_the_question_is_not_guessed_at() {
        let mut old = review(pod());
        old.api_version = "admission.k8s.io/v1beta1".to_owned();
        let error = answer(old, true, &Settings::default()).unwrap_err().to_string();
        assert!(error.contains("v1beta1"), "{error}");
    }
}
