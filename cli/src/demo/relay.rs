//! A port of this machine's loopback that leads to a port on a pod's loopback, which the sandbox itself does not reach.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use weft_sandbox::{Pod, Sandbox};

/// A port that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Serves the same port of this machine, or another if it is taken.
    pub(crate) fn start(sandbox: &Sandbox, pod: &Pod, port: u16) -> anyhow::Result<Self> {
        let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let listener = free_or_any(port, |address| sandbox.listen_on_host(address))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let pod = pod.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The client sees a closed connection; there is nobody else to tell.
                tokio::spawn(relay(client, pod.clone(), target));
            }
        });
        Ok(Self { address, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, pod: Pod, target: SocketAddr) -> std::io::Result<()> {
    let connected = pod.run(move || std::net::TcpStream::connect(target)).await;
    let stream = connected.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut TcpStream::from_std(stream)?).await.map(drop)
}

/// Tries `port` on this machine's loopback, and if it is taken any free one.
pub(crate) fn free_or_any<T>(
    port: u16,
    listen: impl Fn(SocketAddr) -> Result<T, weft_sandbox::Error>,
) -> anyhow::Result<T> {
    let on = |port| listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    Ok(match on(port) {
        Err(weft_sandbox::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => on(0)?,
        other => other?,
    })
}
