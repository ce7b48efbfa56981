//! One probe, asked as a kubelet would.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Grpc, How, HttpGet, Said, Scheme};
use crate::tls::provider::{self, provider};

/// The longest text that is passed on: what a kubelet shows. Of a longer answer it is the status only.
const MOST_TEXT: usize = 10 << 10;

/// Why an application gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the probe cannot be written as a request: {0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

pub(super) async fn ask(how: &How, address: SocketAddr) -> Result<Said, AskError> {
    let io = TcpStream::connect(address).await?;
    match how {
        How::TcpSocket(_) => Ok(Said { status: StatusCode::OK, text: "connected\n".to_owned() }),
        How::HttpGet(get) => match get.scheme {
            Scheme::Http => http(get, address, io).await,
            Scheme::Https => {
                let config = ClientConfig::builder_with_provider(provider().clone())
                    .with_safe_default_protocol_versions()?
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyCertificate))
                    .with_no_client_auth();
                let name = ServerName::IpAddress(address.ip().into());
                http(get, address, TlsConnector::from(Arc::new(config)).connect(name, io).await?).await
            }
        },
        How::Grpc(health) => grpc(health, address, io).await,
    }
}

async fn http(
    get: &HttpGet,
    address: SocketAddr,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Said, AskError> {
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let mut request = Request::get(path).body(Empty::<Bytes>::new())?;
    let headers = request.headers_mut();
    headers
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("kube-probe/weft-", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::HOST, HeaderValue::try_from(address.to_string()).map_err(http::Error::from)?);
    let mut written = Vec::new();
    for own in &get.http_headers {
        let name = HeaderName::try_from(own.name.as_str()).map_err(http::Error::from)?;
        let value = HeaderValue::try_from(own.value.as_str()).map_err(http::Error::from)?;
        // The probe's own go before ours, and a name may come twice.
        if written.contains(&name) {
            headers.append(name, value);
        } else {
            headers.insert(name.clone(), value);
            written.push(name);
        }
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    // The words are for people; that an application sends more of them is no failure.
    let text =
        Limited::new(answer.into_body(), MOST_TEXT).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    connection.abort();
    Ok(Said { status, text: String::from_utf8_lossy(&text).into_owned() })
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;
/// A gRPC message's head: whether it is compressed, and its length.
const PREFIX: usize = 5;

async fn grpc(health: &Grpc, address: SocketAddr, io: TcpStream) -> Result<Said, AskError> {
    let message = HealthCheckRequest { service: health.service.clone() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(body.freeze()))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    // An answer without message has its status in the head.
    let in_head = answer.headers().get("grpc-status").cloned();
    let collected = answer.into_body().collect().await?;
    let in_trailers = collected.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    connection.abort();
    let code = in_head.or(in_trailers);
    let code = code.as_ref().and_then(|value| value.to_str().ok()).unwrap_or("none");
    let body = collected.to_bytes();
    let status =
        body.get(PREFIX..).and_then(|message| HealthCheckResponse::decode(message).ok()).map(|said| said.status);
    Ok(match (code, status) {
        ("0", Some(SERVING)) => Said { status: StatusCode::OK, text: "serving\n".to_owned() },
        ("0", status) => {
            super::refused(format!("health status {}, not {SERVING} (SERVING)\n", status.unwrap_or_default()))
        }
        (code, _) => super::refused(format!("gRPC status {code} of grpc.health.v1.Health/Check\n")),
    })
}

/// A kubelet does not look at the certificate of a probe either: it asks an address, not a name.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        provider::verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        provider::verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::verify_schemes()
    }
}
