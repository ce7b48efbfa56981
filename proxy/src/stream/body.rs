//! Where a message's body comes from.

use super::spare;
use super::wire::Reader;
use crate::http::{Fields, Framing, convert};
use crate::http1::{BodyDecoder, BodyError, BodyStep, Limits};
use bytes::{Buf, Bytes};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use thiserror::Error;

/// Bytes of further requests taken in while one is being answered.
const MAX_PIPELINED: usize = 16 * 1024;

/// Why a body could not be read to its end.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The transport failed, or ended in the middle of the body.
    #[error("the connection broke inside a body: {0}")]
    Io(#[from] io::Error),
    /// The peer sent bytes that are no HTTP/1.1 body.
    #[error("malformed body: {0}")]
    Malformed(#[from] BodyError),
    /// The peer reset the HTTP/2 stream or its connection failed.
    #[error("the stream was reset: {0}")]
    Http2(#[from] h2::Error),
}

/// What comes next in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// [`Source::data`] is not empty.
    Data,
    /// The body is complete; [`Source::trailers`] may hold fields. Asking again gives the same answer.
    End,
}

/// Something a body can be read from, in pieces that are looked at before they are taken.
pub trait Source {
    /// Waits until there is data or the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ReadError>>;
    /// The data at hand, empty unless [`Source::poll_next`] just answered [`Step::Data`].
    fn data(&self) -> &[u8];
    /// Takes the first `n` bytes of the data at hand; the sender may send that many more.
    fn advance(&mut self, n: usize);
    /// Takes the first `n` bytes of the data at hand as a value.
    fn take(&mut self, n: usize) -> Bytes;
    /// Trailer fields, once the end has been reached.
    fn trailers(&self) -> Option<&Fields>;
    /// Whether it is already known that no data will follow what is at hand.
    fn ends_after(&self, n: usize) -> bool;
}

/// The body of a received message.
pub enum Body<'a> {
    /// There is none.
    Empty,
    /// Framed by HTTP/1.1.
    Http1(Http1Body<'a>),
    /// A stream of DATA frames.
    Http2(Http2Body),
}

/// A body on an HTTP/1.1 connection.
pub struct Http1Body<'a> {
    reader: Reader<'a>,
    decoder: BodyDecoder,
    at_hand: usize,
    ended: bool,
    trailers: bool,
}

impl<'a> Http1Body<'a> {
    /// The body that follows the head just consumed from `reader`.
    pub fn new(reader: Reader<'a>, decoder: BodyDecoder) -> Self {
        Self { reader, decoder, at_hand: 0, ended: false, trailers: true }
    }

    /// Whether trailers are handed on (`enable_trailers`); otherwise they are read, checked and dropped.
    #[must_use]
    pub fn with_trailers(self, trailers: bool) -> Self {
        Self { trailers, ..self }
    }

    /// Whether the body has been read to its end.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Notices that the peer has closed while it waits for an answer. Bytes that arrive meanwhile (a pipelined request)
    /// are kept, up to a bound.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ended && self.reader.bytes().len() < MAX_PIPELINED {
            match ready!(self.reader.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ReadError>> {
        loop {
            if self.at_hand > 0 {
                return Poll::Ready(Ok(Step::Data));
            }
            if self.ended {
                return Poll::Ready(Ok(Step::End));
            }
            match self.decoder.decode(self.reader.bytes())? {
                BodyStep::Data { skip, len } => {
                    self.reader.consume(skip);
                    self.at_hand = len;
                }
                BodyStep::Skip { len } => self.reader.consume(len),
                BodyStep::End => self.ended = true,
                BodyStep::NeedMore => {
                    if !ready!(self.reader.poll_fill(cx))? {
                        self.decoder.finish_eof()?;
                        self.ended = true;
                    }
                }
            }
        }
    }
}

/// A body on an HTTP/2 stream.
pub struct Http2Body {
    stream: h2::RecvStream,
    chunk: Bytes,
    trailers: Option<Fields>,
    ended: bool,
    /// What comes belongs to a tunnel that is not open yet.
    held: bool,
}

impl Http2Body {
    /// The body of the message whose head came with `stream`.
    pub fn new(stream: h2::RecvStream) -> Self {
        Self { stream, chunk: Bytes::new(), trailers: None, ended: false, held: false }
    }

    /// The bytes of a tunnel that the message asks for: no body until [`Body::into_tunnel`] lets them through.
    pub fn held(stream: h2::RecvStream) -> Self {
        Self { held: true, ..Self::new(stream) }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ReadError>> {
        while self.chunk.is_empty() {
            if self.ended || self.held {
                return Poll::Ready(Ok(Step::End));
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => self.chunk = data?,
                None => {
                    if let Some(trailers) = ready!(self.stream.poll_trailers(cx))? {
                        let mut fields = Fields::new();
                        convert::trailers_from_h2(&trailers, &mut fields);
                        self.trailers = Some(fields);
                    }
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(Step::Data))
    }

    fn release(&mut self, n: usize) {
        // Fails only for a stream that is gone, whose window nobody needs.
        let _ = self.stream.flow_control().release_capacity(n);
    }
}

impl<'a> Body<'a> {
    /// Turns the rest of the connection into the body: what follows a protocol switch (RFC 9110 §7.8).
    pub fn into_tunnel(self) -> Self {
        match self {
            Self::Http1(body) => {
                Self::Http1(Http1Body::new(body.reader, BodyDecoder::new(Framing::UntilClose, Limits::default())))
            }
            Self::Http2(body) => Self::Http2(Http2Body { held: false, ..body }),
            Self::Empty => Self::Empty,
        }
    }

    /// Ready when the peer that sent this body is gone, as far as its codec can tell.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(body) => body.poll_closed(cx),
            Self::Empty | Self::Http2(_) => Poll::Pending,
        }
    }

    /// Whether the body has been read to its end.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.ended,
            Self::Http2(body) => body.ended,
        }
    }
}

impl Source for Body<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ReadError>> {
        match self {
            Self::Empty => Poll::Ready(Ok(Step::End)),
            Self::Http1(body) => body.poll_next(cx),
            Self::Http2(body) => body.poll_next(cx),
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Http1(body) => &body.reader.bytes()[..body.at_hand],
            Self::Http2(body) => &body.chunk,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Empty => {}
            Self::Http1(body) => {
                body.reader.consume(n);
                body.at_hand -= n;
            }
            Self::Http2(body) => {
                body.chunk.advance(n);
                body.release(n);
            }
        }
    }

    fn take(&mut self, n: usize) -> Bytes {
        match self {
            Self::Http2(body) => {
                let taken = body.chunk.split_to(n);
                body.release(n);
                taken
            }
            other => {
                let taken = Bytes::copy_from_slice(&other.data()[..n]);
                other.advance(n);
                taken
            }
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Empty => None,
            Self::Http1(body) => {
                Some(body.decoder.trailers()).filter(|trailers| body.trailers && body.ended && !trailers.is_empty())
            }
            Self::Http2(body) => body.trailers.as_ref(),
        }
    }

    fn ends_after(&self, n: usize) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => n == body.at_hand && (body.ended || body.decoder.is_done()),
            Self::Http2(body) => n == body.chunk.len() && (body.ended || body.stream.is_end_stream()),
        }
    }
}

/// A request's body that can be sent again, as long as it fits the recording.
///
/// Only what has been handed on is recorded, so a body that is never retried past its beginning costs one copy of at
/// most `limit` bytes.
pub struct Replay<'a> {
    body: Body<'a>,
    recorded: Vec<u8>,
    /// How much of the recording has been sent in the current attempt.
    cursor: usize,
    limit: usize,
    overflowed: bool,
}

impl<'a> Replay<'a> {
    /// Records up to `limit` bytes; 0 when nothing will be retried.
    pub fn new(body: Body<'a>, limit: usize) -> Self {
        Self { body, recorded: Vec::new(), cursor: 0, limit, overflowed: false }
    }

    /// Begins again for another attempt; `false` when the body outgrew the recording.
    pub fn rewind(&mut self) -> bool {
        self.cursor = 0;
        !self.overflowed
    }

    /// Whether none of the body has been handed on yet, or all that was is recorded.
    pub fn can_rewind(&self) -> bool {
        !self.overflowed
    }

    /// The body itself.
    pub fn inner(&mut self) -> &mut Body<'a> {
        &mut self.body
    }

    /// No further attempt will follow: stops recording.
    pub fn stop_recording(&mut self) {
        self.limit = 0;
    }

    /// Turns the rest of the connection into the body; see [`Body::into_tunnel`].
    pub fn into_tunnel(mut self) -> Self {
        Self::new(std::mem::replace(&mut self.body, Body::Empty).into_tunnel(), 0)
    }
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        spare::give_back(&mut self.recorded);
    }
}

impl Source for Replay<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ReadError>> {
        if self.cursor < self.recorded.len() { Poll::Ready(Ok(Step::Data)) } else { self.body.poll_next(cx) }
    }

    fn data(&self) -> &[u8] {
        if self.cursor < self.recorded.len() { &self.recorded[self.cursor..] } else { self.body.data() }
    }

    fn advance(&mut self, n: usize) {
        if self.cursor < self.recorded.len() {
            self.cursor += n;
            return;
        }
        if !self.overflowed {
            if self.recorded.len() + n > self.limit {
                self.overflowed = true;
                spare::give_back(&mut self.recorded);
                self.cursor = 0;
            } else {
                spare::ensure(&mut self.recorded);
                self.recorded.extend_from_slice(&self.body.data()[..n]);
                self.cursor = self.recorded.len();
            }
        }
        self.body.advance(n);
    }

    fn take(&mut self, n: usize) -> Bytes {
        if self.overflowed && self.cursor >= self.recorded.len() {
            return self.body.take(n);
        }
        let taken = Bytes::copy_from_slice(&self.data()[..n]);
        self.advance(n);
        taken
    }

    fn trailers(&self) -> Option<&Fields> {
        self.body.trailers()
    }

    fn ends_after(&self, n: usize) -> bool {
        if self.cursor < self.recorded.len() {
            return n == self.recorded.len() - self.cursor && self.body.data().is_empty() && self.body.ends_after(0);
        }
        self.body.ends_after(n)
    }
}

/// Reads and drops the rest of a body, up to `limit` bytes; `true` when its end was reached.
///
/// An answer given before the end of the request would otherwise be lost: closing a socket with unread data resets it.
pub async fn drain(source: &mut impl Source, limit: usize) -> bool {
    let mut seen = 0;
    poll_fn(|cx| {
        loop {
            match ready!(source.poll_next(cx)) {
                Ok(Step::End) => return Poll::Ready(true),
                Ok(Step::Data) => {
                    let n = source.data().len();
                    source.advance(n);
                    seen += n;
                    if seen > limit {
                        return Poll::Ready(false);
                    }
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    })
    .await
}
