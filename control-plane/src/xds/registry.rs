//! Who is connected, and how far each has got.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::subscriptions::Watches;
use crate::ResourceType;
use crate::identity::Principal;
use crate::metrics::Metrics;

/// How a proxy stands to the configuration it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProxyState {
    /// It acknowledged everything.
    Synced,
    /// It was sent something that it has not answered yet, or is about to be.
    Stale,
    /// It rejected something, and uses what it had before.
    Nack,
}

/// A connected proxy, in `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Its pod's namespace, as its credentials prove.
    pub namespace: String,
    /// Its pod, as its credentials prove.
    pub pod: String,
    /// Its workload.
    pub workload: String,
    /// What it calls itself (`node.id`).
    pub node: String,
    /// What it is (`node.user_agent_name` and version).
    pub user_agent: String,
    /// `delta` or `state-of-the-world`.
    pub dialect: String,
    /// Unix time in seconds.
    pub connected_since: u64,
    /// Over all types.
    pub state: ProxyState,
    /// The types it subscribed to.
    pub types: Vec<TypeStatus>,
}

/// A proxy's subscriptions of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeStatus {
    /// `LDS`, `RDS`, `CDS`, `EDS` or `SDS`.
    pub r#type: String,
    /// Names subscribed to, or held under a wildcard.
    pub resources: usize,
    /// Whether it subscribed to all there are.
    pub wildcard: bool,
    /// How this type stands.
    pub state: ProxyState,
    /// Of everything it acknowledged last, as one version; proxies that hold the same have the same.
    pub version: Option<String>,
    /// Why it rejected what it was sent last.
    pub error: Option<String>,
}

/// All open streams.
#[derive(Default)]
pub(crate) struct Registry {
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    last: u64,
    open: BTreeMap<u64, ProxyStatus>,
}

impl Registry {
    /// Adds a stream, until the entry is dropped.
    pub(crate) fn add(self: &Arc<Self>, metrics: &Arc<Metrics>, principal: &Principal, dialect: &str) -> Connected {
        let mut streams = self.lock();
        streams.last += 1;
        let id = streams.last;
        streams.open.insert(
            id,
            ProxyStatus {
                namespace: principal.namespace.to_string(),
                pod: principal.pod.to_string(),
                workload: principal.workload.to_string(),
                node: String::new(),
                user_agent: String::new(),
                dialect: dialect.to_owned(),
                connected_since: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
                state: ProxyState::Stale,
                types: Vec::new(),
            },
        );
        metrics.connected();
        Connected { registry: self.clone(), metrics: metrics.clone(), id }
    }

    /// Every connected proxy, by namespace and pod.
    pub(crate) fn proxies(&self) -> Vec<ProxyStatus> {
        let mut proxies: Vec<_> = self.lock().open.values().cloned().collect();
        proxies.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
        proxies
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Each change is one assignment: a panic cannot leave it half done.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's entry in the registry.
pub(crate) struct Connected {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    id: u64,
}

impl Connected {
    /// What the proxy says about itself.
    pub(crate) fn introduce(&self, node: &str, user_agent: &str) {
        self.update(|proxy| {
            proxy.node = node.to_owned();
            proxy.user_agent = user_agent.to_owned();
        });
    }

    /// How far it has got.
    pub(crate) fn progress(&self, watches: &Watches) {
        let types: Vec<_> = ResourceType::ALL
            .into_iter()
            .filter(|kind| watches.get(*kind).is_started())
            .map(|kind| type_status(kind, watches))
            .collect();
        let has = |state| types.iter().any(|status| status.state == state);
        let state = if has(ProxyState::Nack) {
            ProxyState::Nack
        } else if has(ProxyState::Stale) || types.is_empty() {
            ProxyState::Stale
        } else {
            ProxyState::Synced
        };
        self.update(|proxy| {
            proxy.state = state;
            proxy.types = types;
        });
    }

    fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        if let Some(proxy) = self.registry.lock().open.get_mut(&self.id) {
            change(proxy);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.registry.lock().open.remove(&self.id);
        self.metrics.disconnected();
    }
}

fn type_status(kind: ResourceType, watches: &Watches) -> TypeStatus {
    let watch = watches.get(kind);
    TypeStatus {
        r#type: kind.short().to_owned(),
        resources: watch.len(),
        wildcard: watch.is_wildcard(),
        state: if watch.rejection().is_some() {
            ProxyState::Nack
        } else if watch.is_pending() {
            ProxyState::Stale
        } else {
            ProxyState::Synced
        },
        version: watch.accepted().map(|version| version.to_string()),
        error: watch.rejection().map(str::to_owned),
    }
}
