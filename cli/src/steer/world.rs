//! The objects of a folder or of a cluster's namespace, as JSON, and what is found among them.

use serde_json::Value;

use super::Wrong;
use super::args::ServiceName;

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) api_version: &'static str,
    pub(crate) name: &'static str,
    /// As kubectl calls it.
    pub(crate) resource: &'static str,
}

pub(crate) const SERVICE: Kind = Kind { api_version: "v1", name: "Service", resource: "services" };
pub(crate) const HTTP_ROUTE: Kind = Kind {
    api_version: "gateway.networking.k8s.io/v1",
    name: "HTTPRoute",
    resource: "httproutes.gateway.networking.k8s.io",
};
pub(crate) const GRPC_ROUTE: Kind = Kind {
    api_version: "gateway.networking.k8s.io/v1",
    name: "GRPCRoute",
    resource: "grpcroutes.gateway.networking.k8s.io",
};
pub(crate) const TRAFFIC_POLICY: Kind =
    Kind { api_version: "weft.mesh/v1alpha1", name: "TrafficPolicy", resource: "trafficpolicies.weft.mesh" };
pub(crate) const FAULT_POLICY: Kind =
    Kind { api_version: "weft.mesh/v1alpha1", name: "FaultPolicy", resource: "faultpolicies.weft.mesh" };
pub(crate) const WORKLOAD: Kind =
    Kind { api_version: "weft.mesh/v1alpha1", name: "Workload", resource: "workloads.weft.mesh" };

/// Objects of the kinds that a command looks at.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) objects: Vec<Value>,
    /// Where a Service is that nobody named a namespace of; `None` where all namespaces are known.
    pub(crate) namespace: Option<String>,
}

/// A Service that was found, and the port that is meant.
#[derive(Debug, Clone)]
pub(crate) struct Found<'w> {
    pub(crate) service: &'w Value,
    pub(crate) name: &'w str,
    pub(crate) namespace: &'w str,
    /// The port that was named, or the only one.
    pub(crate) port: Option<u16>,
}

impl World {
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind.name)
    }

    /// The object of this name.
    pub(crate) fn named(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        self.of(kind).find(|object| namespace_of(object) == namespace && name_of(object) == name)
    }

    /// The Service that somebody means, and its port.
    pub(crate) fn service(&self, asked: &ServiceName, namespace: Option<&str>) -> anyhow::Result<Found<'_>> {
        let namespace = asked.namespace.as_deref().or(namespace).or(self.namespace.as_deref());
        let is_there = |service: &&Value| {
            name_of(service) == asked.name && namespace.is_none_or(|wanted| wanted == namespace_of(service))
        };
        let mut candidates = self.of(SERVICE).filter(is_there);
        let Some(service) = candidates.next() else { return Err(self.no_service(&asked.name, namespace)) };
        if let Some(other) = candidates.next() {
            return Err(Wrong::because(format!(
                "Service {} is in {} and in {}; say which with -n, or as {}.{}",
                asked.name,
                namespace_of(service),
                namespace_of(other),
                asked.name,
                namespace_of(service),
            )));
        }
        let found = Found { service, name: name_of(service), namespace: namespace_of(service), port: asked.port };
        match asked.port {
            Some(port) if !found.ports().any(|known| known == port) => Err(Wrong::because(format!(
                "Service {}/{} has no port {port}; its ports are {}",
                found.namespace,
                found.name,
                list(found.ports())
            ))),
            Some(_) => Ok(found),
            None => {
                let mut ports = found.ports();
                let only = ports.next().filter(|_| ports.next().is_none());
                Ok(Found { port: only, ..found.clone() })
            }
        }
    }

    fn no_service(&self, name: &str, namespace: Option<&str>) -> anyhow::Error {
        let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        let here = |service: &&Value| namespace.is_none_or(|wanted| wanted == namespace_of(service));
        let known: Vec<_> = self.of(SERVICE).filter(here).map(name_of).collect();
        let hint = match weft_api::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "there are no Services at all; name another namespace with -n".to_owned(),
            None => format!("there are {}", some(&known)),
        };
        Wrong::because(format!("there is no Service {name}{place}; {hint}"))
    }

    /// Routes of the Service's own namespace that govern the port, the best first: the oldest, then by name.
    pub(crate) fn routes(&self, found: &Found<'_>) -> Vec<&Value> {
        let is_parent = |parent: &Value| {
            let port = parent["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            parent["kind"] == "Service"
                && parent["name"] == found.name
                && parent["namespace"].as_str().is_none_or(|namespace| namespace == found.namespace)
                && (port.is_none() || found.port.is_none() || port == found.port)
                && parent["sectionName"].as_str().is_none_or(|name| found.port_name().is_none_or(|own| own == name))
        };
        let mut routes: Vec<_> = self
            .of(HTTP_ROUTE)
            .chain(self.of(GRPC_ROUTE))
            .filter(|route| {
                namespace_of(route) == found.namespace && list_of(&route["spec"]["parentRefs"]).any(is_parent)
            })
            .collect();
        routes.sort_by_key(|route| seniority(route));
        routes
    }

    /// The policy of a kind that governs the Service, or one of its ports: the oldest, then by name.
    pub(crate) fn policy(&self, kind: Kind, found: &Found<'_>, section: Option<&str>) -> Option<&Value> {
        let is_target = |target: &Value| {
            target["kind"] == "Service" && target["name"] == found.name && target["sectionName"].as_str() == section
        };
        self.of(kind)
            .filter(|policy| {
                namespace_of(policy) == found.namespace && list_of(&policy["spec"]["targetRefs"]).any(is_target)
            })
            .min_by_key(|policy| seniority(policy))
    }
}

impl Found<'_> {
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        ports_of(self.service)
    }

    /// The name of the port that is meant.
    pub(crate) fn port_name(&self) -> Option<&str> {
        let port = self.port?;
        list_of(&self.service["spec"]["ports"]).find(|known| known["port"] == port)?["name"].as_str()
    }

    /// What is said to be spoken on the port that is meant, in lower case.
    pub(crate) fn protocol(&self) -> Option<String> {
        let port = self.port?;
        let port = list_of(&self.service["spec"]["ports"]).find(|known| known["port"] == port)?;
        let said = port["appProtocol"].as_str().or_else(|| port["name"].as_str()?.split('-').next())?;
        Some(said.to_ascii_lowercase())
    }
}

pub(crate) fn ports_of(service: &Value) -> impl Iterator<Item = u16> {
    list_of(&service["spec"]["ports"]).filter_map(|port| u16::try_from(port["port"].as_u64()?).ok())
}

pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(crate) fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("default")
}

pub(crate) fn list_of(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Items in words: `80 and 8080`.
pub(crate) fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let mut items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    match items.pop() {
        None => "none".to_owned(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

/// At most eight of the items, in words.
fn some(items: &[&str]) -> String {
    const MOST: usize = 8;
    if items.len() <= MOST {
        list(items)
    } else {
        format!("{}, and {} more", items[..MOST].join(", "), items.len() - MOST)
    }
}

/// The older wins, then the name; an object that does not say when it was made is the youngest.
fn seniority(object: &Value) -> (String, String) {
    let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or("9999");
    (created.to_owned(), name_of(object).to_owned())
}
