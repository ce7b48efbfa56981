//! The application behind the proxies: it answers what it received.
//!
//! | path | answer |
//! |---|---|
//! | `/flaky…` | 503 at every first call of a path, then what was received |
//! | `/status/N` | that status |
//! | `/hang` | none |
//! | `/trailers` | with a trailer |
//! | `/grpc/N` | that gRPC status, without a body |
//! | any, with `Upgrade` | 101, then what is sent comes back |
//! | any other | 200 |

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use weft_sandbox::Pod;
use weft_sandbox::testing::Failure;

use super::answer::APPLICATION;
use super::certificates::Certificates;

/// Where it serves HTTP/1.1 and HTTP/2 in plaintext, and over TLS.
const PORTS: [(u16, bool); 2] = [(8080, false), (8443, true)];

/// Calls so far, by path.
type Calls = Arc<Mutex<HashMap<String, u32>>>;

/// Serves in a pod, on its loopback of both kinds, for as long as the test runs.
pub(crate) async fn serve(pod: &Pod, certificates: &Certificates) -> Result<(), Failure> {
    let calls = Calls::default();
    for (port, tls) in PORTS {
        let listener = pod.run(move || std::net::TcpListener::bind(("::", port))).await??;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = tls.then(|| TlsAcceptor::from(certificates.upstream_server.clone()));
        let calls = calls.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, calls) = (acceptor.clone(), calls.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => connection(stream, calls).await,
                        Some(acceptor) => {
                            // One that does not like the certificate goes away.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                connection(stream, calls).await;
                            }
                        }
                    }
                });
            }
        });
    }
    Ok(())
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, calls: Calls) {
    let service = service_fn(move |request| answer(request, calls.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol();
    // A client that goes away is its own affair.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

async fn answer(mut request: Request<Incoming>, calls: Calls) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/hang" {
        std::future::pending::<()>().await;
    }
    let call = {
        let mut calls = calls.lock().unwrap();
        let count = calls.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let seen = seen(&request);
    let upgraded = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    // While the request is still to be read nothing is answered, so that neither proxy sees an early answer.
    let (body, trailers) = match request.into_body().collect().await {
        Ok(body) if upgraded.is_none() => {
            let trailers = body.trailers().cloned().unwrap_or_default();
            (body.to_bytes(), list(&trailers))
        }
        _ => (Bytes::new(), String::new()),
    };
    let text = format!("{seen}{}{trailers}", String::from_utf8_lossy(&body));

    let mut status = StatusCode::OK;
    if path.starts_with("/flaky") && call % 2 == 1 {
        status = StatusCode::SERVICE_UNAVAILABLE;
    }
    if let Some(code) = path.strip_prefix("/status/") {
        status = code.parse().unwrap();
    }
    let mut response = Response::new(full(text));
    if let Some(code) = path.strip_prefix("/grpc/") {
        *response.body_mut() = full("");
        response.headers_mut().insert("grpc-status", code.parse().unwrap());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    }
    if path == "/trailers" {
        let trailers = HeaderMap::from_iter([("x-trailer".parse().unwrap(), HeaderValue::from_static("at the end"))]);
        response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-trailer"));
        let body = std::mem::replace(response.body_mut(), full(""));
        *response.body_mut() = body.with_trailers(async { Some(Ok(trailers)) }).boxed_unsync();
    }
    if let (Some(upgraded), Some(protocol)) = (upgraded, upgrade) {
        status = StatusCode::SWITCHING_PROTOCOLS;
        *response.body_mut() = full("");
        response.headers_mut().insert(header::UPGRADE, protocol);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        tokio::spawn(async move {
            if let Ok(stream) = upgraded.await {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
                // Ends with its client.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
    }
    *response.status_mut() = status;
    response.headers_mut().insert(APPLICATION, HeaderValue::from_static("yes"));
    Ok(response)
}

/// What a request's head was, fields in order of their names.
fn seen(request: &Request<Incoming>) -> String {
    format!("{} {} {:?}\n{}\n", request.method(), request.uri(), request.version(), list(request.headers()))
}

fn list(fields: &HeaderMap) -> String {
    let line =
        |(name, value): (&header::HeaderName, &HeaderValue)| format!("{name}: {}\n", value.to_str().unwrap_or("?"));
    let mut lines: Vec<_> = fields.iter().filter(|(name, _)| !is_envoys_own(name.as_str())).map(line).collect();
    lines.sort();
    lines.concat()
}

/// What Envoy adds to a request for tracing and for other Envoys; Weft hands on what the client sent.
fn is_envoys_own(name: &str) -> bool {
    ["x-request-id", "x-forwarded-proto"].contains(&name) || name.starts_with("x-envoy-")
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}
