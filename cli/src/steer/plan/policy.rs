//! `weft retry`, `timeout`, `fault`: a part of the policy that governs a Service.

use serde_json::{Map, Value, json};
use weft_api::Duration;

use super::{Plan, Watched, blank, free_name};
use crate::steer::Wrong;
use crate::steer::args::{FaultArgs, RetryArgs, ServiceName, Steering, TimeoutArgs};
use crate::steer::world::{FAULT_POLICY, Found, Kind, TRAFFIC_POLICY, World, list_of, name_of};

/// `spec.retries` of the Service's TrafficPolicy.
pub(crate) fn retry(world: &World, args: &RetryArgs) -> anyhow::Result<Plan> {
    let mut said = Map::new();
    let mut say = |field: &str, value: Option<Value>| said.extend(value.map(|value| (field.to_owned(), value)));
    say("attempts", args.attempts.map(Into::into));
    say("conditions", (!args.on.is_empty()).then(|| args.on.clone().into()));
    say("codes", (!args.codes.is_empty()).then(|| args.codes.clone().into()));
    say(
        "backoff",
        args.backoff.map(|backoff| {
            let mut value = json!({ "base": text(backoff.base) });
            if let Some(max) = backoff.max {
                value["max"] = text(max);
            }
            value
        }),
    );
    say("budget", args.budget.map(|percent| json!({ "percent": number(percent) })));
    let part = (!args.off).then_some(said);
    policy(world, &args.service, &args.steering, TRAFFIC_POLICY, Part { field: "retries", rule: "retry", said: part })
}

/// `spec.timeouts` of the Service's TrafficPolicy.
pub(crate) fn timeout(world: &World, args: &TimeoutArgs) -> anyhow::Result<Plan> {
    let fields =
        [("request", args.request), ("backendRequest", args.per_try), ("connect", args.connect), ("idle", args.idle)];
    let said = fields.into_iter().filter_map(|(field, limit)| Some((field.to_owned(), text(limit?)))).collect();
    let part = (!args.off).then_some(said);
    policy(
        world,
        &args.service,
        &args.steering,
        TRAFFIC_POLICY,
        Part { field: "timeouts", rule: "timeouts", said: part },
    )
}

/// What a command says of one field of a policy.
struct Part {
    field: &'static str,
    /// The field of a route's rule that goes before it.
    rule: &'static str,
    /// The fields below it; those that are not named stay as they are. `None` takes the whole away.
    said: Option<Map<String, Value>>,
}

fn policy(world: &World, asked: &ServiceName, steering: &Steering, kind: Kind, part: Part) -> anyhow::Result<Plan> {
    let found = world.service(asked, steering.namespace.as_deref())?;
    let section = section(asked, &found)?;
    let before = world.policy(kind, &found, section);
    let mut notes = Vec::new();
    let mut after = match before {
        Some(policy) => policy.clone(),
        None => new(world, kind, &found, section),
    };
    match part.said {
        Some(said) => {
            let field = &mut after["spec"][part.field];
            if !field.is_object() {
                *field = json!({});
            }
            merge(field, said);
        }
        None => {
            if let Some(spec) = after["spec"].as_object_mut() {
                spec.remove(part.field);
            }
        }
    }
    for (route, rule) in world
        .routes(&found)
        .into_iter()
        .flat_map(|route| list_of(&route["spec"]["rules"]).map(move |rule| (route, rule)))
    {
        if !rule[part.rule].is_null() {
            let label = rule["name"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
            let kind = route["kind"].as_str().unwrap_or_default();
            notes.push(format!(
                "a rule{label} of {kind} {}/{} has {} of its own, which go before the policy's",
                found.namespace,
                name_of(route),
                part.rule
            ));
        }
    }
    let nothing_left = after["spec"].as_object().is_none_or(|spec| spec.keys().all(|key| key == "targetRefs"));
    let after = match (before, nothing_left) {
        (None, true) => None,
        (_, true) => None,
        _ => Some(after),
    };
    notes.extend(others(before, &found, section));
    let service = Watched::new(world, &found, None);
    Ok(Plan { kind, before: before.cloned(), after, notes, service })
}

/// The Service's FaultPolicy, which the command says as a whole.
pub(crate) fn fault(world: &World, args: &FaultArgs) -> anyhow::Result<Plan> {
    let found = world.service(&args.service, args.steering.namespace.as_deref())?;
    let section = section(&args.service, &found)?;
    if let Some(percent) = args.percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
        return Err(Wrong::because(format!(
            "{percent} is no share of the calls; give --percent a number from 0 to 100"
        )));
    }
    let before = world.policy(FAULT_POLICY, &found, section);
    let mut after = before.cloned().unwrap_or_else(|| new(world, FAULT_POLICY, &found, section));
    if let Some(spec) = after["spec"].as_object_mut() {
        spec.retain(|key, _| key == "targetRefs");
    }
    let with_share = |mut value: Value| {
        if let Some(percent) = args.percent {
            value["percentage"] = number(percent);
        }
        value
    };
    if let Some(delay) = args.delay {
        after["spec"]["delay"] = with_share(json!({ "duration": text(delay) }));
    }
    let abort = args.abort.map(|status| json!({ "httpStatus": status }));
    if let Some(abort) = abort.or_else(|| args.abort_grpc.map(|status| json!({ "grpcStatus": status }))) {
        after["spec"]["abort"] = with_share(abort);
    }
    let notes = others(before, &found, section).into_iter().collect();
    let service = Watched::new(world, &found, None);
    let after = if args.off { without(before, &found, section) } else { Some(after) };
    Ok(Plan { kind: FAULT_POLICY, before: before.cloned(), after, notes, service })
}

/// The policy without this target; nothing if it was the only one.
fn without(policy: Option<&Value>, found: &Found<'_>, section: Option<&str>) -> Option<Value> {
    let mut policy = policy?.clone();
    let targets = policy["spec"]["targetRefs"].as_array_mut()?;
    targets.retain(|target| target["name"] != found.name || target["sectionName"].as_str() != section);
    (!targets.is_empty()).then_some(policy)
}

fn new(world: &World, kind: Kind, found: &Found<'_>, section: Option<&str>) -> Value {
    let mut policy = blank(kind, found.namespace, &free_name(world, kind, found));
    let mut target = json!({ "kind": "Service", "name": found.name });
    if let Some(section) = section {
        target["sectionName"] = section.into();
    }
    policy["spec"]["targetRefs"] = json!([target]);
    policy
}

/// The name of the port that was asked for; `None` for all of them.
fn section<'f>(asked: &ServiceName, found: &'f Found<'_>) -> anyhow::Result<Option<&'f str>> {
    let Some(port) = asked.port.filter(|_| found.ports().nth(1).is_some()) else { return Ok(None) };
    found.port_name().map(Some).ok_or_else(|| {
        let why = format!(
            "port {port} of Service {}/{} has no name, and a policy names ports by name",
            found.namespace, found.name
        );
        Wrong::because(format!("{why}; give it one, or leave out the port to mean all"))
    })
}

/// A word of warning where the policy governs more than what was asked for.
fn others(policy: Option<&Value>, found: &Found<'_>, section: Option<&str>) -> Option<String> {
    let is_other = |target: &&Value| target["name"] != found.name || target["sectionName"].as_str() != section;
    let others: Vec<_> =
        list_of(&policy?["spec"]["targetRefs"]).filter(is_other).filter_map(|target| target["name"].as_str()).collect();
    (!others.is_empty()).then(|| format!("the policy governs {} too", super::list(others)))
}

fn merge(into: &mut Value, said: Map<String, Value>) {
    for (key, value) in said {
        match (&mut into[&key], value) {
            (Value::Object(known), Value::Object(more)) => known.extend(more),
            (known, value) => *known = value,
        }
    }
}

fn text(duration: Duration) -> Value {
    duration.to_string().into()
}

/// A whole number is written as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { (value as i64).into() } else { value.into() }
}
