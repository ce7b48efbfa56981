//! The object and field that a decision came from, found among what users wrote.

use serde_json::Value;

use super::decide::{Answer, Origin};
use super::held::{Destination, Held};
use super::{ExplainArgs, steering};
use crate::steer::args::ServiceName;
use crate::steer::target::Target;
use crate::steer::world::{
    FAULT_POLICY, Found, GRPC_ROUTE, HTTP_ROUTE, Kind, SERVICE, TRAFFIC_POLICY, World, list_of, name_of, namespace_of,
};

/// What users wrote; nothing where it cannot be read, which costs the names of objects only.
pub(super) struct Objects {
    world: World,
    /// Why there is nothing.
    unknown: Option<String>,
}

impl Objects {
    /// Reads the folder, or the namespaces of both sides in a cluster.
    pub(super) async fn read(args: &ExplainArgs, held: &Held) -> anyhow::Result<Self> {
        let kinds = [SERVICE, HTTP_ROUTE, GRPC_ROUTE, TRAFFIC_POLICY, FAULT_POLICY];
        let host: Vec<_> = args.url.host.split('.').collect();
        let own = held.namespace.clone().or(args.namespace.clone());
        let theirs = host
            .get(1)
            .map(|namespace| (*namespace).to_owned())
            .filter(|_| args.url.host.parse::<std::net::IpAddr>().is_err());
        let read = async || {
            let target = Target::find(&steering(args)).await?;
            let mut world = target.read(&kinds, theirs.as_deref().or(own.as_deref())).await?;
            if let (Some(own), Some(theirs)) = (&own, &theirs)
                && own != theirs
                && target.is_cluster()
            {
                world.objects.extend(target.read(&kinds, Some(own)).await?.objects);
            }
            anyhow::Ok(world)
        };
        Ok(match read().await {
            Ok(world) => Self { world, unknown: None },
            Err(error) => Self { world: World::default(), unknown: Some(crate::in_one_line(&error)) },
        })
    }

    /// Adds the origin of each decision.
    pub(super) fn trace(&self, answer: &mut Answer, to: &Destination) {
        if let Some(why) = &self.unknown {
            answer.notes.push(format!("which objects this came from is not known: {why}"));
            return;
        }
        let name = ServiceName { name: to.service.clone(), namespace: Some(to.namespace.clone()), port: Some(to.port) };
        let Ok(found) = self.world.service(&name, None) else { return };
        let at = list_of(&found.service["spec"]["ports"]).position(|port| port["port"] == to.port).unwrap_or_default();
        let port = origin(SERVICE, found.service, format!("spec.ports[{at}]"));
        for about in ["listener", "route"] {
            set(answer, about, Some(port.clone()));
        }
        let rule = answer.rule.as_deref().and_then(|name| self.rule(name));
        let of_rule = |field: &str| {
            let rule = rule.as_ref()?;
            let is_there = field.split('.').try_fold(rule.content, |value, key| value.get(key)).is_some();
            is_there.then(|| origin(rule.kind, rule.object, format!("spec.rules[{}].{field}", rule.index)))
        };
        let rule_itself = match &rule {
            Some(rule) => origin(rule.kind, rule.object, format!("spec.rules[{}]", rule.index)),
            // No route is attached: everything goes to the Service itself.
            None => origin(SERVICE, found.service, "spec".to_owned()),
        };
        set(answer, "rule", Some(rule_itself.clone()));
        for about in ["redirect", "path", "host"] {
            set(answer, about, of_rule("filters"));
        }
        set(answer, "answer", of_rule("backendRefs"));
        let policy = |kind, field: &str| self.of_policy(kind, &found, field);
        set(answer, "timeout", of_rule("timeouts.request").or_else(|| policy(TRAFFIC_POLICY, "timeouts.request")));
        set(
            answer,
            "try timeout",
            of_rule("timeouts.backendRequest").or_else(|| policy(TRAFFIC_POLICY, "timeouts.backendRequest")),
        );
        set(answer, "retry", of_rule("retry").or_else(|| policy(TRAFFIC_POLICY, "retries")));
        for decision in answer.decisions.iter_mut().filter(|decision| decision.about == "fault") {
            let field = if decision.says.contains("held") { "delay" } else { "abort" };
            decision.from = self.of_policy(FAULT_POLICY, &found, field);
        }
        for backend in &mut answer.backends {
            let Some((namespace, service, port)) = backend.service() else { continue };
            let is_it = |reference: &Value| {
                let own = rule.as_ref().map_or(namespace, |rule| namespace_of(rule.object));
                reference["name"] == service
                    && reference["port"] == port
                    && reference["namespace"].as_str().unwrap_or(own) == namespace
            };
            let at = rule.as_ref().and_then(|rule| list_of(&rule.content["backendRefs"]).position(is_it));
            backend.from = match at {
                Some(at) => {
                    of_rule("backendRefs").map(|from| Origin { field: format!("{}[{at}]", from.field), ..from })
                }
                None => Some(rule_itself.clone()),
            };
        }
    }

    /// The rule that a proxy names `namespace/route/rule`.
    fn rule(&self, name: &str) -> Option<Rule<'_>> {
        let (route, rule) = name.rsplit_once('/')?;
        let (namespace, route) = route.split_once('/')?;
        let (kind, object) = [HTTP_ROUTE, GRPC_ROUTE]
            .into_iter()
            .find_map(|kind| Some((kind, self.world.named(kind, namespace, route)?)))?;
        let mut rules = list_of(&object["spec"]["rules"]).enumerate();
        let (index, content) = rules.find(|(index, content)| {
            content["name"].as_str().map_or_else(|| rule == index.to_string(), |own| own == rule)
        })?;
        Some(Rule { kind, object, index, content })
    }

    /// A field of the policy that governs the Service: one for the port goes before one for all.
    fn of_policy(&self, kind: Kind, found: &Found<'_>, field: &str) -> Option<Origin> {
        let by_port = found.port_name().and_then(|name| self.world.policy(kind, found, Some(name)));
        let policy = by_port.or_else(|| self.world.policy(kind, found, None))?;
        let is_there = field.split('.').try_fold(&policy["spec"], |value, key| value.get(key)).is_some();
        is_there.then(|| origin(kind, policy, format!("spec.{field}")))
    }
}

struct Rule<'w> {
    kind: Kind,
    object: &'w Value,
    index: usize,
    content: &'w Value,
}

fn origin(kind: Kind, object: &Value, field: String) -> Origin {
    Origin { kind: kind.name.to_owned(), name: format!("{}/{}", namespace_of(object), name_of(object)), field }
}

fn set(answer: &mut Answer, about: &str, from: Option<Origin>) {
    if let Some(decision) = answer.decision(about) {
        decision.from = from;
    }
}
