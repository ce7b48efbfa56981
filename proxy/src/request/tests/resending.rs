//! Requests on connections that come to their end at the very moment they are used.

use super::sim::{APP, Config, Sim, canned, read_until, serve, with_proxy};
use crate::observe::Direction;
use crate::stream::{BoxIo, Delivery, Io, Taken};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// How the kernel behaves once the peer is gone.
#[derive(Clone, Copy, PartialEq)]
enum Breaks {
    /// Its reset has arrived: writing fails at once.
    BeforeTheWrite,
    /// It had closed, so it resets what it is sent without taking it.
    Untaken,
    /// It took what it was sent, and broke before it answered.
    Taken,
}

/// A connection that carries one request, and breaks under the second.
struct OneRequest {
    io: DuplexStream,
    breaks: Breaks,
    served: bool,
    sent: u64,
    sent_when_broken: Option<u64>,
}

fn one_request(breaks: Breaks) -> impl Fn(DuplexStream) -> BoxIo {
    move |io| Box::new(OneRequest { io, breaks, served: false, sent: 0, sent_when_broken: None })
}

impl Io for OneRequest {
    fn delivery(&self) -> Option<&dyn Delivery> {
        (self.breaks != Breaks::BeforeTheWrite).then_some(self)
    }
}

impl Delivery for OneRequest {
    fn sent(&self) -> u64 {
        self.sent
    }

    fn taken(&self) -> Option<Taken> {
        let bytes = self.sent_when_broken.filter(|_| self.breaks == Breaks::Untaken).unwrap_or(self.sent);
        Some(Taken { bytes, is_final: true })
    }
}

impl AsyncRead for OneRequest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.sent_when_broken.is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.served |= read.is_ready();
        read
    }
}

impl AsyncWrite for OneRequest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.served {
            let sent = self.sent;
            self.sent_when_broken.get_or_insert(sent);
            if self.breaks == Breaks::BeforeTheWrite {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.sent += buf.len() as u64;
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = written {
            self.sent += n as u64;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What the application saw of a GET and then a POST, over connections that break that way, and the answer to the POST.
async fn post_after_get(sim: &Sim, breaks: Breaks) -> (String, String) {
    let seen = serve(sim, OK);
    sim.servers.disturb(one_request(breaks));
    sim.ask("GET /first HTTP/1.1\r\nHost: a\r\n\r\n", "ok").await;
    seen.borrow_mut().clear();
    let answer = sim.talk(POST, |text| text.ends_with("ok") || text.ends_with("reset\n")).await;
    let seen = seen.borrow().clone();
    (seen, answer)
}

#[tokio::test(start_paused = true)]
async fn a_post_of_which_no_byte_went_out_is_sent_again() {
    with_proxy(Config::default(), |sim| async move {
        let (seen, answer) = post_after_get(&sim, Breaks::BeforeTheWrite).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(seen, POST);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_post_of_which_no_byte_was_taken_is_sent_again() {
    with_proxy(Config::default(), |sim| async move {
        let (seen, answer) = post_after_get(&sim, Breaks::Untaken).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(seen, POST);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_taken_is_not_sent_again() {
    with_proxy(Config::default(), |sim| async move {
        let (seen, answer) = post_after_get(&sim, Breaks::Taken).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-weft-flag: UC"), "{answer}");
        assert_eq!(seen, "");
    })
    .await;
}

/// The inbound side says so, and unless it drains only then, when its application cannot have seen the request.
#[tokio::test(start_paused = true)]
async fn the_undelivered_mark_is_set_only_where_no_byte_was_taken() {
    for (breaks, marked) in [(Breaks::BeforeTheWrite, true), (Breaks::Untaken, true), (Breaks::Taken, false)] {
        with_proxy(Config::default(), |sim| async move {
            sim.servers.add(APP, |io| canned(io, Rc::default(), OK));
            sim.servers.disturb(one_request(breaks));
            sim.ask("GET /first HTTP/1.1\r\nHost: a\r\n\r\n", "ok").await;
            // The new connection fails as the old one did: there is no application any more.
            let broken = Rc::new(Cell::new(false));
            let once = broken.clone();
            sim.servers.disturb(move |io| {
                once.set(true);
                Box::new(OneRequest { io, breaks, served: true, sent: 0, sent_when_broken: None })
            });
            let mut client = sim.connect_as(Direction::Inbound);
            client.write_all(POST.as_bytes()).await.unwrap();
            let answer = read_until(&mut client, |text| text.ends_with("reset\n")).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert_eq!(answer.contains("x-weft-undelivered: 1"), marked, "{answer}");
            assert_eq!(broken.get(), marked, "tried again where it must not be, or not where it should");
        })
        .await;
    }
}
