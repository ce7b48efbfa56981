//! Streams of HTTP/2: gRPC's messages and cancellations.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::time::error::Elapsed;
use weft_e2e::yaml::service;
use weft_local_mesh::Spec;
use weft_sandbox::testing::{Failure, TestResult};

use super::pair::strict_pair;
use super::sockets::{Http2Server, connect_http2};

const LIMIT: Duration = Duration::from_secs(20);

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

        let (mut calling, mut called) = open(&mut caller, grpc()?, &mut server).await?;
        calling.up.send_reset(Reason::CANCEL);
        let reason = within(poll_fn(|context| called.up.poll_reset(context))).await??;
        assert_eq!(reason, Reason::CANCEL, "the called is told by {address}");

        let (mut calling, mut called) = open(&mut caller, grpc()?, &mut server).await?;
        called.up.send_reset(Reason::CANCEL);
        let end = within(calling.down.data()).await?;
        assert!(end.is_some_and(|data| data.is_err_and(|error| error.is_reset())), "the caller is told by {address}");

        // Only the calls have ended: the connection carries another, up to its trailers.
        let (mut calling, mut called) = open(&mut caller, grpc()?, &mut server).await?;
        calling.up.send_data(Bytes::new(), true)?;
        assert_eq!(called.next().await?, "");
        called.up.send_trailers(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), "0".parse()?)]))?;
        assert_eq!(calling.next().await?, "");
        let trailers = within(calling.down.trailers()).await??.unwrap_or_default();
        assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
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

/// A request that has been answered with success, and nothing more: its caller's end, and the other.
async fn open(
    caller: &mut SendRequest<Bytes>,
    request: Request<()>,
    server: &mut Http2Server,
) -> Result<(End, End), Failure> {
    let (response, up) = caller.send_request(request, false)?;
    let (request, mut respond) = within(server.next()).await?;
    let called = End { up: respond.send_response(Response::new(()), false)?, down: request.into_body() };
    let response = within(response).await??;
    assert_eq!(response.status(), 200);
    Ok((End { up, down: response.into_body() }, called))
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::time::timeout(LIMIT, work).await
}
