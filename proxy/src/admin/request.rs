//! `weft-proxy drain`: tells the proxy that runs with a bootstrap to say goodbye.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::bootstrap::{Bootstrap, DEFAULT_ADMIN};

/// Longest wait for an answer: the admin thread has nothing else to do.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends `POST /drain` to the admin server that the bootstrap names, or to the default one. Returns once the drain has begun.
///
/// # Errors
/// When the bootstrap is refused, or no proxy answers.
pub fn drain_running(bootstrap: Option<&Path>) -> anyhow::Result<()> {
    let admin = match bootstrap {
        Some(file) => Bootstrap::read(file)?.admin,
        None => DEFAULT_ADMIN,
    };
    let admin = reachable(admin);
    let answer = post_drain(admin)
        .with_context(|| format!("no proxy answers on {admin}: is it running, and is this its admin address?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{admin} does not drain: {}", head.lines().next().unwrap_or_default());
    }
    print!("{body}");
    Ok(())
}

/// A server on all addresses is asked on loopback.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

fn post_drain(admin: SocketAddr) -> std::io::Result<String> {
    let mut io = TcpStream::connect_timeout(&admin, LIMIT)?;
    io.set_read_timeout(Some(LIMIT))?;
    let request = format!("POST /drain HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes())?;
    let mut answer = String::new();
    io.read_to_string(&mut answer)?;
    Ok(answer)
}
