//! Pods → workloads, with the ports they listen on, and who may call them.

use std::collections::{BTreeMap, HashMap};

use weft_api::mesh::{self, AccessAction, Selector, TargetRef};

use super::attach::{self, Attached};
use super::index::PodIndex;
use super::pods::BuiltPod;
use super::services::Services;
use super::{Notes, Parts, Written, spec};
use crate::model::policy::{Access, AccessRule, Call, Caller, Pattern, TlsMode};
use crate::model::{InboundPort, MeshConfig, ObjectName, Protocol, Workload};

pub(super) fn workloads(
    parts: &Parts<'_>,
    pods: &[BuiltPod<'_>],
    index: &PodIndex<'_, '_>,
    services: &Services<'_>,
    config: &MeshConfig,
    notes: &mut Notes,
) -> Vec<Workload> {
    let called = called(index, services);
    let mut replicas: BTreeMap<ObjectName, Vec<&BuiltPod<'_>>> = BTreeMap::new();
    for pod in pods {
        let owner = ObjectName::new(pod.pod.name.namespace.clone(), pod.pod.workload.as_str());
        replicas.entry(owner).or_default().push(pod);
    }
    let receivers = Receivers { replicas: &replicas, services };
    let tls = tls_policies(parts, &receivers, notes);
    let access = access_rules(parts, &receivers, config, notes);
    replicas
        .iter()
        .map(|(name, pods)| {
            let policies = tls.get(name).map(Vec::as_slice).unwrap_or_default();
            let mode = |port: Option<u16>| policies.iter().find_map(|p| mode_of(p, port)).unwrap_or_default();
            let ports = listening(pods, &called)
                .into_iter()
                .chain(policies.iter().flat_map(|p| &p.ports).map(|p| (p.port, None)))
                .fold(BTreeMap::new(), |mut ports: BTreeMap<u16, Option<Protocol>>, (port, protocol)| {
                    let known = ports.entry(port).or_default();
                    *known = known.or(protocol);
                    ports
                });
            Workload {
                name: name.clone(),
                pods: pods.iter().map(|p| p.pod.name.name.to_string()).collect(),
                ports: ports
                    .into_iter()
                    .map(|(port, protocol)| {
                        // A port that only a MeshTLS policy names is not known to carry HTTP.
                        let protocol = protocol.unwrap_or(Protocol::Opaque);
                        (port, InboundPort { protocol, tls: mode(Some(port)) })
                    })
                    .collect(),
                tls: mode(None),
                access: access.get(name).cloned().unwrap_or_default(),
            }
        })
        .collect()
}

/// The ports on which services call each pod, and what they speak there.
type Called = HashMap<ObjectName, Vec<(u16, Protocol)>>;

fn called(index: &PodIndex<'_, '_>, services: &Services<'_>) -> Called {
    let mut called = Called::new();
    let mut add = |pod: &BuiltPod<'_>, port: u16, protocol: Protocol| {
        called.entry(pod.pod.name.clone()).or_default().push((port, protocol));
    };
    for built in services.values() {
        for pod in index.selected(built) {
            for (port, target) in built.service.ports.iter().zip(&built.targets) {
                if let Some(number) = target.on(pod) {
                    add(pod, number, port.protocol);
                }
            }
        }
        // Endpoints that an EndpointSlice names.
        for port in &built.service.ports {
            for endpoint in port.endpoints.iter() {
                if let Some(pod) = index.at(endpoint.address.ip()) {
                    add(pod, endpoint.address.port(), port.protocol);
                }
            }
        }
    }
    called
}

/// Ports that the pods declare themselves, and those that services send to.
fn listening(pods: &[&BuiltPod<'_>], called: &Called) -> Vec<(u16, Option<Protocol>)> {
    let mut ports: BTreeMap<u16, Protocol> = BTreeMap::new();
    // A pod's port without a protocol says nothing that a service could contradict.
    let mut undeclared = Vec::new();
    let mut add = |port: u16, protocol: Protocol| {
        ports.entry(port).and_modify(|known| *known = common(*known, protocol)).or_insert(protocol);
    };
    for pod in pods {
        for port in pod.ports {
            match Protocol::declared(port.app_protocol.as_deref(), port.name.as_deref(), port.port) {
                Protocol::Detect => undeclared.push(port.port),
                protocol => add(port.port, protocol),
            }
        }
        for (port, protocol) in called.get(&pod.pod.name).into_iter().flatten() {
            add(*port, *protocol);
        }
    }
    for port in undeclared {
        ports.entry(port).or_insert(Protocol::Detect);
    }
    ports.into_iter().map(|(port, protocol)| (port, Some(protocol))).collect()
}

/// What a port has to accept when two services declare it: whatever either's callers send.
fn common(a: Protocol, b: Protocol) -> Protocol {
    match (a, b) {
        (a, b) if a == b => a,
        (a, b) if a.is_http() && b.is_http() => Protocol::Http,
        _ => Protocol::Detect,
    }
}

/// What a policy about receivers may name.
struct Receivers<'a> {
    replicas: &'a BTreeMap<ObjectName, Vec<&'a BuiltPod<'a>>>,
    services: &'a Services<'a>,
}

impl Receivers<'_> {
    /// The workloads that a policy names, or `None` if it governs its whole namespace. A workload is named when any of its pods is.
    fn named<T>(
        &self,
        policy: &Written<'_, T>,
        refs: &[TargetRef],
        selector: Option<&Selector>,
        notes: &mut Notes,
    ) -> Option<Vec<ObjectName>> {
        let in_namespace = |name: &&ObjectName| name.namespace == policy.name.namespace;
        let with = |wanted: &dyn Fn(&BuiltPod<'_>) -> bool| -> Vec<ObjectName> {
            self.replicas
                .iter()
                .filter(|(name, pods)| in_namespace(name) && pods.iter().any(|p| wanted(p)))
                .map(|(name, _)| name.clone())
                .collect()
        };
        if let Some(selector) = selector {
            let named = with(&|pod| pod.has_labels(&selector.match_labels));
            if named.is_empty() {
                notes.warning(
                    policy.origin,
                    &spec("selector"),
                    "",
                    "selects no workload".to_owned(),
                    "check the labels",
                );
            }
            return Some(named);
        }
        if refs.is_empty() {
            return None;
        }
        let mut named = Vec::new();
        for (index, target) in refs.iter().enumerate() {
            let name = ObjectName::new(policy.name.namespace.clone(), target.name.as_str());
            let found = match target.kind.as_str() {
                "Service" => self.services.get(&name).map(|s| with(&|pod| s.selects(pod))),
                // By the name that replicas share, or that of one replica.
                _ if self.replicas.contains_key(&name) => Some(vec![name.clone()]),
                _ => Some(with(&|pod| pod.pod.name == name)).filter(|found| !found.is_empty()),
            };
            match found {
                Some(found) => named.extend(found),
                None => {
                    let path = spec("targetRefs").index(index).key("name");
                    notes.warning(
                        policy.origin,
                        &path,
                        &target.name,
                        format!("there is no {} {name}", target.kind),
                        "a policy's targets are in its own namespace",
                    );
                }
            }
        }
        named.sort();
        named.dedup();
        Some(named)
    }

    fn of_namespace<'n>(&'n self, namespace: &'n str) -> impl Iterator<Item = &'n ObjectName> {
        self.replicas.keys().filter(move |name| &*name.namespace == namespace)
    }
}

/// The MeshTLS policies of each workload, the one that names it before the one of its namespace.
fn tls_policies<'a>(
    parts: &Parts<'a>,
    receivers: &Receivers<'_>,
    notes: &mut Notes,
) -> HashMap<ObjectName, Vec<&'a mesh::MeshTlsSpec>> {
    let mut named: BTreeMap<ObjectName, Vec<Attached<'a, mesh::MeshTls>>> = BTreeMap::new();
    let mut general: BTreeMap<String, Vec<Attached<'a, mesh::MeshTls>>> = BTreeMap::new();
    for policy in &parts.tls {
        let said = &policy.object.spec;
        let attached = |path| Attached { policy: policy.clone(), path };
        match receivers.named(policy, &said.target_refs, said.selector.as_ref(), notes) {
            Some(workloads) => {
                for workload in workloads {
                    named.entry(workload).or_default().push(attached(spec("mode")));
                }
            }
            None => general.entry(policy.name.namespace.to_string()).or_default().push(attached(spec("mode"))),
        }
    }
    let mut policies: HashMap<ObjectName, Vec<_>> = HashMap::new();
    for (name, policy) in attach::winners(named, notes, ToString::to_string) {
        policies.entry(name).or_default().push(&policy.object.spec);
    }
    for (namespace, policy) in attach::winners(general, notes, |n| format!("namespace {n}")) {
        for name in receivers.of_namespace(&namespace) {
            policies.entry(name.clone()).or_default().push(&policy.object.spec);
        }
    }
    policies
}

/// What a policy says of a port, or of all ports that it does not name.
fn mode_of(policy: &mesh::MeshTlsSpec, port: Option<u16>) -> Option<TlsMode> {
    let own = policy.ports.iter().find(|p| Some(p.port) == port).map(|p| p.mode);
    Some(match own.unwrap_or(policy.mode) {
        mesh::TlsMode::Permissive => TlsMode::Permissive,
        mesh::TlsMode::Strict => TlsMode::Strict,
    })
}

fn access_rules(
    parts: &Parts<'_>,
    receivers: &Receivers<'_>,
    config: &MeshConfig,
    notes: &mut Notes,
) -> HashMap<ObjectName, Access> {
    let mut access: HashMap<ObjectName, Access> = HashMap::new();
    let mut policies: Vec<_> = parts.access.iter().collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    for policy in policies {
        let said = &policy.object.spec;
        let rules: Vec<AccessRule> = said
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| AccessRule {
                name: format!("{}[{index}]", policy.name),
                from: rule.from.iter().map(|from| caller(from, config)).collect(),
                to: rule.to.iter().map(call).collect(),
            })
            .collect();
        let workloads = receivers
            .named(policy, &said.target_refs, said.selector.as_ref(), notes)
            .unwrap_or_else(|| receivers.of_namespace(&policy.name.namespace).cloned().collect());
        for workload in workloads {
            let access = access.entry(workload).or_default();
            match said.action {
                AccessAction::Deny => access.deny.extend(rules.iter().cloned()),
                AccessAction::Allow => {
                    access.allow.get_or_insert_default().extend(rules.iter().cloned());
                }
            }
        }
    }
    access
}

fn caller(from: &mesh::AccessFrom, config: &MeshConfig) -> Caller {
    let domain = &config.trust_domain;
    Caller {
        identities: from.identities.iter().map(|text| Pattern::from_star(text)).collect(),
        accounts: from
            .service_accounts
            .iter()
            .filter_map(|account| account.split_once('/'))
            .map(|(namespace, name)| Pattern::Exact(format!("spiffe://{domain}/ns/{namespace}/sa/{name}")))
            .collect(),
        namespaces: from
            .namespaces
            .iter()
            .map(|namespace| Pattern::Prefix(format!("spiffe://{domain}/ns/{namespace}/sa/")))
            .collect(),
    }
}

fn call(to: &mesh::AccessTo) -> Call {
    Call {
        ports: to.ports.clone(),
        methods: to.methods.clone(),
        paths: to.paths.iter().map(|text| Pattern::from_star(text)).collect(),
    }
}
