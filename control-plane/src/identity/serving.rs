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

/// The TLS configuration for new connections.
pub(crate) struct Serving {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: ArcSwap<ServerConfig>,
}

impl Serving {
    /// Makes the first certificate, for `weft-control-plane` and the address listened on.
    pub(crate) fn new(authority: Arc<Authority>, address: IpAddr) -> Result<Self, ServingError> {
        let mut names = vec![CONTROL_PLANE_DNS.to_owned()];
        if !address.is_unspecified() {
            names.push(address.to_string());
        }
        let trusted = authority.trust().borrow().clone();
        let config = make(&authority, &trusted, &names)?;
        Ok(Self { authority, names, current: ArcSwap::from_pointee(config) })
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
            renew_in = match make(&self.authority, &now_trusted, &self.names) {
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

fn make(authority: &Authority, trust: &Trust, names: &[String]) -> Result<ServerConfig, ServingError> {
    let (signed, key) = authority.issue_serving(names, SystemTime::now())?;
    let mut roots = RootCertStore::empty();
    for root in &trust.bundle {
        roots.add(root.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Optional: a workload that has no certificate yet comes with a join token.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![signed.leaf], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the verification of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
