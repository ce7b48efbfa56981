//! TLS toward a client.

use std::sync::{Arc, OnceLock};

use rustls::server::NoServerSessionStorage;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use weft_xds::FieldError;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;

use super::context::Common;
use super::identity::LocalIdentity;
use super::verifier::ClientVerifier;

/// A compiled `DownstreamTlsContext`.
#[derive(Debug)]
pub struct DownstreamTls {
    common: Common,
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    require_client_certificate: bool,
    require_sni: bool,
    with_alpn: OnceLock<Arc<ServerConfig>>,
    without_alpn: OnceLock<Arc<ServerConfig>>,
}

impl DownstreamTls {
    /// Compiles the context; reads certificate files.
    ///
    /// # Errors
    /// Names the field that is not supported or whose file cannot be used.
    pub fn from_proto(message: &DownstreamTlsContext, path: &str) -> Result<Self, FieldError> {
        let common_path = format!("{path}.common_tls_context");
        let common = match &message.common_tls_context {
            Some(common) => Common::from_proto(common, &common_path)?,
            None => Common::from_proto(&Default::default(), &common_path)?,
        };
        if !common.has_certificate() {
            return Err(FieldError::missing(
                format!("{common_path}.tls_certificates"),
                "a server needs a certificate: give files, or the SDS secret `identity`",
            ));
        }
        let required = message.require_client_certificate.is_some_and(|flag| flag.value);
        let mut tls = Self::new(common, required, path)?;
        tls.require_sni = message.require_sni.is_some_and(|flag| flag.value);
        Ok(tls)
    }

    /// The mesh's own context: a client certificate is required.
    pub fn mesh(alpn: &[&str]) -> Self {
        // Only a configured choice of suites can leave a version without any.
        Self::new(Common::mesh(alpn), true, "").expect("TLS 1.3 has its default suites")
    }

    fn new(common: Common, require_client_certificate: bool, path: &str) -> Result<Self, FieldError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&common.provider))
            .with_protocol_versions(&common.versions)
            .map_err(|error| FieldError::new(format!("{path}.tls_params"), error.to_string()))?;
        Ok(Self {
            common,
            builder,
            require_client_certificate,
            require_sni: false,
            with_alpn: OnceLock::new(),
            without_alpn: OnceLock::new(),
        })
    }

    /// The protocols of `alpn_protocols`, in our order of preference.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.common.alpn
    }

    /// Whether clients must show a certificate.
    pub fn requires_client_certificate(&self) -> bool {
        self.require_client_certificate
    }

    /// Whether clients must send a server name.
    pub fn requires_sni(&self) -> bool {
        self.require_sni
    }

    /// Whether certificate or trust is this proxy's own, by the SDS secrets `identity` and `bundle`.
    pub fn uses_local_identity(&self) -> bool {
        self.common.uses_local_identity()
    }

    /// The configuration for a client that offers `alpn`.
    ///
    /// Where there is no common protocol, the handshake goes on without one, as Envoy's does; rustls would end it.
    /// Built at the first call: a process has one `local`.
    pub(super) fn server_config<'a>(
        &self,
        local: &Arc<LocalIdentity>,
        mut offered: impl Iterator<Item = &'a [u8]>,
    ) -> Arc<ServerConfig> {
        let common = offered.any(|name| self.common.alpn.iter().any(|ours| ours == name));
        if common {
            let build = || self.build(local, self.common.alpn.clone());
            Arc::clone(self.with_alpn.get_or_init(build))
        } else {
            let build = || self.build(local, Vec::new());
            Arc::clone(self.without_alpn.get_or_init(build))
        }
    }

    fn build(&self, local: &Arc<LocalIdentity>, alpn: Vec<Vec<u8>>) -> Arc<ServerConfig> {
        let presenter = self.common.presenter(local);
        let builder = self.builder.clone();
        // Without a validation context Envoy asks for a certificate only where one is required.
        let asks = self.require_client_certificate || self.common.verifies_peers();
        let mut config = if asks {
            builder
                .with_client_cert_verifier(Arc::new(ClientVerifier {
                    trust: self.common.trust(local),
                    mandatory: self.require_client_certificate,
                    sans: self.common.sans.clone(),
                }))
                .with_cert_resolver(presenter)
        } else {
            builder.with_no_client_auth().with_cert_resolver(presenter)
        };
        // A resumed session skips the verification of the peer.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = alpn;
        Arc::new(config)
    }
}
