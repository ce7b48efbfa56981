//! `weft-proxy drain` and `weft-proxy wait`: tell the proxy that runs with a bootstrap to say goodbye, and wait until it is ready.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::bootstrap::{Bootstrap, DEFAULT_ADMIN};

/// Longest wait for an answer: the admin thread has nothing else to do.
const LIMIT: Duration = Duration::from_secs(5);

/// As long as the injected startup probe gives a native sidecar.
const LONGEST_START: Duration = Duration::from_secs(600);

/// Between two questions whether the proxy is ready.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Sends `POST /drain` to the admin server that the bootstrap names, or to the default one. Returns once the drain has begun.
///
/// # Errors
/// When the bootstrap is refused, or no proxy answers.
pub fn drain_running(bootstrap: Option<&Path>) -> anyhow::Result<()> {
    let admin = admin_of(bootstrap)?;
    let answer = ask(admin, "POST", "/drain")
        .with_context(|| format!("no proxy answers on {admin}: is it running, and is this its admin address?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{admin} does not drain: {}", head.lines().next().unwrap_or_default());
    }
    print!("{body}");
    Ok(())
}

/// Waits until the admin server that the bootstrap names, or the default one, says that its proxy is ready: for ordinary containers, which
/// the kubelet starts one after the other only as far as their `postStart` hooks hold it up.
///
/// # Errors
/// When the bootstrap is refused, or the proxy is not ready in ten minutes.
pub fn wait_until_ready(bootstrap: Option<&Path>) -> anyhow::Result<()> {
    let admin = admin_of(bootstrap)?;
    let until = Instant::now() + LONGEST_START;
    loop {
        let last = match ask(admin, "GET", "/ready") {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(answer) => answer.lines().last().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            bail!("the proxy at {admin} is not ready after {} s: {last}", LONGEST_START.as_secs());
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// Where to ask: a server on all addresses is asked on loopback.
fn admin_of(bootstrap: Option<&Path>) -> anyhow::Result<SocketAddr> {
    let admin = match bootstrap {
        Some(file) => Bootstrap::read(file)?.admin,
        None => DEFAULT_ADMIN,
    };
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, admin.port()))
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut io = TcpStream::connect_timeout(&admin, LIMIT)?;
    io.set_read_timeout(Some(LIMIT))?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes())?;
    let mut answer = String::new();
    io.read_to_string(&mut answer)?;
    Ok(answer)
}
