//! HTTPRoute and GRPCRoute → ranked rules of service ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::gateway::{HeaderModifier, ParentReference};

use super::backends::{Backends, Grants};
use super::services::Services;
use super::{Notes, Parts, Written, grpc, http, spec};
use crate::model::ObjectName;
use crate::model::route::{HeaderChanges, PortRoutes, Ranked, Seniority, sort};

/// The two kinds of route, of which one port takes only one (GRPCRoute, "cross serving").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Http,
    Grpc,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        }
    }
}

/// Tells a route's author why it has no effect.
type Tell = Box<dyn Fn(&mut Notes, String)>;

/// A route at one service port.
struct Attached {
    kind: Kind,
    seniority: Seniority,
    rules: Vec<Ranked>,
    /// For a problem, should it lose.
    loses: Tell,
}

/// (service, port, namespace of the callers or none for all).
type Place = (ObjectName, u16, Option<Arc<str>>);

pub(super) fn attach(services: &mut Services<'_>, parts: &Parts<'_>, notes: &mut Notes) {
    let grants = Grants::of(parts);
    let mut attached: BTreeMap<Place, Vec<Attached>> = BTreeMap::new();
    for route in &parts.http_routes {
        let parents = &route.object.spec.parent_refs;
        let rules = http::rules(route, &mut Backends::of(route, parents, Kind::Http, services, &grants, notes));
        place(Kind::Http, route, parents, rules, services, notes, &mut attached);
    }
    for route in &parts.grpc_routes {
        let parents = &route.object.spec.parent_refs;
        let rules = grpc::rules(route, &mut Backends::of(route, parents, Kind::Grpc, services, &grants, notes));
        place(Kind::Grpc, route, parents, rules, services, notes, &mut attached);
    }
    let mut routes: BTreeMap<(ObjectName, u16), PortRoutes> = BTreeMap::new();
    for ((service, port, callers), candidates) in attached {
        let mut rules = merge(candidates, notes);
        sort(&mut rules);
        let rules = rules.into_iter().map(|r| Arc::new(r.rule)).collect();
        let routes = routes.entry((service, port)).or_default();
        match callers {
            None => routes.producer = Some(rules),
            Some(namespace) => {
                routes.consumers.insert(namespace, rules);
            }
        }
    }
    for ((name, number), routes) in routes {
        if let Some(port) = services.get_mut(&name).and_then(|s| s.service.ports.iter_mut().find(|p| p.port == number))
        {
            port.routes = Arc::new(routes);
        }
    }
}

/// All rules of the kind that the oldest route has; routes of the other kind are told that they lost.
fn merge(mut candidates: Vec<Attached>, notes: &mut Notes) -> Vec<Ranked> {
    candidates.sort_by(|a, b| a.seniority.cmp(&b.seniority).then(a.kind.cmp(&b.kind)));
    let Some(kind) = candidates.first().map(|c| c.kind) else { return Vec::new() };
    let mut rules = Vec::new();
    for candidate in candidates {
        if candidate.kind == kind {
            rules.extend(candidate.rules);
        } else {
            (candidate.loses)(
                notes,
                format!(
                    "an older or first-named {} is attached to this port, which takes one kind of route",
                    kind.name()
                ),
            );
        }
    }
    rules
}

/// Finds the ports of each parent.
fn place<T>(
    kind: Kind,
    route: &Written<'_, T>,
    parents: &[ParentReference],
    rules: Vec<Ranked>,
    services: &Services<'_>,
    notes: &mut Notes,
    attached: &mut BTreeMap<Place, Vec<Attached>>,
) {
    for (index, parent) in parents.iter().enumerate() {
        if parent.kind.as_deref() != Some("Service") {
            continue;
        }
        let path = spec("parentRefs").index(index);
        let namespace = parent.namespace.as_deref().unwrap_or(&route.name.namespace);
        let name = ObjectName::new(namespace, parent.name.as_str());
        let Some(built) = services.get(&name) else {
            notes.warning(
                route.origin,
                &path.key("name"),
                &parent.name,
                format!("there is no Service {name}"),
                "the route has no effect there",
            );
            continue;
        };
        let fits = |port: &&crate::model::ServicePort| {
            parent.port.is_none_or(|p| p == port.port)
                && parent.section_name.as_ref().is_none_or(|n| Some(n) == port.name.as_ref())
        };
        let mut found = false;
        for port in built.service.ports.iter().filter(fits) {
            found = true;
            if port.protocol == crate::model::Protocol::Opaque {
                let hint = "set the port's appProtocol to http, kubernetes.io/h2c or grpc";
                notes.warning(
                    route.origin,
                    &path,
                    port.port,
                    format!(
                        "port {} of Service {name} carries opaque bytes, so the route has no effect there",
                        port.port
                    ),
                    hint,
                );
            }
            let callers = (name.namespace != route.name.namespace).then(|| route.name.namespace.clone());
            let loses: Tell = {
                let (origin, path) = (route.origin.clone(), path.clone());
                Box::new(move |notes: &mut Notes, why| {
                    notes.warning(&origin, &path, "", why, "the route has no effect there")
                })
            };
            attached.entry((name.clone(), port.port, callers)).or_default().push(Attached {
                kind,
                seniority: route.seniority(),
                rules: rules.clone(),
                loses,
            });
        }
        if !found {
            notes.warning(
                route.origin,
                &path,
                parent.name.clone(),
                format!("Service {name} has no such port"),
                "the route has no effect there; check port and sectionName",
            );
        }
    }
}

pub(super) fn header_changes(modifier: Option<&HeaderModifier>) -> HeaderChanges {
    let Some(modifier) = modifier else { return HeaderChanges::default() };
    let pairs = |list: &[weft_api::gateway::HeaderValue]| {
        list.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.clone())).collect()
    };
    HeaderChanges {
        set: pairs(&modifier.set),
        add: pairs(&modifier.add),
        remove: modifier.remove.iter().map(|n| n.to_ascii_lowercase()).collect(),
    }
}

/// `<namespace>/<route>/<rule>`.
pub(super) fn rule_name(route: &ObjectName, name: Option<&str>, index: usize) -> String {
    match name {
        Some(name) => format!("{route}/{name}"),
        None => format!("{route}/{index}"),
    }
}
