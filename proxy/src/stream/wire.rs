//! A transport with its buffers.

use super::{BoxIo, spare};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Room that a read finds at least; a buffer that holds part of a large head grows by it.
const MIN_READ: usize = 4 * 1024;

/// Unsent bytes above which a sink counts as full and its source is paused.
pub const HIGH_WATER: usize = 64 * 1024;

/// One HTTP/1.1 connection's transport, read buffer and write buffer.
///
/// The two directions are used at the same time by one task: [`Wire::split`] lends them out.
pub struct Wire {
    io: RefCell<BoxIo>,
    input: Input,
    output: Output,
}

#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    start: usize,
    eof: bool,
}

#[derive(Default)]
struct Output {
    buffer: Vec<u8>,
    start: usize,
    needs_flush: bool,
    /// Bytes the transport has accepted, ever.
    accepted: u64,
}

/// A point in what is sent; see [`Wire::was_taken_since`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    accepted: u64,
    sent: Option<u64>,
}

/// How long the peer's verdict on bytes sent to a broken connection is waited for: its reset is one round trip away.
const VERDICT: Duration = Duration::from_millis(50);

/// How often it is looked for.
const VERDICT_STEP: Duration = Duration::from_millis(2);

impl Wire {
    /// Wraps a transport; `received` are bytes somebody (protocol detection) has already read from it.
    pub fn new(io: BoxIo, received: Vec<u8>) -> Self {
        Self {
            io: RefCell::new(io),
            input: Input { buffer: received, start: 0, eof: false },
            output: Output::default(),
        }
    }

    /// Lends both directions out, to be polled by the same task.
    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        (Reader { io: &self.io, input: &mut self.input }, Writer { io: &self.io, output: &mut self.output })
    }

    /// The reading direction alone.
    pub fn reader(&mut self) -> Reader<'_> {
        self.split().0
    }

    /// The writing direction alone.
    pub fn writer(&mut self) -> Writer<'_> {
        self.split().1
    }

    /// True when nothing arrived that nobody asked for, and the peer has not closed: the connection may carry another
    /// request. Costs no system call while the socket is known to be quiet.
    pub fn is_quiet(&mut self) -> bool {
        if self.input.eof || !self.reader().bytes().is_empty() {
            return false;
        }
        let mut byte = [0u8; 1];
        let mut probe = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let io = self.io.get_mut();
        Pin::new(io).poll_read(&mut cx, &mut probe).is_pending()
    }

    /// The point up to which has been sent.
    pub fn mark(&self) -> Mark {
        Mark { accepted: self.output.accepted, sent: self.io.borrow().delivery().map(|delivery| delivery.sent()) }
    }

    /// On a connection that has broken: whether the peer can have taken any byte sent since `mark`. `true` in doubt.
    pub async fn was_taken_since(&self, mark: Mark) -> bool {
        if self.output.accepted == mark.accepted {
            return false;
        }
        let Some(sent) = mark.sent else { return true };
        let started = Instant::now();
        loop {
            let taken = self.io.borrow().delivery().and_then(|delivery| delivery.taken());
            match taken {
                Some(taken) if taken.bytes <= sent && taken.is_final => return false,
                // Closed by the peer, and nothing acknowledged yet: either comes within a round trip.
                Some(taken) if taken.bytes <= sent && started.elapsed() < VERDICT => {
                    tokio::time::sleep(VERDICT_STEP).await;
                }
                Some(_) | None => return true,
            }
        }
    }

    /// Gives empty buffers back while the connection idles.
    pub fn shrink(&mut self) {
        self.input.shrink();
        if self.output.buffer.is_empty() {
            spare::give_back(&mut self.output.buffer);
        }
    }

    /// Closes the sending direction, once everything written has gone out.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.writer().flush().await?;
        let io = self.io.get_mut();
        poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await
    }
}

impl Input {
    fn shrink(&mut self) {
        if self.start == self.buffer.len() {
            self.start = 0;
            spare::give_back(&mut self.buffer);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        spare::give_back(&mut self.input.buffer);
        spare::give_back(&mut self.output.buffer);
    }
}

/// The reading direction of a [`Wire`].
pub struct Reader<'a> {
    io: &'a RefCell<BoxIo>,
    input: &'a mut Input,
}

impl Reader<'_> {
    /// The same direction for a shorter time.
    pub fn reborrow(&mut self) -> Reader<'_> {
        Reader { io: self.io, input: self.input }
    }

    /// What has been received and not yet consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.input.buffer[self.input.start..]
    }

    /// Forgets the first `n` received bytes.
    pub fn consume(&mut self, n: usize) {
        self.input.start += n;
        debug_assert!(self.input.start <= self.input.buffer.len());
        if self.input.start == self.input.buffer.len() {
            self.input.start = 0;
            self.input.buffer.clear();
        }
    }

    /// Whether the peer has closed its sending direction.
    pub fn is_eof(&self) -> bool {
        self.input.eof
    }

    /// Receives more; `false` when the peer has closed its sending direction.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let input = &mut *self.input;
        if input.eof {
            return Poll::Ready(Ok(false));
        }
        if input.start > 0 {
            // What is left is the beginning of something incomplete, so this moves few bytes.
            input.buffer.drain(..input.start);
            input.start = 0;
        }
        spare::ensure(&mut input.buffer);
        input.buffer.reserve(MIN_READ);
        let filled = input.buffer.len();
        let mut chunk = ReadBuf::uninit(input.buffer.spare_capacity_mut());
        let Poll::Ready(result) = Pin::new(&mut **self.io.borrow_mut()).poll_read(cx, &mut chunk) else {
            // Nothing may come for hours.
            input.shrink();
            return Poll::Pending;
        };
        let n = chunk.filled().len();
        result?;
        // SAFETY: `chunk` covers the spare capacity right after `filled`, and its first `n` bytes are initialised.
        #[allow(unsafe_code)]
        unsafe {
            input.buffer.set_len(filled + n);
        }
        input.eof = n == 0;
        Poll::Ready(Ok(n > 0))
    }

    /// Receives more; `false` when the peer has closed its sending direction.
    pub async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }
}

/// The writing direction of a [`Wire`].
pub struct Writer<'a> {
    io: &'a RefCell<BoxIo>,
    output: &'a mut Output,
}

impl Writer<'_> {
    /// The same direction for a shorter time.
    pub fn reborrow(&mut self) -> Writer<'_> {
        Writer { io: self.io, output: self.output }
    }

    /// The buffer the next flush sends; heads and body frames are appended to it, so that they leave in one write.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        spare::ensure(&mut self.output.buffer);
        &mut self.output.buffer
    }

    /// Whether the source should pause until some of the buffer has gone out.
    pub fn is_full(&self) -> bool {
        self.output.buffer.len() - self.output.start >= HIGH_WATER
    }

    /// Sends everything buffered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let output = &mut *self.output;
        let mut io = self.io.borrow_mut();
        while output.start < output.buffer.len() {
            let n = ready!(Pin::new(&mut **io).poll_write(cx, &output.buffer[output.start..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.start += n;
            output.accepted += n as u64;
            output.needs_flush = true;
        }
        output.buffer.clear();
        output.start = 0;
        if output.needs_flush {
            ready!(Pin::new(&mut **io).poll_flush(cx))?;
            output.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends everything buffered.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Closes the sending direction, once everything buffered has gone out.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut **self.io.borrow_mut()).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("received", &(self.input.buffer.len() - self.input.start))
            .field("unsent", &(self.output.buffer.len() - self.output.start))
            .finish_non_exhaustive()
    }
}
