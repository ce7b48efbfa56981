//! `weft split`: which share of a Service's requests goes to which version.

use serde_json::{Value, json};

use super::{Plan, Watched, blank, free_name, rule};
use crate::steer::Wrong;
use crate::steer::args::{Share, SplitArgs};
use crate::steer::world::{Found, GRPC_ROUTE, HTTP_ROUTE, SERVICE, World, list, list_of, name_of, ports_of};

/// The rule's backends with the shares as their weights.
pub(crate) fn split(world: &World, args: &SplitArgs) -> anyhow::Result<Plan> {
    let found = world.service(&args.service, args.steering.namespace.as_deref())?;
    let port = found.port.ok_or_else(|| several_ports(&found))?;
    if args.shares.iter().all(|share| share.weight == 0) {
        return Err(Wrong::because(
            "all weights are 0, so every request would be answered with 500; give at least one of them more",
        ));
    }
    let mut versions = Vec::new();
    for share in &args.shares {
        let version = version(world, &found, share, port)?;
        if versions.iter().any(|(other, _)| *other == version) {
            return Err(Wrong::because(format!("{} is named twice; give it one weight", version.0)));
        }
        versions.push((version, share.weight));
    }
    let rule = rule(world, &found, args.route.as_deref(), args.rule.as_deref())?;
    let (kind, before) = match &rule {
        Some(rule) => (rule.kind, Some(rule.route.clone())),
        None if speaks_grpc(&found) => (GRPC_ROUTE, None),
        None => (HTTP_ROUTE, None),
    };
    let mut after = before.clone().unwrap_or_else(|| {
        let mut route = blank(kind, found.namespace, &free_name(world, kind, &found));
        let mut parent = json!({ "group": "", "kind": "Service", "name": found.name });
        if found.ports().nth(1).is_some() {
            parent["port"] = port.into();
        }
        route["spec"] = json!({ "parentRefs": [parent], "rules": [{ "name": "split", "backendRefs": [] }] });
        route
    });
    let index = rule.as_ref().map_or(0, |rule| rule.index);
    let backends = &mut after["spec"]["rules"][index]["backendRefs"];
    *backends = versions.iter().map(|((name, port), weight)| backend(backends, name, *port, *weight)).collect();
    let service = Watched::new(world, &found, Some(&after));
    Ok(Plan { kind, before, after: Some(after), notes: opaque(&found), service })
}

/// The backend as it is, if it is one already, with another weight.
fn backend(known: &Value, name: &str, port: u16, weight: u32) -> Value {
    let is_it = |backend: &&Value| backend["name"] == name && backend["port"] == port && backend["namespace"].is_null();
    let mut backend = list_of(known).find(is_it).cloned().unwrap_or_else(|| json!({ "name": name, "port": port }));
    backend["weight"] = weight.into();
    backend
}

/// The Service of a version, and its port that stands for the split one's.
fn version(world: &World, found: &Found<'_>, share: &Share, port: u16) -> anyhow::Result<(String, u16)> {
    let names = [format!("{}-{}", found.name, share.version), share.version.clone()];
    let service = names.iter().find_map(|name| world.named(SERVICE, found.namespace, name)).ok_or_else(|| {
        let prefix = format!("{}-", found.name);
        let others: Vec<_> = world.of(SERVICE).filter_map(|other| name_of(other).strip_prefix(&prefix)).collect();
        let hint = if others.is_empty() {
            "make one that selects the version's pods".to_owned()
        } else {
            format!("versions that have one: {}", list(others))
        };
        Wrong::because(format!(
            "there is no Service {} (nor {}) in namespace {}; {hint}",
            names[0], names[1], found.namespace
        ))
    })?;
    let ports: Vec<_> = ports_of(service).collect();
    let port = match &ports[..] {
        ports if ports.contains(&port) => port,
        [only] => *only,
        ports => {
            return Err(Wrong::because(format!(
                "Service {}/{} has no port {port}, and several others ({}); give it that port, or write the route yourself",
                found.namespace,
                name_of(service),
                list(ports)
            )));
        }
    };
    Ok((name_of(service).to_owned(), port))
}

pub(super) fn several_ports(found: &Found<'_>) -> anyhow::Error {
    let ports = list(found.ports());
    Wrong::because(format!(
        "Service {}/{} has the ports {ports}; say which, as {}:PORT",
        found.namespace, found.name, found.name
    ))
}

fn speaks_grpc(found: &Found<'_>) -> bool {
    found.protocol().as_deref() == Some("grpc")
}

/// A route means nothing to bytes.
fn opaque(found: &Found<'_>) -> Vec<String> {
    let is_bytes = found.protocol().is_some_and(|protocol| {
        ["tcp", "tls", "https", "redis", "mysql", "mongo", "postgres", "postgresql", "kafka", "amqp", "smtp"]
            .contains(&&*protocol)
    });
    if !is_bytes {
        return Vec::new();
    }
    vec![format!(
        "Service {}/{} carries opaque bytes on this port, so the route has no effect there",
        found.namespace, found.name
    )]
}
