//! Making a connection to an endpoint.

use super::Target;
use super::socket::ConnectedSocket;
use crate::accept;
use crate::request::{Direction, Downstream};
use crate::stream::{BoxIo, sweep};
use crate::tls;
use crate::upstream::Protocol;
use crate::upstream::breaker::Permit;
use crate::worker::Worker;
use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, TcpKeepalive, Type};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use weft_xds::names::{ALPN_H2, ALPN_HTTP1, ALPN_TCP};

/// The name of a protocol between sidecars.
pub(super) fn mesh_alpn(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => ALPN_HTTP1,
        Protocol::Http2 => ALPN_H2,
        Protocol::Tcp => ALPN_TCP,
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, Error)]
pub enum ConnectError {
    /// The socket could not be connected.
    #[error("cannot connect: {0}")]
    Tcp(String),
    /// TLS failed; never answered by plaintext.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// The HTTP/2 preface failed.
    #[error("HTTP/2 handshake failed: {0}")]
    Http2(String),
    /// It took longer than the cluster's connect timeout.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The cluster has as many connections as it may.
    #[error("the cluster's connection limit is reached")]
    Overflow,
    /// It was closed before it could be used.
    #[error("the connection was closed before it could be used")]
    Closed,
}

/// A new connection.
pub struct Connected {
    /// Its transport, inside TLS where there is some.
    pub io: BoxIo,
    /// Whether the peer proved who it is.
    pub authenticated: bool,
    /// Counts against the cluster's connection limit while it is held.
    pub permit: Permit,
}

/// A future of this worker.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// How sockets are connected: really, or in a simulation.
pub trait Network {
    /// Connects to `address`.
    fn connect(&self, address: SocketAddr) -> LocalFuture<'_, io::Result<BoxIo>>;

    /// Whether `address` is one of this host's (this pod's) own.
    fn is_own(&self, _address: IpAddr) -> bool {
        false
    }
}

/// The kernel's TCP.
#[derive(Debug, Clone, Default)]
pub struct TcpNetwork {
    /// Mark of our own packets, by which the redirect spares them; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
}

/// Unacknowledged data or keep-alive probes for this long mean that the peer is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

impl Network for TcpNetwork {
    fn connect(&self, address: SocketAddr) -> LocalFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let stream = connect_tcp(address, self.mark).await?;
            Ok(Box::new(ConnectedSocket::new(stream)) as BoxIo)
        })
    }

    fn is_own(&self, address: IpAddr) -> bool {
        // The kernel binds to its own addresses only, and knows them better than a list made at start. No packet is sent.
        !address.is_loopback() && std::net::UdpSocket::bind((address, 0)).is_ok()
    }
}

/// Connects a socket of our own, with the mark by which the redirect spares it.
///
/// # Errors
/// What the kernel says; setting a mark needs `CAP_NET_ADMIN`.
pub async fn connect_tcp(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    tune(&SockRef::from(&stream))?;
    Ok(stream)
}

/// Settings for every connection, accepted or made.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(USER_TIMEOUT).with_interval(USER_TIMEOUT / 6).with_retries(5),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Buffer between this process's outbound and inbound halves.
const IN_PROCESS_BUFFER: usize = 64 * 1024;

/// Connects to a target, TLS included, within the cluster's connect timeout.
pub async fn connect(
    worker: Rc<Worker>,
    downstream: Downstream,
    target: Target,
    protocol: Protocol,
) -> Result<Connected, ConnectError> {
    let permit = target.cluster().breaker().connection().map_err(|_| ConnectError::Overflow)?;
    let timeout = target.cluster().connect_timeout();
    let deadline = worker.sweep.after(timeout);
    let connecting = async {
        let io =
            transport(&worker, &downstream, &target).await.map_err(|error| ConnectError::Tcp(error.to_string()))?;
        let Some(tls) = target.tls(protocol, &worker.shared.identity) else {
            return Ok(Connected { io, authenticated: false, permit });
        };
        let tls = tls.map_err(ConnectError::Tls)?;
        let stream = tls::connect(io, &tls).await.map_err(|error| ConnectError::Tls(error.to_string()))?;
        let authenticated = stream.peer().is_some();
        Ok(Connected { io: Box::new(stream), authenticated, permit })
    };
    sweep::race(Some(&deadline), Box::pin(connecting)).await.unwrap_or(Err(ConnectError::Timeout(timeout)))
}

/// The socket, or a pipe to this process's own inbound half: an endpoint may be the very workload that calls.
async fn transport(worker: &Rc<Worker>, downstream: &Downstream, target: &Target) -> io::Result<BoxIo> {
    let address = target.address();
    // A caller over IPv6 may be given its own IPv4 endpoint: its source alone does not tell.
    let is_oneself = downstream.direction == Direction::Outbound
        && !worker.settings().inbound_listener.is_empty()
        && (address.ip() == downstream.source.ip() || worker.network.is_own(address.ip()));
    if !is_oneself {
        return worker.network.connect(address).await;
    }
    let (near, far) = tokio::io::duplex(IN_PROCESS_BUFFER);
    let handed_on =
        Downstream { hops: downstream.hops + 1, ..Downstream::plain(Direction::Inbound, downstream.source, address) };
    accept::serve_in_process(worker.clone(), Box::new(far), handed_on)?;
    Ok(Box::new(near))
}
