//! Ports of this machine's loopback that lead into the sandbox, also where the sandbox is rootless and its network
//! cannot be reached otherwise.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
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
    /// Leads to a port on the pod's address, as a caller from outside the mesh reaches it.
    pub(crate) fn to_pod(sandbox: &Sandbox, port: u16, pod: Pod, target: u16) -> anyhow::Result<Self> {
        let target = SocketAddr::new(pod.v4(), target);
        Self::start(sandbox, port, move || TcpStream::connect(target))
    }

    /// Leads to a port on the pod's loopback.
    pub(crate) fn into_pod(sandbox: &Sandbox, port: u16, pod: Pod, target: u16) -> anyhow::Result<Self> {
        let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), target);
        Self::start(sandbox, port, move || {
            let pod = pod.clone();
            async move {
                let connected = pod.run(move || std::net::TcpStream::connect(target)).await;
                let stream = connected.map_err(std::io::Error::other)??;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)
            }
        })
    }

    /// Where it listens: the port asked for, or another if that one is taken.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn start<F>(sandbox: &Sandbox, port: u16, connect: impl Fn() -> F + Send + 'static) -> anyhow::Result<Self>
    where
        F: Future<Output = std::io::Result<TcpStream>> + Send + 'static,
    {
        let listen = |port| sandbox.listen_on_host(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let listener = match listen(port) {
            Err(weft_sandbox::Error::Io { source, .. }) if source.kind() == ErrorKind::AddrInUse => listen(0),
            other => other,
        };
        let listener = listener.with_context(|| format!("cannot serve on port {port}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { continue };
                let connecting = connect();
                tokio::spawn(async move {
                    // The client sees a closed connection; there is nobody else to tell.
                    let Ok(mut server) = connecting.await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
