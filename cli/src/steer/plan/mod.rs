//! What a command means: the object that says so, before and after. No IO; the same for a folder and for a cluster.
//!
//! | module | commands |
//! |---|---|
//! | [`mod@split`] | `weft split`: the weights of a route's rule |
//! | [`policy`] | `weft retry`, `timeout`, `fault`: a policy's part |

mod policy;
mod split;

pub(crate) use policy::{fault, retry, timeout};
use serde_json::{Value, json};
pub(crate) use split::split;

use super::Wrong;
use super::world::{Found, GRPC_ROUTE, HTTP_ROUTE, Kind, World, list, list_of, name_of, namespace_of};

/// A change of one object.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// The object as it is; `None` if it is to be made.
    pub(crate) before: Option<Value>,
    /// The object as it shall be; `None` if it is to be removed.
    pub(crate) after: Option<Value>,
    /// What its author should know besides.
    pub(crate) notes: Vec<String>,
    /// The Service whose callers are affected.
    pub(crate) service: Watched,
}

/// A Service, and the routes by which calls to it are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `namespace/name` of each route that is attached to it, the one that the plan makes too.
    pub(crate) routes: Vec<String>,
}

impl Plan {
    /// `Kind namespace/name`.
    pub(crate) fn name(&self) -> String {
        let object = self.after.as_ref().or(self.before.as_ref());
        let (namespace, name) = object.map(|object| (namespace_of(object), name_of(object))).unwrap_or_default();
        format!("{} {namespace}/{name}", self.kind.name)
    }

    /// Whether everything is as it shall be.
    pub(crate) fn is_nothing(&self) -> bool {
        self.before == self.after
    }
}

impl Watched {
    fn new(world: &World, found: &Found<'_>, more: Option<&Value>) -> Self {
        let name = |route: &Value| format!("{}/{}", namespace_of(route), name_of(route));
        let mut routes: Vec<_> = world.routes(found).into_iter().map(name).collect();
        routes.extend(more.map(name));
        routes.sort();
        routes.dedup();
        Self { namespace: found.namespace.to_owned(), name: found.name.to_owned(), routes }
    }
}

/// An object as people write it, without what an API server adds.
pub(super) fn printable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&&**key));
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}

/// A new object without anything in it.
fn blank(kind: Kind, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": { "name": name, "namespace": namespace },
        "spec": {},
    })
}

/// A name that no object of the kind has: the Service's, or that with a number.
fn free_name(world: &World, kind: Kind, found: &Found<'_>) -> String {
    let names = std::iter::once(found.name.to_owned()).chain((2..).map(|n| format!("{}-{n}", found.name)));
    let mut free = names.filter(|name| world.named(kind, found.namespace, name).is_none());
    // The names never end.
    free.next().unwrap_or_default()
}

/// The rule of the Service's routes that a command is about.
struct Rule<'w> {
    route: &'w Value,
    kind: Kind,
    index: usize,
}

/// The rule that somebody names, or that takes the requests which no other rule is for; `None` if no route is attached to the Service.
fn rule<'w>(
    world: &'w World,
    found: &Found<'_>,
    route: Option<&str>,
    rule: Option<&str>,
) -> anyhow::Result<Option<Rule<'w>>> {
    let mut routes = world.routes(found);
    let at = format!("Service {}/{}", found.namespace, found.name);
    if let Some(wanted) = route {
        let known = list(routes.iter().map(|route| name_of(route)));
        routes.retain(|route| name_of(route) == wanted);
        if routes.is_empty() {
            return Err(Wrong::because(format!("{at} has no route {wanted}; attached to it: {known}")));
        }
    }
    let Some(first) = routes.first() else { return Ok(None) };
    // A port takes the kind of the oldest route.
    let kind = if first["kind"] == GRPC_ROUTE.name { GRPC_ROUTE } else { HTTP_ROUTE };
    routes.retain(|route| route["kind"] == kind.name);
    let rules = || {
        routes
            .iter()
            .flat_map(|route| list_of(&route["spec"]["rules"]).enumerate().map(move |rule| (*route, rule.0, rule.1)))
    };
    let is_wanted = |index: usize, content: &Value| match rule {
        Some(wanted) => content["name"] == wanted || wanted == index.to_string(),
        None => takes_everything(content),
    };
    if let Some((route, index, _)) = rules().find(|(_, index, content)| is_wanted(*index, content)) {
        return Ok(Some(Rule { route, kind, index }));
    }
    let known = list(rules().map(|(route, index, rule)| {
        let label = rule["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
        format!("{label} of {}", name_of(route))
    }));
    Err(Wrong::because(match rule {
        Some(wanted) => format!("the routes of {at} have no rule {wanted}; their rules are {known}"),
        None => format!("no rule of {at} is for all requests; say which one with --rule: {known}"),
    }))
}

/// Whether every request matches.
fn takes_everything(rule: &Value) -> bool {
    let is_open = |m: &Value| {
        let path = &m["path"];
        let every_path = path.is_null()
            || (path["type"].as_str().unwrap_or("PathPrefix") == "PathPrefix"
                && path["value"].as_str().unwrap_or("/") == "/");
        every_path
            && ["headers", "queryParams"].iter().all(|list| list_of(&m[*list]).next().is_none())
            && m["method"].is_null()
    };
    let mut matches = list_of(&rule["matches"]).peekable();
    matches.peek().is_none() || matches.any(is_open)
}
