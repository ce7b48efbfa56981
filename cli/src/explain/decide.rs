//! The decisions about a request, by the proxy's own matchers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use weft_rules::rbac::Peer;
use weft_rules::{Action, Fault, Rbac, RouteTable};
use weft_xds::envoy::config::cluster::v3::Cluster;
use weft_xds::envoy::config::core::v3::HealthStatus;
use weft_xds::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint};
use weft_xds::envoy::config::listener::v3::{Filter, Listener, filter};
use weft_xds::envoy::config::route::v3::route::Action as Message;
use weft_xds::envoy::config::route::v3::{Route, RouteConfiguration};
use weft_xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use weft_xds::envoy::extensions::filters::http::rbac::v3::Rbac as RbacMessage;
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, http_filter};
use weft_xds::names::{self, PodName, ResourceName};
use weft_xds::{any, metadata};

use super::held::{Destination, Held};
use super::request::Asked;

/// Everything that is decided about one request.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// The request's first line.
    pub(super) request: String,
    /// The called Service's port.
    pub(super) to: String,
    /// The caller's identity, where its proxy was asked.
    pub(super) from: Option<String>,
    /// `forwarded`, `redirected`, `answered` by the caller's proxy, `unmatched`, or `relayed` as bytes.
    pub(super) outcome: &'static str,
    /// One decision after the other, in the order in which they are made.
    pub(super) decisions: Vec<Decision>,
    /// Where a forwarded request may go.
    pub(super) backends: Vec<Backend>,
    /// What else there is to know.
    pub(super) notes: Vec<String>,
    /// The route's name in the proxy: `namespace/route/rule`.
    pub(super) rule: Option<String>,
}

/// One decision.
#[derive(Debug, Serialize)]
pub(super) struct Decision {
    /// What is decided.
    pub(super) about: &'static str,
    /// What.
    pub(super) says: String,
    /// Whether the request ends here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) refuses: bool,
    /// The object that says so; nothing for a default.
    pub(super) from: Option<Origin>,
}

/// An object, and its field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Origin {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) field: String,
}

/// A cluster that may get the request.
#[derive(Debug, Serialize)]
pub(super) struct Backend {
    pub(super) cluster: String,
    /// Its share in percent.
    pub(super) share: f64,
    pub(super) balancer: Option<String>,
    /// Endpoints that take requests, and all.
    pub(super) ready: usize,
    pub(super) endpoints: usize,
    /// Who must answer; empty without mutual TLS.
    pub(super) identities: Vec<String>,
    pub(super) from: Option<Origin>,
}

impl Decision {
    pub(super) fn new(about: &'static str, says: impl Into<String>) -> Self {
        Self { about, says: says.into(), refuses: false, from: None }
    }
}

impl Answer {
    /// Whether an application would get the request.
    pub(super) fn is_served(&self) -> bool {
        ["forwarded", "relayed", "redirected"].contains(&self.outcome) && !self.decisions.iter().any(|d| d.refuses)
    }

    pub(super) fn decision(&mut self, about: &str) -> Option<&mut Decision> {
        self.decisions.iter_mut().find(|decision| decision.about == about)
    }
}

/// Match, then whatever the route says.
pub(super) fn decide(held: &Held, to: &Destination, asked: &Asked) -> anyhow::Result<Answer> {
    let mut answer = Answer {
        request: asked.line(),
        to: to.label(),
        from: held.identity.clone(),
        outcome: "unmatched",
        decisions: Vec::new(),
        backends: Vec::new(),
        notes: Vec::new(),
        rule: None,
    };
    let version = |held: &Option<String>| match held {
        Some(version) => format!("version {version}"),
        None => "not held by the proxy yet".to_owned(),
    };
    let manager = held.listener.as_ref().map(|listener| (listener, managers(&listener.message)));
    if let Some((listener, managers)) = &manager {
        let says = format!("{} ({})", listener.message.name, version(&listener.held));
        answer.decisions.push(Decision::new("listener", says));
        if managers.is_empty() {
            answer.outcome = "relayed";
            answer.decisions.push(Decision::new("route", "none: the port carries bytes, which no route matches"));
            return Ok(answer);
        }
    }
    let Some(routes) = &held.routes else {
        let says =
            format!("none known for {}: its traffic passes as it is, or is refused, as the mesh is set", to.label());
        answer.decisions.push(Decision { refuses: true, ..Decision::new("route", says) });
        return Ok(answer);
    };
    answer.decisions.push(Decision::new("route", format!("{} ({})", routes.message.name, version(&routes.held))));
    let table =
        RouteTable::compile(&routes.message, "").context("the routes do not compile; the proxy refuses them too")?;
    let Some(found) = table.find(asked, 0) else {
        answer.decisions.push(Decision { refuses: true, ..Decision::new("rule", "none matches: 404") });
        return Ok(answer);
    };
    answer.rule = Some(found.name.clone());
    answer.decisions.push(Decision::new("rule", found.name.clone()));
    for (_, manager) in manager.iter().flat_map(|(_, managers)| managers) {
        answer.decisions.extend(fault(manager)?);
    }
    match &found.action {
        Action::Redirect(redirect) => {
            answer.outcome = "redirected";
            let location = String::from_utf8_lossy(&redirect.location(asked)).into_owned();
            answer.decisions.push(Decision::new("redirect", format!("{} to {location}", redirect.status)));
        }
        Action::Direct { status, body } => {
            answer.outcome = "answered";
            let says = format!("{status} {}", String::from_utf8_lossy(body).trim());
            answer.decisions.push(Decision { refuses: true, ..Decision::new("answer", says) });
        }
        Action::Forward(forward) => {
            answer.outcome = "forwarded";
            let all: u32 = forward.clusters().iter().map(|choice| choice.weight).sum();
            answer.backends = forward
                .clusters()
                .iter()
                .map(|choice| Backend {
                    cluster: choice.name.to_string(),
                    share: 100.0 * f64::from(choice.weight) / f64::from(all.max(1)),
                    balancer: None,
                    ready: 0,
                    endpoints: 0,
                    identities: Vec::new(),
                    from: None,
                })
                .collect();
            answer.decisions.push(Decision::new("timeout", limit(forward.timeout)));
            if let Some(retry) = &forward.retry {
                answer.decisions.push(Decision::new("try timeout", limit(retry.per_try_timeout)));
                let on = retry_on(&routes.message, &found.name);
                answer.decisions.push(Decision::new("retry", format!("up to {} on {on}", retry.num_retries)));
            }
            if let Some(path) = forward.rewritten_path(asked) {
                answer.decisions.push(Decision::new("path", String::from_utf8_lossy(&path)));
            }
            if let Some(choice) = forward.clusters().first()
                && let Some(host) = forward.rewritten_authority(choice, asked, None)
            {
                answer.decisions.push(Decision::new("host", String::from_utf8_lossy(&host)));
            }
        }
    }
    Ok(answer)
}

impl Backend {
    /// Completes what is known of the cluster; its workloads, each with the address of one endpoint.
    pub(super) fn describe(
        &mut self,
        cluster: Option<&Cluster>,
        endpoints: Option<&ClusterLoadAssignment>,
    ) -> Vec<(String, SocketAddr)> {
        self.balancer = cluster.map(|cluster| {
            let own = metadata::of(cluster.metadata.as_ref(), names::METADATA);
            let own = own.and_then(|own| metadata::str(own, names::key::BALANCER));
            own.map_or_else(|| cluster.lb_policy().as_str_name().to_owned(), str::to_owned)
        });
        let mut workloads = Vec::new();
        for endpoint in endpoints.iter().flat_map(|all| &all.endpoints).flat_map(|group| &group.lb_endpoints) {
            self.endpoints += 1;
            let is_ready = matches!(endpoint.health_status(), HealthStatus::Healthy | HealthStatus::Unknown);
            self.ready += usize::from(is_ready);
            let Some(peer) = metadata::of(endpoint.metadata.as_ref(), names::METADATA_TRANSPORT_SOCKET) else {
                continue;
            };
            let identity = metadata::str(peer, names::key::IDENTITY).unwrap_or_default().to_owned();
            if !identity.is_empty() && !self.identities.contains(&identity) {
                self.identities.push(identity);
            }
            let pod = metadata::str(peer, names::key::POD).and_then(|pod| pod.parse::<PodName>().ok());
            if let (Some(pod), Some(address)) = (pod, address(endpoint)) {
                workloads.push((format!("{}/{}", pod.namespace, pod.workload), address));
            }
        }
        workloads
    }

    /// The Service's namespace, name and port, if it is one's.
    pub(super) fn service(&self) -> Option<(&str, &str, u16)> {
        match ResourceName::parse(&self.cluster)? {
            ResourceName::ServiceCluster(at) => Some((at.namespace, at.service, at.port)),
            _ => None,
        }
    }
}

/// Whether the proxies of a workload let the caller in, by the rules of the port that is called.
pub(super) fn access(
    listener: &Listener,
    workload: &str,
    at: SocketAddr,
    identity: Option<&str>,
    asked: &Asked,
) -> anyhow::Result<Decision> {
    let peer = Peer { identity, source_ip: at.ip(), destination: at, server_name: None };
    let managers = managers(listener);
    let port = u32::from(at.port());
    // The chain of mutual TLS, by which a sidecar comes.
    let manager = managers.iter().find(|(chain, _)| chain.port == Some(port) && chain.is_tls);
    let Some((_, manager)) = manager else {
        return Ok(Decision::new(
            "access",
            format!("{workload} takes bytes on port {port}; access rules look at the connection only"),
        ));
    };
    let who = identity.unwrap_or("a caller of unknown identity");
    let mut allowed_by = None;
    for message in filters::<RbacMessage>(manager)? {
        let rules = Rbac::compile(&message, "").context("the access rules do not compile")?;
        let verdict = rules.decide(asked, &peer);
        let policy = verdict.policy.map(str::to_owned);
        if !verdict.allowed {
            let why = policy
                .as_deref()
                .map_or_else(|| "no policy allows it".to_owned(), |policy| format!("{policy} denies it"));
            let says = format!("{workload} refuses {who} with 403: {why}");
            return Ok(Decision {
                refuses: true,
                from: policy.as_deref().map(policy_origin),
                ..Decision::new("access", says)
            });
        }
        allowed_by = policy.or(allowed_by);
    }
    let (says, from) = match allowed_by {
        Some(policy) => (format!("{workload} lets {who} in by {policy}"), Some(policy_origin(&policy))),
        None => (format!("{workload} lets {who} in: no policy governs it"), None),
    };
    Ok(Decision { from, ..Decision::new("access", says) })
}

/// `shop/reviews[1]`: the policy's name, and its rule.
fn policy_origin(policy: &str) -> Origin {
    let (name, rule) = policy.split_once('[').unwrap_or((policy, ""));
    let field = if rule.is_empty() { "spec".to_owned() } else { format!("spec.rules[{rule}") };
    Origin { kind: "AccessPolicy".to_owned(), name: name.to_owned(), field }
}

/// What a filter chain is for.
struct Chain {
    port: Option<u32>,
    is_tls: bool,
}

/// The chains of a listener that serve HTTP.
fn managers(listener: &Listener) -> Vec<(Chain, HttpConnectionManager)> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let manager = |filter: &Filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) if any::is::<HttpConnectionManager>(config) => {
            weft_xds::unpack(config, "").ok()
        }
        _ => None,
    };
    chains
        .filter_map(|chain| {
            let matches = chain.filter_chain_match.as_ref();
            let of = Chain {
                port: matches.and_then(|m| m.destination_port.as_ref()).map(|port| port.value),
                is_tls: matches.is_some_and(|m| m.transport_protocol == "tls"),
            };
            Some((of, chain.filters.iter().find_map(manager)?))
        })
        .collect()
}

/// The filters of one type.
fn filters<M: prost::Message + prost::Name + Default>(manager: &HttpConnectionManager) -> anyhow::Result<Vec<M>> {
    let mut found = Vec::new();
    for filter in &manager.http_filters {
        if let Some(http_filter::ConfigType::TypedConfig(config)) = &filter.config_type
            && any::is::<M>(config)
        {
            found.push(weft_xds::unpack(config, &filter.name)?);
        }
    }
    Ok(found)
}

/// Faults on purpose, in words: chance decides whom they hit.
fn fault(manager: &HttpConnectionManager) -> anyhow::Result<Vec<Decision>> {
    use weft_xds::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
    use weft_xds::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
    let mut found = Vec::new();
    for message in filters::<HttpFault>(manager)? {
        Fault::compile(&message, "").context("the fault does not compile")?;
        let share = |of: &Option<weft_xds::envoy::r#type::v3::FractionalPercent>| {
            // Ours are in millionths.
            of.as_ref().map_or(0.0, |of| f64::from(of.numerator) / 10_000.0)
        };
        if let Some(delay) = &message.delay {
            let time = match &delay.fault_delay_secifier {
                Some(FaultDelaySecifier::FixedDelay(time)) => {
                    format!("{} s", time.seconds as f64 + f64::from(time.nanos) / 1e9)
                }
                _ => "as long as the request says".to_owned(),
            };
            found.push(Decision::new(
                "fault",
                format!("{} % of the requests are held for {time}", share(&delay.percentage)),
            ));
        }
        if let Some(abort) = &message.abort {
            let status = match &abort.error_type {
                Some(ErrorType::HttpStatus(status)) => status.to_string(),
                Some(ErrorType::GrpcStatus(status)) => format!("gRPC status {status}"),
                _ => "what the request says".to_owned(),
            };
            found.push(Decision::new(
                "fault",
                format!("{} % of the requests are answered with {status}", share(&abort.percentage)),
            ));
        }
    }
    Ok(found)
}

fn limit(limit: Option<Duration>) -> String {
    match limit {
        Some(limit) => weft_api::Duration(limit).to_string(),
        None => "none".to_owned(),
    }
}

/// When the route of this name retries, in Envoy's words.
fn retry_on(routes: &RouteConfiguration, name: &str) -> String {
    let routes = routes.virtual_hosts.iter().flat_map(|host| &host.routes);
    let policy = |route: &Route| match &route.action {
        Some(Message::Route(action)) => action.retry_policy.clone(),
        _ => None,
    };
    let policy = routes.filter(|route| route.name == name).find_map(policy).unwrap_or_default();
    let codes: Vec<_> = policy.retriable_status_codes.iter().map(ToString::to_string).collect();
    policy.retry_on.replace("retriable-status-codes", &codes.join(","))
}

fn address(endpoint: &weft_xds::envoy::config::endpoint::v3::LbEndpoint) -> Option<SocketAddr> {
    use weft_xds::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
    let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    match endpoint.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(socket) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => {
                Some(SocketAddr::new(socket.address.parse().ok()?, port.try_into().ok()?))
            }
            _ => None,
        },
        _ => None,
    }
}
