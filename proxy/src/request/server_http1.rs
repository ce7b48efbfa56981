//! The requests of an HTTP/1.1 connection, one after the other.

use super::local::{self, Flag, LocalReply};
use super::reply::{Http1Reply, Reply};
use super::{Downstream, life};
use crate::accept::connection::Chosen;
use crate::http::{Framing, RequestHead};
use crate::http1::{BodyDecoder, HeadError, Limits, Parsed, RequestDecoder};
use crate::snapshot::HttpChain;
use crate::stream::BoxIo;
use crate::stream::body::{Body, Http1Body, drain};
use crate::stream::sweep::race;
use crate::stream::wire::Wire;
use crate::worker::Worker;
use futures_util::FutureExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// How much of an unread request body is read and dropped, so that its answer is not lost to a reset.
const MAX_DRAINED: usize = 256 * 1024;

/// Serves a connection's requests until either side closes it.
pub async fn serve(
    worker: Rc<Worker>,
    mut chain: Arc<HttpChain>,
    mut chosen: Chosen,
    downstream: Rc<Downstream>,
    io: BoxIo,
    received: Vec<u8>,
) {
    let mut wire = Wire::new(io, received);
    let mut decoder = RequestDecoder::new(Limits {
        max_head_bytes: chain.max_request_head,
        max_fields: chain.max_headers_count,
        accept_http10: chain.accept_http_10,
    });
    let mut head = RequestHead::new();
    let ending = loop {
        let cx = life::Context { worker: &worker, chain: &chain, downstream: &downstream };
        let parsed = match read_head(&cx, &mut wire, &mut decoder, &mut head).await {
            Next::Request(parsed) => parsed,
            Next::Closed => break Ending::Closed,
            Next::Refused(error) => {
                debug!(source = %downstream.source, %error, "request refused");
                let answer = LocalReply::new(error.status(), Flag::Malformed, error.to_string());
                break Ending::Refused(answer);
            }
            Next::Late => {
                debug!(source = %downstream.source, "the rest of a request's head did not come");
                let text = "the rest of the request's head did not come in time\n";
                head.clear();
                break Ending::Refused(LocalReply::new(408, Flag::StreamIdle, text));
            }
        };
        if !chosen.refresh(&worker, &downstream, &mut chain) {
            break Ending::Closed;
        }
        let cx = life::Context { worker: &worker, chain: &chain, downstream: &downstream };
        if let Some(ending) = serve_one(&cx, &mut wire, &mut head, &parsed).await {
            break ending;
        }
        wire.shrink();
    };
    // Boxed: the connection's task is as large as its largest state.
    let closing = Box::pin(close(&downstream, &mut wire, &head, ending));
    // The peer may be gone already, or not read what is left to send: one limit for all of it.
    match chain.delayed_close_timeout {
        Some(limit) => drop(worker.sweep.after(limit).race(closing).await),
        None => drop(closing.now_or_never()),
    }
}

/// Says no on a connection none of whose requests is read, and ends it.
pub async fn refuse(downstream: &Downstream, wire: &mut Wire, answer: LocalReply) {
    close(downstream, wire, &RequestHead::new(), Ending::Refused(answer)).await;
}

/// How a connection comes to its end.
enum Ending {
    /// All that was received is answered.
    Closed,
    /// What was received is no request.
    Refused(LocalReply),
    /// A part of the last request was not read.
    Unread,
}

enum Next {
    Request(Parsed),
    Closed,
    Refused(HeadError),
    /// Its time is over.
    Late,
}

async fn read_head(
    cx: &life::Context<'_>,
    wire: &mut Wire,
    decoder: &mut RequestDecoder,
    head: &mut RequestHead,
) -> Next {
    let mut reader = wire.reader();
    // One limit for the whole head, whatever drips in meanwhile.
    let after = |limit: Option<Duration>| limit.map(|limit| cx.worker.sweep.after(limit));
    let mut begun = !reader.bytes().is_empty();
    let mut deadline = None;
    loop {
        if begun {
            match decoder.decode(reader.bytes(), head) {
                Ok(Some(parsed)) => {
                    reader.consume(parsed.consumed);
                    return Next::Request(parsed);
                }
                Ok(None) => {}
                Err(error) => return Next::Refused(error),
            }
        }
        if deadline.is_none() {
            deadline = after(if begun { cx.chain.head_timeout() } else { cx.chain.idle_timeout });
        }
        match race(deadline.as_ref(), reader.fill()).await {
            Ok(Ok(true)) if begun => {}
            Ok(Ok(true)) => (begun, deadline) = (true, None),
            Ok(Ok(false)) | Ok(Err(_)) => {
                if !reader.bytes().is_empty() {
                    debug!(source = %cx.downstream.source, "connection closed inside a request head");
                }
                return Next::Closed;
            }
            Err(_) if begun => return Next::Late,
            Err(_) => return Next::Closed,
        }
    }
}

/// Sends what is left to send, and ends the connection. Closing a socket of which not everything was read would reset it, and the
/// client would lose the answer: so the rest is read first, and dropped.
async fn close(downstream: &Downstream, wire: &mut Wire, head: &RequestHead, ending: Ending) {
    if let Ending::Refused(answer) = &ending {
        let mut reply = Reply::Http1(Http1Reply::last(wire.writer()));
        // The client may be gone already.
        let _ = local::send(&mut reply, head, downstream, answer).await;
    }
    let is_shut = wire.shutdown().await.is_ok();
    if is_shut && !matches!(ending, Ending::Closed) {
        let rest = Http1Body::new(wire.reader(), BodyDecoder::new(Framing::UntilClose, Limits::default()));
        drain(&mut Body::Http1(rest), MAX_DRAINED).await;
    }
}

/// Serves one request; how the connection ends, unless it can carry another.
async fn serve_one(cx: &life::Context<'_>, wire: &mut Wire, head: &mut RequestHead, parsed: &Parsed) -> Option<Ending> {
    let (mut reader, mut writer) = wire.split();
    if parsed.expect_continue && !cx.chain.proxy_100_continue {
        head.fields.remove("expect");
        writer.buffer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        let deadline = cx.chain.stream_idle_timeout.map(|idle| cx.worker.sweep.after(idle));
        if !matches!(race(deadline.as_ref(), writer.flush()).await, Ok(Ok(()))) {
            return Some(Ending::Closed);
        }
    }
    let draining = cx.downstream.drain(cx.worker).is_draining();
    let mut reply = Reply::Http1(Http1Reply {
        writer,
        version: head.version,
        is_head: head.is_head(),
        keep_alive: parsed.keep_alive && !draining,
        trailers: cx.chain.enable_trailers,
    });
    let body = Http1Body::new(reader.reborrow(), BodyDecoder::new(parsed.framing, Limits::default()));
    let body = Body::Http1(body.with_trailers(cx.chain.enable_trailers));
    let finished = life::serve(cx, head, body, parsed.framing, &mut reply).await;
    let keep_alive = matches!(&reply, Reply::Http1(reply) if reply.keep_alive);
    match finished {
        life::Finished::Complete { request_read: true } if keep_alive => None,
        life::Finished::Complete { request_read: false } => Some(Ending::Unread),
        life::Finished::Complete { .. } | life::Finished::Broken => Some(Ending::Closed),
    }
}
