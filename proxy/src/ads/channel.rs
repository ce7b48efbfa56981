//! The one connection to the control plane: gRPC over TLS, proved by our certificate, or by the join token until there is one.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::stream::Io;
use crate::tls::LocalIdentity;
use crate::upstream;

/// Longest wait for the connection with its handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often a silent connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);
/// Receive windows: many small frames must not exhaust the h2 crate's budget for unread frames, which is half the connection's window.
const WINDOW: u32 = 4 << 20;

/// Where the control plane is and how both sides prove themselves.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Its address.
    pub address: SocketAddr,
    /// TLS, or plaintext where the bootstrap says so.
    pub tls: Option<ControlPlaneTls>,
    /// Mark of our own packets, by which the redirect spares them.
    pub mark: Option<u32>,
    /// File with the join token, read anew for each stream.
    pub token_file: Option<PathBuf>,
}

/// How the control plane's certificate is checked.
#[derive(Clone, Debug)]
pub struct ControlPlaneTls {
    /// Its DNS name.
    pub server_name: ServerName<'static>,
    /// File with the roots, PEM, read anew for each connection: a rotation needs no restart.
    pub roots: PathBuf,
}

/// TCP, with or without TLS.
type Connection = Box<dyn Io + Send>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("cannot connect to the control plane at {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("TLS handshake with the control plane at {0} failed: {1}")]
    Handshake(SocketAddr, io::Error),
    #[error("no connection to the control plane at {0} within {CONNECT_LIMIT:?}")]
    Timeout(SocketAddr),
    #[error("cannot read the control plane's roots {0}: {1}; the bootstrap's trusted_ca names this file")]
    Roots(PathBuf, String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A gRPC channel that connects when used and again after a loss, and what a call on it has to say of us.
#[derive(Clone, Debug)]
pub struct ControlPlaneChannel {
    channel: Channel,
    control_plane: Arc<ControlPlane>,
    /// Whether the current connection showed our certificate.
    showed_certificate: Arc<AtomicBool>,
    /// Whether the next connection proves who we are by the token although there is a certificate. Turned over by each
    /// failure: a certificate kept from an earlier process may be of an authority that is no more.
    by_token: Arc<AtomicBool>,
}

impl ControlPlaneChannel {
    /// Connects on first use. Our certificate is the one in force when the connection is made.
    pub fn new(control_plane: ControlPlane, identity: Arc<LocalIdentity>) -> Self {
        let control_plane = Arc::new(control_plane);
        let showed_certificate = Arc::new(AtomicBool::new(false));
        let by_token = Arc::new(AtomicBool::new(false));
        let connector = {
            let (control_plane, showed_certificate) = (control_plane.clone(), showed_certificate.clone());
            let by_token = by_token.clone();
            tower::service_fn(move |_: Uri| {
                let (control_plane, identity) = (control_plane.clone(), identity.clone());
                let (showed_certificate, by_token) = (showed_certificate.clone(), by_token.load(Ordering::Acquire));
                async move { connect(&control_plane, &identity, &showed_certificate, by_token).await.map(TokioIo::new) }
            })
        };
        // Only `:authority` is made from the URI; the connector knows where to go.
        let endpoint = Endpoint::from_static("http://weft-control-plane")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW);
        Self { channel: endpoint.connect_with_connector_lazy(connector), control_plane, showed_certificate, by_token }
    }

    /// A stream could not be opened: the next connection shows the other proof of who we are.
    pub(super) fn failed(&self) {
        if self.control_plane.token_file.is_some() {
            self.by_token.fetch_xor(true, Ordering::AcqRel);
        }
    }

    /// The channel, for further services on the same connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The `authorization` of a call, where the connection does not prove who we are.
    pub(super) fn authorization(&self) -> Option<AsciiMetadataValue> {
        if self.showed_certificate.load(Ordering::Acquire) {
            return None;
        }
        let file = self.control_plane.token_file.as_ref()?;
        let token = fs::read_to_string(file)
            .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "join token not read"))
            .ok()?;
        format!("Bearer {}", token.trim()).parse().ok()
    }
}

async fn connect(
    control_plane: &ControlPlane,
    identity: &LocalIdentity,
    showed: &AtomicBool,
    by_token: bool,
) -> Result<Connection, ConnectError> {
    let address = control_plane.address;
    let connected = tokio::time::timeout(CONNECT_LIMIT, async {
        let io = upstream::pool::connect_tcp(address, control_plane.mark).await;
        let io = io.map_err(|error| ConnectError::Connect(address, error))?;
        let Some(tls) = &control_plane.tls else {
            return Ok(Box::new(io) as Connection);
        };
        // An expired certificate would be refused; the token still proves who we are.
        let is_valid = identity.expiry().is_some_and(|expiry| expiry > SystemTime::now());
        let certificate =
            identity.current().leaf.as_ref().filter(|_| is_valid && !by_token).map(|leaf| leaf.certified.clone());
        let has_certificate = certificate.is_some();
        let config = client_config(tls, identity, certificate)?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(tls.server_name.clone(), io).await;
        let stream = stream.map_err(|error| ConnectError::Handshake(address, error))?;
        showed.store(has_certificate, Ordering::Release);
        Ok(Box::new(stream) as Connection)
    });
    connected.await.unwrap_or(Err(ConnectError::Timeout(address)))
}

fn client_config(
    tls: &ControlPlaneTls,
    identity: &LocalIdentity,
    certificate: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, ConnectError> {
    let unusable = |problem: String| ConnectError::Roots(tls.roots.clone(), problem);
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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
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
