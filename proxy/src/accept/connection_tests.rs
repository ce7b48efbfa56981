//! What becomes of a connection before anything is served on it, under paused time.

use super::*;
use crate::admin::drain::Drain;
use crate::snapshot::Store;
use crate::snapshot::compile::compile_listener;
use crate::upstream::pool::TcpNetwork;
use crate::worker::Settings;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// Connects to a listener whose chain depends on the first bytes, which it waits a second for.
async fn with_silent_client<F: Future<Output = ()>>(settings: &str, test: impl FnOnce(DuplexStream) -> F) {
    let chain = |matches: &str, body: &str| {
        format!(
            "{{{matches} filters: [{{name: http, typed_config: {{
                '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
                stat_prefix: h,
                route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}]}}]}},
                http_filters: [{{name: envoy.filters.http.router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}"
        )
    };
    let text = format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, {settings} listener_filters_timeout: 1s,
          listener_filters: [{{name: envoy.filters.listener.http_inspector}}],
          filter_chains: [{}, {}]}}",
        chain("filter_chain_match: {application_protocols: [http/1.1]},", "inspected"),
        chain("", "other"),
    );
    let listener = compile_listener(&weft_xds::yaml::from_str(&text).unwrap()).unwrap().listener;
    let (near, far) = duplex(64 * 1024);
    let (worker, set) = worker();
    set.spawn_local(serve(worker, Arc::new(listener), Box::new(far), downstream()));
    set.run_until(test(near)).await;
}

fn worker() -> (Rc<Worker>, LocalSet) {
    let network = Rc::new(TcpNetwork::default());
    let worker = Worker::alone(Arc::new(Store::new()), Settings::default(), Drain::never(), network);
    let set = LocalSet::new();
    set.spawn_local(worker.sweep.clone().run());
    (worker, set)
}

fn downstream() -> Downstream {
    let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    Downstream::plain(Direction::Inbound, address(40_000), address(80))
}

#[tokio::test(start_paused = true)]
async fn a_client_silent_for_too_long_is_closed() {
    with_silent_client("", |mut client| async move {
        let started = Instant::now();
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_secs(1), "{elapsed:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_silent_for_too_long_gets_the_chain_of_unknown_bytes_where_the_listener_says_so() {
    with_silent_client("continue_on_listener_filters_timeout: true,", |mut client| async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("other"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_reads_does_not_last() {
    let (worker, set) = worker();
    // The answer does not fit.
    let (mut client, far) = duplex(16);
    let started = Instant::now();
    let limit = worker.settings().handshake_timeout;
    let answer = LocalReply::new(502, Flag::NoRoute, "unknown\n");
    let refused = set.spawn_local(async move { refuse(&worker, Box::new(far), downstream(), answer).await });
    set.run_until(async {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::timeout(limit * 2, refused).await.expect("an end").unwrap();
    })
    .await;
    assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refused_upload_is_read_so_that_its_answer_arrives() {
    let (worker, set) = worker();
    let (mut client, far) = duplex(1024);
    let answer = LocalReply::new(502, Flag::NoRoute, "unknown\n");
    set.spawn_local(async move { refuse(&worker, Box::new(far), downstream(), answer).await });
    set.run_until(async {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n").await.unwrap();
        client.write_all(&[b'x'; 65536]).await.expect("the upload is read");
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.ends_with("unknown\n"), "{answer}");
    })
    .await;
}

#[test]
fn rules_of_connections_know_other_peoples_certificates_as_those_of_requests_do() {
    let text = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [
        {name: envoy.filters.network.rbac, typed_config: {
            '@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x,
            rules: {action: DENY, policies: {guest: {permissions: [{any: true}],
                principals: [{authenticated: {principal_name: {exact: guest.test}}}]}}}}},
        {name: tcp, typed_config: {
            '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c}}]}]}";
    let listener = compile_listener(&weft_xds::yaml::from_str(text).unwrap()).unwrap().listener;
    let who = |name: &str| {
        let peer = crate::tls::PeerIdentity { dns_names: vec![name.to_owned()], ..Default::default() };
        Downstream { peer: Some(Arc::new(peer)), ..downstream() }
    };
    assert!(!may_connect(&listener.chains[0], &who("guest.test")));
    assert!(may_connect(&listener.chains[0], &who("friend.test")));
}
