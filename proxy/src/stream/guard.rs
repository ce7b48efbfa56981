//! Ends HTTP/2 connections of peers that send little but frames which cost them nothing.
//!
//! The h2 crate bounds resets, CONTINUATION and empty DATA frames. PING, SETTINGS, WINDOW_UPDATE and PRIORITY it takes for ever,
//! each for some work of ours and an answer; here they are counted against what is exchanged in earnest.

use super::BoxIo;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Control frames that may come at once, and the most that can be saved up.
const BURST: u32 = 10_000;

/// How many may come per second for ever.
const PER_SECOND: u32 = 100;

/// How many each HEADERS or DATA frame of ours earns: a receiver may answer each with two WINDOW_UPDATEs and a PING.
const PER_FRAME_SENT: u32 = 4;

/// Length of the client's preface, which is no frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

const HEAD: usize = 9;

/// A transport that an HTTP/2 server reads from.
pub struct Guarded<S = BoxIo> {
    io: S,
    received: Scanner,
    sent: Scanner,
    credit: u32,
    refilled: Instant,
    written: Rc<Cell<u64>>,
}

impl<S> Guarded<S> {
    /// `io` gives the client's preface first.
    pub fn new(io: S) -> Self {
        Self {
            io,
            received: Scanner { skip: PREFACE, ..Scanner::default() },
            sent: Scanner::default(),
            credit: BURST,
            refilled: Instant::now(),
            written: Rc::default(),
        }
    }

    /// Bytes written so far, to be looked at from outside: they tell a slow reader from one that has stopped.
    pub fn written(&self) -> Rc<Cell<u64>> {
        self.written.clone()
    }

    fn spend(&mut self, frames: u32) -> io::Result<()> {
        if frames == 0 {
            return Ok(());
        }
        if self.credit < frames {
            let waited = self.refilled.elapsed();
            self.refilled += waited;
            let earned = waited.min(Duration::from_secs(100)).as_millis() as u32 * PER_SECOND / 1000;
            self.credit = (self.credit + earned).min(BURST);
        }
        match self.credit.checked_sub(frames) {
            Some(left) => self.credit = left,
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "too many HTTP/2 control frames")),
        }
        Ok(())
    }
}

/// Finds the heads of frames in a stream of bytes.
#[derive(Default)]
struct Scanner {
    /// Bytes of payload that are left.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Scanner {
    /// Calls `frame` with the type of each frame that begins in `bytes`.
    fn scan(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let n = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            if self.filled == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.filled = 0;
                frame(kind);
            }
        }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let mut control = 0;
        self.received.scan(&buf.filled()[before..], |kind| {
            control += u32::from(!matches!(kind, DATA | HEADERS | CONTINUATION));
        });
        Poll::Ready(self.spend(control))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.written.set(self.written.get() + n as u64);
        let mut earned = 0;
        self.sent.scan(&buf[..n], |kind| earned += PER_FRAME_SENT * u32::from(matches!(kind, DATA | HEADERS)));
        self.credit = (self.credit + earned).min(BURST);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
