//! Which transport socket an endpoint's connections use (`transport_socket`, `transport_socket_matches`).

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use weft_xds::envoy::config::cluster::v3::Cluster;
use weft_xds::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use weft_xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use weft_xds::google::protobuf::Struct;
use weft_xds::{FieldError, any};

use crate::tls::UpstreamTls;

/// TLS settings toward an endpoint, compiled. Two are equal when their messages are.
pub struct SocketTls {
    message: UpstreamTlsContext,
    tls: UpstreamTls,
}

impl SocketTls {
    fn compile(message: UpstreamTlsContext, path: &str) -> Result<Self, FieldError> {
        let tls = UpstreamTls::from_proto(&message, path)?;
        Ok(Self { message, tls })
    }
}

impl fmt::Debug for SocketTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in force, and not what was asked for.
        self.tls.fmt(f)
    }
}

impl Deref for SocketTls {
    type Target = UpstreamTls;

    fn deref(&self) -> &UpstreamTls {
        &self.tls
    }
}

impl PartialEq for SocketTls {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

/// A cluster's sockets, the first match first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sockets {
    matches: Vec<(Struct, Option<Arc<SocketTls>>)>,
    default: Option<Arc<SocketTls>>,
}

impl Sockets {
    pub(super) fn compile(message: &Cluster, path: &str) -> Result<Self, FieldError> {
        let mut matches = Vec::with_capacity(message.transport_socket_matches.len());
        for (i, candidate) in message.transport_socket_matches.iter().enumerate() {
            let path = format!("{path}.transport_socket_matches[{i}].transport_socket");
            let tls = socket(candidate.transport_socket.as_ref(), &path)?;
            matches.push((candidate.r#match.clone().unwrap_or_default(), tls));
        }
        Ok(Self { matches, default: socket(message.transport_socket.as_ref(), &format!("{path}.transport_socket"))? })
    }

    /// The socket for an endpoint with this metadata (of `envoy.transport_socket_match`); `None` is plaintext.
    ///
    /// A match holds if each of its keys has the same value in the metadata; an empty one holds always.
    pub(super) fn choose(&self, metadata: Option<&Struct>) -> Option<Arc<SocketTls>> {
        let holds = |wanted: &Struct| {
            wanted
                .fields
                .iter()
                .all(|(key, value)| metadata.and_then(|metadata| metadata.fields.get(key)) == Some(value))
        };
        match self.matches.iter().find(|(wanted, _)| holds(wanted)) {
            Some((_, tls)) => tls.clone(),
            None => self.default.clone(),
        }
    }
}

fn socket(message: Option<&TransportSocket>, path: &str) -> Result<Option<Arc<SocketTls>>, FieldError> {
    let Some(message) = message else { return Ok(None) };
    let path = format!("{path}.typed_config");
    match &message.config_type {
        None if message.name == "envoy.transport_sockets.raw_buffer" => Ok(None),
        None => Err(FieldError::missing(path, "give an UpstreamTlsContext, or a RawBuffer for plaintext")),
        Some(ConfigType::TypedConfig(config)) if any::is::<RawBuffer>(config) => Ok(None),
        Some(ConfigType::TypedConfig(config)) => {
            let message = any::unpack::<UpstreamTlsContext>(config, path.as_str())?;
            Ok(Some(Arc::new(SocketTls::compile(message, &path)?)))
        }
    }
}
