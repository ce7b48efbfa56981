//! The configuration that decides: what the caller's proxy holds, and what the control plane would give it now.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use prost::{Message, Name};
use serde_json::Value;
use weft_control_plane::{RenderedResource, ServiceStatus, Status};
use weft_xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::names;

use super::ExplainArgs;
use super::decide::{Answer, Decision};
use super::request::{Asked, Url};
use crate::ask::{self, Address};
use crate::cluster::forward::Forward;
use crate::cluster::{Cluster, PodName, has_sidecar, is_ready, items, name};
use crate::config::dump::Dump;
use crate::steer::Wrong;

/// Ports on the loopbacks of a proxy and of a control plane.
const PROXY_ADMIN: u16 = 15000;
const CONTROL_PLANE_ADMIN: u16 = 15014;

/// What decides.
pub(super) struct Held {
    /// The caller's proxy: its name, and its `/config_dump`.
    proxy: Option<(String, Value)>,
    /// The control plane, and what it says of itself.
    control_plane: Option<(Address, Status)>,
    /// The caller's namespace, as its proxy or `--from` has it.
    pub(super) namespace: Option<String>,
    /// The caller's identity, as its proxy has it.
    pub(super) identity: Option<String>,
    pub(super) listener: Option<Resource<Listener>>,
    pub(super) routes: Option<Resource<RouteConfiguration>>,
    /// What was found out on the way, for whoever asked.
    pub(super) notes: Vec<String>,
    _forwards: Vec<Forward>,
}

/// A resource, and how the two sides compare.
pub(super) struct Resource<M> {
    pub(super) message: M,
    /// The version that the proxy holds; `None` if it is only the control plane's.
    pub(super) held: Option<String>,
}

/// The port of a Service that is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    addresses: Vec<IpAddr>,
}

impl Destination {
    pub(super) fn label(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.service, self.port)
    }
}

impl Held {
    /// Asks the proxy and the control plane; one of the two has to answer.
    pub(super) async fn find(args: &ExplainArgs) -> anyhow::Result<Self> {
        let mut held = Self {
            proxy: None,
            control_plane: None,
            namespace: args.from.as_ref().and_then(|pod| pod.namespace.clone()),
            identity: None,
            listener: None,
            routes: None,
            notes: Vec::new(),
            _forwards: Vec::new(),
        };
        let here = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], CONTROL_PLANE_ADMIN)));
        let environment = std::env::var("WEFT_CONTROL_PLANE").ok().and_then(|text| text.parse().ok());
        let control_plane = args.control_plane.clone().or(environment);
        let status =
            async |address: &Address| ask::json::<Status>(address, "/status", "control plane", "--control-plane").await;
        match &control_plane {
            Some(address) => held.control_plane = Some((address.clone(), status(address).await?)),
            None if args.cluster.is_named() => held.find_in_cluster(&args.cluster).await?,
            None => match status(&here).await {
                Ok(status) => held.control_plane = Some((here, status)),
                // A proxy alone will do.
                Err(_) if args.proxy.is_some() => {}
                Err(_) => held.find_in_cluster(&args.cluster).await.context(
                    "no control plane answers at 127.0.0.1:15014, and none can be asked in a cluster; name one with --control-plane or --context, or a proxy with --proxy",
                )?,
            },
        }
        let in_cluster = held.control_plane.as_ref().is_some_and(|(_, status)| status.source.folder == "kubernetes");
        match (&args.proxy, &args.from) {
            (Some(address), _) => held.hold(&format!("the proxy at {address}"), address).await?,
            (None, Some(from)) if in_cluster => {
                let pod = caller(&args.cluster, from).await?;
                let forward = args.cluster.forward(&pod, PROXY_ADMIN).await?;
                let label = format!("the proxy of {}/{}", pod.namespace.as_deref().unwrap_or("default"), pod.name);
                held.hold(&label, &Address::Tcp(forward.address)).await?;
                held._forwards.push(forward);
            }
            _ => held.notes.push(
                "no proxy was asked (name one with --proxy, or in a cluster with --from): this is what the control plane would give to one".to_owned(),
            ),
        }
        Ok(held)
    }

    async fn find_in_cluster(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let pods = cluster.control_planes().await?;
        let first = pods.into_iter().next().with_context(|| {
            format!("no control plane is ready in the namespace {}; see `weft check`", cluster.weft_namespace())
        })?;
        let pod = PodName { name: first, namespace: Some(cluster.weft_namespace().to_owned()) };
        let forward = cluster.forward(&pod, CONTROL_PLANE_ADMIN).await?;
        let address = Address::Tcp(forward.address);
        let status = ask::json(&address, "/status", "control plane", "--weft-namespace").await?;
        self.control_plane = Some((address, status));
        self._forwards.push(forward);
        Ok(())
    }

    /// Takes what a proxy holds.
    async fn hold(&mut self, label: &str, address: &Address) -> anyhow::Result<()> {
        let dump: Value = ask::json(address, "/config_dump?include_eds", "proxy", "--proxy").await?;
        let node = dump["configs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|config| &config["bootstrap"]["node"]["metadata"][names::METADATA])
            .find(|metadata| metadata.is_object());
        if let Some(node) = node {
            let text = |key: &str| node[key].as_str().map(str::to_owned);
            self.namespace = text(names::key::NAMESPACE).or(self.namespace.take());
            let domain = text(names::key::TRUST_DOMAIN).unwrap_or_else(|| names::DEFAULT_TRUST_DOMAIN.to_owned());
            self.identity = self
                .namespace
                .as_deref()
                .zip(text(names::key::SERVICE_ACCOUNT))
                .map(|(namespace, account)| format!("spiffe://{domain}/ns/{namespace}/sa/{account}"));
        }
        self.proxy = Some((label.to_owned(), dump));
        Ok(())
    }

    /// The Service port that a URL means to a caller of a namespace.
    pub(super) fn destination(&self, url: &Url, namespace: &str) -> anyhow::Result<Destination> {
        let none = Vec::new();
        let services = self.control_plane.as_ref().map_or(&none, |(_, status)| &status.services);
        let found = |service: &ServiceStatus| Destination {
            namespace: service.namespace.clone(),
            service: service.name.clone(),
            port: url.port,
            addresses: service.addresses.clone(),
        };
        if let Ok(ip) = url.host.parse::<IpAddr>() {
            let service = services.iter().find(|service| service.addresses.contains(&ip)).map(found);
            return service.with_context(|| format!("{ip} is the address of no Service that the control plane knows"));
        }
        let mut parts = url.host.split('.');
        let name = parts.next().unwrap_or_default();
        let namespace = parts.next().unwrap_or(namespace);
        let known = services.iter().find(|service| service.name == name && service.namespace == namespace);
        let Some(known) = known else {
            if self.control_plane.is_none() {
                // The proxy alone knows no names but those in its routes.
                let (namespace, service) = (namespace.to_owned(), name.to_owned());
                return Ok(Destination { namespace, service, port: url.port, addresses: Vec::new() });
            }
            let names: Vec<_> = services.iter().map(|s| format!("{}.{}", s.name, s.namespace)).collect();
            let wanted = format!("{name}.{namespace}");
            let near = weft_api::nearest(&wanted, names.iter().map(String::as_str));
            let hint =
                near.map_or_else(|| "`weft status` lists them".to_owned(), |near| format!("did you mean {near}?"));
            return Err(Wrong::because(format!("there is no Service {wanted}; {hint}")));
        };
        if !known.ports.contains(&url.port) {
            let ports: Vec<_> = known.ports.iter().map(ToString::to_string).collect();
            let why =
                format!("Service {namespace}/{name} has no port {}; its ports are {}", url.port, ports.join(", "));
            return Err(Wrong::because(why));
        }
        Ok(found(known))
    }

    /// Finds the listener and the routes of a destination, in the proxy or else at the control plane, and says where the two differ.
    pub(super) async fn fetch(&mut self, to: &Destination, namespace: &str) -> anyhow::Result<()> {
        let route = names::outbound_route(&to.namespace, &to.service, to.port);
        let listeners: Vec<_> = to.addresses.iter().map(|ip| names::outbound_listener((*ip, to.port).into())).collect();
        let (mut listener, mut routes) = (None, None);
        if let Some((_, dump)) = &self.proxy {
            let dump = Dump::new(dump);
            let is_wanted = |listener: &Value| {
                listeners.iter().any(|name| listener["name"] == name.as_str())
                    || listener.to_string().contains(&format!("\"route_config_name\":\"{route}\""))
            };
            for entry in dump.listeners().into_iter().filter(|entry| is_wanted(entry.resource)) {
                listener = Some((decode(entry.resource)?, entry.full_version().to_owned()));
            }
            for entry in dump.routes().into_iter().filter(|entry| entry.resource["name"] == route.as_str()) {
                routes = Some((decode(entry.resource)?, entry.full_version().to_owned()));
            }
        }
        let mut at = None;
        for name in &listeners {
            at = at.or(self.rendered("LDS", name, namespace).await?);
        }
        self.listener = self.choose(listener, at, "the listener")?;
        let at = self.rendered("RDS", &route, namespace).await?;
        self.routes = self.choose(routes, at, "the routes")?;
        if self.proxy.is_some() && self.listener.as_ref().is_some_and(|listener| listener.held.is_none()) {
            self.notes.push(
                "the proxy holds nothing for this destination yet, which it asks for at the first connection: this is what the control plane would give it".to_owned(),
            );
        }
        Ok(())
    }

    /// What the proxy holds goes before what the control plane has, and where they differ that is told.
    fn choose<M: Message + Default>(
        &mut self,
        held: Option<(M, String)>,
        rendered: Option<RenderedResource>,
        what: &str,
    ) -> anyhow::Result<Option<Resource<M>>> {
        match (held, rendered) {
            (Some((message, version)), rendered) => {
                match rendered {
                    Some(rendered) if rendered.version != version => self.notes.push(format!(
                        "{what} of the proxy is of version {version}, the control plane has {}: an update is on its way, or was refused (see `weft status`)",
                        rendered.version
                    )),
                    None if self.control_plane.is_some() => {
                        self.notes.push(format!("the control plane has no longer {what} that the proxy holds"));
                    }
                    _ => {}
                }
                Ok(Some(Resource { message, held: Some(version) }))
            }
            (None, Some(rendered)) => {
                let message = M::decode(&*rendered.bytes()).context("the control plane's answer does not decode")?;
                Ok(Some(Resource { message, held: None }))
            }
            (None, None) => Ok(None),
        }
    }

    /// A resource as the control plane would give it now; `None` if there is none, or nobody to ask.
    async fn rendered(&self, kind: &str, name: &str, namespace: &str) -> anyhow::Result<Option<RenderedResource>> {
        let Some((address, _)) = &self.control_plane else { return Ok(None) };
        let name: String = name
            .bytes()
            .map(
                |byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") },
            )
            .collect();
        let path = format!("/resource?type={kind}&name={name}&namespace={namespace}");
        ask::json(address, &path, "control plane", "--control-plane").await
    }

    /// A cluster and its endpoints: the proxy's, or else the control plane's.
    async fn upstream(
        &self,
        cluster: &str,
        namespace: &str,
    ) -> anyhow::Result<(Option<ClusterMessage>, Option<ClusterLoadAssignment>)> {
        let (mut message, mut endpoints) = (None, None);
        if let Some((_, dump)) = &self.proxy {
            let dump = Dump::new(dump);
            for entry in dump.clusters().into_iter().filter(|entry| entry.resource["name"] == cluster) {
                message = Some(decode(entry.resource)?);
            }
            for entry in dump.endpoints().into_iter().filter(|entry| entry.resource["cluster_name"] == cluster) {
                endpoints = Some(decode(entry.resource)?);
            }
        }
        if message.is_none()
            && let Some(rendered) = self.rendered("CDS", cluster, namespace).await?
        {
            message = Some(Message::decode(&*rendered.bytes())?);
        }
        if endpoints.is_none()
            && let Some(rendered) = self.rendered("EDS", cluster, namespace).await?
        {
            endpoints = Some(Message::decode(&*rendered.bytes())?);
        }
        Ok((message, endpoints))
    }

    /// Adds who must answer at each backend, and whether its proxy lets the caller in.
    pub(super) async fn access(&self, answer: &mut Answer, asked: &Asked) -> anyhow::Result<()> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        let mut workloads: Vec<(String, SocketAddr)> = Vec::new();
        for at in 0..answer.backends.len() {
            let (message, endpoints) = self.upstream(&answer.backends[at].cluster, namespace).await?;
            let found = answer.backends[at].describe(message.as_ref(), endpoints.as_ref());
            workloads.extend(
                found.into_iter().filter(|found| !workloads.iter().any(|known| known.0 == found.0)).collect::<Vec<_>>(),
            );
        }
        for (workload, address) in workloads {
            let name = match workload.split_once('/') {
                Some((namespace, workload)) => names::inbound_listener(namespace, workload),
                None => continue,
            };
            let decision = match self.rendered("LDS", &name, namespace).await? {
                Some(rendered) => {
                    let listener: Listener = Message::decode(&*rendered.bytes())?;
                    super::decide::access(&listener, &workload, address, self.identity.as_deref(), asked)?
                }
                None => Decision::new(
                    "access",
                    format!("not known: no control plane says what the proxies of {workload} let in"),
                ),
            };
            answer.decisions.push(decision);
        }
        answer.notes.extend(self.notes.iter().cloned());
        Ok(())
    }
}

/// A pod with a sidecar by its name, or any of a workload's.
async fn caller(cluster: &Cluster, from: &PodName) -> anyhow::Result<PodName> {
    let namespace = match &from.namespace {
        Some(namespace) => namespace.clone(),
        None => cluster.current_namespace().await?,
    };
    let pods = cluster.get(&["pods", "-n", &namespace]).await?;
    let of_workload = format!("{}-", from.name);
    let has_label = |pod: &Value| {
        ["app", "app.kubernetes.io/name"].iter().any(|label| pod["metadata"]["labels"][*label] == from.name.as_str())
    };
    let found = items(&pods)
        .filter(|pod| has_sidecar(pod) && is_ready(pod))
        .filter(|pod| name(pod) == from.name || has_label(pod) || name(pod).starts_with(&of_workload))
        .min_by_key(|pod| (name(pod) != from.name, name(pod).to_owned()));
    let found = found.ok_or_else(|| {
        let why = format!(
            "no pod with a sidecar is ready in namespace {namespace} that is {} or one of its replicas",
            from.name
        );
        Wrong::because(format!("{why}; `weft status -n {namespace}` lists those that are"))
    })?;
    Ok(PodName { name: name(found).to_owned(), namespace: Some(namespace) })
}

/// A resource of a dump, without the type that an `Any` has.
fn decode<M: Message + Name + Default>(resource: &Value) -> anyhow::Result<M> {
    let mut resource = resource.clone();
    if let Some(fields) = resource.as_object_mut() {
        fields.remove("@type");
    }
    weft_xds::yaml::from_json(resource).context("what the proxy holds cannot be read; is it of this version?")
}
