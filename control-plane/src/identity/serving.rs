//! The control plane's own TLS: a certificate of its own authority, renewed while it serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::sync::CancellationToken;
use weft_xds::names::CONTROL_PLANE_DNS;

use super::authority::Trust;
use super::{Authority, AuthorityError};

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The certificate.
    #[error("the control plane's own certificate: {0}")]
    Authority(#[from] AuthorityError),
    /// The TLS library.
    #[error("the control plane's own TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The verifier of client certificates.
    #[error("the verifier of client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Whose connections they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// Proxies, over HTTP/2. Their certificates are optional: one that has none yet comes with a token.
    Proxies,
    /// The API server, which shows no certificate of ours.
    ApiServer,
}

/// The TLS configuration for new connections.
pub(crate) struct Serving {
    authority: Arc<Authority>,
    names: Vec<String>,
    clients: Clients,
    current: ArcSwap<ServerConfig>,
}

impl Serving {
    /// Makes the first certificate, for `weft-control-plane` and the address listened on.
    pub(crate) fn new(authority: Arc<Authority>, address: IpAddr) -> Result<Self, ServingError> {
        let mut names = vec![CONTROL_PLANE_DNS.to_owned()];
        if !address.is_unspecified() {
            names.push(address.to_string());
        }
        Self::with(authority, names, Clients::Proxies)
    }

    /// Makes the first certificate of a server that the Kubernetes API server calls by these names.
    pub(crate) fn for_api_server(authority: Arc<Authority>, names: Vec<String>) -> Result<Self, ServingError> {
        Self::with(authority, names, Clients::ApiServer)
    }

    fn with(authority: Arc<Authority>, names: Vec<String>, clients: Clients) -> Result<Self, ServingError> {
        let trusted = authority.trust().borrow().clone();
        let config = make(&authority, &trusted, &names, clients)?;
        Ok(Self { authority, names, clients, current: ArcSwap::from_pointee(config) })
    }

    /// What a connection accepted now uses.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Renews at half of the certificate's life, and whenever the trusted roots change, until told to stop.
    pub(crate) async fn maintain(&self, stop: CancellationToken) {
        let mut trust = self.authority.trust();
        let half_life = self.authority.certificate_lifetime() / 2;
        let mut renew_in = half_life;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(renew_in) => {}
                // The sender lives in `self.authority`.
                _ = trust.changed() => {}
            }
            let now_trusted = trust.borrow_and_update().clone();
            renew_in = match make(&self.authority, &now_trusted, &self.names, self.clients) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!("serving certificate renewed");
                    half_life
                }
                Err(error) => {
                    tracing::error!("{error}; the old one serves on");
                    RETRY
                }
            };
        }
    }
}

fn make(
    authority: &Authority,
    trust: &Trust,
    names: &[String],
    clients: Clients,
) -> Result<ServerConfig, ServingError> {
    let (signed, key) = authority.issue_serving(names, SystemTime::now())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match clients {
        Clients::ApiServer => builder.with_no_client_auth(),
        Clients::Proxies => {
            let mut roots = RootCertStore::empty();
            for root in &trust.bundle {
                roots.add(root.clone())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = builder.with_single_cert(vec![signed.leaf], key)?;
    config.alpn_protocols = match clients {
        Clients::Proxies => vec![b"h2".to_vec()],
        Clients::ApiServer => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    // A resumed session would skip the verification of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
