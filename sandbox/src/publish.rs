//! A port of the host that leads to a pod.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A published address; dropping it closes the port. Connections that exist go on.
#[derive(Debug)]
pub struct Published {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Published {
    /// Must be called inside a runtime, which then serves the port.
    pub(crate) fn start(listener: std::net::TcpListener, to: SocketAddr) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { address: listener.local_addr()?, task: tokio::spawn(serve(listener, to)) })
    }

    /// The host's address that is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, to: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((near, _)) => drop(tokio::spawn(relay(near, to))),
            // Too many open files, usually: a pause gives connections time to end.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn relay(mut near: TcpStream, to: SocketAddr) -> io::Result<()> {
    // A pod that cannot be reached is seen by the caller as a closed connection.
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}
