//! From a transport to a [`TlsStream`].

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::downstream::DownstreamTls;
use super::identity::LocalIdentity;
use super::peer::PeerIdentity;
use super::stream::{FillError, TlsStream};
use super::upstream::ClientTls;
use super::verifier::PeerError;

/// Why a handshake failed. The peer has been told by an alert, where there was one to send.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The transport failed.
    #[error("the connection failed during the TLS handshake: {0}")]
    Transport(#[from] io::Error),
    /// The peer closed the connection; without a sidecar it may not speak TLS at all.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The client sent no server name, and `require_sni` is set.
    #[error("the client sent no server name (SNI), and require_sni is set")]
    NoServerName,
    /// The peer is not who it should be.
    #[error("{0}")]
    Peer(PeerError),
    /// Anything else.
    #[error("{0}")]
    Tls(String),
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        match PeerError::find(&error) {
            Some(peer) => Self::Peer(peer.clone()),
            None => Self::Tls(explain(&error).to_string()),
        }
    }
}

impl From<FillError> for HandshakeError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Transport(error) => Self::Transport(error),
            FillError::Tls(error) => error.into(),
        }
    }
}

/// Makes a TLS connection to an endpoint.
///
/// With TLS 1.3 the server verifies our certificate after this returns: its refusal is an error of the first read.
///
/// # Errors
/// See [`HandshakeError`]. The caller bounds the time.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    tls: &ClientTls,
) -> Result<TlsStream<S>, HandshakeError> {
    let session = ClientConnection::new(Arc::clone(&tls.config), tls.server_name.clone())?;
    // Boxed: a handshake's future is large, and what it becomes part of lives as long as the connection.
    let stream = Box::pin(drive(TlsStream::new(io, session.into(), Vec::new()))).await?;
    finish(stream, tls.sni.clone())
}

/// Serves a TLS client of which `received` has already been read.
///
/// # Errors
/// See [`HandshakeError`]. The caller bounds the time.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    received: Vec<u8>,
    tls: &DownstreamTls,
    local: &Arc<LocalIdentity>,
) -> Result<TlsStream<S>, HandshakeError> {
    Box::pin(async move {
        let (stream, sni) = greet(io, received, tls, local).await?;
        finish(drive(stream).await?, sni)
    })
    .await
}

/// Reads the ClientHello, which decides the configuration.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    mut received: Vec<u8>,
    tls: &DownstreamTls,
    local: &Arc<LocalIdentity>,
) -> Result<(TlsStream<S>, Option<Arc<str>>), HandshakeError> {
    let mut acceptor = Acceptor::default();
    loop {
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            // Fails when more is buffered than any ClientHello may have; `accept` then says so.
            if acceptor.read_tls(&mut rest)? == 0 {
                break;
            }
        }
        received.clear();
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let sni: Option<Arc<str>> = hello.server_name().map(Into::into);
                if sni.is_none() && tls.requires_sni() {
                    // A fatal unrecognized_name (RFC 8446 §6.2) in a record of its own.
                    let _ = io.write_all(&[21, 3, 3, 0, 2, 2, 112]).await;
                    let _ = io.shutdown().await;
                    return Err(HandshakeError::NoServerName);
                }
                let offered = hello.alpn().into_iter().flatten();
                let config = tls.server_config(local, offered);
                return match accepted.into_connection(config) {
                    Ok(session) => Ok((TlsStream::new(io, session.into(), Vec::new()), sni)),
                    Err((error, alert)) => Err(refuse(&mut io, alert, error).await),
                };
            }
            Ok(None) => {}
            Err((error, alert)) => return Err(refuse(&mut io, alert, error).await),
        }
        let mut chunk = [0; 4096];
        let mut chunk = ReadBuf::new(&mut chunk);
        poll_fn(|cx| Pin::new(&mut io).poll_read(cx, &mut chunk)).await?;
        if chunk.filled().is_empty() {
            return Err(HandshakeError::Closed);
        }
        received.extend_from_slice(chunk.filled());
    }
}

async fn refuse<S: AsyncWrite + Unpin>(
    io: &mut S,
    mut alert: rustls::server::AcceptedAlert,
    error: rustls::Error,
) -> HandshakeError {
    let mut bytes = Vec::new();
    // A vector takes everything; whether the peer gets it changes nothing here.
    let _ = alert.write_all(&mut bytes);
    let _ = io.write_all(&bytes).await;
    let _ = io.shutdown().await;
    error.into()
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut stream: TlsStream<S>) -> Result<TlsStream<S>, HandshakeError> {
    loop {
        poll_fn(|cx| stream.poll_send(cx)).await?;
        if !stream.session().is_handshaking() {
            return Ok(stream);
        }
        let filled = poll_fn(|cx| stream.poll_fill(cx)).await;
        if let Err(error) = filled {
            // The alert is on its way; after it, nothing.
            let _ = stream.shutdown().await;
            return Err(error.into());
        }
        if stream.has_ended() && stream.session().is_handshaking() {
            return Err(HandshakeError::Closed);
        }
    }
}

fn finish<S>(stream: TlsStream<S>, sni: Option<Arc<str>>) -> Result<TlsStream<S>, HandshakeError> {
    let peer = match stream.session().peer_certificates() {
        // It parsed when it was verified.
        Some([leaf, ..]) => Some(
            PeerIdentity::from_certificate(leaf)
                .map_err(|problem| HandshakeError::Peer(PeerError::Unreadable(problem)))?,
        ),
        _ => None,
    };
    Ok(stream.established(peer, sni))
}

/// Says what an error of rustls means here.
pub(super) fn explain(error: &rustls::Error) -> Explained {
    use rustls::{AlertDescription as Alert, Error};
    if let Some(peer) = PeerError::find(error) {
        return Explained(peer.to_string());
    }
    Explained(match error {
        Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => "the peer requires a client certificate, and we showed none".into(),
            Alert::CertificateUnknown | Alert::BadCertificate => {
                "the peer refused our certificate (its log says why)".into()
            }
            Alert::UnknownCA => "the peer does not trust the root of our certificate".into(),
            Alert::CertificateExpired => "the peer says that our certificate has expired".into(),
            Alert::NoApplicationProtocol => "the peer accepts none of the application protocols we offered".into(),
            other => format!("the peer ended TLS with the alert {other:?}"),
        },
        Error::InvalidMessage(_) => format!("the peer does not speak TLS here ({error})"),
        Error::NoCertificatesPresented => "the client showed no certificate, and one is required".into(),
        other => other.to_string(),
    })
}

/// A sentence about a TLS error; what the `io::Error`s of a [`TlsStream`] hold.
#[derive(Debug)]
pub struct Explained(String);

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Explained {}
