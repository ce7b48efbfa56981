//! The one connection to the control plane: gRPC over TLS, proved by our certificate, or by the join token until there is one.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

use super::dial::Dialer;
use crate::dns::Resolver;
use crate::tls::LocalIdentity;
use crate::upstream::Assignment;

/// How often a silent connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);
/// Receive windows: many small frames must not exhaust the h2 crate's budget for unread frames, which is half the connection's window.
const WINDOW: u32 = 4 << 20;

/// Where the control plane is and how both sides prove themselves.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Its addresses, or the names that are resolved anew for each connection.
    pub endpoints: Assignment,
    /// TLS, or plaintext where the bootstrap says so.
    pub tls: Option<ControlPlaneTls>,
    /// Mark of our own packets, by which the redirect spares them.
    pub mark: Option<u32>,
    /// File with the join token, read anew for each stream.
    pub token_file: Option<PathBuf>,
    /// What is spoken on the stream.
    pub dialect: Dialect,
    /// Whether it is one stream.
    pub streams: Streams,
}

/// How many streams carry what a control plane says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Streams {
    /// One for everything (ADS).
    #[default]
    Aggregated,
    /// One for each kind of resource.
    Separate,
}

/// A variant of the xDS protocol (`envoy.config.core.v3.ApiConfigSource.api_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `DELTA_GRPC`: only what changed is named.
    #[default]
    Delta,
    /// `GRPC`: each request names everything that is wanted.
    StateOfTheWorld,
}

/// How the control plane's certificate is checked.
#[derive(Clone, Debug)]
pub struct ControlPlaneTls {
    /// Its DNS name.
    pub server_name: ServerName<'static>,
    /// File with the roots, PEM, read anew for each connection: a rotation needs no restart.
    pub roots: PathBuf,
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
        let resolver = Resolver::system(control_plane.mark);
        Self::resolving(control_plane, identity, resolver)
    }

    fn resolving(control_plane: ControlPlane, identity: Arc<LocalIdentity>, resolver: Resolver) -> Self {
        let control_plane = Arc::new(control_plane);
        let dialer = Arc::new(Dialer::new(control_plane.clone(), identity, resolver));
        let showed_certificate = Arc::new(AtomicBool::new(false));
        let by_token = Arc::new(AtomicBool::new(false));
        let connector = {
            let (showed_certificate, by_token) = (showed_certificate.clone(), by_token.clone());
            tower::service_fn(move |_: Uri| {
                let (dialer, showed_certificate) = (dialer.clone(), showed_certificate.clone());
                let by_token = by_token.load(Ordering::Acquire);
                async move {
                    let connected = dialer.dial(by_token).await?;
                    showed_certificate.store(connected.showed_certificate, Ordering::Release);
                    Ok::<_, super::dial::DialError>(TokioIo::new(connected.io))
                }
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

    pub(super) fn dialect(&self) -> Dialect {
        self.control_plane.dialect
    }

    pub(super) fn streams(&self) -> Streams {
        self.control_plane.streams
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

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
