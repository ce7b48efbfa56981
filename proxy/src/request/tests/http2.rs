//! HTTP/2 toward the client, either toward the endpoint.

use super::sim::{APP, Config, Sim, canned, read_until, with_proxy};
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(super) const H2_CLUSTER: &str = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
    type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";

pub(super) async fn client(sim: &Sim) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(sim.connect()).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

pub(super) fn request(method: &str, path: &str) -> ::http::Request<()> {
    ::http::Request::builder().method(method).uri(format!("http://shop{path}")).body(()).unwrap()
}

async fn read_body(mut body: h2::RecvStream) -> (String, Option<::http::HeaderMap>) {
    let mut text = String::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    (text, body.trailers().await.unwrap())
}

/// An echo server with trailers.
pub(super) async fn echo(io: DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::task::spawn_local(async move {
            let mut body = request.into_body();
            let mut send = respond.send_response(::http::Response::new(()), false).unwrap();
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
                send.send_data(chunk, false).unwrap();
            }
            let mut trailers = ::http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn streams_pass_both_ways_message_by_message_with_trailers() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        let mut client = client(&sim).await;
        let (response, mut send) = client.send_request(request("POST", "/echo"), false).unwrap();
        send.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        // The answer to the first message comes before the second is sent.
        assert_eq!(body.data().await.unwrap().unwrap(), "one");
        send.send_data(Bytes::from_static(b"two"), true).unwrap();
        let (text, trailers) = read_body(body).await;
        assert_eq!(text, "two");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_small_messages_pass() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        let mut client = client(&sim).await;
        let (response, mut send) = client.send_request(request("POST", "/echo"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        let sender = async {
            for n in 0..10_000u32 {
                send.send_data(Bytes::copy_from_slice(&n.to_be_bytes()), n == 9_999).unwrap();
                tokio::task::yield_now().await;
            }
        };
        let receiver = async {
            let mut received = 0;
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                received += chunk.len();
            }
            received
        };
        let ((), received) = tokio::join!(sender, receiver);
        assert_eq!(received, 40_000);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn several_first_requests_share_one_connection() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        let connections = Rc::new(RefCell::new(0));
        let count = connections.clone();
        sim.servers.add(APP, move |io| {
            *count.borrow_mut() += 1;
            echo(io)
        });
        let client = client(&sim).await;
        let requests = (0..20).map(|_| {
            let mut client = client.clone();
            async move {
                let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
                response.await.unwrap().status()
            }
        });
        let statuses = futures_util::future::join_all(requests).await;
        assert!(statuses.iter().all(|status| status.is_success()));
        assert_eq!(*connections.borrow(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_http2_request_reaches_an_http1_application() {
    with_proxy(Config::default(), |sim| async move {
        let seen = Rc::new(RefCell::new(String::new()));
        let record = seen.clone();
        sim.servers.add(APP, move |io| {
            canned(io, record.clone(), "HTTP/1.1 201 Made\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok")
        });
        let mut client = client(&sim).await;
        let (response, mut send) = client.send_request(request("POST", "/x?y"), false).unwrap();
        send.send_data(Bytes::from_static(b"hi"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["x-a"].as_bytes()), (201, &b"1"[..]));
        assert_eq!(read_body(response.into_body()).await.0, "ok");
        let seen = seen.borrow().to_ascii_lowercase();
        assert!(seen.starts_with("post /x?y http/1.1\r\n"), "{seen}");
        assert!(seen.contains("host: shop\r\n") && seen.contains("transfer-encoding: chunked\r\n"), "{seen}");
        assert!(seen.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{seen}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_stream_is_cancelled_at_the_application() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        let cancelled = Rc::new(tokio::sync::Notify::new());
        let signal = cancelled.clone();
        sim.servers.add(APP, move |io| {
            let signal = signal.clone();
            async move {
                let mut connection = h2::server::handshake(io).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    let signal = signal.clone();
                    tokio::task::spawn_local(async move {
                        let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                        assert_eq!(reason, h2::Reason::CANCEL);
                        signal.notify_one();
                    });
                }
            }
        });
        let mut client = client(&sim).await;
        let (response, mut send) = client.send_request(request("POST", "/"), false).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        cancelled.notified().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_grpc_call_gets_a_grpc_status() {
    with_proxy(
        Config { routes: "[{match: {prefix: /known}, route: {cluster: app}}]", ..Config::default() },
        |sim| async move {
            let mut client = client(&sim).await;
            let mut call = request("POST", "/other");
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let (response, _) = client.send_request(call, true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], "12");
            assert_eq!(response.headers()["grpc-message"], "no route matches this request", "and no line's end");
        },
    )
    .await;
}

/// A server that says goodbye and has looked at no stream.
async fn goes_away_at_once(mut io: DuplexStream, reason: h2::Reason) {
    io.read_exact(&mut [0; 24]).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut goodbye = vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    goodbye.extend_from_slice(&u32::from(reason).to_be_bytes());
    io.write_all(&settings).await.unwrap();
    // The request is on its way before the farewell.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    io.write_all(&goodbye).await.unwrap();
    read_until(&mut io, |_| false).await;
}

#[tokio::test(start_paused = true)]
async fn streams_above_a_goaways_last_are_sent_again_whole_whatever_their_method() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::ENHANCE_YOUR_CALM] {
        for body in ["", "a body"] {
            with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
                let connections = Rc::new(RefCell::new(0));
                let count = connections.clone();
                sim.servers.add(APP, move |io| {
                    *count.borrow_mut() += 1;
                    let first = *count.borrow() == 1;
                    async move { if first { goes_away_at_once(io, reason).await } else { echo(io).await } }
                });
                let mut client = client(&sim).await;
                let (response, mut send) = client.send_request(request("POST", "/"), body.is_empty()).unwrap();
                if !body.is_empty() {
                    send.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
                }
                let response = response.await.unwrap();
                assert_eq!(response.status(), 200, "{reason:?} {body:?}");
                assert_eq!(read_body(response.into_body()).await.0, body);
                assert_eq!(*connections.borrow(), 2);
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_applications_word_in_a_reset_reaches_the_caller_and_a_connections_does_not() {
    use h2::Reason;
    for (said, heard) in [
        (Reason::CANCEL, Reason::CANCEL),
        (Reason::ENHANCE_YOUR_CALM, Reason::ENHANCE_YOUR_CALM),
        (Reason::INADEQUATE_SECURITY, Reason::INADEQUATE_SECURITY),
        (Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR),
        (Reason::FLOW_CONTROL_ERROR, Reason::INTERNAL_ERROR),
    ] {
        // Whichever direction notices: the request may be going on.
        for uploads in [false, true] {
            with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
                sim.servers.add(APP, move |io| async move {
                    let mut connection = h2::server::handshake(io).await.unwrap();
                    while let Some(Ok((_request, mut respond))) = connection.accept().await {
                        let mut send = respond.send_response(::http::Response::new(()), false).unwrap();
                        tokio::task::spawn_local(async move {
                            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                            send.send_reset(said);
                        });
                    }
                });
                let mut client = client(&sim).await;
                let (response, mut send) = client.send_request(request("POST", "/"), !uploads).unwrap();
                let mut body = response.await.unwrap().into_body();
                if uploads {
                    send.send_data(Bytes::from(vec![b'x'; 1 << 20]), false).unwrap();
                }
                let error = body.data().await.expect("no end").unwrap_err();
                assert_eq!(error.reason(), Some(heard), "{said}, uploads: {uploads}");
            })
            .await;
        }
    }
}
