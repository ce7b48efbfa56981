//! hyper's HTTP/1 server, in process, over memory.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use weft_proxy::http::Framing;

use super::Verdict;
use super::ours::Exchange;

/// Far more than two requests take.
const MAX_POLLS: usize = 100;

/// hyper's verdict.
pub(crate) fn verdict(exchange: &Exchange) -> Verdict {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let output = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let framing = framing(request.body());
            seen.borrow_mut().push((request.uri().path().to_owned(), framing));
            // A body that cannot be read shows as a missing probe.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = Memory { input: exchange.bytes.clone(), at: 0, output: Rc::clone(&output) };
    let connection = hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(io, service);
    let mut connection = pin!(connection);
    // Memory never makes anyone wait; hyper only yields between the parts of a message.
    let done = (0..MAX_POLLS).any(|_| connection.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(done, "hyper waits on {}", exchange.bytes.escape_ascii());

    let seen = seen.borrow();
    match seen.first() {
        Some(_) if exchange.probed && !seen.iter().skip(1).any(|(path, _)| path == "/probe") => Verdict::Desynchronised,
        Some((_, framing)) => Verdict::Accept(*framing),
        None => match status(&output.borrow()) {
            Some(status) => Verdict::Refuse(status),
            None => Verdict::Incomplete,
        },
    }
}

fn framing(body: &Incoming) -> Framing {
    match body.size_hint().exact() {
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

fn status(output: &[u8]) -> Option<u16> {
    let digits = output.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

struct Memory {
    input: Vec<u8>,
    at: usize,
    output: Rc<RefCell<Vec<u8>>>,
}

impl Read for Memory {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let rest = &self.input[self.at..];
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        self.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
