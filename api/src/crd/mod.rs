//! The definitions of Weft's kinds for a Kubernetes API server: structural schemas with what the checks of this crate say about a single
//! object, as far as bounds, patterns and CEL can say it.
//!
//! The API server so refuses at once what the control plane would refuse; what needs other objects is left to the control plane.

mod rules;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use self::rules::{Bound, Rule};
use crate::mesh;

/// A kind's definition.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// Policies are found by `kubectl get weft-policies`.
    category: &'static str,
    /// Name, JSON path, meaning.
    columns: &'static [(&'static str, &'static str, &'static str)],
    spec: fn(&mut SchemaGenerator) -> Value,
    bounds: &'static [&'static [Bound]],
    rules: &'static [Rule],
    meaning: &'static str,
}

const ALL: [Definition; 5] = [
    Definition {
        kind: "AccessPolicy",
        plural: "accesspolicies",
        short: &["wap"],
        category: "weft-policies",
        columns: &[("Action", ".spec.action", "What a matching rule does")],
        spec: schema::<mesh::AccessPolicySpec>,
        bounds: &[rules::TARGETS, rules::SELECTOR, rules::ACCESS_POLICY],
        rules: rules::ACCESS_POLICY_RULES,
        meaning: "Who may call a workload.",
    },
    Definition {
        kind: "FaultPolicy",
        plural: "faultpolicies",
        short: &["wfp"],
        category: "weft-policies",
        columns: &[
            ("Target", ".spec.targetRefs[*].name", "The Services whose callers are disturbed"),
            ("Delay", ".spec.delay.duration", "How long calls are delayed"),
            ("HTTP", ".spec.abort.httpStatus", "The status that calls are answered with"),
            ("gRPC", ".spec.abort.grpcStatus", "The status that gRPC calls are answered with"),
        ],
        spec: schema::<mesh::FaultPolicySpec>,
        bounds: &[rules::SOME_TARGET, rules::TARGETS, rules::FAULT_POLICY],
        rules: rules::FAULT_POLICY_RULES,
        meaning: "Delays and fails calls to a Service, at the caller's side, to see how callers take it.",
    },
    Definition {
        kind: "MeshTLS",
        plural: "meshtlses",
        short: &["wtls"],
        category: "weft-policies",
        columns: &[("Mode", ".spec.mode", "Which callers are accepted")],
        spec: schema::<mesh::MeshTlsSpec>,
        bounds: &[rules::TARGETS, rules::SELECTOR, rules::PORTS],
        rules: rules::MESH_TLS_RULES,
        meaning: "Whether workloads accept callers without mutual TLS.",
    },
    Definition {
        kind: "TrafficPolicy",
        plural: "trafficpolicies",
        short: &["wtp"],
        category: "weft-policies",
        columns: &[
            ("Target", ".spec.targetRefs[*].name", "The Services that callers treat so"),
            ("Balancing", ".spec.loadBalancing.algorithm", "Which endpoint gets a request"),
            ("Timeout", ".spec.timeouts.request", "From the request to the end of the response"),
        ],
        spec: schema::<mesh::TrafficPolicySpec>,
        bounds: &[rules::SOME_TARGET, rules::TARGETS, rules::TRAFFIC_POLICY],
        rules: rules::TRAFFIC_POLICY_RULES,
        meaning: "How callers treat a Service: time limits, retries, balancing, outliers, circuit breaking.",
    },
    Definition {
        kind: "Workload",
        plural: "workloads",
        short: &["wwl"],
        category: "weft",
        columns: &[
            ("Addresses", ".spec.addresses", "Where it is"),
            ("Account", ".spec.serviceAccount", "The last part of its identity"),
            ("Ready", ".spec.ready", "Whether Services send requests to it"),
        ],
        spec: schema::<mesh::WorkloadSpec>,
        bounds: &[rules::WORKLOAD, rules::PORTS],
        rules: rules::WORKLOAD_RULES,
        meaning: "A process outside Kubernetes that is part of the mesh.",
    },
];

/// All CustomResourceDefinitions, with the names of their files.
///
/// # Panics
/// If a rule names a field that is not there: the test that compares the files finds it.
#[must_use]
pub fn definitions() -> Vec<(String, Value)> {
    ALL.iter().map(|one| (format!("{}.yaml", one.plural), definition(one))).collect()
}

fn definition(of: &Definition) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut spec = (of.spec)(&mut settings.into_generator());
    structural(&mut spec);
    for Bound(path, name, value) in of.bounds.iter().copied().flatten() {
        rules::at(&mut spec, path).insert((*name).to_owned(), rules::parse(value));
    }
    for Rule(path, rule, message) in of.rules {
        let list = rules::at(&mut spec, path).entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        // Invariant: nobody else writes this member.
        if let Some(list) = list.as_array_mut() {
            list.push(json!({ "rule": rule, "message": message }));
        }
    }
    let age = json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
    let columns = of.columns.iter().map(
        |(name, path, meaning)| json!({ "name": name, "type": "string", "jsonPath": path, "description": meaning }),
    );
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", of.plural, mesh::GROUP),
            "labels": { "app.kubernetes.io/part-of": "weft" },
        },
        "spec": {
            "group": mesh::GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": of.kind,
                "listKind": format!("{}List", of.kind),
                "plural": of.plural,
                "singular": of.kind.to_lowercase(),
                "shortNames": of.short,
                "categories": [of.category],
            },
            "versions": [{
                "name": mesh::VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns.chain([age]).collect::<Vec<_>>(),
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": of.meaning,
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": spec,
                        "status": status(),
                    },
                } },
            }],
        },
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.root_schema_for::<T>().to_value()
}

/// Conditions as Kubernetes has them everywhere (`metav1.Condition`).
fn status() -> Value {
    json!({
        "type": "object",
        "description": "What became of it; written by the control plane.",
        "properties": { "conditions": {
            "type": "array",
            "maxItems": 8,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                "properties": {
                    "type": { "type": "string", "maxLength": 316 },
                    "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                    "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                    "lastTransitionTime": { "type": "string", "format": "date-time" },
                    "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                    "message": { "type": "string", "maxLength": 32768 },
                },
            },
        } },
    })
}

/// Makes a structural schema of one that the derive macro wrote: no type of two kinds, no alternatives, only formats that an API server knows.
fn structural(value: &mut Value) {
    if let Value::Object(schema) = value {
        schema.remove("title");
        // `Option`: what is not set is not there.
        if let Some(Value::Array(types)) = schema.get("type") {
            let kind = types.iter().find(|kind| *kind != "null").cloned();
            schema.insert("type".to_owned(), kind.unwrap_or_else(|| "object".into()));
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str)
            && !["int32", "int64", "double"].contains(&format)
        {
            schema.remove("format");
        }
        // What is empty is the same as what is not there.
        if schema.get("default").is_some_and(is_empty) {
            schema.remove("default");
        }
        for alternatives in ["anyOf", "oneOf"] {
            if let Some(Value::Array(options)) = schema.remove(alternatives) {
                alternative(schema, options);
            }
        }
        if let Some(Value::Array(values)) = schema.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(structural),
        Value::Array(items) => items.iter_mut().for_each(structural),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Of an enum's variants the names; of an `Option` what it may hold.
fn alternative(schema: &mut Map<String, Value>, options: Vec<Value>) {
    let mut names = Vec::new();
    for option in options {
        if option["type"] == "null" {
            continue;
        }
        if let Some(name) = option.get("const") {
            names.push(name.clone());
        } else if let Some(values) = option["enum"].as_array() {
            names.extend(values.iter().cloned());
        } else if let Value::Object(mut fields) = option {
            // The field's own words are nearer to its use than those of its type.
            let description = schema.get("description").cloned();
            schema.append(&mut fields);
            if let Some(description) = description {
                schema.insert("description".to_owned(), description);
            }
            // What it may hold may have alternatives too.
            for alternatives in ["anyOf", "oneOf"] {
                if let Some(Value::Array(options)) = schema.remove(alternatives) {
                    alternative(schema, options);
                }
            }
        }
    }
    if !names.is_empty() {
        schema.insert("type".to_owned(), "string".into());
        schema.insert("enum".to_owned(), names.into());
    }
}
