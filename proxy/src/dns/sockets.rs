//! The sockets that DNS is spoken on: tokio's, with our mark.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use socket2::SockRef;
use tokio::net::{TcpStream, UdpSocket};

use crate::upstream::pool::connect_tcp;

/// Longest wait for a TCP connection where the resolver gives no limit of its own.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Makes sockets that a redirect by mark spares.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    mark: Option<u32>,
    handle: TokioHandle,
}

impl Sockets {
    pub(super) fn new(mark: Option<u32>) -> Self {
        Self { mark, handle: TokioHandle::default() }
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets").field("mark", &self.mark).finish_non_exhaustive()
    }
}

type IoFuture<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _bind: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> IoFuture<Self::Tcp> {
        let mark = self.mark;
        Box::pin(async move {
            let connected = tokio::time::timeout(limit.unwrap_or(CONNECT_LIMIT), connect_tcp(server, mark)).await;
            connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> IoFuture<UdpSocket> {
        let mark = self.mark;
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            if let Some(mark) = mark {
                SockRef::from(&socket).set_mark(mark)?;
            }
            Ok(socket)
        })
    }
}
