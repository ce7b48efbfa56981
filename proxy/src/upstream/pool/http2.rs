//! HTTP/2 connections to an endpoint, shared by all requests of a worker.

use super::connect::{ConnectError, Connected};
use crate::stream::BoxIo;
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

/// Bytes a response stream may be sent ahead of its reader.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A share of an HTTP/2 connection, for one stream.
pub struct Http2Connection {
    /// Opens the stream.
    pub send: SendRequest<Bytes>,
    /// Whether the peer proved who it is.
    pub authenticated: bool,
    use_of: Rc<Use>,
}

impl Http2Connection {
    /// Whether the peer takes extended CONNECT (RFC 8441).
    pub fn allows_upgrade(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }
}

impl Drop for Http2Connection {
    fn drop(&mut self) {
        self.use_of.streams.set(self.use_of.streams.get() - 1);
        self.use_of.idle_since.set(Instant::now());
    }
}

struct Use {
    streams: Cell<usize>,
    idle_since: Cell<Instant>,
}

/// The connection to one endpoint, or the attempt to make it.
#[derive(Default)]
pub(super) struct Slot {
    state: RefCell<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Connecting(Rc<Connecting>),
    Ready(Ready),
}

struct Ready {
    send: SendRequest<Bytes>,
    authenticated: bool,
    idle_timeout: Duration,
    use_of: Rc<Use>,
}

/// An attempt that all who need the connection wait for.
#[derive(Default)]
struct Connecting {
    outcome: OnceCell<Result<(), ConnectError>>,
    done: Notify,
}

impl Slot {
    /// A share of the connection, which `connect` makes if there is none. Several first requests wait for the same attempt;
    /// it goes on when one of them gives up.
    pub(super) async fn lease<F>(
        self: &Rc<Self>,
        idle_timeout: Duration,
        connect: impl FnOnce() -> F,
    ) -> Result<Http2Connection, ConnectError>
    where
        F: Future<Output = Result<Connected, ConnectError>> + 'static,
    {
        let mut connect = Some(connect);
        loop {
            if let Some(lease) = self.ready() {
                return Ok(lease);
            }
            let attempt = match &*self.state.borrow() {
                State::Connecting(attempt) => Some(attempt.clone()),
                State::Empty | State::Ready(_) => None,
            };
            let attempt = match (attempt, connect.take()) {
                (Some(attempt), unused) => {
                    connect = unused;
                    attempt
                }
                // Empty => Connecting
                (None, Some(connect)) => {
                    let attempt = Rc::new(Connecting::default());
                    *self.state.borrow_mut() = State::Connecting(attempt.clone());
                    tokio::task::spawn_local(self.clone().establish(attempt.clone(), idle_timeout, connect()));
                    attempt
                }
                // The connection made for this request was lost before its turn came.
                (None, None) => return Err(ConnectError::Closed),
            };
            let done = attempt.done.notified();
            if attempt.outcome.get().is_none() {
                done.await;
            }
            if let Some(Err(error)) = attempt.outcome.get() {
                return Err(error.clone());
            }
        }
    }

    fn ready(&self) -> Option<Http2Connection> {
        let mut state = self.state.borrow_mut();
        let State::Ready(ready) = &mut *state else { return None };
        let mut send = ready.send.clone();
        if let Poll::Ready(Err(_)) = send.poll_ready(&mut Context::from_waker(Waker::noop())) {
            // Ready => Empty: closed, or the peer said goodbye.
            *state = State::Empty;
            return None;
        }
        ready.use_of.streams.set(ready.use_of.streams.get() + 1);
        Some(Http2Connection { send, authenticated: ready.authenticated, use_of: ready.use_of.clone() })
    }

    /// Connecting => Ready | Empty
    async fn establish<F>(self: Rc<Self>, attempt: Rc<Connecting>, idle_timeout: Duration, connect: F)
    where
        F: Future<Output = Result<Connected, ConnectError>>,
    {
        let outcome = match connect.await {
            Ok(connected) => handshake(connected, idle_timeout).await,
            Err(error) => Err(error),
        };
        let result = match outcome {
            Ok(ready) => {
                *self.state.borrow_mut() = State::Ready(ready);
                Ok(())
            }
            Err(error) => {
                *self.state.borrow_mut() = State::Empty;
                Err(error)
            }
        };
        // Set once: this task is the attempt's only writer.
        let _ = attempt.outcome.set(result);
        attempt.done.notify_waiters();
    }

    /// Lets an idle or unwanted connection go; whether the slot is still needed.
    pub(super) fn sweep(&self, now: Instant, is_current: bool) -> bool {
        match &*self.state.borrow() {
            State::Empty => false,
            State::Connecting(_) => true,
            State::Ready(ready) => {
                let idle_for = now.duration_since(ready.use_of.idle_since.get());
                let idle = ready.use_of.streams.get() == 0 && idle_for >= ready.idle_timeout;
                // Streams that are open keep their connection; it only takes no new ones.
                is_current && !idle
            }
        }
    }
}

async fn handshake(connected: Connected, idle_timeout: Duration) -> Result<Ready, ConnectError> {
    let Connected { io, authenticated, permit, .. } = connected;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_reset_streams(64)
        .enable_push(false)
        .handshake::<BoxIo, Bytes>(io)
        .await
        .map_err(|error| ConnectError::Http2(error.to_string()))?;
    tokio::task::spawn_local(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            debug!(%error, "HTTP/2 connection to an endpoint ended");
        }
    });
    let use_of = Rc::new(Use { streams: Cell::new(0), idle_since: Cell::new(Instant::now()) });
    Ok(Ready { send, authenticated, idle_timeout, use_of })
}
