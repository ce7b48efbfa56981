//! Making the connection to the control plane: names resolved, addresses tried, TLS.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rand::seq::SliceRandom as _;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

use super::channel::{ControlPlane, ControlPlaneTls};
use crate::dns::{DnsError, Family, Resolver};
use crate::stream::Io;
use crate::tls::LocalIdentity;
use crate::tls::provider::provider;
use crate::upstream;

/// Longest wait for the answers of DNS. With what follows it stays below the ten seconds that a stream may take to open.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for one address, its handshake included.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long an address is tried alone before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot find the control plane: {0}")]
    Resolve(#[from] DnsError),
    #[error("cannot find the control plane: no answer from DNS within {RESOLVE_LIMIT:?}")]
    ResolveTimeout,
    #[error("cannot connect to the control plane: {0}")]
    Attempts(Attempts),
}

/// What came of each address.
#[derive(Debug)]
pub(super) struct Attempts(Vec<(SocketAddr, AttemptError)>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (address, error)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

/// Why there is no connection to one address.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error(transparent)]
    Connect(io::Error),
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("no connection within {CONNECT_LIMIT:?}")]
    Timeout,
    #[error("cannot read the roots {0}: {1}; the bootstrap's trusted_ca names this file")]
    Roots(PathBuf, String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// TCP, with or without TLS.
pub(super) struct Connected {
    pub(super) io: Box<dyn Io + Send>,
    /// Whether it proves who we are.
    pub(super) showed_certificate: bool,
}

/// Connects to the control plane, wherever it is at the time.
#[derive(Debug)]
pub(super) struct Dialer {
    control_plane: Arc<ControlPlane>,
    identity: Arc<LocalIdentity>,
    resolver: Resolver,
    /// What its names last stood for: better than nothing while DNS gives no answer.
    last: Mutex<Vec<SocketAddr>>,
}

impl Dialer {
    pub(super) fn new(control_plane: Arc<ControlPlane>, identity: Arc<LocalIdentity>, resolver: Resolver) -> Self {
        Self { control_plane, identity, resolver, last: Mutex::default() }
    }

    /// Connects to the first address that answers. Our certificate is the one in force now, unless the token is to prove who
    /// we are.
    pub(super) async fn dial(&self, by_token: bool) -> Result<Connected, DialError> {
        let mut addresses = self.addresses().await?;
        // Replicas share their proxies.
        addresses.shuffle(&mut rand::rng());
        let mut waiting = addresses.into_iter();
        let mut running = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            if let Some(address) = waiting.next() {
                running.push(async move { (address, self.attempt(address, by_token).await) });
            }
            let next = async {
                match waiting.len() {
                    0 => running.next().await,
                    _ => tokio::time::timeout(HEAD_START, running.next()).await.unwrap_or(None),
                }
            };
            match next.await {
                Some((_, Ok(connected))) => return Ok(connected),
                Some((address, Err(error))) => failures.push((address, error)),
                None => {}
            }
            if waiting.len() == 0 && running.is_empty() {
                return Err(DialError::Attempts(Attempts(failures)));
            }
        }
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, DialError> {
        let endpoints = &self.control_plane.endpoints;
        let names: BTreeSet<&str> = endpoints.names().collect();
        if names.is_empty() {
            return Ok(endpoints.addresses().collect());
        }
        let lookups = names.into_iter().map(async |name| (name, self.resolver.lookup(name, Family::All).await));
        let answers = tokio::time::timeout(RESOLVE_LIMIT, futures_util::future::join_all(lookups)).await;
        let mut problem = DialError::ResolveTimeout;
        let mut found: HashMap<&str, Vec<IpAddr>> = HashMap::new();
        for (name, answer) in answers.unwrap_or_default() {
            match answer {
                Ok(resolved) => drop(found.insert(name, resolved.addresses)),
                Err(error) => problem = error.into(),
            }
        }
        let resolved = endpoints.resolve(|name| found.get(name).cloned().unwrap_or_default());
        let addresses: Vec<SocketAddr> = resolved.addresses().collect();
        // The list is replaced whole, so a holder of the lock that panicked left it as it was.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.is_empty() {
            last.clone_from(&addresses);
        } else if last.is_empty() {
            return Err(problem);
        } else {
            tracing::warn!(error = %problem, addresses = ?*last, "using the control plane's last known addresses");
        }
        Ok(last.clone())
    }

    async fn attempt(&self, address: SocketAddr, by_token: bool) -> Result<Connected, AttemptError> {
        let connected = tokio::time::timeout(CONNECT_LIMIT, async {
            let io = upstream::pool::connect_tcp(address, self.control_plane.mark).await;
            let io = io.map_err(AttemptError::Connect)?;
            let Some(tls) = &self.control_plane.tls else {
                return Ok(Connected { io: Box::new(io), showed_certificate: false });
            };
            // An expired certificate would be refused; the token still proves who we are.
            let is_valid = self.identity.expiry().is_some_and(|expiry| expiry > SystemTime::now());
            let leaf = self.identity.current().leaf.as_ref().map(|leaf| leaf.certified.clone());
            let certificate = leaf.filter(|_| is_valid && !by_token);
            let showed_certificate = certificate.is_some();
            let config = client_config(tls, &self.identity, certificate)?;
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(tls.server_name.clone(), io).await.map_err(AttemptError::Handshake)?;
            Ok(Connected { io: Box::new(stream), showed_certificate })
        });
        connected.await.unwrap_or(Err(AttemptError::Timeout))
    }
}

fn client_config(
    tls: &ControlPlaneTls,
    identity: &LocalIdentity,
    certificate: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, AttemptError> {
    let unusable = |problem: String| AttemptError::Roots(tls.roots.clone(), problem);
    let mut roots = RootCertStore::empty();
    let pem = fs::read(&tls.roots).map_err(|error| unusable(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    // After a rotation of the root the file may be the older of the two.
    if let Some(bundle) = &identity.current().bundle {
        roots.add_parsable_certificates(bundle.certificates().iter().cloned());
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Show(certificate)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A new connection has to show the certificate of its own time.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Our certificate as it was when the connection began.
#[derive(Debug)]
struct Show(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Show {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
