//! What the types alone cannot say: the same as `check::mesh` says, in the API server's words.

use serde_json::{Map, Value};

/// At a path below `spec` (`[]` for a list's elements) a keyword of the schema, with its value as JSON.
pub(super) struct Bound(pub(super) &'static str, pub(super) &'static str, pub(super) &'static str);

/// At a path a condition in CEL, and what whoever breaks it reads.
pub(super) struct Rule(pub(super) &'static str, pub(super) &'static str, pub(super) &'static str);

const SERVICE: &str = "self.kind == 'Service' && (!has(self.group) || self.group == '')";
const SERVICE_SAYS: &str = "a target of this policy is a Service; write kind: Service, without group";
const RECEIVER: &str = "(self.kind == 'Service' && (!has(self.group) || self.group == '')) \
    || (self.kind == 'Workload' && has(self.group) && self.group == 'weft.mesh')";
const RECEIVER_SAYS: &str =
    "a target of this policy is a Service (without group) or a Workload (with group: weft.mesh)";
const ALIKE: &str = "!has(self.sectionName)";
const ALIKE_SAYS: &str = "this policy governs a target's ports alike; remove sectionName";
const ONE_WAY: &str = "!has(self.selector) || !has(self.targetRefs) || size(self.targetRefs) == 0";
const ONE_WAY_SAYS: &str = "set targetRefs or selector, not both";

// A rule's costs are estimated from the longest list: all lists have an end.

/// What a policy governs.
pub(super) const TARGETS: &[Bound] = &[
    Bound("targetRefs", "maxItems", "16"),
    Bound("targetRefs[].kind", "maxLength", "63"),
    Bound("targetRefs[].group", "maxLength", "253"),
    Bound("targetRefs[].name", "minLength", "1"),
    Bound("targetRefs[].name", "maxLength", "253"),
    Bound("targetRefs[].sectionName", "maxLength", "253"),
];

/// Of a policy that governs nothing without them.
pub(super) const SOME_TARGET: &[Bound] = &[Bound("targetRefs", "minItems", "1")];

/// Pods that a policy governs instead.
pub(super) const SELECTOR: &[Bound] = &[
    Bound("selector", "required", "[\"matchLabels\"]"),
    Bound("selector.matchLabels", "minProperties", "1"),
    Bound("selector.matchLabels", "maxProperties", "64"),
];

/// Ports by number, each once.
pub(super) const PORTS: &[Bound] = &[
    Bound("ports", "maxItems", "64"),
    Bound("ports", "x-kubernetes-list-type", "\"map\""),
    Bound("ports", "x-kubernetes-list-map-keys", "[\"port\"]"),
    Bound("ports[].port", "minimum", "1"),
];

pub(super) const TRAFFIC_POLICY: &[Bound] = &[
    Bound("retries.attempts", "maximum", "10"),
    Bound("retries.conditions", "maxItems", "16"),
    Bound("retries.codes", "maxItems", "64"),
    Bound("retries.codes[]", "minimum", "400"),
    Bound("retries.codes[]", "maximum", "599"),
    Bound("retries.budget.percent", "minimum", "0"),
    Bound("retries.budget.percent", "maximum", "100"),
    Bound("loadBalancing.panicThreshold", "minimum", "0"),
    Bound("loadBalancing.panicThreshold", "maximum", "100"),
    Bound("outlierDetection.failurePercentage", "minimum", "1"),
    Bound("outlierDetection.failurePercentage", "maximum", "100"),
    Bound("outlierDetection.maxEjectionPercent", "maximum", "100"),
];

pub(super) const TRAFFIC_POLICY_RULES: &[Rule] = &[
    Rule("targetRefs[]", SERVICE, SERVICE_SAYS),
    Rule(
        "timeouts",
        "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') \
         || duration(self.backendRequest) <= duration(self.request)",
        "backendRequest is longer than request; each try fits into the whole",
    ),
    Rule(
        "timeouts",
        "!has(self.connect) || duration(self.connect) > duration('0s')",
        "a connection needs a limit; write a connect above 0s",
    ),
    Rule(
        "retries.backoff",
        "!has(self.base) || duration(self.base) > duration('0s')",
        "base has to be longer than nothing; write a duration above 0s",
    ),
    Rule(
        "retries.backoff",
        "!has(self.max) || duration(self.max) > duration('0s')",
        "max has to be longer than nothing; write a duration above 0s",
    ),
    Rule(
        "retries.backoff",
        "!has(self.base) || !has(self.max) || duration(self.base) <= duration(self.max)",
        "max is shorter than base",
    ),
    Rule(
        "outlierDetection",
        "!has(self.interval) || duration(self.interval) > duration('0s')",
        "interval has to be longer than nothing; write a duration above 0s",
    ),
    Rule(
        "outlierDetection",
        "!has(self.baseEjectionTime) || duration(self.baseEjectionTime) > duration('0s')",
        "baseEjectionTime has to be longer than nothing; write a duration above 0s",
    ),
    Rule(
        "outlierDetection",
        "!has(self.maxEjectionTime) || duration(self.maxEjectionTime) > duration('0s')",
        "maxEjectionTime has to be longer than nothing; write a duration above 0s",
    ),
    Rule(
        "outlierDetection",
        "!has(self.baseEjectionTime) || !has(self.maxEjectionTime) \
         || duration(self.baseEjectionTime) <= duration(self.maxEjectionTime)",
        "maxEjectionTime is shorter than baseEjectionTime",
    ),
];

pub(super) const FAULT_POLICY: &[Bound] = &[
    Bound("delay.percentage", "minimum", "0"),
    Bound("delay.percentage", "maximum", "100"),
    Bound("abort.percentage", "minimum", "0"),
    Bound("abort.percentage", "maximum", "100"),
    Bound("abort.httpStatus", "minimum", "200"),
    Bound("abort.httpStatus", "maximum", "599"),
    Bound("abort.grpcStatus", "minimum", "1"),
    Bound("abort.grpcStatus", "maximum", "16"),
];

pub(super) const FAULT_POLICY_RULES: &[Rule] = &[
    Rule("", "has(self.delay) || has(self.abort)", "set at least one of delay and abort"),
    Rule("targetRefs[]", SERVICE, SERVICE_SAYS),
    Rule(
        "delay",
        "duration(self.duration) > duration('0s')",
        "duration has to be longer than nothing; write a duration above 0s",
    ),
    Rule("abort", "has(self.httpStatus) != has(self.grpcStatus)", "set exactly one of httpStatus and grpcStatus"),
];

pub(super) const MESH_TLS_RULES: &[Rule] = &[
    Rule("", ONE_WAY, ONE_WAY_SAYS),
    Rule("targetRefs[]", RECEIVER, RECEIVER_SAYS),
    Rule("targetRefs[]", ALIKE, ALIKE_SAYS),
];

pub(super) const ACCESS_POLICY: &[Bound] = &[
    Bound("rules", "maxItems", "64"),
    Bound("rules[].from", "maxItems", "64"),
    Bound("rules[].from[].identities", "maxItems", "256"),
    Bound("rules[].from[].identities[]", "maxLength", "2048"),
    // A * stands only at the end.
    Bound("rules[].from[].identities[]", "pattern", r#""^(\\*|spiffe://[^*]*\\*?)$""#),
    Bound("rules[].from[].serviceAccounts", "maxItems", "256"),
    Bound(
        "rules[].from[].serviceAccounts[]",
        "pattern",
        r#""^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$""#,
    ),
    Bound("rules[].from[].serviceAccounts[]", "maxLength", "317"),
    Bound("rules[].from[].namespaces", "maxItems", "256"),
    Bound("rules[].from[].namespaces[]", "pattern", r#""^[a-z0-9]([-a-z0-9]*[a-z0-9])?$""#),
    Bound("rules[].from[].namespaces[]", "maxLength", "63"),
    Bound("rules[].to", "maxItems", "64"),
    Bound("rules[].to[].ports", "maxItems", "64"),
    Bound("rules[].to[].ports[]", "minimum", "1"),
    Bound("rules[].to[].methods", "maxItems", "64"),
    // RFC 9110 §5.6.2: a token.
    Bound("rules[].to[].methods[]", "pattern", r#""^[!#$%&'*+.^_`|~0-9A-Za-z-]+$""#),
    Bound("rules[].to[].methods[]", "maxLength", "64"),
    Bound("rules[].to[].paths", "maxItems", "256"),
    Bound("rules[].to[].paths[]", "pattern", r#""^(\\*|/[^*?#]*\\*?)$""#),
    Bound("rules[].to[].paths[]", "maxLength", "2048"),
];

pub(super) const ACCESS_POLICY_RULES: &[Rule] = &[
    Rule("", ONE_WAY, ONE_WAY_SAYS),
    Rule(
        "",
        "self.action != 'Deny' || (has(self.rules) && size(self.rules) > 0)",
        "without rules nothing is ever denied; a rule that is {} denies everything",
    ),
    Rule("targetRefs[]", RECEIVER, RECEIVER_SAYS),
    Rule("targetRefs[]", ALIKE, ALIKE_SAYS),
    Rule(
        "rules[].from[]",
        "(has(self.identities) && size(self.identities) > 0) || (has(self.serviceAccounts) && size(self.serviceAccounts) > 0) \
         || (has(self.namespaces) && size(self.namespaces) > 0)",
        "names no caller; set identities, serviceAccounts or namespaces, or leave out from to mean everyone",
    ),
    Rule(
        "rules[].to[]",
        "(has(self.ports) && size(self.ports) > 0) || (has(self.methods) && size(self.methods) > 0) \
         || (has(self.paths) && size(self.paths) > 0)",
        "names no call; set ports, methods or paths, or leave out to to mean every call",
    ),
];

pub(super) const WORKLOAD: &[Bound] = &[
    Bound("addresses", "minItems", "1"),
    Bound("addresses", "maxItems", "2"),
    Bound("addresses[]", "maxLength", "45"),
    Bound("addresses[]", "pattern", r#""^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$""#),
    Bound("serviceAccount", "pattern", r#""^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$""#),
    Bound("serviceAccount", "maxLength", "253"),
    Bound("workload", "pattern", r#""^[a-z0-9]([-a-z0-9]*[a-z0-9])?$""#),
    Bound("workload", "maxLength", "63"),
    Bound("ports[].name", "pattern", r#""^[a-z0-9]([-a-z0-9]*[a-z0-9])?$""#),
    Bound("ports[].name", "maxLength", "63"),
];

pub(super) const WORKLOAD_RULES: &[Rule] = &[Rule(
    "addresses",
    "size(self) < 2 || self[0].contains(':') != self[1].contains(':')",
    "is a second address of its family; a workload has at most one IPv4 and one IPv6 address",
)];

/// The schema at a path.
pub(super) fn at<'a>(spec: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut schema = spec;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let name = part.trim_end_matches("[]");
        let found = schema.get_mut("properties").and_then(|properties| properties.get_mut(name));
        schema = found.unwrap_or_else(|| panic!("rules: {path}: there is no field {name}"));
        if part.ends_with("[]") {
            schema = schema.get_mut("items").unwrap_or_else(|| panic!("rules: {path}: {name} is no list"));
        }
    }
    schema.as_object_mut().unwrap_or_else(|| panic!("rules: {path}: there is no schema"))
}

/// A bound's value.
pub(super) fn parse(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|error| panic!("rules: {value}: {error}"))
}
