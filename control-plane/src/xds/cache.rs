//! Every resource in use, encoded once per view and shared by all streams that are sent it.

use std::collections::HashMap;
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
use crate::{ResourceKey, ResourceType, View};

/// Changes after which a resource that nobody asked for again is forgotten.
const FORGET_AFTER: u64 = 2;

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

/// Renders on demand, remembers, and renders again what is in use when the configuration changes.
///
/// Invariant: all lookups between two calls of [`Cache::update`] see one configuration.
pub(crate) struct Cache {
    state: Mutex<State>,
    changed: watch::Sender<Instant>,
}

struct State {
    configuration: Configuration,
    generation: u64,
    entries: HashMap<(ResourceKey, View), Entry>,
}

struct Entry {
    rendered: Option<Arc<Rendered>>,
    /// The generation of the last lookup.
    used: u64,
}

impl Cache {
    pub(crate) fn new(configuration: Configuration) -> Self {
        Self {
            state: Mutex::new(State { configuration, generation: 0, entries: HashMap::new() }),
            changed: watch::Sender::new(Instant::now()),
        }
    }

    /// Wakes when something that someone looked up may have changed; says since when.
    pub(crate) fn changes(&self) -> watch::Receiver<Instant> {
        self.changed.subscribe()
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

    /// Every resource of a type that a wildcard covers.
    pub(crate) fn names(&self, kind: ResourceType) -> Vec<Arc<str>> {
        self.configuration().names(kind)
    }

    /// Takes over a new configuration, known since `since`: renders what is in use and may differ. Says how many resources
    /// changed.
    ///
    /// Meant to be called by one task only. Lookups are served from the old configuration meanwhile.
    pub(crate) fn update(&self, configuration: Configuration, since: Instant) -> usize {
        let (old, keys) = {
            let mut state = self.lock();
            let generation = state.generation;
            state.entries.retain(|_, entry| entry.used + FORGET_AFTER > generation);
            let keys: Vec<_> = state.entries.keys().cloned().collect();
            (state.configuration.clone(), keys)
        };
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
            }
        }
        state.configuration = configuration;
        state.generation += 1;
        drop(state);
        self.changed.send_replace(since);
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
