//! The requests of an HTTP/2 connection: one task per stream.

use super::local::{self, Flag, LocalReply};
use super::reply::Reply;
use super::{Downstream, life};
use crate::accept::connection::Chosen;
use crate::http::{Framing, RequestHead, convert};
use crate::snapshot::HttpChain;
use crate::stream::BoxIo;
use crate::stream::body::{Body, Http2Body};
use crate::stream::guard::Guarded;
use crate::stream::prefixed::Prefixed;
use crate::worker::Worker;
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tracing::debug;

/// Streams a peer may open and reset before they are served; more is a rapid-reset flood (CVE-2023-44487) and closes the
/// connection.
const MAX_PENDING_RESETS: usize = 100;

/// Streams that we may have to reset for a peer's protocol errors, over a connection's life (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 200;

/// Bytes that wait to be sent on a stream whose peer does not read its connection.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves all requests of a connection, until the peer closes or a drain has let the last one finish.
pub async fn serve(
    worker: Rc<Worker>,
    mut chain: Arc<HttpChain>,
    mut chosen: Chosen,
    downstream: Rc<Downstream>,
    io: BoxIo,
    received: Vec<u8>,
) {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(chain.h2.initial_stream_window)
        .initial_connection_window_size(chain.h2.initial_connection_window)
        .max_concurrent_streams(chain.h2.max_concurrent_streams)
        .max_header_list_size(u32::try_from(chain.max_request_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .max_send_buffer_size(SEND_BUFFER);
    if chain.h2.allow_connect {
        builder.enable_connect_protocol();
    }
    let handshake = builder.handshake::<_, Bytes>(Guarded::new(Prefixed::new(io, received)));
    let timeout = worker.sweep.after(worker.settings().handshake_timeout);
    let mut connection = match timeout.race(handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(source = %downstream.source, %error, "HTTP/2 handshake failed"),
        Err(_) => return debug!(source = %downstream.source, "HTTP/2 handshake timed out"),
    };
    drop(timeout);

    let active = Rc::new(Cell::new(0usize));
    let mut draining = false;
    let mut drain = worker.drain.clone();
    loop {
        let idle = chain.idle_timeout.filter(|_| active.get() == 0).map(|idle| worker.sweep.after(idle));
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = drain.started(), if !draining => {
                draining = true;
                // The first GOAWAY names no stream, so requests under way are still taken (RFC 9113 §6.8).
                connection.graceful_shutdown();
                continue;
            }
            _ = wait(idle.as_ref()) => {
                // The check and the shutdown happen in one poll: no stream can slip in between.
                if active.get() == 0 { connection.graceful_shutdown(); }
                continue;
            }
        };
        match accepted {
            Some(Ok((_, mut respond))) if !chosen.refresh(&worker, &downstream, &mut chain) => {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                connection.graceful_shutdown();
            }
            Some(Ok((request, respond))) => {
                active.set(active.get() + 1);
                let stream = Stream {
                    worker: worker.clone(),
                    chain: chain.clone(),
                    downstream: downstream.clone(),
                    active: Active(active.clone()),
                };
                tokio::task::spawn_local(stream.serve(request, respond));
            }
            Some(Err(error)) => {
                debug!(source = %downstream.source, %error, "HTTP/2 connection failed");
                return;
            }
            None => return,
        }
    }
}

/// Answers every stream of a connection the same way, until the client closes.
pub async fn refuse_all(io: BoxIo, received: Vec<u8>, downstream: &Downstream, answer: &LocalReply) {
    let Ok(mut connection) = h2::server::handshake(Prefixed::new(io, received)).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (parts, _) = request.into_parts();
        let mut head = RequestHead::new();
        if convert::request_from_h2(&parts, &mut head).is_ok() {
            // The answer fits the first window, so it goes out as the connection is driven on.
            let _ = local::send(&mut Reply::Http2(respond), &head, downstream, answer).await;
        }
        connection.graceful_shutdown();
    }
}

async fn wait(deadline: Option<&crate::stream::sweep::Deadline>) {
    match deadline {
        Some(deadline) => {
            // Only the deadline can end this race.
            let _ = deadline.race(std::future::pending::<()>()).await;
        }
        None => std::future::pending().await,
    }
}

struct Stream {
    worker: Rc<Worker>,
    chain: Arc<HttpChain>,
    downstream: Rc<Downstream>,
    active: Active,
}

struct Active(Rc<Cell<usize>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Stream {
    async fn serve(self, request: ::http::Request<h2::RecvStream>, respond: h2::server::SendResponse<Bytes>) {
        let _active = &self.active;
        let (parts, stream) = request.into_parts();
        let mut head = RequestHead::new();
        let mut reply = Reply::Http2(respond);
        let converted = convert::request_from_h2(&parts, &mut head)
            .and_then(|()| convert::framing_from_h2(&head.fields, stream.is_end_stream()));
        let framing = match converted {
            Ok(framing) => framing,
            Err(error) => {
                let answer = LocalReply::new(400, Flag::Malformed, error.to_string());
                // A client that is gone needs no answer.
                let _ = local::send(&mut reply, &head, &self.downstream, &answer).await;
                return;
            }
        };
        let asks_for_tunnel = head.is_connect() || parts.extensions.get::<h2::ext::Protocol>().is_some();
        let (body, framing) = match framing {
            _ if asks_for_tunnel => (Body::Http2(Http2Body::held(stream)), Framing::None),
            framing if framing.is_empty() && stream.is_end_stream() => (Body::Empty, framing),
            framing => (Body::Http2(Http2Body::new(stream)), framing),
        };
        let cx = life::Context { worker: &self.worker, chain: &self.chain, downstream: &self.downstream };
        life::serve(&cx, &mut head, body, framing, &mut reply).await;
    }
}
