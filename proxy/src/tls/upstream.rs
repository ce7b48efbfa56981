//! TLS toward an endpoint.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_pki_types::{IpAddr, Ipv4Addr, ServerName};
use weft_xds::FieldError;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::context::Common;
use super::identity::LocalIdentity;
use super::verifier::{ExpectedPeer, ServerVerifier};

/// A compiled `UpstreamTlsContext`.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    common: Common,
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    server_name: ServerName<'static>,
    sni: Option<Arc<str>>,
}

/// TLS toward one endpoint: all that a handshake needs. Cheap to clone; keep one per endpoint.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    pub(super) sni: Option<Arc<str>>,
}

impl UpstreamTls {
    /// Compiles the context; reads certificate files.
    ///
    /// # Errors
    /// Names the field that is not supported or whose file cannot be used.
    pub fn from_proto(message: &UpstreamTlsContext, path: &str) -> Result<Self, FieldError> {
        let common = match &message.common_tls_context {
            Some(common) => Common::from_proto(common, &format!("{path}.common_tls_context"))?,
            None => Common::from_proto(&Default::default(), path)?,
        };
        Self::new(common, &message.sni, path)
    }

    /// The mesh's own context with this SNI, offering these application protocols.
    ///
    /// # Errors
    /// If the SNI is no DNS name.
    pub fn mesh(sni: &str, alpn: &[&str]) -> Result<Self, FieldError> {
        Self::new(Common::mesh(alpn), sni, "")
    }

    fn new(common: Common, sni: &str, path: &str) -> Result<Self, FieldError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&common.provider))
            .with_protocol_versions(&common.versions)
            .map_err(|error| FieldError::new(format!("{path}.tls_params"), error.to_string()))?;
        let server_name = if sni.is_empty() {
            // rustls sends no SNI for an address, and our verifier does not look at the name.
            ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
        } else {
            ServerName::try_from(sni.to_owned()).map_err(|_| {
                FieldError::invalid(
                    format!("{path}.sni"),
                    sni,
                    "is no DNS name (RFC 6066 §3)",
                    "correct it, or leave it empty to send none",
                )
            })?
        };
        Ok(Self { common, builder, server_name, sni: (!sni.is_empty()).then(|| sni.into()) })
    }

    /// The protocols of `alpn_protocols`.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.common.alpn
    }

    /// Whether certificate or trust is this proxy's own, by the SDS secrets `identity` and `bundle`.
    pub fn uses_local_identity(&self) -> bool {
        self.common.uses_local_identity()
    }

    /// TLS toward one endpoint. `alpn` narrows what is offered to one protocol; `None` offers the context's list.
    ///
    /// Certificate and bundle are those of the time of each handshake; nothing has to be rebuilt at a rotation.
    pub fn client(&self, local: &Arc<LocalIdentity>, expected: ExpectedPeer, alpn: Option<&str>) -> ClientTls {
        let verifier = ServerVerifier { trust: self.common.trust(local), expected, sans: self.common.sans.clone() };
        let mut config = self
            .builder
            .clone()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.common.presenter(local));
        // A resumed session skips the verification of the peer.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match alpn {
            Some(name) => vec![name.as_bytes().to_vec()],
            None => self.common.alpn.clone(),
        };
        ClientTls { config: Arc::new(config), server_name: self.server_name.clone(), sni: self.sni.clone() }
    }
}
