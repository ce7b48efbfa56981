//! A transport of which somebody has read the beginning.

use super::{BoxIo, Delivery, Io};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport with bytes that were already read from it.
pub struct Prefixed {
    io: BoxIo,
    received: Vec<u8>,
    start: usize,
}

impl Prefixed {
    /// Gives `received` out before anything more is read.
    pub fn new(io: BoxIo, received: Vec<u8>) -> Self {
        Self { io, received, start: 0 }
    }
}

impl Io for Prefixed {
    fn delivery(&self) -> Option<&dyn Delivery> {
        self.io.delivery()
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if this.start < this.received.len() {
            let n = buf.remaining().min(this.received.len() - this.start);
            buf.put_slice(&this.received[this.start..this.start + n]);
            this.start += n;
            if this.start == this.received.len() {
                this.received = Vec::new();
                this.start = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
