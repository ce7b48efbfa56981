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
use crate::stream::keep_alive::keep_alive;
use crate::stream::prefixed::Prefixed;
use crate::stream::sweep::race;
use crate::worker::Worker;
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::debug;

/// Streams a peer may open and reset before they are served; more is a rapid-reset flood (CVE-2023-44487) and closes the
/// connection.
const MAX_PENDING_RESETS: usize = 100;

/// Streams that we may have to reset for a peer's protocol errors, over a connection's life (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 200;

/// Bytes that wait to be sent on a stream whose peer does not read its connection.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a client that has been told to go, and has nothing under way, may leave what is sent to it unread. It is
/// looked at this often, so the last byte may be twice as long ago.
const FAREWELL: Duration = Duration::from_secs(5);

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
    if let Some(size) = chain.h2.hpack_table_size {
        builder.header_table_size(size);
    }
    let io = Guarded::server(Prefixed::new(io, received));
    let progress = io.progress();
    let handshake = builder.handshake::<_, Bytes>(io);
    let timeout = worker.sweep.after(worker.settings().handshake_timeout);
    let mut connection = match timeout.race(handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(source = %downstream.source, %error, "HTTP/2 handshake failed"),
        Err(_) => return debug!(source = %downstream.source, "HTTP/2 handshake timed out"),
    };
    drop(timeout);

    let pings = chain.h2.keepalive_interval.and_then(|interval| Some((interval, connection.ping_pong()?)));
    let mut unanswered = Box::pin(keep_alive(pings, chain.h2.keepalive_timeout));
    let streams = Rc::new(Streams::default());
    let mut leaving = false;
    let mut drain = downstream.drain(&worker).clone();
    loop {
        let is_quiet = streams.open.get() == 0;
        let limit = if leaving { Some(FAREWELL) } else { chain.idle_timeout };
        let quiet_for = limit.filter(|_| is_quiet).map(|limit| worker.sweep.after(limit));
        let written_before = progress.written();
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = drain.started(), if !leaving => {
                leaving = true;
                // The first GOAWAY names no stream, so requests under way are still taken (RFC 9113 §6.8).
                connection.graceful_shutdown();
                continue;
            }
            () = streams.all_ended.notified(), if !is_quiet => continue,
            () = &mut unanswered => return debug!(source = %downstream.source, "a client does not answer PING; connection closed"),
            // Only the deadline can end this race.
            _ = race(quiet_for.as_ref(), std::future::pending::<()>()) => {
                // The check and the shutdown happen in one poll: no stream can slip in between.
                if streams.open.get() > 0 {
                    continue;
                }
                if !leaving {
                    leaving = true;
                    connection.graceful_shutdown();
                } else if progress.written() == written_before {
                    return debug!(source = %downstream.source, "a client that does not close is closed");
                }
                continue;
            }
        };
        match accepted {
            Some(Ok((_, mut respond))) if !chosen.refresh(&worker, &downstream, &mut chain) => {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                leaving = true;
                connection.graceful_shutdown();
            }
            Some(Ok((request, respond))) => {
                let stream = Stream {
                    worker: worker.clone(),
                    chain: chain.clone(),
                    downstream: downstream.clone(),
                    _open: streams.open(),
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

/// Answers every stream of a connection the same way, until the client closes or the time for a handshake is over.
pub async fn refuse_all(worker: &Worker, io: BoxIo, received: Vec<u8>, downstream: &Downstream, answer: &LocalReply) {
    let deadline = worker.sweep.after(worker.settings().handshake_timeout);
    // What has not been answered by then is reset by the close.
    let _ = deadline.race(refuse_each(io, received, downstream, answer)).await;
}

async fn refuse_each(io: BoxIo, received: Vec<u8>, downstream: &Downstream, answer: &LocalReply) {
    let io = Guarded::server(Prefixed::new(io, received));
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
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

struct Stream {
    worker: Rc<Worker>,
    chain: Arc<HttpChain>,
    downstream: Rc<Downstream>,
    _open: Open,
}

/// The streams of a connection that are being served.
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    all_ended: Notify,
}

impl Streams {
    fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(self.clone())
    }
}

/// Counts one stream as open.
struct Open(Rc<Streams>);

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.open.get() - 1;
        self.0.open.set(left);
        if left == 0 {
            self.0.all_ended.notify_one();
        }
    }
}

impl Stream {
    async fn serve(self, request: ::http::Request<h2::RecvStream>, respond: h2::server::SendResponse<Bytes>) {
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
