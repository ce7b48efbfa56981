//! An encrypted byte stream that writes once per flush.
//!
//! A write to a TCP socket costs several times what encrypting a small message does, and so does a second TLS record for
//! the peer. So small writes gather into one record, and nothing goes to the transport before a flush or a full buffer.

use std::cell::Cell;
use std::io::{self, BufRead as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{Connection, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::explain;
use super::peer::PeerIdentity;
use crate::stream::{Delivery, Io};

/// The most plaintext in a record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// Writes from this size on are encrypted at once instead of being copied together with their neighbours.
const DIRECT: usize = 4 * 1024;

/// Encrypted bytes that may wait for the transport. Above it `poll_write` waits, and so does whoever feeds it.
const BACKLOG: usize = 64 * 1024;

/// Received bytes per system call: two full records. rustls alone reads 4 KiB at a time.
const SCRATCH: usize = 2 * (RECORD + 256);

thread_local! {
    /// Where received bytes land on their way into the session; lent to one stream at a time.
    static READ: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    /// A buffer for small writes, with its allocation; only a stream with something unflushed holds one.
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// TLS over any transport, made by [`connect`](super::connect) and [`accept`](super::accept).
///
/// - `poll_write` gathers; `poll_flush` sends everything gathered with as few writes as the transport takes (one, on a
///   socket with room). At most about 80 KiB are held before `poll_write` waits.
/// - `poll_shutdown` sends close_notify and shuts down the transport's sending side; reading goes on.
/// - The peer's close_notify is an end of stream. An end without it is [`io::ErrorKind::UnexpectedEof`], because what
///   was received may have been cut off; on a connection that never received anything, nothing was, and it is a plain end.
pub struct TlsStream<S> {
    io: S,
    session: Connection,
    /// Received ciphertext that the session has no room for yet.
    inbox: Vec<u8>,
    /// Decrypted bytes waiting in the session.
    readable: usize,
    /// Plaintext of the record in the making.
    record: Vec<u8>,
    received: bool,
    /// The transport has ended.
    ended: bool,
    /// We have sent close_notify.
    closed: bool,
    peer: Option<Arc<PeerIdentity>>,
    sni: Option<Arc<str>>,
}

impl<S> TlsStream<S> {
    /// The application protocol agreed upon.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Who the peer proved to be; `None` if it showed no certificate.
    pub fn peer(&self) -> Option<&Arc<PeerIdentity>> {
        self.peer.as_ref()
    }

    /// The server name sent by us, or by the client.
    pub fn sni(&self) -> Option<&Arc<str>> {
        self.sni.as_ref()
    }

    /// The TLS version agreed upon.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.session.protocol_version()
    }

    /// The transport.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    pub(super) fn new(io: S, mut session: Connection, inbox: Vec<u8>) -> Self {
        session.set_buffer_limit(Some(BACKLOG));
        Self {
            io,
            session,
            inbox,
            readable: 0,
            record: Vec::new(),
            received: false,
            ended: false,
            closed: false,
            peer: None,
            sni: None,
        }
    }

    pub(super) fn session(&self) -> &Connection {
        &self.session
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn established(mut self, peer: Option<PeerIdentity>, sni: Option<Arc<str>>) -> Self {
        self.peer = peer.map(Arc::new);
        self.sni = sni;
        self
    }

    /// Gives received bytes to the session until it has enough to be read; returns how many it took.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, rustls::Error> {
        let mut rest = bytes;
        while !rest.is_empty() && self.readable < RECORD {
            match self.session.read_tls(&mut rest) {
                // After the peer's close_notify nothing counts.
                Ok(0) => return Ok(bytes.len()),
                Ok(_) => {}
                // Its plaintext buffer has room, as `readable` says, so a message is larger than any may be.
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
            self.readable = self.session.process_new_packets()?.plaintext_bytes_to_read();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Encrypts the record in the making, as far as the backlog has room.
    fn seal(&mut self) -> io::Result<()> {
        if self.record.is_empty() {
            return Ok(());
        }
        let taken = self.session.writer().write(&self.record)?;
        if taken < self.record.len() {
            self.record.drain(..taken);
        } else {
            self.record.clear();
            WRITE.set(std::mem::take(&mut self.record));
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Receives once and decrypts. `Ok` says that there is news: plaintext, a handshake step, or the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FillError>> {
        let outcome = if self.inbox.is_empty() {
            let mut scratch = READ.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
            let outcome = match read {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.ended = true;
                    // Tells the session that this was the end; an empty reader cannot fail.
                    let _ = self.session.read_tls(&mut io::empty());
                    self.session.process_new_packets().map(|_| ())
                }
                Poll::Ready(Ok(())) => self.feed(buffer.filled()).map(|taken| {
                    self.inbox.extend_from_slice(&buffer.filled()[taken..]);
                }),
                Poll::Ready(Err(error)) => {
                    READ.set(Some(scratch));
                    return Poll::Ready(Err(FillError::Transport(error)));
                }
                Poll::Pending => {
                    READ.set(Some(scratch));
                    return Poll::Pending;
                }
            };
            READ.set(Some(scratch));
            outcome
        } else {
            let inbox = std::mem::take(&mut self.inbox);
            self.feed(&inbox).map(|taken| {
                if taken < inbox.len() {
                    self.inbox = inbox;
                    self.inbox.drain(..taken);
                }
            })
        };
        // An answer to a KeyUpdate, or the alert that says what was wrong. Whether it can go out now decides nothing.
        if outcome.is_err() || !self.session.is_handshaking() {
            let _ = self.poll_send(cx);
        }
        Poll::Ready(outcome.map_err(FillError::Tls))
    }

    /// Writes out what is encrypted.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            ready!(self.poll_send_once(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut transport = Transport { io: &mut self.io, cx };
        match self.session.write_tls(&mut transport) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Why receiving failed.
#[derive(Debug)]
pub(super) enum FillError {
    Transport(io::Error),
    Tls(rustls::Error),
}

impl From<FillError> for io::Error {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Transport(error) => error,
            FillError::Tls(error) => Self::new(io::ErrorKind::InvalidData, explain(&error)),
        }
    }
}

impl<S: Io> Io for TlsStream<S> {
    fn delivery(&self) -> Option<&dyn Delivery> {
        self.io.delivery()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            // The session first: data may have come together with the Finished, and the transport then stays silent.
            let mut reader = this.session.reader();
            match reader.fill_buf() {
                Ok(chunk) => {
                    let taken = chunk.len().min(buffer.remaining());
                    buffer.put_slice(&chunk[..taken]);
                    reader.consume(taken);
                    this.readable = this.readable.saturating_sub(taken);
                    this.received |= taken > 0;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !this.received => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(this.poll_fill(cx))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let direct = this.record.is_empty() && data.len() >= DIRECT;
            if !direct && this.record.len() < RECORD {
                if this.record.capacity() == 0 {
                    this.record = WRITE.take();
                }
                let taken = data.len().min(RECORD - this.record.len());
                this.record.extend_from_slice(&data[..taken]);
                return Poll::Ready(Ok(taken));
            }
            this.seal()?;
            if this.record.is_empty() && data.len() >= DIRECT {
                let taken = this.session.writer().write(data)?;
                if taken > 0 {
                    return Poll::Ready(Ok(taken));
                }
            }
            if this.record.len() >= RECORD || direct {
                // The backlog is full.
                ready!(this.poll_send_once(cx))?;
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.record.is_empty() || this.session.wants_write() {
            this.seal()?;
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.record.is_empty() {
            ready!(self.as_mut().poll_flush(cx))?;
        }
        if !self.closed {
            self.closed = true;
            self.session.send_close_notify();
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The transport as rustls wants it: blocking calls that would block say so.
struct Transport<'a, 'b, S> {
    io: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: AsyncWrite + Unpin> io::Write for Transport<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests;
