//! Listeners with addresses of their own: opened, changed and closed as they are published.
//!
//! Each worker follows the store by itself and has sockets of its own. A new version of a listener takes the connections that come from
//! then on; those it has are asked to leave after what is under way on them. A listener that is removed takes no more
//! connections, and those it has are cut when the drain time is over; so are those of one that moves to other addresses or
//! another backlog, whose sockets are others.
//!
//! An address that cannot be bound ends the start where the listener is the bootstrap's. One from a control plane is refused for it
//! before it is published; what is taken only after that is tried again here.

use super::connection;
use super::socket;
use super::{canonical, next, prepare};
use crate::admin::drain::{Phase, when};
use crate::request::{Direction, Downstream};
use crate::snapshot::{Listener, Snapshot};
use crate::worker::Worker;
use futures_util::FutureExt as _;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// How soon an address that could not be bound is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// A listener's sockets, bound and not yet accepting.
#[derive(Debug)]
pub struct Listening {
    listener: Arc<Listener>,
    sockets: Vec<std::net::TcpListener>,
}

/// A listener's address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}: {source}")]
pub struct BindError {
    name: Arc<str>,
    address: SocketAddr,
    source: io::Error,
}

impl Listening {
    /// Binds all of a listener's addresses; one without any is left to the redirect's ports.
    ///
    /// # Errors
    /// Names the first address that cannot be bound.
    pub fn bind(listener: &Arc<Listener>) -> Result<Self, BindError> {
        let bind = |address: SocketAddr| {
            let bound = socket::listen(address, listener.backlog);
            bound.map_err(|source| BindError { name: listener.name.clone(), address, source })
        };
        let sockets = addresses(listener).map(bind).collect::<Result<_, _>>()?;
        Ok(Self { listener: listener.clone(), sockets })
    }
}

fn addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    listener.bind.iter().chain(&listener.also_bind).copied()
}

/// Keeps this worker's sockets what the published listeners ask for. Runs until dropped.
pub async fn follow(worker: Rc<Worker>, first: Vec<Listening>) {
    let mut published = worker.store().subscribe();
    let mut open: HashMap<Arc<str>, Open> = HashMap::new();
    for listening in first {
        let name = listening.listener.name.clone();
        match Open::new(&worker, listening) {
            Ok(new) => drop(open.insert(name, new)),
            Err(error) => warn!(listener = %name, %error, "a worker cannot listen"),
        }
    }
    loop {
        published.mark_unchanged();
        let failed = update(&worker, &mut open, &worker.store().load_full());
        let retry = async {
            match failed {
                true => tokio::time::sleep(BIND_PAUSE).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            // Invariant: the worker holds the store, which holds the sender.
            _ = published.changed() => {}
            () = retry => {}
        }
    }
}

/// Says whether an address could not be bound.
fn update(worker: &Rc<Worker>, open: &mut HashMap<Arc<str>, Open>, snapshot: &Snapshot) -> bool {
    let wanted = |name: &str| snapshot.listener(name).filter(|listener| listener.bind.is_some());
    let gone: Vec<Arc<str>> = open.keys().filter(|name| wanted(name).is_none()).cloned().collect();
    for name in gone {
        if let Some(removed) = open.remove(&name) {
            info!(listener = %name, "removed; its connections have until the end of the drain time");
            removed.close(worker.settings().drain_time);
        }
    }
    let mut failed = false;
    for listener in snapshot.listeners.values().filter(|listener| listener.bind.is_some()) {
        match open.get_mut(&listener.name) {
            Some(open) if Arc::ptr_eq(&open.listener, listener) => continue,
            Some(open) if open.has_sockets_of(listener) => {
                open.replace(listener.clone());
                continue;
            }
            _ => {}
        }
        let opened = Listening::bind(listener).map_err(|error| error.to_string());
        match opened.and_then(|new| Open::new(worker, new).map_err(|error| error.to_string())) {
            Ok(new) => {
                info!(listener = %listener.name, addresses = ?addresses(listener).collect::<Vec<_>>(), "listening");
                // The new sockets are open before the old ones close.
                if let Some(old) = open.insert(listener.name.clone(), new) {
                    old.close(worker.settings().drain_time);
                }
            }
            Err(error) => {
                failed = true;
                warn!(%error, again_in = ?BIND_PAUSE, "a listener is not open");
            }
        }
    }
    failed
}

/// A listener that accepts. Its connections hear of its end by the phase of the version they came in by.
struct Open {
    listener: Arc<Listener>,
    current: Rc<RefCell<watch::Sender<Phase>>>,
    /// Dropped to end the accept loops.
    _accepting: watch::Sender<()>,
}

impl Open {
    fn new(worker: &Rc<Worker>, listening: Listening) -> io::Result<Self> {
        let Listening { listener, sockets } = listening;
        let (accepting, stopped) = watch::channel(());
        let current = Rc::new(RefCell::new(watch::Sender::default()));
        let sockets = sockets.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()?;
        for socket in sockets {
            let loops = accept(worker.clone(), socket, listener.name.clone(), current.clone(), stopped.clone());
            tokio::task::spawn_local(loops);
        }
        Ok(Self { listener, current, _accepting: accepting })
    }

    fn has_sockets_of(&self, listener: &Listener) -> bool {
        addresses(&self.listener).eq(addresses(listener)) && self.listener.backlog == listener.backlog
    }

    /// Another version takes what comes from now on.
    fn replace(&mut self, listener: Arc<Listener>) {
        self.listener = listener;
        self.current.replace(watch::Sender::default()).send_replace(Phase::Leaving);
    }

    fn close(self, drain_time: Duration) {
        let phase = self.current;
        phase.borrow().send_replace(Phase::Leaving);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(drain_time).await;
            phase.borrow().send_replace(Phase::Over);
        });
    }
}

async fn accept(
    worker: Rc<Worker>,
    socket: TcpListener,
    name: Arc<str>,
    current: Rc<RefCell<watch::Sender<Phase>>>,
    mut stopped: watch::Receiver<()>,
) {
    let spawn = |stream: TcpStream, source: SocketAddr| {
        let phase = current.borrow().subscribe();
        tokio::task::spawn_local(serve(worker.clone(), stream, source, name.clone(), phase));
    };
    loop {
        tokio::select! {
            (stream, source) = next(&socket) => spawn(stream, source),
            // The sender is dropped, never used.
            _ = stopped.changed() => break,
        }
    }
    // What the kernel has accepted already would be reset with the socket.
    while let Some(Ok((stream, source))) = socket.accept().now_or_never() {
        spawn(stream, canonical(source));
    }
}

async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    source: SocketAddr,
    name: Arc<str>,
    mut phase: watch::Receiver<Phase>,
) {
    let Some(local) = prepare(&stream, source) else { return };
    let Some(listener) = worker.store().listener(&name) else { return };
    let mut downstream = Downstream::plain(Direction::from(listener.direction), source, local);
    downstream.drain = Some(Arc::new(worker.drain.or(phase.clone())));
    tokio::select! {
        () = connection::serve(worker, listener, Box::new(stream), downstream) => {}
        // Never where its version was replaced, which cuts nothing.
        () = when(&mut phase, |phase| *phase == Phase::Over) => debug!(%source, listener = %name, "the listener's drain time is over; connection cut"),
    }
}

#[cfg(test)]
#[path = "listening_tests.rs"]
mod tests;
