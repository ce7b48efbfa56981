//! Routes and policies, before the API server stores them: refused where `weft validate` refuses them, with the same words.
//!
//! The definitions of Weft's kinds have rules of their own (CEL), which hold without us. Here comes what they cannot say: a regular expression that
//! does not compile, a route that asks for what a mesh does not do. What depends on other objects refuses nothing, because those may come
//! later: `weft status` and the object's own status tell it.

use std::sync::Arc;

use serde_json::Value;
use weft_api::{Located, Problem};

use super::review::{Answer, Request, Response, Review, UnknownVersion, Verdict};
use crate::model::MeshConfig;
use crate::sources::build;

/// Where problems are said to be, in the place of a file.
const SOURCE: &str = "weft";

/// Problems told in one refusal; beyond, how many more there are.
const MOST_TOLD: usize = 8;

/// Whether the object of a review makes sense.
pub(super) fn answer(review: Review) -> Result<Answer, UnknownVersion> {
    let Request { uid, namespace, object, old_object } = review.known()?;
    let (refusals, remarks) =
        if is_settled(&object, &old_object) { Default::default() } else { look(object, &namespace) };
    let (response, word, because) = match (refusals.is_empty(), remarks.is_empty()) {
        (true, true) => (Response::allowed(uid), "valid", String::new()),
        (true, false) => {
            let because = remarks.join("; ");
            (Response::allowed(uid).with(remarks), "valid", because)
        }
        (false, _) => {
            let because = refusals.join("\n");
            (Response::refused(uid, &because).with(remarks), "refused", because)
        }
    };
    Ok(Answer::new(response, Verdict { word, because }))
}

/// Whether what the author wrote stands already, or goes: an object that was stored while nobody looked must not be held up when somebody takes
/// a finalizer from it.
fn is_settled(object: &Value, old: &Value) -> bool {
    let is_going = !object["metadata"]["deletionTimestamp"].is_null();
    is_going || (old.is_object() && old["spec"] == object["spec"])
}

/// What refuses the object, and what its author should know, each in a line.
fn look(mut object: Value, namespace: &str) -> (Vec<String>, Vec<String>) {
    let rank = rank(&object);
    if rank == Rank::Foreign {
        return Default::default();
    }
    let (mut errors, mut warnings): (Vec<_>, Vec<_>) =
        problems(&mut object, namespace).into_iter().partition(Problem::is_error);
    if rank == Rank::Shared {
        warnings.splice(0..0, errors.drain(..));
    }
    (lines(&errors), lines(&warnings))
}

/// Whose an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Nobody but Weft acts on it.
    Ours,
    /// A route that others act on too: what Weft cannot do, they may.
    Shared,
    /// A route of gateways only.
    Foreign,
}

fn rank(object: &Value) -> Rank {
    if !object["kind"].as_str().is_some_and(|kind| kind.ends_with("Route")) {
        return Rank::Ours;
    }
    let parents = || object["spec"]["parentRefs"].as_array().into_iter().flatten();
    let of_services = parents().filter(|parent| parent["kind"] == "Service").count();
    match (of_services, parents().count()) {
        (0, _) => Rank::Foreign,
        (some, all) if some == all => Rank::Ours,
        _ => Rank::Shared,
    }
}

/// What is wrong with the object by itself.
fn problems(object: &mut Value, namespace: &str) -> Vec<Problem> {
    prepare(object, namespace);
    // JSON is YAML; whoever writes YAML for an API server may read the same words about it.
    let manifest = weft_api::parse(SOURCE, &object.to_string());
    let mut problems = manifest.problems;
    let objects: Vec<Located> = manifest.objects;
    if !problems.iter().any(Problem::is_error) {
        // Of one object alone its own names can be wrong; what it refers to may come later.
        let found = build(&objects, &Arc::new(MeshConfig::default()), None).err().unwrap_or_default();
        problems.extend(found.into_iter().filter(Problem::is_error));
    }
    problems
}

/// Leaves what an author writes, and gives the object the name that it will get.
fn prepare(object: &mut Value, namespace: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    metadata.entry("namespace").or_insert_with(|| namespace.into());
    if let Some(begin) = metadata.get("generateName").and_then(Value::as_str).map(|begin| format!("{begin}0")) {
        metadata.entry("name").or_insert(begin.into());
    }
}

/// As `weft validate` says it, but for the file and the line.
fn lines(problems: &[Problem]) -> Vec<String> {
    let line = |problem: &Problem| {
        let text = Problem { line: 0, ..problem.clone() }.to_string();
        let text = text.strip_prefix(&format!("{SOURCE}: ")).unwrap_or(&text);
        text.strip_prefix("warning: ").unwrap_or(text).to_owned()
    };
    let mut lines: Vec<_> = problems.iter().take(MOST_TOLD).map(line).collect();
    if problems.len() > MOST_TOLD {
        lines.push(format!("and {} more", problems.len() - MOST_TOLD));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(operation: &str, old: Value, object: Value) -> Value {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "u", "namespace": "shop", "operation": operation, "object": object, "oldObject": old },
        });
        let answer = answer(serde_json::from_value(review).unwrap()).unwrap();
        serde_json::to_value(answer).unwrap()["response"].clone()
    }

    fn created(object: Value) -> Value {
        said("CREATE", Value::Null, object)
    }

    fn route(parents: Value, expression: &str) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": {
                "parentRefs": parents,
                "rules": [{
                    "matches": [{ "path": { "type": "RegularExpression", "value": expression } }],
                    "backendRefs": [{ "name": "web", "port": 80 }],
                }],
            },
        })
    }

    fn service() -> Value {
        json!({ "group": "", "kind": "Service", "name": "web" })
    }

    #[test]
    fn a_good_route_and_a_good_policy_pass_without_a_word() {
        let policy = json!({
            "apiVersion": "weft.mesh/v1alpha1", "kind": "TrafficPolicy", "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "targetRefs": [{ "kind": "Service", "name": "not-yet-there" }], "timeouts": { "request": "2s" } },
        });
        for object in [route(json!([service()]), "/a.*"), policy] {
            let response = created(object);
            assert_eq!(response, json!({ "uid": "u", "allowed": true }));
        }
    }

    #[test]
    fn a_wrong_route_is_refused_with_the_words_of_weft_validate() {
        let object = route(json!([service()]), "/(");
        let response = created(object.clone());
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("weft: HTTPRoute shop/web: spec.rules[0].matches[0].path.value: \"/(\": "),
            "{message}"
        );
        let file = weft_api::parse("web.yaml", &object.to_string()).problems;
        let validated = file.iter().find(|problem| problem.is_error()).unwrap().to_string();
        assert_eq!(message.strip_prefix("weft: "), validated.strip_prefix("web.yaml:1: "));
    }

    #[test]
    fn routes_of_gateways_are_none_of_our_business_and_of_shared_ones_it_is_only_said() {
        let gateway = json!({ "name": "edge" });
        assert_eq!(created(route(json!([gateway]), "/("))["allowed"], true);
        let shared = created(route(json!([gateway, service()]), "/("));
        assert_eq!(shared["allowed"], true);
        let warning = shared["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("HTTPRoute shop/web: spec.rules[0]"), "{warning}");
    }

    #[test]
    fn what_stands_already_or_goes_is_not_held_up() {
        let wrong = route(json!([service()]), "/(");
        let mut touched = wrong.clone();
        touched["metadata"]["labels"] = json!({ "team": "a" });
        assert_eq!(said("UPDATE", wrong.clone(), touched)["allowed"], true);
        let good = route(json!([service()]), "/a");
        assert_eq!(said("UPDATE", good.clone(), wrong.clone())["allowed"], false);
        let mut going = wrong;
        going["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
        assert_eq!(said("UPDATE", good, going)["allowed"], true);
    }

    #[test]
    fn an_object_whose_name_the_api_server_makes_has_one() {
        let mut object = route(json!([service()]), "/a");
        object["metadata"] = json!({ "generateName": "web-" });
        assert_eq!(created(object)["allowed"], true);
    }
}
