//! The published configuration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use weft_rules::RouteTable;

use super::listener::{LastUsed, Listener};
use crate::upstream::Cluster;

/// Everything the data path may use at one moment. Immutable once published.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Listeners by name.
    pub listeners: HashMap<Arc<str>, Arc<Listener>>,
    /// The same listeners by original destination, for those whose name is an address.
    pub outbound: HashMap<SocketAddr, Arc<Listener>>,
    /// Destinations of which the control plane says that there is no listener.
    pub absent: HashMap<SocketAddr, Arc<LastUsed>>,
    /// Route tables by name (RDS).
    pub routes: HashMap<Arc<str>, Arc<RouteTable>>,
    /// Clusters by name, with their endpoints.
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
}

impl Snapshot {
    /// The listener of that name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// The listener for an original destination, without making its name first.
    pub fn outbound(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        self.outbound.get(&destination)
    }

    /// The route table of that name.
    pub fn route(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.routes.get(name)
    }

    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// Puts a listener in, under its name and, if the name is one, its address.
    pub fn insert_listener(&mut self, listener: Arc<Listener>) {
        if let Ok(destination) = listener.name.parse() {
            self.outbound.insert(destination, listener.clone());
        }
        self.listeners.insert(listener.name.clone(), listener);
    }

    /// Takes a listener out.
    pub fn remove_listener(&mut self, name: &str) {
        self.listeners.remove(name);
        if let Ok(destination) = name.parse::<SocketAddr>() {
            self.outbound.remove(&destination);
        }
    }
}

/// Where the current [`Snapshot`] is read and replaced. Shared by all workers; reading takes no lock.
#[derive(Debug, Default)]
pub struct Store {
    current: ArcSwap<Snapshot>,
    /// Writers take turns, or one would undo another's change.
    writer: Mutex<()>,
    published: watch::Sender<()>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current snapshot. Hold it as long as one decision takes, not as long as a connection lives.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The current snapshot, to be kept for as long as a longer piece of work takes.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Hears of every publication from now on, several at once where they follow each other quickly.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// The listener of that name.
    pub fn listener(&self, name: &str) -> Option<Arc<Listener>> {
        self.load().listener(name).cloned()
    }

    /// The listener for an original destination.
    pub fn outbound(&self, destination: SocketAddr) -> Option<Arc<Listener>> {
        self.load().outbound(destination).cloned()
    }

    /// The route table of that name.
    pub fn route(&self, name: &str) -> Option<Arc<RouteTable>> {
        self.load().route(name).cloned()
    }

    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<Arc<Cluster>> {
        self.load().cluster(name).cloned()
    }

    /// Publishes a changed copy: readers see all of the change or none of it.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        // A writer that panicked published nothing, so its poison tells nothing.
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.current.load());
        change(&mut next);
        self.current.store(Arc::new(next));
        self.published.send_replace(());
    }
}
