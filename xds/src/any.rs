//! Type URLs, and messages in and out of `google.protobuf.Any`.

use std::fmt;

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::field::FieldError;

/// What every type URL starts with.
pub const PREFIX: &str = "type.googleapis.com/";

/// Type URLs of resources and of the typed configurations inside them.
pub mod type_url {
    /// LDS resource.
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// RDS resource.
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// CDS resource.
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// EDS resource.
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// SDS resource.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    /// Envoy's file format.
    pub const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
    /// Network filter that speaks HTTP.
    pub const HTTP_CONNECTION_MANAGER: &str =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    /// Network filter that relays bytes.
    pub const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    /// Network filter that authorizes connections.
    pub const NETWORK_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
    /// HTTP filter that authorizes requests.
    pub const HTTP_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    /// Per-route override of [`HTTP_RBAC`].
    pub const HTTP_RBAC_PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    /// HTTP filter that delays and aborts requests.
    pub const HTTP_FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    /// HTTP filter that forwards requests; always the last.
    pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    /// Listener filter that finds out where a redirected connection was going.
    pub const ORIGINAL_DST: &str = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    /// Listener filter that reads a ClientHello.
    pub const TLS_INSPECTOR: &str =
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    /// Listener filter that tells HTTP from other bytes.
    pub const HTTP_INSPECTOR: &str =
        "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    /// TLS toward an endpoint.
    pub const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    /// TLS toward a client.
    pub const DOWNSTREAM_TLS: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    /// No TLS.
    pub const RAW_BUFFER: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    /// A cluster's HTTP protocol.
    pub const HTTP_PROTOCOL_OPTIONS: &str =
        "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
}

/// Wraps a message with its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Takes the message of type `M` out of `any`.
///
/// # Errors
/// Names `path`, the type found and the type expected, or what did not decode.
pub fn unpack<M: Message + Name + Default>(any: &Any, path: impl fmt::Display) -> Result<M, FieldError> {
    if !is::<M>(any) {
        return Err(FieldError::new(
            path,
            format!("holds a `{}`; a `{}` is expected here", type_name(&any.type_url), M::full_name()),
        ));
    }
    M::decode(any.value.as_slice())
        .map_err(|error| FieldError::new(path, format!("does not decode as `{}`: {error}", M::full_name())))
}

/// Whether `any` says it holds an `M`.
pub fn is<M: Name>(any: &Any) -> bool {
    // As everywhere in protobuf, only the part after the last slash counts.
    type_name(&any.type_url) == M::full_name()
}

/// The message's full name in a type URL.
#[must_use]
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::{cluster::v3::Cluster, listener::v3::Listener};

    #[test]
    fn a_packed_message_comes_back() {
        let cluster = Cluster { name: "a".into(), ..Default::default() };
        let any = pack(&cluster);
        assert_eq!(any.type_url, type_url::CLUSTER);
        assert_eq!(unpack::<Cluster>(&any, "x").unwrap(), cluster);
    }

    #[test]
    fn a_wrong_type_is_named_with_the_path() {
        let error = unpack::<Listener>(&pack(&Cluster::default()), "resources[1]").unwrap_err();
        assert_eq!(
            error.to_string(),
            "resources[1]: holds a `envoy.config.cluster.v3.Cluster`; a `envoy.config.listener.v3.Listener` is expected here"
        );
    }
}
