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
use tokio::sync::Notify;
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

/// A transport that carries HTTP/2.
pub struct Guarded<S = BoxIo> {
    io: S,
    received: Scanner,
    sent: Scanner,
    credit: u32,
    refilled: Instant,
    progress: Rc<Progress>,
}

/// What can be seen of a guarded connection from outside.
#[derive(Debug, Default)]
pub struct Progress {
    written: Cell<u64>,
    settings: Cell<bool>,
    on_settings: Notify,
}

impl Progress {
    /// Bytes written so far: they tell a slow reader from one that has stopped.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Resolves when the peer's first SETTINGS have been read, or will never be.
    pub async fn settings(&self) {
        while !self.settings.get() {
            self.on_settings.notified().await;
        }
    }

    /// The peer's SETTINGS have come, or the connection has ended without.
    pub fn end_wait(&self) {
        self.settings.set(true);
        self.on_settings.notify_waiters();
    }
}

impl<S> Guarded<S> {
    /// The server's end: `io` gives the client's preface first.
    pub fn server(io: S) -> Self {
        Self::new(io, Scanner { skip: PREFACE, ..Scanner::default() }, Scanner::default())
    }

    /// The client's end: it sends the preface.
    pub fn client(io: S) -> Self {
        Self::new(io, Scanner::default(), Scanner { skip: PREFACE, ..Scanner::default() })
    }

    fn new(io: S, received: Scanner, sent: Scanner) -> Self {
        Self { io, received, sent, credit: BURST, refilled: Instant::now(), progress: Rc::default() }
    }

    /// What can be seen from outside.
    pub fn progress(&self) -> Rc<Progress> {
        self.progress.clone()
    }

    /// Counts the first `n` of these bytes as written.
    fn wrote<'b>(&mut self, slices: impl IntoIterator<Item = &'b [u8]>, n: usize) {
        self.progress.written.set(self.progress.written.get() + n as u64);
        let (mut left, mut earned) = (n, 0);
        for slice in slices {
            let taken = left.min(slice.len());
            self.sent
                .scan(&slice[..taken], |kind| earned += PER_FRAME_SENT * u32::from(matches!(kind, DATA | HEADERS)));
            left -= taken;
        }
        self.credit = (self.credit + earned).min(BURST);
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
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let (mut control, mut settings) = (0, false);
        self.received.scan(&buf.filled()[before..], |kind| {
            control += u32::from(!matches!(kind, DATA | HEADERS | CONTINUATION));
            settings |= kind == SETTINGS;
        });
        if settings && !self.progress.settings.get() {
            // Whoever waits looks after the codec has had these bytes: all on a connection are tasks of one thread.
            self.progress.end_wait();
        }
        Poll::Ready(self.spend(control))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.wrote([buf], n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        self.wrote(slices.iter().map(|slice| &**slice), n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
