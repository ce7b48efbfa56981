//! HTTP/2 connections to an endpoint, shared by all requests of a worker.
//!
//! A connection takes no more streams at once than its window holds stream windows. So readers that have stalled, however many,
//! never use up the window of somebody who reads: the next stream opens another connection. Only where the cluster's
//! `max_connections` allows none, or none can be made, do streams crowd together.

use super::connect::{ConnectError, Connected};
use super::life::{Life, Limits};
use crate::http1;
use crate::stream::guard::{Guarded, Progress};
use crate::stream::keep_alive::{PING_TIMEOUT, keep_alive};
use crate::upstream::{ClusterConfig, Http2Settings};
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::debug;

/// Bytes a response stream may be sent ahead of its reader, where the cluster says nothing. Envoy's 16 MiB would be held for each
/// download whose reader has stalled.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same for a whole connection: Envoy's.
const CONNECTION_WINDOW: u32 = 24 << 20;

/// Bytes of a request that wait to be sent on a stream.
const SEND_BUFFER: usize = 64 << 10;

/// Streams that we may have to reset for the endpoint's protocol errors, over a connection's life (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 200;

/// How often a request looks for room on connections that others were quicker to fill, before it crowds in somewhere.
const ROUNDS: usize = 4;

/// A share of an HTTP/2 connection, for one stream.
pub struct Http2Connection {
    /// Opens the stream.
    pub send: SendRequest<Bytes>,
    /// Whether the peer proved who it is.
    pub authenticated: bool,
    use_of: Rc<Use>,
}

impl Http2Connection {
    /// Whether the peer takes extended CONNECT (RFC 8441), which its first SETTINGS say.
    pub async fn allows_upgrade(&self) -> bool {
        self.use_of.progress.settings().await;
        self.send.is_extended_connect_protocol_enabled()
    }
}

impl Drop for Http2Connection {
    fn drop(&mut self) {
        self.use_of.streams.set(self.use_of.streams.get() - 1);
        self.use_of.life.rest();
    }
}

struct Use {
    progress: Rc<Progress>,
    streams: Cell<usize>,
    life: Life,
}

/// What a cluster says about its HTTP/2 connections.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    limits: Limits,
    h2: Http2Settings,
}

impl Settings {
    pub(super) fn of(config: &ClusterConfig) -> Self {
        Self { limits: Limits::of(config), h2: config.h2.clone() }
    }

    fn stream_window(&self) -> u32 {
        self.h2.initial_stream_window.unwrap_or(STREAM_WINDOW)
    }

    fn connection_window(&self) -> u32 {
        self.h2.initial_connection_window.unwrap_or(CONNECTION_WINDOW)
    }

    /// Streams that a connection carries at once; see the module's text.
    fn max_streams(&self) -> usize {
        let windows = (self.connection_window() / self.stream_window().max(1)).max(1);
        windows.min(self.h2.max_concurrent_streams.unwrap_or(u32::MAX)).max(1) as usize
    }
}

/// The connections to one endpoint, and the attempts to make others.
#[derive(Default)]
pub(super) struct Slot {
    /// The oldest first. Streams go to the first that has room, so that the others run empty and are let go.
    connections: RefCell<Vec<Connection>>,
    connecting: RefCell<Vec<Rc<Connecting>>>,
}

struct Connection {
    send: SendRequest<Bytes>,
    authenticated: bool,
    max_streams: usize,
    use_of: Rc<Use>,
}

impl Connection {
    fn has_room(&self) -> bool {
        self.use_of.streams.get() < self.max_streams.min(self.send.current_max_send_streams())
    }

    fn lease(&self) -> Http2Connection {
        self.use_of.streams.set(self.use_of.streams.get() + 1);
        self.use_of.life.count_request();
        Http2Connection { send: self.send.clone(), authenticated: self.authenticated, use_of: self.use_of.clone() }
    }

    /// Whether the peer has neither closed it nor said goodbye.
    fn is_open(&mut self) -> bool {
        !matches!(self.send.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }
}

/// An attempt that as many wait for as its connection will have room for.
#[derive(Default)]
struct Connecting {
    waiting: Cell<usize>,
    outcome: OnceCell<Result<(), ConnectError>>,
    done: Notify,
}

impl Slot {
    /// A share of a connection that has room, which `connect` makes if there is none. Several requests wait for the same attempt;
    /// it goes on when one of them gives up.
    pub(super) async fn lease<F>(
        self: &Rc<Self>,
        settings: &Settings,
        connect: impl Fn() -> F,
    ) -> Result<Http2Connection, ConnectError>
    where
        F: Future<Output = Result<Connected, ConnectError>> + 'static,
    {
        for _ in 0..ROUNDS {
            if let Some(lease) = self.with_room() {
                return Ok(lease);
            }
            let attempt = self.attempt_with_room(settings).unwrap_or_else(|| {
                let attempt = Rc::new(Connecting::default());
                self.connecting.borrow_mut().push(attempt.clone());
                tokio::task::spawn_local(self.clone().establish(attempt.clone(), settings.clone(), connect()));
                attempt
            });
            attempt.waiting.set(attempt.waiting.get() + 1);
            let done = attempt.done.notified();
            if attempt.outcome.get().is_none() {
                done.await;
            }
            if let Some(Err(error)) = attempt.outcome.get() {
                return self.crowded().ok_or_else(|| error.clone());
            }
        }
        // The peer closes each connection at once, or takes fewer streams than anybody could know.
        self.with_room().or_else(|| self.crowded()).ok_or(ConnectError::Closed)
    }

    /// An attempt under way whose connection will have room for one more.
    fn attempt_with_room(&self, settings: &Settings) -> Option<Rc<Connecting>> {
        // What the peer allows is known once there was a connection.
        let peer = self.connections.borrow().last().map_or(usize::MAX, |known| known.send.current_max_send_streams());
        let room = settings.max_streams().min(settings.limits.requests()).min(peer.max(1));
        self.connecting.borrow().iter().find(|attempt| attempt.waiting.get() < room).cloned()
    }

    /// A share of the first connection that has room.
    fn with_room(&self) -> Option<Http2Connection> {
        let now = Instant::now();
        let mut connections = self.connections.borrow_mut();
        connections.retain_mut(|connection| !connection.use_of.life.is_spent(now) && connection.is_open());
        connections.iter().find(|connection| connection.has_room()).map(Connection::lease)
    }

    /// A share of the connection with the fewest streams. Those that are too many for the peer wait in the h2 crate.
    fn crowded(&self) -> Option<Http2Connection> {
        let connections = self.connections.borrow();
        connections.iter().min_by_key(|connection| connection.use_of.streams.get()).map(Connection::lease)
    }

    async fn establish<F>(self: Rc<Self>, attempt: Rc<Connecting>, settings: Settings, connect: F)
    where
        F: Future<Output = Result<Connected, ConnectError>>,
    {
        let outcome = match connect.await {
            Ok(connected) => handshake(connected, &settings).await,
            Err(error) => Err(error),
        };
        let result = outcome.map(|connection| self.connections.borrow_mut().push(connection));
        self.connecting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &attempt));
        // Set once: this task is the attempt's only writer.
        let _ = attempt.outcome.set(result);
        attempt.done.notify_waiters();
    }

    /// Lets idle, spent and unwanted connections go; whether the slot is still needed. Streams that are open keep their connection.
    pub(super) fn sweep(&self, now: Instant, is_current: bool) -> bool {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            let Use { streams, life, .. } = &*connection.use_of;
            is_current && !life.is_spent(now) && (streams.get() > 0 || !life.is_stale(now))
        });
        !connections.is_empty() || !self.connecting.borrow().is_empty()
    }

    /// Connections that take streams.
    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }
}

/// A connection for one request, which is not sent before the endpoint's SETTINGS have come: they say that the application has
/// taken the connection. One that its listener never handed on breaks without, or is given up after `patience`, and the request has
/// certainly reached nobody.
pub(super) async fn alone(
    settings: &Settings,
    connect: impl Future<Output = Result<Connected, ConnectError>>,
    patience: Duration,
) -> Result<Http2Connection, ConnectError> {
    let mut connection = handshake(connect.await?, settings).await?;
    let taken = connection.use_of.progress.settings();
    timeout(patience, taken).await.map_err(|_| ConnectError::Timeout(patience))?;
    if connection.is_open() { Ok(connection.lease()) } else { Err(ConnectError::Closed) }
}

async fn handshake(connected: Connected, settings: &Settings) -> Result<Connection, ConnectError> {
    let Connected { io, authenticated, permit, .. } = connected;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(settings.stream_window())
        .initial_connection_window_size(settings.connection_window())
        .max_header_list_size(u32::try_from(http1::Limits::default().max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(64)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .enable_push(false);
    if let Some(size) = settings.h2.hpack_table_size {
        builder.header_table_size(size);
    }
    let io = Guarded::client(io);
    let progress = io.progress();
    let (send, mut connection) =
        builder.handshake::<_, Bytes>(io).await.map_err(|error| ConnectError::Http2(error.to_string()))?;
    let pings = settings.h2.keepalive_interval.and_then(|interval| Some((interval, connection.ping_pong()?)));
    let patience = settings.h2.keepalive_timeout.unwrap_or(PING_TIMEOUT);
    let ended = progress.clone();
    tokio::task::spawn_local(async move {
        let _permit = permit;
        tokio::select! {
            result = connection => if let Err(error) = result {
                debug!(%error, "HTTP/2 connection to an endpoint ended");
            },
            () = keep_alive(pings, patience) => debug!("an endpoint does not answer PING; connection closed"),
        }
        ended.end_wait();
    });
    let use_of = Rc::new(Use { progress, streams: Cell::new(0), life: Life::begin(settings.limits) });
    Ok(Connection { send, authenticated, max_streams: settings.max_streams(), use_of })
}
