//! Where a message's body goes.

use super::body::Source;
use super::wire::{HIGH_WATER, Writer};
use crate::http::convert;
use crate::http1::{BodyEncoder, EncodeError};
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll, ready};
use thiserror::Error;

/// Why a body could not be sent on.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The transport failed.
    #[error("the connection broke while sending: {0}")]
    Io(#[from] io::Error),
    /// The body is not as long as its head said.
    #[error("the body does not keep to its announced length: {0}")]
    Length(#[from] EncodeError),
    /// The trailers cannot be said in HTTP/2.
    #[error("the trailers cannot be sent: {0}")]
    Trailers(#[from] convert::ConvertError),
    /// The peer reset the HTTP/2 stream, or its connection failed.
    #[error("the stream was reset while sending: {0}")]
    Http2(#[from] h2::Error),
    /// The peer reset the HTTP/2 stream with this reason.
    #[error("the peer reset the stream: {0}")]
    Reset(h2::Reason),
}

/// The sending side of a message whose head has been sent or buffered.
pub enum Sink<'a> {
    /// The head said that no body follows.
    Closed,
    /// Framed by HTTP/1.1.
    Http1 {
        /// Heads and body leave through one buffer.
        writer: Writer<'a>,
        /// Adds the framing.
        encoder: BodyEncoder,
    },
    /// A stream of DATA frames.
    Http2(h2::SendStream<Bytes>),
}

impl Sink<'_> {
    /// Takes some of the data at hand; pending while the peer reads too slowly.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, source: &mut impl Source) -> Poll<Result<(), WriteError>> {
        match self {
            Self::Closed => {
                let n = source.data().len();
                source.advance(n);
            }
            Self::Http1 { writer, encoder } => {
                if writer.is_full() {
                    ready!(writer.poll_flush(cx))?;
                }
                let n = source.data().len().min(HIGH_WATER);
                encoder.data(&source.data()[..n], writer.buffer())?;
                source.advance(n);
            }
            Self::Http2(stream) => {
                stream.reserve_capacity(source.data().len());
                // `poll_capacity` answers only when the window has grown, so what is there already is asked for first.
                while stream.capacity() == 0 {
                    match ready!(stream.poll_capacity(cx)) {
                        Some(granted) => granted?,
                        None => return Poll::Ready(Err(reset_of(stream, cx))),
                    };
                }
                let n = stream.capacity().min(source.data().len());
                let last = source.ends_after(n) && source.trailers().is_none();
                stream.send_data(source.take(n), last)?;
                if last {
                    *self = Self::Closed;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the message; what is buffered still has to be flushed.
    pub fn end(&mut self, source: &impl Source) -> Result<(), WriteError> {
        match self {
            Self::Closed => {}
            Self::Http1 { writer, encoder } => match source.trailers() {
                Some(trailers) => encoder.trailers(trailers, writer.buffer())?,
                None => encoder.end(writer.buffer())?,
            },
            Self::Http2(stream) => {
                match source.trailers() {
                    Some(trailers) => stream.send_trailers(convert::trailers_to_h2(trailers)?)?,
                    None => stream.send_data(Bytes::new(), true)?,
                }
                *self = Self::Closed;
            }
        }
        Ok(())
    }

    /// Sends everything buffered. HTTP/2 connections flush themselves.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        match self {
            Self::Http1 { writer, .. } => Poll::Ready(Ok(ready!(writer.poll_flush(cx))?)),
            Self::Closed | Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the sending direction of a connection that has become a tunnel.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        match self {
            Self::Http1 { writer, .. } => Poll::Ready(Ok(ready!(writer.poll_shutdown(cx))?)),
            Self::Closed | Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Tells the peer that the rest will never come.
    ///
    /// On HTTP/1.1 the connection has to be closed by its owner; here only HTTP/2 has a word for it.
    pub fn abort(&mut self, reason: h2::Reason) {
        if let Self::Http2(stream) = self {
            stream.send_reset(reason);
        }
    }

    /// Resolves when the peer is no longer interested in what is sent; never on HTTP/1.1, where that cannot be told from
    /// a half-close.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<h2::Reason> {
        match self {
            Self::Http2(stream) => match ready!(stream.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(reason),
                Err(_) => Poll::Ready(h2::Reason::CANCEL),
            },
            _ => Poll::Pending,
        }
    }
}

fn reset_of(stream: &mut h2::SendStream<Bytes>, cx: &mut Context<'_>) -> WriteError {
    match stream.poll_reset(cx) {
        Poll::Ready(Ok(reason)) => WriteError::Reset(reason),
        Poll::Ready(Err(error)) => WriteError::Http2(error),
        Poll::Pending => WriteError::Reset(h2::Reason::CANCEL),
    }
}
