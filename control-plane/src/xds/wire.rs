//! Requests and responses as they travel.
//!
//! The responses are Envoy's messages with other types for their fields: a resource is the bytes of an already encoded
//! `google.protobuf.Any`, which is the same on the wire, and every stream sends the same bytes instead of a copy.

use bytes::Bytes;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use super::subscriptions::{Delta, DeltaRequest, Response, Session, StateOfTheWorld, StateOfTheWorldRequest};

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeltaResponse {
    #[prost(string, tag = "1")]
    system_version_info: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<DeltaResource>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, prost::Message)]
struct DeltaResource {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(bytes = "bytes", tag = "2")]
    resource: Bytes,
    #[prost(string, tag = "3")]
    name: String,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StateOfTheWorldResponse {
    #[prost(string, tag = "1")]
    version_info: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// A session's dialect on the wire.
pub(crate) trait Dialect: Session + Default + Send + 'static {
    /// How `weft status` calls it.
    const NAME: &'static str;
    /// Envoy's request message.
    type Incoming: prost::Message + Default + Send + 'static;
    /// Envoy's response message, or one that encodes alike.
    type Outgoing: prost::Message + Default + Send + 'static;

    fn node(request: &Self::Incoming) -> Option<&Node>;
    fn type_url(request: &Self::Incoming) -> &str;
    /// Names that the request subscribes to.
    fn names(request: &Self::Incoming) -> &[String];
    fn error(request: &Self::Incoming) -> Option<&str>;
    fn read(request: Self::Incoming) -> Self::Request;
    fn write(response: Response) -> Self::Outgoing;
}

impl Dialect for Delta {
    const NAME: &'static str = "delta";
    type Incoming = DeltaDiscoveryRequest;
    type Outgoing = DeltaResponse;

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn names(request: &DeltaDiscoveryRequest) -> &[String] {
        &request.resource_names_subscribe
    }

    fn error(request: &DeltaDiscoveryRequest) -> Option<&str> {
        request.error_detail.as_ref().map(|status| status.message.as_str())
    }

    fn read(request: DeltaDiscoveryRequest) -> DeltaRequest {
        DeltaRequest {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
            nonce: nonce(&request.response_nonce),
            error: request.error_detail.map(|status| status.message),
        }
    }

    fn write(response: Response) -> DeltaResponse {
        DeltaResponse {
            system_version_info: response.version.to_string(),
            resources: response
                .resources
                .into_iter()
                .map(|(name, rendered)| DeltaResource {
                    version: rendered.version.to_string(),
                    resource: rendered.any.clone(),
                    name: name.as_ref().to_owned(),
                })
                .collect(),
            type_url: response.kind.url().to_owned(),
            nonce: response.nonce.to_string(),
            removed_resources: response.removed.iter().map(|name| name.as_ref().to_owned()).collect(),
        }
    }
}

impl Dialect for StateOfTheWorld {
    const NAME: &'static str = "state-of-the-world";
    type Incoming = DiscoveryRequest;
    type Outgoing = StateOfTheWorldResponse;

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    fn names(request: &DiscoveryRequest) -> &[String] {
        &request.resource_names
    }

    fn error(request: &DiscoveryRequest) -> Option<&str> {
        request.error_detail.as_ref().map(|status| status.message.as_str())
    }

    fn read(request: DiscoveryRequest) -> StateOfTheWorldRequest {
        StateOfTheWorldRequest {
            names: request.resource_names,
            version: request.version_info,
            nonce: nonce(&request.response_nonce),
            error: request.error_detail.map(|status| status.message),
        }
    }

    fn write(response: Response) -> StateOfTheWorldResponse {
        StateOfTheWorldResponse {
            version_info: response.version.to_string(),
            resources: response.resources.into_iter().map(|(_, rendered)| rendered.any.clone()).collect(),
            type_url: response.kind.url().to_owned(),
            nonce: response.nonce.to_string(),
        }
    }
}

/// The nonce a request answers. One that we never sent, from another stream perhaps, is number 0, which we never send.
fn nonce(text: &str) -> Option<u64> {
    (!text.is_empty()).then(|| text.parse().unwrap_or(0))
}
