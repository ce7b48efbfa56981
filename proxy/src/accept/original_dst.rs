//! Where a redirected connection was going.

use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;

/// The destination the application asked for, as the kernel's connection tracking remembers it (`SO_ORIGINAL_DST`).
///
/// # Errors
/// `ENOENT` when the connection was not redirected.
pub fn original_destination(socket: &impl AsFd, local: SocketAddr) -> io::Result<SocketAddr> {
    let is_v4 = match local {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(address) => address.ip().to_ipv4_mapped().is_some(),
    };
    if is_v4 {
        let raw = getsockopt(socket, sockopt::OriginalDst)?;
        let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
        Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
    } else {
        let raw = getsockopt(socket, sockopt::Ip6tOriginalDst)?;
        let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
        Ok(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, 0).into())
    }
}

/// An address without the IPv4-mapped form that dual-stack sockets report.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
