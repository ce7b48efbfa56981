//! Every resource in use, encoded once per view and shared by all streams that are sent it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_xds::google::protobuf::Any;

use crate::configuration::Configuration;
use crate::{ClientKind, ResourceKey, ResourceType, View};

/// Updates after which a resource that nobody is subscribed to is forgotten.
const FORGET_AFTER: u64 = 2;
/// Changes that are remembered for streams that have not looked since. Who misses more compares all it has.
const HISTORY: usize = 64;

/// A content's version: a hash of it, so that a restarted control plane, or another replica, sends nothing again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of nothing.
    pub(crate) const EMPTY: Self = Self(0);

    /// The version of an encoded `google.protobuf.Any`: the beginning of its SHA-256.
    #[must_use]
    pub fn of(encoded: &[u8]) -> Self {
        let digest = Sha256::digest(encoded);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }

    /// Reads what `Display` wrote; `None` if it is no version of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The version of a set with one more member. The order of additions does not matter.
    pub(crate) fn with(self, name: &str, version: Self) -> Self {
        // SipHash with its fixed default keys: the same on every machine and in every run.
        #[allow(deprecated)]
        let mut hasher = std::hash::SipHasher::new();
        hasher.write(name.as_bytes());
        hasher.write_u64(version.0.to_be());
        Self(self.0.wrapping_add(hasher.finish()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A resource as it goes onto the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) version: Version,
    /// An encoded `google.protobuf.Any`.
    pub(crate) any: Bytes,
}

impl Rendered {
    /// Rendering gives equal resources equal bytes, so the version can be a hash of them.
    pub(crate) fn new(any: &Any) -> Self {
        let any: Bytes = any.encode_to_vec().into();
        Self { version: Version::of(&any), any }
    }
}

/// What one update changed, for streams to find what of it concerns them.
#[derive(Debug)]
pub(crate) struct Change {
    /// When the configuration became known.
    pub(crate) since: Instant,
    /// Resources that some view now sees otherwise, by type.
    names: [Vec<Arc<str>>; ResourceType::ALL.len()],
    /// Whether any pod came, went, or is another workload.
    pub(crate) pods: bool,
}

impl Change {
    /// The changed resources of a type.
    pub(crate) fn names(&self, kind: ResourceType) -> &[Arc<str>] {
        &self.names[kind as usize]
    }
}

/// What a stream has missed.
pub(crate) enum Missed {
    /// These, in their order.
    Changes(Vec<Arc<Change>>),
    /// More than is remembered; the first of them is since then.
    TooMany(Instant),
}

/// Renders on demand, remembers, and renders again what is in use when the configuration changes.
///
/// Invariants: all lookups between two calls of [`Cache::update`] see one configuration. What was looked up is in [`Change::names`] of the
/// update that changes it, or in those of one before it that forgot it.
pub(crate) struct Cache {
    state: Mutex<State>,
    /// Updates so far.
    generation: watch::Sender<u64>,
}

struct State {
    configuration: Configuration,
    generation: u64,
    entries: HashMap<(ResourceKey, View), Entry>,
    /// The changes up to `generation`, oldest first.
    history: VecDeque<Arc<Change>>,
}

struct Entry {
    rendered: Option<Arc<Rendered>>,
    /// The generation of the last lookup.
    used: u64,
}

impl Entry {
    /// Whether nobody needs it any more: who asked for it first still holds the name while it is subscribed to it.
    fn is_forgotten(&self, key: &ResourceKey, generation: u64) -> bool {
        Arc::strong_count(&key.name) == 1 && self.used + FORGET_AFTER <= generation
    }
}

impl Cache {
    pub(crate) fn new(configuration: Configuration) -> Self {
        let (entries, history) = (HashMap::new(), VecDeque::with_capacity(HISTORY));
        Self {
            state: Mutex::new(State { configuration, generation: 0, entries, history }),
            generation: watch::Sender::new(0),
        }
    }

    /// Wakes at every update; holds how many there have been, for [`Cache::missed`].
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The changes after generation `seen`, and the generation they lead to.
    pub(crate) fn missed(&self, seen: u64) -> (u64, Missed) {
        let state = self.lock();
        let missed = usize::try_from(state.generation.saturating_sub(seen)).unwrap_or(usize::MAX);
        let changes = match (state.history.len().checked_sub(missed), state.history.front()) {
            (None, Some(oldest)) => Missed::TooMany(oldest.since),
            (known, _) => Missed::Changes(state.history.iter().skip(known.unwrap_or(0)).cloned().collect()),
        };
        (state.generation, changes)
    }

    /// The configuration that lookups see now.
    pub(crate) fn configuration(&self) -> Configuration {
        self.lock().configuration.clone()
    }

    /// The resource as this view sees it; `None` if it does not exist.
    pub(crate) fn get(&self, kind: ResourceType, name: &Arc<str>, view: &View) -> Option<Arc<Rendered>> {
        let mut state = self.lock();
        let state = &mut *state;
        let key = ResourceKey::new(kind, name.clone());
        let entry = state
            .entries
            .entry((key, view.narrowed_to(kind)))
            .or_insert_with_key(|(key, view)| Entry { rendered: render(&state.configuration, key, view), used: 0 });
        entry.used = state.generation;
        entry.rendered.clone()
    }

    /// Every resource of a type that a wildcard of such a client in the place of `workload` covers.
    pub(crate) fn names(&self, kind: ResourceType, client: ClientKind, workload: (&str, &str)) -> Vec<Arc<str>> {
        self.configuration().names(kind, client, workload)
    }

    /// Takes over a new configuration, known since `since`: renders what is in use and may differ. Says how many resources
    /// changed.
    ///
    /// Meant to be called by one task only. Lookups are served from the old configuration meanwhile.
    pub(crate) fn update(&self, configuration: Configuration, since: Instant) -> usize {
        let mut change = Change { since, names: Default::default(), pods: false };
        let (old, keys) = {
            let mut state = self.lock();
            let generation = state.generation;
            state.entries.retain(|(key, _), entry| {
                let forgotten = entry.is_forgotten(key, generation);
                if forgotten {
                    // Whoever else is subscribed to it looks again, and so has it remembered.
                    change.names[key.kind as usize].push(key.name.clone());
                }
                !forgotten
            });
            let keys: Vec<_> = state.entries.keys().cloned().collect();
            (state.configuration.clone(), keys)
        };
        change.pods = configuration.pods_differ(&old);
        let mut rendered: HashMap<_, _> = keys
            .into_iter()
            .filter(|(key, _)| configuration.may_differ(&old, key))
            .map(|(key, view)| {
                let rendered = render(&configuration, &key, &view);
                ((key, view), rendered)
            })
            .collect();

        let mut changed = 0;
        let mut state = self.lock();
        for (key, entry) in &mut state.entries {
            let new = match rendered.remove(key) {
                Some(new) => new,
                // Looked up for the first time while the others were rendered.
                None if configuration.may_differ(&old, &key.0) => render(&configuration, &key.0, &key.1),
                None => continue,
            };
            if version(new.as_ref()) != version(entry.rendered.as_ref()) {
                entry.rendered = new;
                changed += 1;
                change.names[key.0.kind as usize].push(Arc::from(&*key.0.name));
            }
        }
        state.configuration = configuration;
        state.generation += 1;
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back(Arc::new(change));
        self.generation.send_replace(state.generation);
        changed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic in `render` leaves the entries whole: an entry is inserted only after it is made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn render(configuration: &Configuration, key: &ResourceKey, view: &View) -> Option<Arc<Rendered>> {
    Some(Arc::new(Rendered::new(&configuration.render(key, view)?)))
}

fn version(rendered: Option<&Arc<Rendered>>) -> Option<Version> {
    rendered.map(|rendered| rendered.version)
}

#[cfg(test)]
mod tests;
