//! Calls that are more than a request and its response: tunnels, deadlines, cancellations, refusals.

use super::frames::{END_HEADERS, END_STREAM, HEADERS, OK, RST_STREAM, frame, open_server, read_frame, settle};
use super::http2::{H2_CLUSTER, client, request};
use super::sim::{APP, Config, PATIENT, Sim, read_until, with_proxy};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

const TUNNELS: &str = "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]\n      \
    http2_protocol_options: {allow_connect: true}";
/// CONNECT has no path for a prefix to match.
const CONNECT_ROUTE: &str = "[{match: {connect_matcher: {}}, route: {cluster: app, timeout: 0s}}]";

/// REFUSED_STREAM: the server has not looked at the request (RFC 9113 §8.7).
#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_tried_again_whatever_its_method_where_the_policy_says_so() {
    for (policy, status) in [("retry_policy: {retry_on: refused-stream}", 200), ("timeout: 15s", 503)] {
        let routes = format!("[{{match: {{prefix: /}}, route: {{cluster: app, {policy}}}}}]");
        with_proxy(Config { cluster: H2_CLUSTER, routes: &routes, ..Config::default() }, |sim| async move {
            let heads = Rc::new(Cell::new(0));
            let count = heads.clone();
            sim.servers.add(APP, move |mut io| {
                let count = count.clone();
                async move {
                    open_server(&mut io).await;
                    while let Some((kind, _, stream, _)) = read_frame(&mut io).await {
                        if kind != HEADERS {
                            continue;
                        }
                        count.set(count.get() + 1);
                        let answer = match count.get() {
                            1 => frame(RST_STREAM, 0, stream, &[0, 0, 0, 7]),
                            _ => frame(HEADERS, END_HEADERS | END_STREAM, stream, OK),
                        };
                        io.write_all(&answer).await.unwrap();
                    }
                }
            });
            let mut client = client(&sim).await;
            let (response, _) = client.send_request(request("POST", "/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), status);
            assert_eq!(heads.get(), if status == 200 { 2 } else { 1 });
        })
        .await;
    }
}

/// An HTTP/1.1 application that takes any tunnel with `answer`, and sends back what it gets in capitals.
fn shouting(sim: &Sim, answer: &'static str) -> Rc<RefCell<String>> {
    let seen = Rc::new(RefCell::new(String::new()));
    let record = seen.clone();
    sim.servers.add(APP, move |mut io| {
        let record = record.clone();
        async move {
            let head = read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            record.borrow_mut().push_str(&head);
            io.write_all(answer.as_bytes()).await.unwrap();
            let said = read_until(&mut io, |text| text.ends_with('!')).await;
            io.write_all(said.to_uppercase().as_bytes()).await.unwrap();
            read_until(&mut io, |_| false).await;
        }
    });
    seen
}

/// An HTTP/2 application that does the same.
fn shouting_h2(sim: &Sim) -> Rc<RefCell<Vec<::http::request::Parts>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let record = seen.clone();
    sim.servers.add(APP, move |io| {
        let record = record.clone();
        async move {
            let mut builder = h2::server::Builder::new();
            builder.enable_connect_protocol();
            // Its settings come when the request is on its way already.
            settle().await;
            let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (parts, mut body) = request.into_parts();
                record.borrow_mut().push(parts);
                tokio::task::spawn_local(async move {
                    let mut send = respond.send_response(::http::Response::new(()), false).unwrap();
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                        send.send_data(data.to_ascii_uppercase().into(), false).unwrap();
                    }
                    let _ = send.send_data(Bytes::new(), true);
                });
            }
        }
    });
    seen
}

/// Opens a stream that asks for a tunnel, and talks through it.
async fn shout_through_stream(sim: &Sim, ask: ::http::Request<()>) -> String {
    let mut client = client(sim).await;
    settle().await;
    let (response, mut send) = client.send_request(ask, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    send.send_data(Bytes::from_static(b"hello!"), false).unwrap();
    let mut body = response.into_body();
    let mut heard = String::new();
    while !heard.ends_with('!') {
        heard.push_str(std::str::from_utf8(&body.data().await.expect("an answer").unwrap()).unwrap());
    }
    send.send_data(Bytes::new(), true).unwrap();
    heard
}

fn websocket() -> ::http::Request<()> {
    let mut ask = request("CONNECT", "/chat?x");
    ask.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    ask
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// RFC 8441, toward either kind of application.
#[tokio::test(start_paused = true)]
async fn a_websocket_over_http2_reaches_its_application() {
    with_proxy(Config { manager: TUNNELS, routes: PATIENT, ..Config::default() }, |sim| async move {
        let seen = shouting(&sim, SWITCH);
        assert_eq!(shout_through_stream(&sim, websocket()).await, "HELLO!");
        let seen = seen.borrow().to_ascii_lowercase();
        assert!(seen.starts_with("get /chat?x http/1.1\r\n") && seen.contains("sec-websocket-key: "), "{seen}");
    })
    .await;
    let h2 = Config { manager: TUNNELS, routes: PATIENT, cluster: H2_CLUSTER, ..Config::default() };
    with_proxy(h2, |sim| async move {
        let seen = shouting_h2(&sim);
        assert_eq!(shout_through_stream(&sim, websocket()).await, "HELLO!");
        let seen = &seen.borrow()[0];
        assert_eq!(seen.method, "CONNECT");
        assert_eq!(seen.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str), Some("websocket"));
    })
    .await;
}

/// The very first stream of a connection may be one: whether the application takes it is in its settings, which are waited for.
#[tokio::test(start_paused = true)]
async fn a_websocket_over_http1_reaches_an_http2_application() {
    let h2 = Config { manager: TUNNELS, routes: PATIENT, cluster: H2_CLUSTER, ..Config::default() };
    with_proxy(h2, |sim| async move {
        let seen = shouting_h2(&sim);
        let mut client = sim.connect();
        let ask = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.write_all(ask.as_bytes()).await.unwrap();
        let head = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455 §1.3 has this very example.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        client.write_all(b"hello!").await.unwrap();
        assert_eq!(read_until(&mut client, |text| text.ends_with('!')).await, "HELLO!");
        assert_eq!(seen.borrow()[0].method, "CONNECT");
    })
    .await;
}

/// An endpoint that is told nothing but the tunnel's own bytes, and sends them back in capitals.
fn raw(sim: &Sim) {
    sim.servers.add(APP, |mut io| async move {
        let said = read_until(&mut io, |text| text.ends_with('!')).await;
        io.write_all(said.to_uppercase().as_bytes()).await.unwrap();
        read_until(&mut io, |_| false).await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_ends_here_brings_the_endpoint_its_bytes_alone() {
    const ENDS: &str = "[{match: {connect_matcher: {}}, route: {cluster: app, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]";
    let ask = "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n";
    for cluster in ["", H2_CLUSTER] {
        with_proxy(Config { routes: ENDS, cluster, ..Config::default() }, |sim| async move {
            let answer = sim.ask(ask, "refused\n").await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-weft-flag: UF\r\n"), "{answer}");
            raw(&sim);
            let mut client = sim.connect();
            client.write_all(ask.as_bytes()).await.unwrap();
            let answer = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("content-length"), "{answer}");
            client.write_all(b"hello!").await.unwrap();
            assert_eq!(read_until(&mut client, |text| text.ends_with('!')).await, "HELLO!");
            let ask = ::http::Request::builder().method("CONNECT").uri("db.example:5432").body(()).unwrap();
            assert_eq!(shout_through_stream(&sim, ask).await, "HELLO!");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn connect_opens_a_tunnel_over_either_protocol() {
    with_proxy(Config { manager: TUNNELS, routes: CONNECT_ROUTE, ..Config::default() }, |sim| async move {
        let seen = shouting(&sim, "HTTP/1.1 200 OK\r\n\r\n");
        let mut client = sim.connect();
        client.write_all(b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\nhello!").await.unwrap();
        let answer = read_until(&mut client, |text| text.ends_with('!')).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nHELLO!"), "{answer}");
        assert!(seen.borrow().starts_with("CONNECT db.example:5432 HTTP/1.1\r\n"), "{}", seen.borrow());
    })
    .await;
    with_proxy(Config { manager: TUNNELS, routes: CONNECT_ROUTE, ..Config::default() }, |sim| async move {
        let seen = shouting(&sim, "HTTP/1.1 200 OK\r\n\r\n");
        let ask = ::http::Request::builder().method("CONNECT").uri("db.example:5432").body(()).unwrap();
        assert_eq!(shout_through_stream(&sim, ask).await, "HELLO!");
        assert!(seen.borrow().starts_with("CONNECT db.example:5432 HTTP/1.1\r\n"), "{}", seen.borrow());
    })
    .await;
    // Where nobody enabled it, nobody is connected.
    with_proxy(Config { routes: CONNECT_ROUTE, ..Config::default() }, |sim| async move {
        let answer =
            sim.ask("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n", "destination\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    })
    .await;
}

/// What a client of TLS says first.
fn client_hello(server_name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = server_name.to_owned().try_into().unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config.into(), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(start_paused = true)]
async fn tls_passes_through_by_the_name_it_asks_for() {
    let chains = "[{filter_chain_match: {server_names: [a.example]}, filters: [{name: tcp, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: app}}]}]";
    with_proxy(Config { filter_chains: Some(chains), ..Config::default() }, |sim| async move {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let record = seen.clone();
        sim.servers.add(APP, move |mut io| {
            let record = record.clone();
            async move {
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = io.read(&mut chunk).await {
                    record.borrow_mut().extend_from_slice(&chunk[..n]);
                    io.write_all(b"not looked into").await.unwrap();
                }
            }
        });
        let hello = client_hello("a.example");
        let mut client = sim.connect();
        // In pieces: the name may come in any of them.
        for piece in hello.chunks(100) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"not looked into");
        assert_eq!(*seen.borrow(), hello);

        seen.borrow_mut().clear();
        let mut client = sim.connect();
        client.write_all(&client_hello("b.example")).await.unwrap();
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
        assert!(seen.borrow().is_empty());
    })
    .await;
}

fn call() -> ::http::Request<()> {
    let mut call = request("POST", "/shop.Cart/Add");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    call
}

/// An application that never answers; tells the reason why each of its streams ended, and when.
fn silent_h2(sim: &Sim) -> Rc<RefCell<Vec<h2::Reason>>> {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let record = ends.clone();
    sim.servers.add(APP, move |io| {
        let record = record.clone();
        async move {
            let mut connection = h2::server::handshake(io).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let record = record.clone();
                tokio::task::spawn_local(async move {
                    let _request = request;
                    let reason = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                    record.borrow_mut().push(reason);
                });
            }
        }
    });
    ends
}

#[tokio::test(start_paused = true)]
async fn a_grpc_deadline_ends_the_call_on_both_sides() {
    for (limits, asked, expected) in [
        ("{grpc_timeout_header_max: 0s}", "500m", Some(500)),
        ("{grpc_timeout_header_max: 2s}", "1H", Some(2000)),
        ("{grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.2s}", "1S", Some(800)),
        ("{max_stream_duration: 3s}", "500m", Some(3000)),
        ("{max_stream_duration: 0s}", "500m", None),
    ] {
        let routes =
            format!("[{{match: {{prefix: /}}, route: {{cluster: app, timeout: 0s, max_stream_duration: {limits}}}}}]");
        with_proxy(Config { cluster: H2_CLUSTER, routes: &routes, ..Config::default() }, |sim| async move {
            let ends = silent_h2(&sim);
            let mut client = client(&sim).await;
            let mut call = call();
            call.headers_mut().insert("grpc-timeout", asked.parse().unwrap());
            let started = Instant::now();
            let (response, _send) = client.send_request(call, false).unwrap();
            let response = tokio::time::timeout(Duration::from_secs(10), response).await;
            let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap();
            let Some(expected) = expected else {
                assert!(response.is_err(), "{limits}");
                return;
            };
            let response = response.unwrap().unwrap();
            // DEADLINE_EXCEEDED.
            assert_eq!(response.headers()["grpc-status"], "4", "{limits}");
            assert!((expected..expected + 100).contains(&elapsed), "{limits}: {elapsed} ms");
            settle().await;
            assert_eq!(*ends.borrow(), [h2::Reason::CANCEL], "{limits}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_client_gives_up_is_given_up_at_the_application() {
    with_proxy(Config { cluster: H2_CLUSTER, routes: PATIENT, ..Config::default() }, |sim| async move {
        let ends = silent_h2(&sim);
        let mut client = client(&sim).await;
        let (response, mut send) = client.send_request(call(), false).unwrap();
        settle().await;
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        settle().await;
        assert_eq!(*ends.borrow(), [h2::Reason::CANCEL]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_application_breaks_off_breaks_at_the_client() {
    for has_begun in [false, true] {
        with_proxy(Config { cluster: H2_CLUSTER, routes: PATIENT, ..Config::default() }, |sim| async move {
            sim.servers.add(APP, move |io| break_off(io, has_begun));
            let mut client = client(&sim).await;
            let (response, _send) = client.send_request(call(), false).unwrap();
            let response = response.await.unwrap();
            if has_begun {
                let mut body = response.into_body();
                assert_eq!(body.data().await.expect("the first message").unwrap(), "one");
                assert!(body.data().await.expect("a break").is_err());
            } else {
                // UNAVAILABLE.
                assert_eq!(response.headers()["grpc-status"], "14");
            }
        })
        .await;
    }
}

/// An application that resets its streams, before or after its first message.
async fn break_off(io: DuplexStream, has_begun: bool) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((_request, mut respond))) = connection.accept().await {
        if !has_begun {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            continue;
        }
        let mut send = respond.send_response(::http::Response::new(()), false).unwrap();
        send.send_data(Bytes::from_static(b"one"), false).unwrap();
        tokio::task::spawn_local(async move {
            settle().await;
            send.send_reset(h2::Reason::INTERNAL_ERROR);
        });
    }
}
