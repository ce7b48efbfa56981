//! Connections as they come in: where they were going, what they speak, and who serves them.
//!
//! - [`socket`]: listening sockets, one per worker.
//! - [`listening`]: listeners with addresses of their own, opened and closed as they are published.
//! - [`original_dst`]: where a redirected connection was going.
//! - [`detect`]: what a client's first bytes are.
//! - [`connection`]: a connection's life, from its listener to the codec or relay that serves it.

pub mod connection;
pub mod detect;
pub mod listening;
pub mod original_dst;
pub mod socket;

use crate::request::{Direction, Downstream};
use crate::stream::BoxIo;
use crate::upstream::pool::tune;
use crate::worker::Worker;
use original_dst::{canonical, original_destination};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

/// Times a connection may be handed on inside one process before it is taken for a loop.
const MAX_HOPS: u8 = 2;

/// Pause after a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a redirect's port is for.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// Takes what the redirect sends here from the local application.
    Outbound,
    /// Takes what the redirect sends here from others.
    Inbound,
}

/// Accepts connections for ever.
pub async fn run(worker: Rc<Worker>, listener: TcpListener, role: Role) {
    loop {
        let (stream, source) = next(&listener).await;
        tokio::task::spawn_local(serve(worker.clone(), stream, source, role));
    }
}

/// The next connection, and where it comes from. Dropped, it loses none.
async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => return (stream, canonical(source)),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Sets the options of a connection's socket. Gives the address that its client came to; `None` if the connection is lost already.
fn prepare(stream: &TcpStream, source: SocketAddr) -> Option<SocketAddr> {
    if let Err(error) = tune(&SockRef::from(stream)) {
        debug!(%source, %error, "connection lost before it was served");
        return None;
    }
    stream.local_addr().map(canonical).ok()
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, source: SocketAddr, role: Role) {
    let Some(local) = prepare(&stream, source) else { return };
    let destination = match original_destination(&stream, local).map(canonical) {
        Ok(destination) => destination,
        Err(error) => return debug!(%source, %error, "connection was not redirected; refused"),
    };
    if is_own_port(&worker, destination) {
        return warn!(%source, %destination, "connection to the proxy's own port refused: it would loop");
    }
    match role {
        Role::Inbound => {
            inbound(worker, Box::new(stream), Downstream::plain(Direction::Inbound, source, destination)).await;
        }
        Role::Outbound => {
            let downstream = Downstream::plain(Direction::Outbound, source, destination);
            connection::serve_outbound(worker, Box::new(stream), downstream).await;
        }
    }
}

/// A connection that reached one of the redirect's ports without being redirected there leads back to it.
fn is_own_port(worker: &Worker, destination: SocketAddr) -> bool {
    let settings = worker.settings();
    [settings.outbound_port, settings.inbound_port].contains(&destination.port())
}

async fn inbound(worker: Rc<Worker>, io: BoxIo, downstream: Downstream) {
    match worker.store().listener(&worker.settings().inbound_listener) {
        Some(listener) => connection::serve(worker, listener, io, downstream).await,
        None => debug!(source = %downstream.source, "no inbound configuration yet; connection closed"),
    }
}

/// Serves one end of an in-process pipe as an inbound connection: the endpoint is this workload itself.
///
/// # Errors
/// When the connection has come round too often.
pub fn serve_in_process(worker: Rc<Worker>, io: BoxIo, downstream: Downstream) -> io::Result<()> {
    if downstream.hops > MAX_HOPS {
        return Err(io::Error::other("the connection leads back to this proxy for ever"));
    }
    // Boxed through a function: the future contains, by way of upstream connections, itself.
    tokio::task::spawn_local(boxed_inbound(worker, io, downstream));
    Ok(())
}

fn boxed_inbound(worker: Rc<Worker>, io: BoxIo, downstream: Downstream) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(inbound(worker, io, downstream))
}
