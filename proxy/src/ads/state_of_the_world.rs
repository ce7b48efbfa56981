//! The older dialect of xDS (`api_type: GRPC`), spoken for a client that thinks in the delta one.
//!
//! Protocol: <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>, "Variants of the xDS transport protocol".
//! - A request names everything that is wanted of a type; the one that answers a response carries its nonce, and the version
//!   that is in force: a refusal keeps the former one and says why.
//! - A response of listeners or clusters holds all there are, so what is missing was removed. Of the other types one holds what
//!   changed, and nothing ever says that something does not exist.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;
use weft_xds::envoy::config::cluster::v3::Cluster;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use weft_xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use weft_xds::google::protobuf::Any;
use weft_xds::google::rpc::Status;
use weft_xds::{any, type_url};

use super::kind::Kind;
use super::state::INVALID_ARGUMENT;

/// What one stream has said so far, by type URL.
#[derive(Debug, Default)]
pub(super) struct StateOfTheWorld {
    types: HashMap<String, Subscription>,
}

#[derive(Debug, Default)]
struct Subscription {
    names: BTreeSet<String>,
    /// Whether anything was ever asked for by its name.
    is_named: bool,
    /// The last version that was accepted.
    version: String,
    /// Nonce of the response that was answered last.
    nonce: String,
    /// Versions of responses without an answer yet, by nonce.
    unanswered: HashMap<String, String>,
    /// What the client holds or was sent: what it is told of the removal of.
    held: HashSet<String>,
}

/// The name that stands for everything.
const WILDCARD: &str = "*";

impl Subscription {
    /// As requests name what is wanted. Everything is asked for without a name, as Envoy does: go-control-plane takes `*` for a resource and
    /// never answers. That holds until a name was given; then an empty list means nothing, and `*` is a name beside others.
    fn resource_names(&self) -> Vec<String> {
        if self.is_named { self.names.iter().cloned().collect() } else { Vec::new() }
    }
}

impl StateOfTheWorld {
    /// The same request in this dialect.
    pub(super) fn request(&mut self, delta: DeltaDiscoveryRequest) -> DiscoveryRequest {
        let subscription = self.types.entry(delta.type_url.clone()).or_default();
        subscription.names.extend(delta.resource_names_subscribe);
        subscription.is_named |= subscription.names.iter().any(|name| name != WILDCARD);
        for name in &delta.resource_names_unsubscribe {
            subscription.names.remove(name);
            subscription.held.remove(name);
        }
        subscription.held.extend(delta.initial_resource_versions.into_keys());
        if !delta.response_nonce.is_empty() {
            let version = subscription.unanswered.remove(&delta.response_nonce);
            if let (Some(version), None) = (version, &delta.error_detail) {
                subscription.version = version;
            }
            subscription.nonce = delta.response_nonce;
        }
        DiscoveryRequest {
            version_info: subscription.version.clone(),
            node: delta.node,
            resource_names: subscription.resource_names(),
            type_url: delta.type_url,
            response_nonce: subscription.nonce.clone(),
            error_detail: delta.error_detail,
            ..Default::default()
        }
    }

    /// The same response in the client's dialect.
    ///
    /// # Errors
    /// The refusal to send where a resource does not even tell its name.
    pub(super) fn response(
        &mut self,
        response: DiscoveryResponse,
    ) -> Result<DeltaDiscoveryResponse, Box<DiscoveryRequest>> {
        let DiscoveryResponse { version_info, resources, type_url, nonce, .. } = response;
        let resources: Result<Vec<Resource>, String> =
            resources.into_iter().enumerate().map(|(i, message)| named(i, message, &version_info)).collect();
        let subscription = self.types.entry(type_url.clone()).or_default();
        subscription.unanswered.insert(nonce.clone(), version_info.clone());
        let resources = match resources {
            Ok(resources) => resources,
            Err(message) => {
                let error_detail = Some(Status { code: INVALID_ARGUMENT, message, details: Vec::new() });
                let refusal =
                    DeltaDiscoveryRequest { type_url, response_nonce: nonce, error_detail, ..Default::default() };
                return Err(Box::new(self.request(refusal)));
            }
        };
        let sent: HashSet<String> = resources.iter().map(|resource| resource.name.clone()).collect();
        let is_whole = matches!(Kind::of_type_url(&type_url), Some(Kind::Listener | Kind::Cluster));
        let mut removed_resources = Vec::new();
        if is_whole {
            let asked = subscription.names.iter().filter(|name| *name != WILDCARD);
            let known: BTreeSet<&String> = subscription.held.iter().chain(asked).collect();
            removed_resources = known.into_iter().filter(|name| !sent.contains(*name)).cloned().collect();
            subscription.held = sent;
        }
        Ok(DeltaDiscoveryResponse {
            system_version_info: version_info,
            resources,
            type_url,
            removed_resources,
            nonce,
            ..Default::default()
        })
    }
}

/// A resource with its name, which is inside the message in this dialect.
fn named(index: usize, message: Any, version: &str) -> Result<Resource, String> {
    if any::is::<Resource>(&message) {
        let wrapped = Resource::decode(message.value.as_slice());
        let wrapped = wrapped.map_err(|error| format!("resources[{index}]: is no Resource: {error}"))?;
        return Ok(Resource { version: version.to_owned(), ..wrapped });
    }
    let bytes = message.value.as_slice();
    let name = match message.type_url.as_str() {
        type_url::LISTENER => Listener::decode(bytes).map(|listener| listener.name),
        type_url::CLUSTER => Cluster::decode(bytes).map(|cluster| cluster.name),
        type_url::ROUTE => RouteConfiguration::decode(bytes).map(|routes| routes.name),
        type_url::ENDPOINT => ClusterLoadAssignment::decode(bytes).map(|assignment| assignment.cluster_name),
        type_url::SECRET => Secret::decode(bytes).map(|secret| secret.name),
        other => return Err(format!("resources[{index}]: `{other}` was never asked for")),
    };
    let name = name.map_err(|error| format!("resources[{index}]: does not decode: {error}"))?;
    Ok(Resource { name, version: version.to_owned(), resource: Some(message), ..Default::default() })
}

#[cfg(test)]
#[path = "state_of_the_world_tests.rs"]
mod tests;
