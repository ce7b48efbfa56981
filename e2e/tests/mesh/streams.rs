//! Streams of HTTP/2: gRPC's messages and cancellations, and WebSocket by RFC 8441.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response};
use tokio::time::error::Elapsed;
use weft_e2e::yaml::service;
use weft_local_mesh::{Error, Spec, wait};
use weft_sandbox::testing::{Failure, TestResult};

use super::pair::strict_pair;
use super::sockets::{Http2Server, connect_http2};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn ten_thousand_small_messages_pass_in_a_stream_either_way() -> TestResult {
    let service = service("payments", "app: payments", 50051, 50051, "grpc");
    let (mesh, client, _server) = strict_pair(Spec::server("payments-0", "payments", "v1"), service).await?;
    for shape in ["instalments", "batch", "settle"] {
        for target in mesh.by_address("payments", &[&format!("grpc://payments:50051/{shape}?messages=10000")]).await? {
            let outcome = client.probe(&target, &["--timeout", "60"]).await?;
            // The caller has counted what came back.
            assert!(outcome.ok, "{target}: {outcome:?}");
        }
    }
    // One message each way; many calls on one connection.
    let outcomes = client.probes("grpc://payments:50051/charge", &["--repeat", "1000"]).await?;
    let failed = outcomes.iter().find(|outcome| !outcome.ok);
    assert!(failed.is_none() && outcomes.len() == 1_000, "{failed:?}");
    let metrics = client.metrics().await?;
    assert_eq!(metrics.sum("weft_requests_total", &[("response_class", "2xx")]), 1_006.0);
    Ok(())
}

pub(crate) async fn a_cancelled_call_is_cancelled_at_the_other_end() -> TestResult {
    let service = service("stream", "app: stream", 50051, 50051, "grpc");
    let (mesh, client, server) = strict_pair(Spec::client("stream"), service).await?;
    let mut server = Http2Server::start(server.pod(), 50051).await?;
    for address in mesh.service_addresses("stream").await? {
        let mut caller = connect_http2(client.pod(), SocketAddr::new(address, 50051)).await?;
        let grpc = || Request::post("http://stream/weft.test/Call").header("content-type", "application/grpc").body(());

        let (mut calling, mut called, _) = open(&mut caller, grpc()?, &mut server).await?;
        calling.up.send_reset(Reason::CANCEL);
        let reason = within(poll_fn(|context| called.up.poll_reset(context))).await??;
        assert_eq!(reason, Reason::CANCEL, "the called is told by {address}");

        let (mut calling, mut called, _) = open(&mut caller, grpc()?, &mut server).await?;
        called.up.send_reset(Reason::CANCEL);
        let end = within(calling.down.data()).await?.and_then(Result::err);
        let reason = end.filter(h2::Error::is_reset).and_then(|error| error.reason());
        assert_eq!(reason, Some(Reason::CANCEL), "the caller is told by {address}");

        // Only the calls have ended: the connection carries another, up to its trailers.
        let (mut calling, mut called, _) = open(&mut caller, grpc()?, &mut server).await?;
        calling.up.send_data(Bytes::new(), true)?;
        assert_eq!(called.next().await?, "");
        called.up.send_trailers(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), "0".parse()?)]))?;
        assert_eq!(calling.next().await?, "");
        let trailers = within(calling.down.trailers()).await??.unwrap_or_default();
        assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
    }
    Ok(())
}

/// RFC 8441: a WebSocket is one stream among others of an HTTP/2 connection.
pub(crate) async fn a_websocket_opened_by_http2_is_a_tunnel_and_counted_while_open() -> TestResult {
    let service = service("chat", "app: chat", 8080, 8080, "kubernetes.io/h2c");
    let (mesh, client, server) = strict_pair(Spec::client("chat"), service).await?;
    let mut application = Http2Server::start(server.pod(), 8080).await?;
    let open_tunnels = async || {
        let mut counts = Vec::new();
        for pod in [&client, &server] {
            counts.push(pod.metrics().await?.sum("weft_tunnels_active", &[]));
        }
        Ok::<_, Error>(counts)
    };
    for address in mesh.service_addresses("chat").await? {
        let mut caller = connect_http2(client.pod(), SocketAddr::new(address, 8080)).await?;
        wait::until(LIMIT, "the sidecar offers extended CONNECT", async || {
            Ok(caller.is_extended_connect_protocol_enabled().then_some(()))
        })
        .await?;
        let connect = || {
            let mut request = Request::builder().method(Method::CONNECT).uri("http://chat/room");
            request = request.header("sec-websocket-version", "13");
            request.extension(Protocol::from_static("websocket")).body(())
        };
        let (mut calling, mut called, request) = open(&mut caller, connect()?, &mut application).await?;
        assert_eq!((&request.method, request.uri.path()), (&Method::CONNECT, "/room"));
        assert_eq!(request.extensions.get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        assert_eq!(request.headers["sec-websocket-version"], "13");

        calling.up.send_data(Bytes::from("a frame there"), false)?;
        assert_eq!(called.next().await?, "a frame there");
        called.up.send_data(Bytes::from("a frame back"), false)?;
        assert_eq!(calling.next().await?, "a frame back");

        let second = open(&mut caller, connect()?, &mut application).await?;
        let two = async || Ok((open_tunnels().await? == [2.0, 2.0]).then_some(()));
        wait::until(LIMIT, "both sidecars count both tunnels", two).await?;
        drop(second);
        let one = async || Ok((open_tunnels().await? == [1.0, 1.0]).then_some(()));
        wait::until(LIMIT, "one that breaks is counted no more", one).await?;

        calling.up.send_data(Bytes::new(), true)?;
        assert_eq!(called.next().await?, "", "its end is passed on");
        called.up.send_data(Bytes::from("still heard"), true)?;
        assert_eq!(calling.next().await?, "still heard");
        assert_eq!(calling.next().await?, "");
        let none = async || Ok((open_tunnels().await? == [0.0, 0.0]).then_some(()));
        wait::until(LIMIT, "nor is one that has ended", none).await?;
    }
    Ok(())
}

/// One end of a stream.
struct End {
    up: SendStream<Bytes>,
    down: RecvStream,
}

impl End {
    /// What has come; empty at the end.
    async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            match within(self.down.data()).await?.transpose()? {
                Some(data) if data.is_empty() => {}
                data => return Ok(data.unwrap_or_default()),
            }
        }
    }
}

/// A request that has been answered with success, and nothing more: its caller's end, the other, and the request as it arrived.
async fn open(
    caller: &mut SendRequest<Bytes>,
    request: Request<()>,
    server: &mut Http2Server,
) -> Result<(End, End, Parts), Failure> {
    let (response, up) = caller.send_request(request, false)?;
    let (request, mut respond) = within(server.next()).await?;
    let (request, down) = request.into_parts();
    let called = End { up: respond.send_response(Response::new(()), false)?, down };
    let response = within(response).await??;
    assert_eq!(response.status(), 200);
    Ok((End { up, down: response.into_body() }, called, request))
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::time::timeout(LIMIT, work).await
}
