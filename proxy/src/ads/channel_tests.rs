//! Where a connection goes. The server speaks HTTP/2 only so far that its address can be told.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::yaml;

use super::super::dial::Dialer;
use super::*;
use crate::dns::testing::{Answer, DnsServer};

fn control_plane(hosts: &[&str], port: u16) -> Arc<ControlPlane> {
    let endpoints: Vec<String> = hosts
        .iter()
        .map(|host| {
            format!("{{endpoint: {{address: {{socket_address: {{address: \"{host}\", port_value: {port}}}}}}}}}")
        })
        .collect();
    let text = format!("{{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}", endpoints.join(", "));
    let message: ClusterLoadAssignment = yaml::from_str(&text).unwrap();
    let endpoints = Assignment::compile(&message, "").unwrap();
    let (dialect, streams) = (Dialect::Delta, Streams::Aggregated);
    Arc::new(ControlPlane { endpoints, tls: None, mark: None, token_file: None, dialect, streams })
}

fn dialer(control_plane: Arc<ControlPlane>, dns: &DnsServer) -> Dialer {
    Dialer::new(control_plane, LocalIdentity::new(), dns.resolver())
}

/// Listens on two of loopback's addresses at the same port.
async fn two_places() -> (TcpListener, TcpListener, u16) {
    loop {
        let one = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        // Somebody else may have the port on the other address.
        if let Ok(other) = TcpListener::bind(SocketAddr::from(([127, 0, 0, 3], port))).await {
            return (one, other, port);
        }
    }
}

#[tokio::test]
async fn a_name_is_resolved_anew_for_each_connection() {
    let (one, other, port) = two_places().await;
    let dns = DnsServer::start().await;
    let dialer = dialer(control_plane(&["control.test"], port), &dns);
    for (place, listener) in [("127.0.0.2", one), ("127.0.0.3", other)] {
        dns.set("control.test", &[place], 3600);
        let (connected, accepted) = tokio::join!(dialer.dial(false), listener.accept());
        connected.unwrap();
        accepted.unwrap();
    }
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let (one, other, port) = two_places().await;
    drop(one);
    let dns = DnsServer::start().await;
    dns.set("control.test", &["127.0.0.2", "127.0.0.3", "::1"], 3600);
    let dialer = dialer(control_plane(&["control.test"], port), &dns);
    for _ in 0..8 {
        let (connected, accepted) = tokio::join!(dialer.dial(false), other.accept());
        connected.unwrap();
        accepted.unwrap();
    }
}

#[tokio::test]
async fn the_last_known_addresses_serve_while_dns_does_not() {
    let (one, _other, port) = two_places().await;
    let dns = DnsServer::start().await;
    dns.set("control.test", &["127.0.0.2"], 3600);
    let dialer = dialer(control_plane(&["control.test"], port), &dns);
    let (connected, _) = tokio::join!(dialer.dial(false), one.accept());
    connected.unwrap();
    dns.answer("control.test", Answer::Failure);
    let (connected, _) = tokio::join!(dialer.dial(false), one.accept());
    connected.unwrap();
}

#[tokio::test]
async fn what_failed_is_said_in_the_streams_error() {
    let (one, _other, port) = two_places().await;
    drop(one);
    let dns = DnsServer::start().await;
    dns.set("refuses.test", &["127.0.0.2"], 3600);
    for (name, expected) in [
        ("refuses.test", format!("cannot connect to the control plane: 127.0.0.2:{port}: Connection refused")),
        ("absent.test", "cannot find the control plane: the DNS servers know no address of `absent.test`".to_owned()),
    ] {
        let mut channel = ControlPlaneChannel::resolving(
            Arc::unwrap_or_clone(control_plane(&[name], port)),
            LocalIdentity::new(),
            dns.resolver(),
        );
        let (_requests, outgoing) = tokio::sync::mpsc::unbounded_channel();
        let status = crate::ads::Connect::open(&mut channel, outgoing).await.err().unwrap();
        assert!(status.message().contains(&expected), "{status:?}");
    }
}
