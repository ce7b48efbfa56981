//! A connected TCP socket that knows what its peer has taken.

use crate::stream::{Delivery, Io, Taken};
use nix::libc;
use std::cell::Cell;
use std::io;
use std::mem::size_of_val;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection of our own making.
///
/// An application that closes an idle connection while a request is on its way never sees that request: its kernel answers with a
/// reset. From here that looks like an application that failed over the request, but for what was acknowledged.
pub(super) struct ConnectedSocket {
    stream: TcpStream,
    sent: u64,
    end: Cell<End>,
    /// What the kernel counts as acknowledged on a new connection: the SYN.
    acknowledged_before: Option<u64>,
}

/// What the peer did first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// It closed, and its FIN acknowledged all that it had received until then.
    Closed,
    /// It reset the connection, which acknowledges nothing: it may have read what came just before.
    Reset,
}

impl ConnectedSocket {
    /// Nothing must have been sent on `stream`.
    pub(super) fn new(stream: TcpStream) -> Self {
        let acknowledged_before = acknowledged(&stream).map(|(bytes, _)| bytes);
        Self { stream, sent: 0, end: Cell::new(End::Open), acknowledged_before }
    }

    fn ended(&self, end: End) {
        if self.end.get() == End::Open {
            self.end.set(end);
        }
    }

    fn count_written(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        match &written {
            Ok(n) => self.sent += *n as u64,
            // This is how the kernel reports a reset that came after the peer's FIN.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => self.ended(End::Reset),
        }
        written
    }
}

impl Io for ConnectedSocket {
    fn delivery(&self) -> Option<&dyn Delivery> {
        Some(self)
    }
}

impl Delivery for ConnectedSocket {
    fn sent(&self) -> u64 {
        self.sent
    }

    fn taken(&self) -> Option<Taken> {
        let before = self.acknowledged_before?;
        // TLS may have ended without reading as far as the FIN.
        if self.end.get() == End::Open && matches!(self.stream.try_read(&mut [0]), Ok(0)) {
            self.end.set(End::Closed);
        }
        if self.end.get() != End::Closed {
            return None;
        }
        let (bytes, is_final) = acknowledged(&self.stream)?;
        Some(Taken { bytes: bytes.saturating_sub(before), is_final })
    }
}

impl AsyncRead for ConnectedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => self.ended(End::Closed),
            Ok(()) => {}
            Err(_) => self.ended(End::Reset),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ConnectedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.count_written(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(self.count_written(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// `tcpi_bytes_acked` and whether the state is TCP_CLOSE, from the kernel's `struct tcp_info` (linux/tcp.h). The C libraries' own
/// declarations end before the field, which the kernel has had since 4.2; a shorter answer is none.
fn acknowledged(stream: &TcpStream) -> Option<(u64, bool)> {
    const BYTES_ACKED: usize = 120 / 8;
    const TCP_CLOSE: u8 = 7;
    let mut info = [0u64; BYTES_ACKED + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    // SAFETY: `info` is valid for writes of `length` bytes, of which the kernel writes no more, and any bytes are valid u64s.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 || (length as usize) < size_of_val(&info) {
        return None;
    }
    Some((info[BYTES_ACKED], info[0].to_ne_bytes()[0] == TCP_CLOSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::wire::{Mark, Wire};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A connection that has served one exchange, and its server's end.
    async fn used() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut wire = Wire::new(Box::new(ConnectedSocket::new(client)), Vec::new());
        send(&mut wire).await;
        server.read_exact(&mut [0; 7]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        let mut reader = wire.reader();
        while reader.bytes().len() < 6 {
            reader.fill().await.unwrap();
        }
        reader.consume(6);
        (wire, server)
    }

    async fn send(wire: &mut Wire) -> Mark {
        let mark = wire.mark();
        let mut writer = wire.writer();
        writer.buffer().extend_from_slice(b"request");
        writer.flush().await.unwrap();
        mark
    }

    async fn wait_for_end(wire: &mut Wire) {
        while let Ok(true) = wire.reader().fill().await {}
    }

    #[tokio::test]
    async fn what_meets_a_closed_socket_was_not_taken() {
        let (mut wire, server) = used().await;
        drop(server);
        let mark = send(&mut wire).await;
        wait_for_end(&mut wire).await;
        assert!(!wire.was_taken_since(mark).await);
    }

    #[tokio::test]
    async fn what_was_received_and_never_read_counts_as_taken() {
        let (mut wire, server) = used().await;
        let mark = send(&mut wire).await;
        server.readable().await.unwrap();
        drop(server);
        wait_for_end(&mut wire).await;
        assert!(wire.was_taken_since(mark).await);
    }

    #[tokio::test]
    async fn a_half_closed_peer_still_takes_what_it_is_sent() {
        let (mut wire, mut server) = used().await;
        server.shutdown().await.unwrap();
        let mark = send(&mut wire).await;
        wait_for_end(&mut wire).await;
        assert!(wire.was_taken_since(mark).await);
        server.read_exact(&mut [0; 7]).await.unwrap();
    }
}
