//! What became of an object, as conditions for its status: problems in, JSON out.
//!
//! Routes say it for each of their parents, as the Gateway API has it (for Services: GEP-1294); policies and workloads say it once
//! (GEP-713). An object that is in force with a remark is accepted, and the remark is its message.

use serde_json::{Value, json};
use weft_api::Problem;

use crate::sources::{Kind, Reported};

/// Whose entries in a route's status are ours.
const CONTROLLER: &str = "weft.mesh/control-plane";

/// Problems told in one message; beyond, how many more there are.
const MOST_TOLD: usize = 8;

/// The longest message. The definitions of all kinds allow 32,768.
const LONGEST: usize = 8192;

/// The status that an object should have; `None` where it has it, or there is nothing to say. `now` is RFC 3339.
pub(super) fn desired(object: &Reported, problems: &[&Problem], now: &str) -> Option<Value> {
    let desired = match object.kind {
        Kind::HttpRoute | Kind::GrpcRoute => {
            let parents = parents(object, problems, now);
            if parents.is_empty() && object.status["parents"].as_array().is_none_or(Vec::is_empty) {
                return None;
            }
            json!({ "parents": parents })
        }
        _ => json!({ "conditions": policy(object, problems, now) }),
    };
    (desired != object.status).then_some(desired)
}

/// The entries of others as they are, then ours.
fn parents(object: &Reported, problems: &[&Problem], now: &str) -> Vec<Value> {
    let entries = object.status["parents"].as_array().cloned().unwrap_or_default();
    let (own, mut all): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry["controllerName"] == CONTROLLER);
    for (index, parent) in object.references.iter().enumerate() {
        if parent["kind"] != "Service" {
            continue;
        }
        let before = own.iter().find(|entry| entry["parentRef"] == *parent).map(|entry| &entry["conditions"]);
        let conditions = [accepted_by_parent(parent, index, problems), backends(problems)];
        all.push(json!({
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": dated(&conditions, object.generation, before.unwrap_or(&Value::Null), now),
        }));
    }
    all
}

fn accepted_by_parent(parent: &Value, index: usize, problems: &[&Problem]) -> Condition {
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).copied().collect();
    if !errors.is_empty() {
        return Condition::no("Accepted", "UnsupportedValue", &errors);
    }
    let path = format!("spec.parentRefs[{index}]");
    let remarks: Vec<_> = problems.iter().filter(|problem| is_at(problem, &path)).copied().collect();
    // A parent that names no port has others, where the route may be in force.
    let names_port = parent.get("port").is_some() || parent.get("sectionName").is_some();
    let missing = |problem: &&&Problem| problem.field != path;
    if let Some(problem) = remarks.iter().find(missing).or_else(|| remarks.first().filter(|_| names_port)) {
        return Condition::no("Accepted", "NoMatchingParent", &[problem]);
    }
    Condition::yes("Accepted", "Accepted", &remarks)
}

fn backends(problems: &[&Problem]) -> Condition {
    let unresolved: Vec<_> =
        problems.iter().filter(|problem| problem.field.contains("backendRefs[")).copied().collect();
    let Some(first) = unresolved.first() else { return Condition::yes("ResolvedRefs", "ResolvedRefs", &[]) };
    let reason = match first.field.rsplit('.').next() {
        Some("namespace") => "RefNotPermitted",
        Some("kind" | "group") => "InvalidKind",
        _ => "BackendNotFound",
    };
    Condition::no("ResolvedRefs", reason, &unresolved)
}

fn policy(object: &Reported, problems: &[&Problem], now: &str) -> Vec<Value> {
    let targets: Vec<_> = (0..object.references.len()).map(|index| format!("spec.targetRefs[{index}]")).collect();
    let (errors, remarks): (Vec<&Problem>, Vec<&Problem>) = problems.iter().partition(|problem| problem.is_error());
    // A target that is not there is named by the field below it; one that another policy has, by itself.
    let missing: Vec<_> = remarks
        .iter()
        .filter(|problem| targets.iter().any(|target| is_at(problem, target) && problem.field != *target))
        .copied()
        .collect();
    let has_no_effect = |target: &String| remarks.iter().any(|problem| is_at(problem, target));
    let accepted = if !errors.is_empty() {
        Condition::no("Accepted", "Invalid", &errors)
    } else if !targets.is_empty() && targets.iter().all(has_no_effect) {
        let conflict = remarks.iter().any(|problem| targets.contains(&problem.field));
        Condition::no("Accepted", if conflict { "Conflicted" } else { "TargetNotFound" }, &remarks)
    } else {
        Condition::yes("Accepted", "Accepted", &remarks)
    };
    let resolved = if missing.is_empty() {
        Condition::yes("ResolvedRefs", "ResolvedRefs", &[])
    } else {
        Condition::no("ResolvedRefs", "TargetNotFound", &missing)
    };
    // A workload refers to nothing.
    let conditions = if object.kind == Kind::Workload { vec![accepted] } else { vec![accepted, resolved] };
    dated(&conditions, object.generation, &object.status["conditions"], now)
}

/// Whether a problem is with this field or one below it.
fn is_at(problem: &Problem, path: &str) -> bool {
    problem.field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A condition without its book-keeping (`metav1.Condition`).
struct Condition {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn yes(kind: &'static str, reason: &'static str, problems: &[&Problem]) -> Self {
        Self { kind, status: "True", reason, message: message(problems) }
    }

    fn no(kind: &'static str, reason: &'static str, problems: &[&Problem]) -> Self {
        Self { kind, status: "False", reason, message: message(problems) }
    }
}

/// The conditions with the generation that they are about, and since when each has been as it is.
fn dated(conditions: &[Condition], generation: i64, before: &Value, now: &str) -> Vec<Value> {
    let before = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let dated = conditions.iter().map(|condition| {
        let before = before.iter().find(|b| b["type"] == condition.kind && b["status"] == condition.status);
        json!({
            "type": condition.kind,
            "status": condition.status,
            "observedGeneration": generation,
            "lastTransitionTime": before.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(now),
            "reason": condition.reason,
            "message": condition.message,
        })
    });
    dated.collect()
}

/// One problem a line, without what the object itself says already.
fn message(problems: &[&Problem]) -> String {
    let mut lines: Vec<_> = problems.iter().take(MOST_TOLD).map(|problem| line(problem)).collect();
    if problems.len() > MOST_TOLD {
        lines.push(format!("and {} more", problems.len() - MOST_TOLD));
    }
    let mut message = lines.join("\n");
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
    }
    message
}

fn line(problem: &Problem) -> String {
    let mut line = String::new();
    for part in [&problem.field, &problem.value] {
        if !part.is_empty() {
            line.push_str(part);
            line.push_str(": ");
        }
    }
    line.push_str(&problem.why);
    if !problem.hint.is_empty() {
        line.push_str("; ");
        line.push_str(&problem.hint);
    }
    line
}

#[cfg(test)]
mod tests {
    use weft_api::Severity;

    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn object(kind: Kind, references: Value, status: Value) -> Reported {
        Reported {
            kind,
            namespace: "shop".into(),
            name: "web".into(),
            generation: 3,
            version: "17".into(),
            references: references.as_array().cloned().unwrap(),
            status,
        }
    }

    fn problem(severity: Severity, field: &str, why: &str) -> Problem {
        Problem {
            file: "kubernetes".into(),
            line: 0,
            object: "HTTPRoute shop/web".into(),
            field: field.into(),
            value: String::new(),
            why: why.into(),
            hint: String::new(),
            severity,
        }
    }

    fn warning(field: &str) -> Problem {
        problem(Severity::Warning, field, "there is none")
    }

    fn web() -> Value {
        json!([{ "group": "", "kind": "Service", "name": "web" }])
    }

    /// `type=status reason` of each condition.
    fn said(conditions: &Value) -> Vec<String> {
        let text = |c: &Value, key: &str| c[key].as_str().unwrap().to_owned();
        let all = conditions.as_array().unwrap().iter();
        all.map(|c| format!("{}={} {}", text(c, "type"), text(c, "status"), text(c, "reason"))).collect()
    }

    #[test]
    fn a_good_route_is_accepted_by_its_service() {
        let route = object(Kind::HttpRoute, web(), Value::Null);
        let status = desired(&route, &[], NOW).unwrap();
        assert_eq!(
            status,
            json!({ "parents": [{
                "parentRef": { "group": "", "kind": "Service", "name": "web" },
                "controllerName": CONTROLLER,
                "conditions": [
                    { "type": "Accepted", "status": "True", "observedGeneration": 3, "lastTransitionTime": NOW,
                        "reason": "Accepted", "message": "" },
                    { "type": "ResolvedRefs", "status": "True", "observedGeneration": 3, "lastTransitionTime": NOW,
                        "reason": "ResolvedRefs", "message": "" },
                ],
            }] })
        );
        let written = object(Kind::HttpRoute, web(), status);
        assert_eq!(desired(&written, &[], "2026-01-03T00:00:00Z"), None, "what is there is not written again");
    }

    #[test]
    fn what_others_said_about_a_route_stays() {
        let gateways =
            json!({ "parentRef": { "name": "edge" }, "controllerName": "example.com/gateways", "conditions": [] });
        let route = object(Kind::HttpRoute, web(), json!({ "parents": [gateways] }));
        let status = desired(&route, &[], NOW).unwrap();
        assert_eq!(status["parents"][0], gateways);
        assert_eq!(status["parents"].as_array().unwrap().len(), 2);
        let only_theirs = object(Kind::HttpRoute, json!([{ "name": "edge" }]), json!({ "parents": [gateways] }));
        assert_eq!(desired(&only_theirs, &[], NOW), None);
    }

    #[test]
    fn a_route_of_no_service_has_no_status_of_ours() {
        let route = object(Kind::HttpRoute, json!([{ "name": "edge" }]), Value::Null);
        assert_eq!(desired(&route, &[], NOW), None);
    }

    #[test]
    fn a_condition_keeps_its_date_until_it_turns() {
        let first = desired(&object(Kind::HttpRoute, web(), Value::Null), &[], NOW).unwrap();
        let lost = warning("spec.rules[0].backendRefs[0].name");
        let later = "2026-01-03T00:00:00Z";
        let second = desired(&object(Kind::HttpRoute, web(), first), &[&lost], later).unwrap();
        let conditions = &second["parents"][0]["conditions"];
        assert_eq!(said(conditions), ["Accepted=True Accepted", "ResolvedRefs=False BackendNotFound"]);
        assert_eq!(
            (conditions[0]["lastTransitionTime"].as_str(), conditions[1]["lastTransitionTime"].as_str()),
            (Some(NOW), Some(later))
        );
    }

    #[test]
    fn each_way_to_be_wrong_has_its_reason() {
        let conditions = |field: &str, severity| {
            let found = problem(severity, field, "no");
            let status = desired(&object(Kind::HttpRoute, web(), Value::Null), &[&found], NOW).unwrap();
            said(&status["parents"][0]["conditions"])
        };
        let cases = [
            (
                "spec.parentRefs[0].name",
                Severity::Warning,
                "Accepted=False NoMatchingParent",
                "ResolvedRefs=True ResolvedRefs",
            ),
            (
                "spec.rules[1].backendRefs[0].namespace",
                Severity::Warning,
                "Accepted=True Accepted",
                "ResolvedRefs=False RefNotPermitted",
            ),
            (
                "spec.rules[1].backendRefs[0].kind",
                Severity::Warning,
                "Accepted=True Accepted",
                "ResolvedRefs=False InvalidKind",
            ),
            (
                "spec.rules[0].timeouts.request",
                Severity::Error,
                "Accepted=False UnsupportedValue",
                "ResolvedRefs=True ResolvedRefs",
            ),
            // Another parent's problem, and one of a port among several.
            ("spec.parentRefs[10].name", Severity::Warning, "Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs"),
            ("spec.parentRefs[0]", Severity::Warning, "Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs"),
        ];
        for (field, severity, accepted, resolved) in cases {
            assert_eq!(conditions(field, severity), [accepted, resolved], "{field}");
        }
    }

    #[test]
    fn a_policy_is_accepted_while_it_has_effect_somewhere() {
        let targets = json!([{ "kind": "Service", "name": "a" }, { "kind": "Service", "name": "b" }]);
        let policy = object(Kind::TrafficPolicy, targets, Value::Null);
        let conditions = |problems: &[&Problem]| said(&desired(&policy, problems, NOW).unwrap()["conditions"]);
        let (gone, gone_too) = (warning("spec.targetRefs[0].name"), warning("spec.targetRefs[1].name"));
        let lost = warning("spec.targetRefs[1]");
        assert_eq!(conditions(&[]), ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs"]);
        assert_eq!(conditions(&[&gone]), ["Accepted=True Accepted", "ResolvedRefs=False TargetNotFound"]);
        assert_eq!(
            conditions(&[&gone, &gone_too]),
            ["Accepted=False TargetNotFound", "ResolvedRefs=False TargetNotFound"]
        );
        assert_eq!(conditions(&[&gone, &lost]), ["Accepted=False Conflicted", "ResolvedRefs=False TargetNotFound"]);
        let broken = problem(Severity::Error, "spec.timeouts.request", "no duration");
        assert_eq!(conditions(&[&broken]), ["Accepted=False Invalid", "ResolvedRefs=True ResolvedRefs"]);
    }

    #[test]
    fn a_long_list_of_problems_is_cut() {
        let problems: Vec<_> =
            (0..20).map(|index| warning(&format!("spec.rules[{index}].backendRefs[0].name"))).collect();
        let all: Vec<_> = problems.iter().collect();
        let text = message(&all);
        assert_eq!(text.lines().count(), MOST_TOLD + 1);
        assert!(text.ends_with("and 12 more"), "{text}");
    }
}
