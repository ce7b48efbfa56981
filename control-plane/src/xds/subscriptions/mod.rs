//! What one stream is subscribed to, what its client holds, and what it must be told next.
//!
//! Pure: requests and "something changed" go in, responses come out of `next`; no IO, no clock. [`Delta`] and
//! [`StateOfTheWorld`] are the protocol's two dialects; both keep a [`Watch`] per resource type.
//!
//! Nothing is queued. A session remembers only what its client was sent; what to send is found by comparing with the
//! current resources when there is room to send it. A slow client is thus sent the newest state once, not every state
//! in between, and costs no memory.
//!
//! Order within one push: changed resources as [`ResourceType::ALL`] lists the types, then removals the other way round,
//! so that nothing refers to what is not there yet or not there any more.

mod delta;
mod state_of_the_world;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(crate) use delta::{Delta, DeltaRequest};
pub(crate) use state_of_the_world::{StateOfTheWorld, StateOfTheWorldRequest};

use super::cache::{Rendered, Version};
use crate::ResourceType;

/// Names one client may subscribe to per type. A sidecar forgets unused names long before.
const MAX_NAMES: usize = 65_536;

/// Responses a client may leave unanswered before it is sent no more of that type.
const MAX_IN_FLIGHT: usize = 64;

/// Bytes of resources in one response: below gRPC's usual limit of 4 MiB per message, with room for names.
const MAX_RESPONSE_BYTES: usize = 2 << 20;

/// The resources as one client may see them.
pub(crate) trait Resources {
    /// The resource, or `None` if it is known not to exist.
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Rendered>>;
    /// Every resource of a type that a wildcard covers.
    fn names(&self, kind: ResourceType) -> Vec<Arc<str>>;
}

/// What the stream does with a dialect.
pub(crate) trait Session {
    /// A request of this dialect, without its type.
    type Request;

    /// Takes in what the client says about one type.
    fn receive(&mut self, kind: ResourceType, request: Self::Request) -> Result<(), TooMany>;

    /// Any of the resources may have changed: everything is compared again.
    fn resources_changed(&mut self) {
        self.watches_mut().iter_mut().for_each(Watch::compare_all);
    }

    /// These resources of a type may have changed, and no others. Says whether any of it concerns the client.
    fn names_changed(&mut self, kind: ResourceType, names: &[Arc<str>]) -> bool {
        self.watches_mut().get_mut(kind).compare_names(names)
    }

    /// The next thing to tell the client; `None` until something changes or the client answers.
    fn next(&mut self, resources: &dyn Resources) -> Option<Response>;

    /// What each type's subscriptions look like.
    fn watches(&self) -> &Watches;

    /// The same, to change them.
    fn watches_mut(&mut self) -> &mut Watches;
}

/// A client subscribed to more names than one workload can need.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MAX_NAMES} {kind} names subscribed on one stream; unsubscribe unused names, or use the wildcard `*`"
)]
pub(crate) struct TooMany {
    kind: ResourceType,
}

/// One response, before it is encoded for its dialect.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) kind: ResourceType,
    /// What the client will hold of this type, as one version.
    pub(crate) version: Version,
    pub(crate) nonce: u64,
    pub(crate) resources: Vec<(Arc<str>, Arc<Rendered>)>,
    /// Names that do not exist; delta only.
    pub(crate) removed: Vec<Arc<str>>,
}

/// The watches of one stream, by type.
#[derive(Debug, Default)]
pub(crate) struct Watches([Watch; ResourceType::ALL.len()]);

impl Watches {
    pub(crate) fn get(&self, kind: ResourceType) -> &Watch {
        &self.0[kind as usize]
    }

    fn get_mut(&mut self, kind: ResourceType) -> &mut Watch {
        &mut self.0[kind as usize]
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watch> {
        self.0.iter_mut()
    }

    /// Whether the client has acknowledged everything there is to tell.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.iter().all(|watch| !watch.is_pending())
    }
}

/// What a client asked for and holds of one type.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether the client has said anything about this type.
    started: bool,
    wildcard: bool,
    held: BTreeMap<Arc<str>, Held>,
    /// Names the client just subscribed to: it waits for an answer, whatever it holds.
    owed: BTreeSet<Arc<str>>,
    /// The client waits for a first response even if there is nothing in it.
    owes_first: bool,
    /// What may have changed since the resources were last compared.
    changes: Compare,
    /// What may have gone since the resources were last compared.
    removals: Compare,
    in_flight: VecDeque<InFlight>,
    accepted: Option<Version>,
    rejection: Option<String>,
}

/// What the client holds under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    sent: Sent,
    /// Subscribed by name, not only covered by the wildcard.
    named: bool,
    rejected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Never told anything.
    Nothing,
    /// Told that there is no such resource.
    Absent,
    /// Holds something that is not ours.
    Foreign,
    Version(Version),
}

/// Which names must be compared with the resources again.
#[derive(Debug, Default, PartialEq, Eq)]
enum Compare {
    #[default]
    Nothing,
    These(BTreeSet<Arc<str>>),
    /// All that are held, and all that the wildcard covers.
    All,
}

impl Compare {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }

    fn add(&mut self, name: Arc<str>) {
        match self {
            Self::Nothing => *self = Self::These(BTreeSet::from([name])),
            Self::These(names) => {
                names.insert(name);
            }
            Self::All => {}
        }
    }
}

/// A response that the client has not answered.
#[derive(Debug)]
struct InFlight {
    nonce: u64,
    version: Version,
    resources: Vec<(Arc<str>, Version)>,
}

impl Watch {
    /// Names subscribed to.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The version of the last response that the client accepted.
    pub(crate) fn accepted(&self) -> Option<Version> {
        self.accepted
    }

    /// Why the client rejected what it was sent last, while that still stands.
    pub(crate) fn rejection(&self) -> Option<&str> {
        self.rejection.as_deref()
    }

    /// Whether there is something left to send, or to be answered.
    pub(crate) fn is_pending(&self) -> bool {
        self.must_answer() || !self.changes.is_nothing() || !self.removals.is_nothing() || !self.in_flight.is_empty()
    }

    fn must_answer(&self) -> bool {
        self.owes_first || !self.owed.is_empty()
    }

    fn compare_all(&mut self) {
        if self.started {
            self.changes = Compare::All;
            self.removals = Compare::All;
        }
    }

    fn compare_names(&mut self, names: &[Arc<str>]) -> bool {
        if self.wildcard {
            // New names are nobody's yet, so they are not among those that changed.
            self.compare_all();
            return true;
        }
        let mut concerned = false;
        for name in names {
            if let Some((name, _)) = self.held.get_key_value(name) {
                concerned = true;
                self.changes.add(name.clone());
                self.removals.add(name.clone());
            }
        }
        concerned
    }

    /// Subscribes to a name. The client gets an answer, even about something it was sent before (DeltaDiscoveryRequest,
    /// `resource_names_subscribe`), unless it has just said which version it holds.
    fn subscribe(&mut self, kind: ResourceType, name: &str, answer: bool) -> Result<(), TooMany> {
        let name = match self.held.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None if self.held.len() >= MAX_NAMES => return Err(TooMany { kind }),
            None => Arc::from(name),
        };
        if answer {
            self.owed.insert(name.clone());
        }
        self.held.entry(name).or_insert(Held::new(Sent::Nothing)).named = true;
        Ok(())
    }

    fn unsubscribe(&mut self, name: &str) {
        let Some((name, _)) = self.held.get_key_value(name) else {
            return;
        };
        let name = name.clone();
        if self.wildcard {
            // Still covered by the wildcard: the client must hear what has become of it.
            if let Some(held) = self.held.get_mut(&name) {
                held.named = false;
            }
            self.owed.insert(name);
        } else {
            self.held.remove(&name);
            self.owed.remove(&name);
            self.forget_settled_rejection();
        }
    }

    /// Starts the wildcard, or asks for it again. What is still under way to the client counts as held, whatever it was
    /// sent for: the client will take it for covered by the wildcard, and must hear if it is gone.
    fn start_wildcard(&mut self) {
        self.wildcard = true;
        for (name, _) in self.in_flight.iter().flat_map(|response| &response.resources) {
            self.held.entry(name.clone()).or_insert(Held::new(Sent::Foreign));
        }
        self.compare_all();
    }

    /// Ends the wildcard: what was not also asked for by name is forgotten.
    fn end_wildcard(&mut self) {
        self.wildcard = false;
        self.held.retain(|_, held| held.named);
        let held = &self.held;
        self.owed.retain(|name| held.contains_key(name));
        self.forget_settled_rejection();
    }

    /// The names to compare.
    fn to_compare(&self, compare: &Compare, kind: ResourceType, resources: &dyn Resources) -> BTreeSet<Arc<str>> {
        match compare {
            Compare::Nothing => BTreeSet::new(),
            // What the client has unsubscribed from since is none of its business any more.
            Compare::These(names) => names.iter().filter(|name| self.held.contains_key(*name)).cloned().collect(),
            Compare::All => self.candidates(kind, resources),
        }
    }

    /// Every name there is to compare: those held, and those the wildcard covers by now.
    fn candidates(&self, kind: ResourceType, resources: &dyn Resources) -> BTreeSet<Arc<str>> {
        let mut names: BTreeSet<_> = self.held.keys().cloned().collect();
        if self.wildcard {
            names.extend(resources.names(kind));
        }
        names
    }

    /// The resource, if the client does not hold this version of it yet.
    fn changed(&self, kind: ResourceType, name: &Arc<str>, resources: &dyn Resources) -> Option<Arc<Rendered>> {
        let rendered = resources.get(kind, name)?;
        let sent = self.held.get(name).map(|held| held.sent);
        (sent != Some(Sent::Version(rendered.version))).then_some(rendered)
    }

    /// Whether anything is left to tell the client.
    fn differs(&self, kind: ResourceType, resources: &dyn Resources) -> bool {
        self.to_compare(&self.changes, kind, resources).iter().any(|name| {
            let sent = self.held.get(name).map(|held| held.sent);
            match resources.get(kind, name) {
                Some(rendered) => sent != Some(Sent::Version(rendered.version)),
                None => matches!(sent, Some(Sent::Version(_) | Sent::Foreign)),
            }
        })
    }

    /// Remembers a response as sent, and makes it.
    fn send(
        &mut self,
        kind: ResourceType,
        nonce: u64,
        resources: Vec<(Arc<str>, Arc<Rendered>)>,
        removed: Vec<Arc<str>>,
    ) -> Response {
        for (name, rendered) in &resources {
            let held = self.held.entry(name.clone()).or_insert(Held::new(Sent::Nothing));
            held.sent = Sent::Version(rendered.version);
            held.rejected = false;
        }
        for name in &removed {
            self.told_absent(name);
        }
        let version = self.version();
        self.in_flight.push_back(InFlight {
            nonce,
            version,
            resources: resources.iter().map(|(name, rendered)| (name.clone(), rendered.version)).collect(),
        });
        Response { kind, version, nonce, resources, removed }
    }

    /// The client knows, or will know by leaving it out, that there is no such resource.
    fn told_absent(&mut self, name: &Arc<str>) {
        match self.held.get_mut(name) {
            Some(held) if held.named => *held = Held { named: true, ..Held::new(Sent::Absent) },
            _ => {
                self.held.remove(name);
            }
        }
    }

    /// One version for everything of this type that the client was sent; the same wherever the same resources are held.
    fn version(&self) -> Version {
        self.held
            .iter()
            .filter_map(|(name, held)| match held.sent {
                Sent::Version(version) => Some((name, version)),
                _ => None,
            })
            .fold(Version::EMPTY, |sum, (name, version)| sum.with(name, version))
    }

    /// The client answered the response with this nonce. Says whether that response was waiting for an answer.
    fn answered(&mut self, nonce: u64, error: Option<String>) -> bool {
        let Some(at) = self.in_flight.iter().position(|sent| sent.nonce == nonce) else {
            return false;
        };
        // Invariant: `at` was found in this very queue.
        let Some(response) = self.in_flight.remove(at) else {
            return false;
        };
        if let Some(error) = error {
            for (name, version) in &response.resources {
                if let Some(held) = self.held.get_mut(name)
                    && held.sent == Sent::Version(*version)
                {
                    held.rejected = true;
                }
            }
            self.rejection = Some(error);
        } else {
            self.accepted = Some(response.version);
            self.forget_settled_rejection();
        }
        true
    }

    /// A rejection stands while the client still refuses something it was sent: an acknowledgement of something else
    /// does not make it good.
    fn forget_settled_rejection(&mut self) {
        if !self.held.values().any(|held| held.rejected) {
            self.rejection = None;
        }
    }
}

impl Held {
    fn new(sent: Sent) -> Self {
        Self { sent, named: false, rejected: false }
    }
}

/// Takes resources in while they fit into one response. The first always does.
#[derive(Default)]
struct Page {
    resources: Vec<(Arc<str>, Arc<Rendered>)>,
    bytes: usize,
}

impl Page {
    fn take(&mut self, name: &Arc<str>, rendered: Arc<Rendered>) -> bool {
        let bytes = rendered.any.len() + name.len();
        if !self.resources.is_empty() && self.bytes + bytes > MAX_RESPONSE_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.resources.push((name.clone(), rendered));
        true
    }
}
