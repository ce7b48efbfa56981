//! The way back to whoever asked: a response's head and the sink for its body, on either codec.

use crate::http::{Framing, ResponseHead, Version, convert};
use crate::http1::{BodyEncoder, encode_response, strip_hop_by_hop};
use crate::stream::sink::{Sink, WriteError};
use crate::stream::wire::Writer;
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll};

/// Where the response to one request goes.
pub enum Reply<'a> {
    /// The next response on an HTTP/1.1 connection.
    Http1(Http1Reply<'a>),
    /// The response of an HTTP/2 stream.
    Http2(h2::server::SendResponse<Bytes>),
}

/// The response to one request on an HTTP/1.1 connection.
pub struct Http1Reply<'a> {
    /// The connection's sending direction.
    pub writer: Writer<'a>,
    /// The version the client speaks.
    pub version: Version,
    /// Whether the request was a HEAD: its response has a length and no body.
    pub is_head: bool,
    /// Whether the connection can carry another request. Starts as what the request allows; a response whose end only the
    /// close of the connection can mark, or a drain, clears it.
    pub keep_alive: bool,
    /// Whether the client gets trailers (`enable_trailers`).
    pub trailers: bool,
}

impl<'a> Reply<'a> {
    /// Sends an interim response (RFC 9110 §15.2); HTTP/1.0 clients do not know them, and the h2 crate cannot send them.
    pub fn interim(&mut self, head: &ResponseHead) {
        if let Self::Http1(reply) = self
            && reply.version == Version::Http11
        {
            encode_response(head, Framing::None, reply.writer.buffer());
        }
    }

    /// Sends interim responses that are still buffered.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self {
            Self::Http1(reply) => match reply.writer.poll_flush(cx) {
                Poll::Ready(result) => result,
                Poll::Pending => Ok(()),
            },
            Self::Http2(_) => Ok(()),
        }
    }

    /// Whether the client has taken its request back; HTTP/1.1 has no way to say so but closing.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(respond) => respond.poll_reset(cx).is_ready(),
        }
    }

    /// The connection cannot carry another request: part of this one was not read. Says so in the head that is yet to come.
    pub fn close(&mut self) {
        if let Self::Http1(reply) = self {
            reply.keep_alive = false;
        }
    }

    /// Sends the final head and gives the sink for a body that arrives framed as `framing`.
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn start<'s>(
        &'s mut self,
        head: &mut ResponseHead,
        framing: Framing,
        is_tunnel: bool,
    ) -> Result<Sink<'s>, WriteError> {
        match self {
            Self::Http1(reply) => Ok(reply.start(head, framing, is_tunnel)),
            Self::Http2(respond) => {
                strip_hop_by_hop(&mut head.fields, false);
                let ends = framing.is_empty() && !is_tunnel;
                let stream = respond.send_response(convert::response_to_h2(head)?, ends)?;
                Ok(if ends { Sink::Closed } else { Sink::Http2(stream) })
            }
        }
    }
}

impl<'a> Http1Reply<'a> {
    /// The answer to what was no request: the connection ends with it.
    pub fn last(writer: Writer<'a>) -> Self {
        Self { writer, version: Version::Http11, is_head: false, keep_alive: false, trailers: false }
    }
}

impl Http1Reply<'_> {
    fn start(&mut self, head: &mut ResponseHead, framing: Framing, is_tunnel: bool) -> Sink<'_> {
        let framing = match framing {
            Framing::UntilClose | Framing::Chunked if !is_tunnel && !self.is_head => match self.version {
                Version::Http10 => Framing::UntilClose,
                _ => Framing::Chunked,
            },
            other => other,
        };
        let keep_upgrade = is_tunnel && head.status() == 101;
        strip_hop_by_hop(&mut head.fields, keep_upgrade);
        let until_close = matches!(framing, Framing::UntilClose) && !self.is_head;
        self.keep_alive &= !until_close;
        if !is_tunnel {
            if !self.keep_alive {
                head.fields.insert(b"connection", b"close");
            } else if self.version == Version::Http10 {
                head.fields.insert(b"connection", b"keep-alive");
            }
        }
        encode_response(head, framing, self.writer.buffer());
        let Self { writer, .. } = self;
        let encoder = BodyEncoder::new(match framing {
            _ if is_tunnel => Framing::UntilClose,
            _ if self.is_head => Framing::None,
            framing => framing,
        })
        .with_trailers(self.trailers);
        Sink::Http1 { writer: writer.reborrow(), encoder }
    }
}
