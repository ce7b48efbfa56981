//! The client's side of delta xDS as a state machine: messages in, messages and changes out. No IO and no clock.
//!
//! Protocol: <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>, "Incremental xDS".
//!
//! A resource goes through
//! ```text
//! wanted ──► answered ──► warming ──► active        removed ──► absent
//!               │            └── until what it needs is active or absent, at most WARM_LIMIT
//!               └── refused: NACK; what was active stays
//! ```
//! Invariants:
//! - Subscribed on the stream are exactly the entries: roots, and what active or warming resources need.
//! - Something becomes active only after what it needs (or when the wait is over), and what an active resource needs is let go only
//!   after the one that replaces it is active, also where the server removes it first (or when the wait is over): make before break.
//! - Without a stream nothing active is ever lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_xds::FieldError;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds::google::protobuf::Any;
use weft_xds::google::rpc::Status;

use super::kind::{Key, Kind};

/// Longest wait for what a resource needs (as Envoy's `initial_fetch_timeout`); then it becomes active without. What the server removed
/// stays as long at most for the sake of what still uses it.
pub const WARM_LIMIT: Duration = Duration::from_secs(15);

/// `INVALID_ARGUMENT` of `google.rpc.Code`: what a NACK carries.
pub(super) const INVALID_ARGUMENT: i32 = 3;

/// Turns a message into what the data path uses.
pub trait Compile {
    /// The compiled resource.
    type Out: Clone;

    /// Compiles one resource.
    ///
    /// # Errors
    /// Names the field that is refused; the resource's last good version stays in force.
    fn compile(&self, kind: Kind, name: &str, message: &Any) -> Result<Compiled<Self::Out>, FieldError>;
}

/// A compiled resource and the resources without which it is of no use.
#[derive(Clone, Debug)]
pub struct Compiled<T> {
    /// The resource.
    pub value: T,
    /// What it needs; each of an earlier [`Kind`].
    pub needs: Vec<Key>,
}

/// What became different for the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// New, or a new version.
    Set(Key, T),
    /// No longer there.
    Removed(Key),
}

/// What is known of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing usable yet.
    Unknown,
    /// In force.
    Active,
    /// The control plane says there is none.
    Absent,
}

/// One resource as the dump shows it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Kind and name.
    pub key: Key,
    /// Whether somebody asked for it by name (as against: needed by another).
    pub root: bool,
    /// In force.
    pub active: Option<Raw>,
    /// Accepted, and waiting for what it needs.
    pub warming: Option<Raw>,
    /// The last refusal, unless a good version came after it.
    pub refused: Option<Refusal>,
    /// Known not to exist.
    pub absent: bool,
}

/// A resource as it was received.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The sender's version.
    pub version: Arc<str>,
    /// The message.
    pub message: Arc<Any>,
}

/// A version that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The version.
    pub version: Arc<str>,
    /// The field and why.
    pub error: FieldError,
}

/// The state of all subscriptions on one (possibly interrupted) stream.
#[derive(Debug)]
pub struct State<C: Compile> {
    compiler: C,
    node: Node,
    connected: bool,
    /// The node is sent with the first request of a stream only.
    node_sent: bool,
    kinds: HashMap<Kind, Subscriptions<C::Out>>,
    /// ACKs and NACKs to send.
    replies: Vec<DeltaDiscoveryRequest>,
    changes: Vec<Change<C::Out>>,
}

#[derive(Debug)]
struct Subscriptions<T> {
    entries: HashMap<Arc<str>, Entry<T>>,
    /// What the server was told on this stream.
    subscribed: HashSet<Arc<str>>,
    /// Whether `entries` and `subscribed` may differ.
    dirty: bool,
    /// Everything the server has is wanted.
    wildcard: bool,
    /// Whether a request of this kind went out on this stream.
    started: bool,
}

#[derive(Debug)]
struct Entry<T> {
    root: bool,
    active: Option<Version<T>>,
    warming: Option<Warming<T>>,
    absent: bool,
    /// When an active resource that is absent goes, whatever uses it.
    leaves_by: Option<Instant>,
    refused: Option<Refusal>,
}

#[derive(Debug)]
struct Version<T> {
    raw: Raw,
    compiled: Compiled<T>,
}

#[derive(Debug)]
struct Warming<T> {
    version: Version<T>,
    /// When it becomes active whatever is missing.
    until: Instant,
}

impl<T> Default for Subscriptions<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), subscribed: HashSet::new(), dirty: false, wildcard: false, started: false }
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self { root: false, active: None, warming: None, absent: false, leaves_by: None, refused: None }
    }
}

impl<T> Entry<T> {
    /// Whether a resource that needs this one may become active.
    fn is_settled(&self) -> bool {
        self.active.is_some() || self.absent
    }

    /// The newest version that was accepted.
    fn accepted(&self) -> Option<&Raw> {
        let warming = self.warming.as_ref().map(|warming| &warming.version);
        warming.or(self.active.as_ref()).map(|version| &version.raw)
    }

    fn accepted_mut(&mut self) -> Option<&mut Raw> {
        let warming = self.warming.as_mut().map(|warming| &mut warming.version);
        warming.or(self.active.as_mut()).map(|version| &mut version.raw)
    }
}

impl<C: Compile> State<C> {
    /// No stream, nothing wanted.
    pub fn new(node: Node, compiler: C) -> Self {
        Self {
            compiler,
            node,
            connected: false,
            node_sent: false,
            kinds: Kind::ALL.into_iter().map(|kind| (kind, Subscriptions::default())).collect(),
            replies: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The compiler given to [`State::new`].
    pub fn compiler(&self) -> &C {
        &self.compiler
    }

    /// Whether a stream is open.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Asks for a resource by name, until [`State::unwant`].
    pub fn want(&mut self, kind: Kind, name: &str) {
        self.entry(kind, name).root = true;
    }

    /// Asks for everything of a kind: how a control plane for gateways and Envoys is used.
    pub fn want_all(&mut self, kind: Kind) {
        let of_kind = self.of_kind(kind);
        of_kind.wildcard = true;
        of_kind.dirty = true;
    }

    /// Takes back [`State::want`]. What nothing else needs is forgotten and unsubscribed.
    pub fn unwant(&mut self, kind: Kind, name: &str) {
        if let Some(entry) = self.of_kind(kind).entries.get_mut(name) {
            entry.root = false;
            self.forget_unneeded();
        }
    }

    /// What is known of a resource.
    pub fn answer(&self, kind: Kind, name: &str) -> Answer {
        match self.kinds[&kind].entries.get(name) {
            Some(entry) if entry.active.is_some() => Answer::Active,
            Some(entry) if entry.absent => Answer::Absent,
            _ => Answer::Unknown,
        }
    }

    /// The compiled resource in force.
    pub fn active(&self, kind: Kind, name: &str) -> Option<&C::Out> {
        let entry = self.kinds[&kind].entries.get(name)?;
        entry.active.as_ref().map(|version| &version.compiled.value)
    }

    /// Puts in what an earlier process left: in force at once, and named with its version when a stream opens.
    ///
    /// # Errors
    /// When the resource no longer compiles; it is then asked for anew.
    pub fn restore(&mut self, key: &Key, root: bool, raw: Raw) -> Result<(), FieldError> {
        let compiled = self.compiler.compile(key.0, &key.1, &raw.message);
        let entry = self.entry(key.0, &key.1);
        entry.root |= root;
        let compiled = compiled?;
        let value = compiled.value.clone();
        entry.active = Some(Version { raw, compiled });
        self.changes.push(Change::Set(key.clone(), value));
        Ok(())
    }

    /// Ends a series of [`State::restore`]: leftovers that nothing needs are dropped.
    pub fn restored(&mut self) {
        self.forget_unneeded();
    }

    /// A stream is open: everything wanted is asked for again, with the versions held.
    pub fn stream_opened(&mut self, now: Instant) {
        self.connected = true;
        self.node_sent = false;
        self.replies.clear();
        for of_kind in self.kinds.values_mut() {
            of_kind.subscribed.clear();
            of_kind.started = false;
            of_kind.dirty = true;
            // The time without a stream is not the server's.
            for entry in of_kind.entries.values_mut() {
                if let Some(warming) = &mut entry.warming {
                    warming.until = now + WARM_LIMIT;
                }
                entry.leaves_by = entry.leaves_by.map(|_| now + WARM_LIMIT);
            }
        }
    }

    /// The stream is gone. Everything stays as it is.
    pub fn stream_closed(&mut self) {
        self.connected = false;
        self.replies.clear();
    }

    /// Takes one response: accepts what compiles, refuses the rest, and says so to the server. Returns how many resources
    /// were refused.
    pub fn received(&mut self, response: DeltaDiscoveryResponse, now: Instant) -> usize {
        let Some(kind) = Kind::of_type_url(&response.type_url) else {
            let problem = format!("`{}` was never asked for", response.type_url);
            self.reply(response.type_url, response.nonce, vec![problem]);
            return 0;
        };
        let mut problems = Vec::new();
        let mut needs_changed = false;
        for resource in response.resources {
            // A resource without a body only prolongs a time to live, which we do not use.
            let Some(message) = resource.resource else { continue };
            let raw = Raw { version: resource.version.into(), message: Arc::new(message) };
            match self.accept(kind, &resource.name, raw, now) {
                Ok(changed) => needs_changed |= changed,
                Err(error) => {
                    tracing::warn!(%kind, name = resource.name, %error, "configuration refused; the last good one stays in force");
                    problems.push(format!("{kind} `{}`: {error}", resource.name));
                }
            }
        }
        for name in &response.removed_resources {
            let of_kind = self.of_kind(kind);
            if let Some(entry) = of_kind.entries.get_mut(name.as_str()) {
                entry.absent = true;
                entry.leaves_by = entry.leaves_by.or(Some(now + WARM_LIMIT));
                entry.warming = None;
                entry.refused = None;
                needs_changed = true;
            }
        }
        let refused = problems.len();
        self.reply(response.type_url, response.nonce, problems);
        if needs_changed {
            self.forget_unneeded();
        }
        self.settle(now);
        refused
    }

    /// When [`State::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let entries = self.kinds.values().flat_map(|of_kind| of_kind.entries.values());
        let limits = entries.filter(|entry| self.may_give_up(entry)).flat_map(|entry| {
            // What leaves may have left already.
            let leaves_by = entry.leaves_by.filter(|_| entry.active.is_some() && self.connected);
            entry.warming.as_ref().map(|warming| warming.until).into_iter().chain(leaves_by)
        });
        limits.min()
    }

    /// Ends waits that have lasted too long.
    pub fn on_time(&mut self, now: Instant) {
        self.settle(now);
    }

    /// What to send now, in order. Empty without a stream.
    pub fn take_requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        if !self.connected {
            return Vec::new();
        }
        let mut requests = std::mem::take(&mut self.replies);
        // The listener first: for a control plane that serves on demand it says who we are.
        for kind in Kind::ALL.into_iter().rev() {
            requests.extend(self.of_kind(kind).subscription_request(kind));
        }
        if let (false, Some(first)) = (self.node_sent, requests.first_mut()) {
            first.node = Some(self.node.clone());
            self.node_sent = true;
        }
        requests
    }

    /// What became different since the last call, in an order in which nothing refers to what is not there yet.
    pub fn take_changes(&mut self) -> Vec<Change<C::Out>> {
        std::mem::take(&mut self.changes)
    }

    /// Every resource wanted.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.kinds.iter().flat_map(|(kind, of_kind)| {
            of_kind.entries.iter().map(|(name, entry)| Record {
                key: (*kind, name.clone()),
                root: entry.root,
                active: entry.active.as_ref().map(|version| version.raw.clone()),
                warming: entry.warming.as_ref().map(|warming| warming.version.raw.clone()),
                refused: entry.refused.clone(),
                absent: entry.absent,
            })
        })
    }

    fn of_kind(&mut self, kind: Kind) -> &mut Subscriptions<C::Out> {
        self.kinds.entry(kind).or_default()
    }

    fn entry(&mut self, kind: Kind, name: &str) -> &mut Entry<C::Out> {
        let of_kind = self.of_kind(kind);
        if !of_kind.entries.contains_key(name) {
            of_kind.dirty = true;
        }
        of_kind.entries.entry(name.into()).or_default()
    }

    /// wanted => warming. Says whether what is needed may have changed.
    fn accept(&mut self, kind: Kind, name: &str, raw: Raw, now: Instant) -> Result<bool, FieldError> {
        let of_kind = self.of_kind(kind);
        if !of_kind.entries.contains_key(name) {
            if !of_kind.wildcard {
                // An answer that crossed our unsubscription.
                return Ok(false);
            }
            of_kind.entries.insert(name.into(), Entry { root: true, ..Entry::default() });
        }
        let entry = self.entry(kind, name);
        if let Some(held) = entry.accepted_mut()
            && held.message == raw.message
        {
            *held = raw;
            entry.absent = false;
            entry.leaves_by = None;
            entry.refused = None;
            return Ok(false);
        }
        let compiled = self.compiler.compile(kind, name, &raw.message);
        let entry = self.entry(kind, name);
        match compiled {
            Ok(compiled) => {
                entry.absent = false;
                entry.leaves_by = None;
                entry.refused = None;
                // One that follows another quickly inherits its wait, or a stream of updates would put all of them off for ever.
                let until = entry.warming.as_ref().map_or(now + WARM_LIMIT, |replaced| replaced.until);
                entry.warming = Some(Warming { version: Version { raw, compiled }, until });
                Ok(true)
            }
            Err(error) => {
                entry.refused = Some(Refusal { version: raw.version, error: error.clone() });
                Err(error)
            }
        }
    }

    /// warming => active, for everything whose needs are met; removed => absent, for what nothing holds on to.
    fn settle(&mut self, now: Instant) {
        let mut promoted = false;
        for kind in Kind::ALL {
            let ready: Vec<Arc<str>> = self.kinds[&kind]
                .entries
                .iter()
                .filter(|(_, entry)| {
                    let Some(warming) = &entry.warming else { return false };
                    let over = warming.until <= now && self.may_give_up(entry);
                    over || warming.version.compiled.needs.iter().all(|key| self.is_settled(key))
                })
                .map(|(name, _)| name.clone())
                .collect();
            for name in ready {
                promoted = true;
                let Some(entry) = self.of_kind(kind).entries.get_mut(&name) else { continue };
                let Some(warming) = entry.warming.take() else { continue };
                let missing = warming.until <= now;
                let value = warming.version.compiled.value.clone();
                entry.active = Some(warming.version);
                if missing {
                    tracing::warn!(%kind, %name, "in force without all it needs: that did not arrive in time");
                }
                self.changes.push(Change::Set((kind, name), value));
            }
        }
        self.let_go_of_removed(now);
        if promoted {
            self.forget_unneeded();
        }
    }

    /// Without a stream nobody could have answered, so something that works is not given up for something that lacks parts.
    fn may_give_up(&self, entry: &Entry<C::Out>) -> bool {
        self.connected || entry.active.is_none()
    }

    fn is_settled(&self, (kind, name): &Key) -> bool {
        self.kinds[kind].entries.get(name).is_some_and(Entry::is_settled)
    }

    /// Drops what the server removed, except what something active uses: that is about to be replaced, or is told of later. Servers order
    /// what they say differently, and streams of their own are in no order at all.
    fn let_go_of_removed(&mut self, now: Instant) {
        let entries = || self.kinds.values().flat_map(|of_kind| of_kind.entries.values());
        if !entries().any(|entry| entry.absent && entry.active.is_some()) {
            return;
        }
        let replaced = entries().filter(|entry| entry.warming.is_some()).filter_map(|entry| entry.active.as_ref());
        let replaced: HashSet<Key> = replaced.flat_map(|version| version.compiled.needs.iter().cloned()).collect();
        let is_connected = self.connected;
        let mut used: HashSet<Key> = HashSet::new();
        let mut is_any_gone = false;
        // What needs others goes before what it needs.
        for kind in Kind::ALL.into_iter().rev() {
            let of_kind = self.kinds.entry(kind).or_default();
            for (name, entry) in &mut of_kind.entries {
                let key = (kind, name.clone());
                let Some(version) = &entry.active else { continue };
                let is_over = entry.leaves_by.is_none_or(|limit| is_connected && limit <= now);
                if entry.absent && !replaced.contains(&key) && (is_over || !used.contains(&key)) {
                    entry.active = None;
                    entry.root &= !of_kind.wildcard;
                    self.changes.push(Change::Removed(key));
                    is_any_gone = true;
                } else {
                    used.extend(version.compiled.needs.iter().cloned());
                }
            }
        }
        if is_any_gone {
            self.forget_unneeded();
        }
    }

    /// Makes the entries what the roots reach, by what is active and by what is warming.
    fn forget_unneeded(&mut self) {
        let mut reached: HashSet<Key> = HashSet::new();
        let mut open: Vec<Key> = self
            .kinds
            .iter()
            .flat_map(|(kind, of_kind)| {
                let roots = of_kind.entries.iter().filter(|(_, entry)| entry.root);
                roots.map(|(name, _)| (*kind, name.clone()))
            })
            .collect();
        while let Some(key) = open.pop() {
            if !reached.insert(key.clone()) {
                continue;
            }
            if let Some(entry) = self.kinds[&key.0].entries.get(&key.1) {
                let active = entry.active.as_ref();
                let warming = entry.warming.as_ref().map(|warming| &warming.version);
                let versions = active.into_iter().chain(warming);
                open.extend(versions.flat_map(|version| version.compiled.needs.iter().cloned()));
            } else {
                self.entry(key.0, &key.1);
            }
        }
        for kind in Kind::ALL.into_iter().rev() {
            let of_kind = self.kinds.entry(kind).or_default();
            let changes = &mut self.changes;
            let before = of_kind.entries.len();
            of_kind.entries.retain(|name, entry| {
                let key = (kind, name.clone());
                let keep = reached.contains(&key);
                if !keep && entry.active.is_some() {
                    changes.push(Change::Removed(key));
                }
                keep
            });
            of_kind.dirty |= of_kind.entries.len() != before;
        }
    }

    fn reply(&mut self, type_url: String, nonce: String, problems: Vec<String>) {
        let error_detail = (!problems.is_empty()).then(|| Status {
            code: INVALID_ARGUMENT,
            message: problems.join("\n"),
            details: Vec::new(),
        });
        self.replies.push(DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail,
            ..Default::default()
        });
    }
}

impl<T> Subscriptions<T> {
    /// The request that tells the server what became different, if anything did.
    fn subscription_request(&mut self, kind: Kind) -> Option<DeltaDiscoveryRequest> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        if self.wildcard {
            // One request for everything; single names would only repeat it.
            return self.wildcard_request(kind);
        }
        let mut subscribe: Vec<String> =
            self.entries.keys().filter(|name| !self.subscribed.contains(*name)).map(|name| name.to_string()).collect();
        let mut unsubscribe: Vec<String> = self
            .subscribed
            .iter()
            .filter(|name| !self.entries.contains_key(*name))
            .map(|name| name.to_string())
            .collect();
        let first = !std::mem::replace(&mut self.started, true);
        if subscribe.is_empty() && (first || unsubscribe.is_empty()) {
            // A first request without names would ask for everything.
            self.started &= !first;
            return None;
        }
        let initial_resource_versions = if first { self.versions() } else { HashMap::new() };
        self.subscribed = self.entries.keys().cloned().collect();
        subscribe.sort_unstable();
        unsubscribe.sort_unstable();
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions,
            ..Default::default()
        })
    }

    fn wildcard_request(&mut self, kind: Kind) -> Option<DeltaDiscoveryRequest> {
        if std::mem::replace(&mut self.started, true) {
            return None;
        }
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: self.versions(),
            ..Default::default()
        })
    }

    fn versions(&self) -> HashMap<String, String> {
        let held = self.entries.iter().filter_map(|(name, entry)| Some((name, entry.accepted()?)));
        held.map(|(name, raw)| (name.to_string(), raw.version.to_string())).collect()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
