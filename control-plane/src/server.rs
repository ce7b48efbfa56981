//! Connections: accepted, encrypted, and handed to the gRPC services.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::{Service, ServiceExt};
use weft_xds::identity::identity_server::{IdentityServer, SERVICE_NAME};

use crate::accept::{self, Ended, HANDSHAKE};
use crate::identity::{IdentityService, Peer, Serving};
use crate::xds::{AdsService, PATHS};

/// How often an idle connection is asked whether its peer is there, and how long the answer may take: a proxy whose machine
/// vanished is noticed within their sum.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// One ADS stream and a few signing requests at a time: a client that opens more is none of ours.
const MAX_STREAMS: u32 = 32;

/// A bearer token and a client's own headers are far smaller.
const MAX_HEADERS: u32 = 16 << 10;

/// How long open connections get to end after a stop.
const DRAIN: Duration = Duration::from_secs(5);

/// The gRPC services of one port.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) ads: AdsService,
    pub(crate) identity: IdentityService,
}

/// Accepts until told to stop, then lets connections end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Serving>>,
    services: Services,
    stop: CancellationToken,
) {
    accept::serve("proxies", listener, stop.clone(), DRAIN, |socket| {
        connection(socket, tls.clone(), services.clone(), stop.clone())
    })
    .await;
}

async fn connection(
    socket: TcpStream,
    tls: Option<Arc<Serving>>,
    services: Services,
    stop: CancellationToken,
) -> Ended {
    prepare(&socket)?;
    let Some(tls) = tls else {
        return http(socket, Peer::default(), services, stop).await;
    };
    let acceptor = TlsAcceptor::from(tls.current());
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await??;
    let peer = Peer {
        certificate: stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| leaf.clone().into_owned()),
        ..Peer::default()
    };
    http(stream, peer, services, stop).await
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(PING_EVERY).with_interval(PING_EVERY);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    services: Services,
    stop: CancellationToken,
) -> Ended {
    let close = peer.close.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        dispatch(services.clone(), request)
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        () = stop.cancelled() => {}
        () = close.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

async fn dispatch(
    mut services: Services,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let path = request.uri().path();
    if PATHS.contains(&path) {
        services.ads.call(request).await
    } else if path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(SERVICE_NAME))
        .is_some_and(|rest| rest.starts_with('/'))
    {
        IdentityServer::new(services.identity).oneshot(request).await
    } else {
        Ok(Status::unimplemented(format!("`{path}` is not served here")).into_http())
    }
}
