//! Opaque bytes: relayed both ways with half-close, counted, and cut when nothing moves for too long.

use crate::observe;
use crate::request::Downstream;
use crate::snapshot::TcpChain;
use crate::stream::prefixed::Prefixed;
use crate::stream::{BoxIo, Io};
use crate::upstream::pool::{ConnectError, Target, connect as connect_to};
use crate::upstream::{Outcome, Protocol, Tried};
use crate::worker::Worker;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::debug;

/// Connects to one of a chain's clusters, trying other endpoints as often as the chain allows. `None` when none can be
/// reached; the log says why.
pub async fn connect(worker: &Rc<Worker>, chain: &TcpChain, downstream: &Downstream) -> Option<BoxIo> {
    let name = chain.pick(worker.random());
    let Some(cluster) = worker.store().cluster(name) else {
        debug!(cluster = %name, "cluster is not configured; connection closed");
        return None;
    };
    let mut tried = Tried::new();
    for _ in 0..chain.max_connect_attempts.max(1) {
        let target = match Target::pick(&cluster, downstream, &tried, worker.random64()) {
            Ok(target) => target,
            Err(error) => {
                debug!(cluster = %name, %error, "connection closed");
                return None;
            }
        };
        match connect_to(worker.clone(), downstream.clone(), target.clone(), Protocol::Tcp).await {
            Ok(connected) => return Some(Box::new(Held { io: connected.io, _permit: connected.permit })),
            Err(error) => {
                debug!(cluster = %name, address = %target.address(), %error, "cannot connect");
                if let Some(endpoint) = target.endpoint() {
                    endpoint.finish(Outcome::ConnectFailure, Duration::ZERO, Instant::now());
                    tried.push(endpoint.id());
                }
                if matches!(error, ConnectError::Overflow) {
                    return None;
                }
            }
        }
    }
    None
}

/// Relays a connection that the mesh knows nothing about to where it was going.
pub async fn pass_through(worker: &Rc<Worker>, io: BoxIo, downstream: &Downstream) {
    match worker.network.connect(downstream.destination).await {
        Ok(upstream) => count(worker, downstream, relay(io, upstream, None)).await,
        Err(error) => debug!(destination = %downstream.destination, %error, "cannot connect"),
    }
}

/// Relays a chain's connection, of which both sides may have said something already.
pub async fn relay_from(
    worker: &Rc<Worker>,
    chain: &TcpChain,
    io: BoxIo,
    from_client: Vec<u8>,
    upstream: BoxIo,
    from_server: Vec<u8>,
    downstream: &Downstream,
) {
    let downstream_io = Box::new(Prefixed::new(io, from_client));
    let upstream_io = Box::new(Prefixed::new(upstream, from_server));
    count(worker, downstream, relay(downstream_io, upstream_io, chain.idle_timeout)).await;
}

async fn count(worker: &Rc<Worker>, downstream: &Downstream, relay: impl Future<Output = (Relayed, Ended)>) {
    let _busy = worker.drain.busy();
    let metrics = worker.shared.metrics.connection(downstream.direction, observe::Protocol::Tcp, downstream.tls());
    let _open = metrics.open();
    let (relayed, ended) = relay.await;
    metrics.received(relayed.received);
    metrics.sent(relayed.sent);
    if !matches!(ended, Ended::Closed) {
        debug!(destination = %downstream.destination, ?ended, "relay ended early");
    }
}

/// A transport that holds its permit.
struct Held {
    io: BoxIo,
    _permit: crate::upstream::breaker::Permit,
}

/// What went through a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the side that connected.
    pub received: u64,
    /// Bytes toward the side that connected.
    pub sent: u64,
}

/// How a relay ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides have said all they had to say.
    Closed,
    /// One side broke.
    Broken(io::Error),
    /// Nothing moved for the idle timeout.
    Idle,
}

/// Size of the copy buffer of each direction.
const COPY_BUFFER: usize = 8 * 1024;

/// Relays between two transports until both directions have ended.
///
/// An end of one direction is passed on as a half-close, and the other goes on. `idle` is the longest time without a
/// byte in either direction; `None` waits for ever.
pub async fn relay(downstream: BoxIo, upstream: BoxIo, idle: Option<Duration>) -> (Relayed, Ended) {
    let activity = Rc::new(Activity { last: Cell::new(Instant::now()), received: Cell::new(0), sent: Cell::new(0) });
    let mut downstream = Counted { io: downstream, activity: activity.clone(), way: Way::Received };
    let mut upstream = Counted { io: upstream, activity: activity.clone(), way: Way::Sent };
    let copy = tokio::io::copy_bidirectional_with_sizes(&mut downstream, &mut upstream, COPY_BUFFER, COPY_BUFFER);
    let ended = tokio::select! {
        result = copy => result.map_or_else(Ended::Broken, |_| Ended::Closed),
        () = idle_for(&activity, idle) => Ended::Idle,
    };
    (Relayed { received: activity.received.get(), sent: activity.sent.get() }, ended)
}

/// Resolves when nothing has moved for `idle`. One timer per connection, re-armed only when it rings.
async fn idle_for(activity: &Activity, idle: Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    loop {
        let due = activity.last.get() + idle;
        if due <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

struct Activity {
    last: Cell<Instant>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

#[derive(Clone, Copy)]
enum Way {
    Received,
    Sent,
}

/// Counts what is read from a side.
struct Counted {
    io: BoxIo,
    activity: Rc<Activity>,
    way: Way,
}

impl Io for Held {}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let n = (buf.filled().len() - before) as u64;
        let counter = match self.way {
            Way::Received => &self.activity.received,
            Way::Sent => &self.activity.sent,
        };
        counter.set(counter.get() + n);
        self.activity.last.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::LocalSet;

    #[tokio::test(start_paused = true)]
    async fn passes_a_half_close_on_and_keeps_the_other_direction() {
        let (mut client, near) = duplex(64);
        let (far, mut server) = duplex(64);
        let set = LocalSet::new();
        let relayed = set.spawn_local(relay(Box::new(near), Box::new(far), None));
        set.run_until(async move {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = String::new();
            server.read_to_string(&mut question).await.unwrap();
            assert_eq!(question, "question");
            server.write_all(b"a late answer").await.unwrap();
            drop(server);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "a late answer");
            let (relayed, ended) = relayed.await.unwrap();
            assert!(matches!(ended, Ended::Closed), "{ended:?}");
            assert_eq!(relayed, Relayed { received: 8, sent: 13 });
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn is_cut_only_after_the_idle_timeout_without_a_byte() {
        let (mut client, near) = duplex(64);
        let (far, _server) = duplex(64);
        let set = LocalSet::new();
        let started = Instant::now();
        let relayed = set.spawn_local(relay(Box::new(near), Box::new(far), Some(Duration::from_secs(10))));
        set.run_until(async move {
            tokio::time::sleep(Duration::from_secs(6)).await;
            client.write_all(b"x").await.unwrap();
            let (_, ended) = relayed.await.unwrap();
            assert!(matches!(ended, Ended::Idle), "{ended:?}");
            assert!(started.elapsed() >= Duration::from_secs(16), "{:?}", started.elapsed());
        })
        .await;
    }
}
