//! Listening sockets.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// The kernel lowers this to `net.core.somaxconn`; a smaller constant of ours would drop connections in a rollout.
const BACKLOG: i32 = 65_535;

/// Binds a listening socket. Each worker binds its own to the same address, and the kernel spreads connections over them.
///
/// An unspecified IPv6 address also takes IPv4.
///
/// # Errors
/// What the kernel says.
pub fn listen(address: SocketAddr, backlog: Option<u32>) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    let backlog = backlog.and_then(|backlog| i32::try_from(backlog).ok()).unwrap_or(BACKLOG);
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Binds a socket that does not listen, and so takes no connection from those that do.
///
/// # Errors
/// What [`listen`] would say.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
