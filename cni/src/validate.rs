//! The proof inside a pod, before its application starts and without privileges: it listens where the sidecar will, connects to an address
//! that nobody has, and sees whether the connection arrives.
//!
//! Only outbound connections can be tried from inside; those of others cannot be made there. Both chains are installed in one transaction,
//! so one proves the other.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use socket2::SockRef;
use weft_cni::injection::NOT_REDIRECTED;
use weft_cni::redirect::Redirect;

/// What is known of one address family.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    /// The connection arrived where the sidecar will listen.
    Redirected,
    /// It did not, and what happened instead.
    NotRedirected(String),
    /// The pod does not speak the family, so there is nothing to try.
    Unspoken(String),
    /// Nothing of the family is to be redirected.
    Unwanted(&'static str),
}

/// Tries until all of the pod's families are proven, or `patience` is over; says so on stdout or stderr and in the container's status.
pub(crate) fn run(redirect: &Redirect, patience: Duration) -> ExitCode {
    // The node's agent may be repairing the pod right now.
    const PAUSE: Duration = Duration::from_millis(250);
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        let proofs = [("IPv4", prove(redirect, false)), ("IPv6", prove(redirect, true))];
        match verdict(&proofs) {
            Ok(()) => {
                for (family, proof) in &proofs {
                    match proof {
                        Proof::Unspoken(why) => println!("{family}: not spoken here: {why}"),
                        Proof::Unwanted(why) => println!("{family}: {why}"),
                        _ => println!("{family}: redirected to port {}", redirect.outbound_port),
                    }
                }
                return ExitCode::SUCCESS;
            }
            Err(missing) if Instant::now() + PAUSE >= deadline => return complain(&missing),
            Err(missing) => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!(
                        "weft-cni: not redirected yet: {missing}; waiting for the DaemonSet weft-cni to repair it"
                    );
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Whether the families together prove the redirection: none may contradict, and one that should be redirected must have been seen.
fn verdict(proofs: &[(&str, Proof)]) -> Result<(), String> {
    let contradiction = proofs.iter().find_map(|(family, proof)| match proof {
        Proof::NotRedirected(what) => Some(format!("{family}: {what}")),
        _ => None,
    });
    if let Some(what) = contradiction {
        return Err(what);
    }
    let unspoken = proofs.iter().find_map(|(family, proof)| match proof {
        Proof::Unspoken(why) => Some(format!("{family}: {why}")),
        _ => None,
    });
    match unspoken {
        Some(why) if proofs.iter().all(|(_, proof)| *proof != Proof::Redirected) => Err(why),
        _ => Ok(()),
    }
}

fn complain(missing: &str) -> ExitCode {
    let message = format!(
        "not redirected: {missing}. The pod was started while the CNI plugin weft-cni was not in the node's CNI configuration, or the \
         validator runs as the sidecar's user. The DaemonSet weft-cni repairs or deletes such pods: see its pod on this node"
    );
    eprintln!("weft-cni: {message}");
    // What `kubectl describe` shows; outside Kubernetes there is no such file.
    if let Ok(mut file) = OpenOptions::new().write(true).open("/dev/termination-log") {
        let _ = file.write_all(message.as_bytes());
    }
    ExitCode::from(NOT_REDIRECTED)
}

fn prove(redirect: &Redirect, ipv6: bool) -> Proof {
    if !(if ipv6 { redirect.ipv6 } else { redirect.ipv4 }) {
        return Proof::Unwanted("not to be redirected");
    }
    let Some(target) = target(redirect, ipv6) else {
        return Proof::Unwanted("all of it is excluded from redirection");
    };
    let loopback: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let sidecar = SocketAddr::new(loopback, redirect.outbound_port);
    let listener = match TcpListener::bind(sidecar) {
        Ok(listener) => Some(listener),
        // The sidecar, after an init container was run again: it answers in our place.
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        Err(error) => return Proof::Unspoken(format!("{sidecar} cannot be listened on ({error})")),
    };
    if let Err(error) = route(target) {
        return Proof::Unspoken(format!("there is no route to {target} ({error})"));
    }
    // Nobody has the address: unless the connection is redirected, it fails at once or never ends.
    const ENOUGH: Duration = Duration::from_secs(2);
    let stream = match TcpStream::connect_timeout(&target, ENOUGH) {
        Ok(stream) => stream,
        Err(error) => {
            return Proof::NotRedirected(format!("a connection to {target} was not taken to {sidecar} ({error})"));
        }
    };
    match listener.map(|listener| arrived(&listener, &stream)) {
        None => Proof::Redirected,
        Some(Ok(Some(original))) if original == target => Proof::Redirected,
        Some(Ok(Some(original))) => {
            Proof::NotRedirected(format!("a connection to {target} arrived at {sidecar} as one to {original}"))
        }
        Some(Ok(None)) => {
            Proof::NotRedirected(format!("a connection to {target} went somewhere else than to {sidecar}"))
        }
        Some(Err(error)) => {
            Proof::NotRedirected(format!("the original destination of a connection to {target} is unknown ({error})"))
        }
    }
}

/// Whether the pod itself knows a way to `target`. Routing comes before redirection, and a router's "unreachable" looks the same to who
/// connects by TCP; connecting by UDP only asks the routing table.
fn route(target: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if target.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.connect(target)
}

/// The original destination of `stream`'s other end, if it is at `listener`. A connected stream of ours is already in its queue.
fn arrived(listener: &TcpListener, stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let own = stream.local_addr()?;
    listener.set_nonblocking(true)?;
    loop {
        let (accepted, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if peer == own {
            let socket = SockRef::from(&accepted);
            let original = if peer.is_ipv4() { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
            return Ok(original.as_socket());
        }
    }
}

/// An address that is redirected and that nobody has: one for documentation (RFC 5737, RFC 3849), or the last of an included network.
fn target(redirect: &Redirect, ipv6: bool) -> Option<SocketAddr> {
    let port = (1..=u16::MAX).find(|port| !redirect.exclude_outbound_ports.contains(port))?;
    let documentation = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"];
    let candidates: Vec<IpAddr> = match &redirect.include_outbound_cidrs {
        None => documentation.iter().filter_map(|text| text.parse().ok()).collect(),
        Some(networks) => networks.iter().map(|network| network.last_address()).collect(),
    };
    let excluded = |address: &IpAddr| redirect.exclude_outbound_cidrs.iter().any(|network| network.contains(*address));
    let address = candidates.into_iter().find(|address| address.is_ipv6() == ipv6 && !excluded(address))?;
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_that_is_redirected_is_enough_unless_the_other_is_seen_not_to_be() {
        let not = || Proof::NotRedirected("refused".into());
        let unspoken = || Proof::Unspoken("no route".into());
        assert!(verdict(&[("IPv4", Proof::Redirected), ("IPv6", unspoken())]).is_ok());
        assert!(verdict(&[("IPv4", Proof::Unwanted("")), ("IPv6", Proof::Unwanted(""))]).is_ok());
        assert_eq!(verdict(&[("IPv4", Proof::Redirected), ("IPv6", not())]), Err("IPv6: refused".into()));
        assert_eq!(verdict(&[("IPv4", unspoken()), ("IPv6", unspoken())]), Err("IPv4: no route".into()));
        assert_eq!(verdict(&[("IPv4", Proof::Unwanted("")), ("IPv6", unspoken())]), Err("IPv6: no route".into()));
    }

    #[test]
    fn the_target_is_one_that_is_redirected() {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let all = Redirect::default();
        assert_eq!(target(&all, false), Some("192.0.2.1:1".parse().unwrap()));
        assert_eq!(target(&all, true), Some("[2001:db8::1]:1".parse().unwrap()));
        let some = Redirect {
            exclude_outbound_ports: vec![2, 1],
            exclude_outbound_cidrs: networks(&["192.0.2.0/23", "2001:db8::/32", "3fff::/20"]),
            ..Redirect::default()
        };
        assert_eq!(target(&some, false), Some("198.51.100.1:3".parse().unwrap()));
        assert_eq!(target(&some, true), None);
        let only = Redirect { include_outbound_cidrs: Some(networks(&["198.19.0.0/16"])), ..Redirect::default() };
        assert_eq!(target(&only, false), Some("198.19.255.255:1".parse().unwrap()));
        assert_eq!(target(&only, true), None);
    }
}
