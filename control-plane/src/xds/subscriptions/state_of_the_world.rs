//! The older dialect (`StreamAggregatedResources`): each request names everything the client wants of a type.
//!
//! Absence has no word here. For listeners and clusters leaving a resource out deletes it, so their responses always
//! hold all of them; for the other types a response holds only what changed.

use super::{Compare, Held, Page, Resources, Response, Sent, Session, TooMany, Watches};
use crate::ResourceType;
use crate::xds::cache::Version;

/// The name that means every resource of a type.
const WILDCARD: &str = "*";

/// What a `DiscoveryRequest` says about one type.
#[derive(Debug, Default)]
pub(crate) struct StateOfTheWorldRequest {
    pub(crate) names: Vec<String>,
    /// The version the client holds; on a new stream, the one it kept from the last.
    pub(crate) version: String,
    /// The response this request answers; `None` in the first request of a type.
    pub(crate) nonce: Option<u64>,
    /// Why that response was rejected.
    pub(crate) error: Option<String>,
}

/// A state-of-the-world stream's subscriptions.
#[derive(Debug, Default)]
pub(crate) struct StateOfTheWorld {
    watches: Watches,
    last_nonce: u64,
    /// Per type: the last nonce sent. A request with an older one is out of date as a whole.
    newest: [Option<u64>; ResourceType::ALL.len()],
    /// Per type: the version the client brought from an earlier stream, until the first comparison.
    brought: [Option<Version>; ResourceType::ALL.len()],
}

impl Session for StateOfTheWorld {
    type Request = StateOfTheWorldRequest;

    fn receive(&mut self, kind: ResourceType, request: StateOfTheWorldRequest) -> Result<(), TooMany> {
        // A request that crossed a newer response on its way: the client's answer to that one repeats its names.
        if request.nonce != self.newest[kind as usize] && request.nonce.is_some() {
            return Ok(());
        }
        let watch = self.watches.get_mut(kind);
        let first = !std::mem::replace(&mut watch.started, true);
        if let Some(nonce) = request.nonce {
            watch.answered(nonce, request.error);
        }

        let named_before = watch.held.values().any(|held| held.named);
        let wildcard = request.names.iter().any(|name| name == WILDCARD)
            || (request.names.is_empty() && kind.is_full_state() && !named_before && (first || watch.wildcard));
        if wildcard && !watch.wildcard {
            watch.wildcard = true;
            watch.owes_first = true;
        }
        let dropped: Vec<_> = watch
            .held
            .iter()
            .filter(|(name, held)| held.named && !request.names.iter().any(|n| n == name.as_ref()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in dropped {
            watch.held.remove(&name);
            watch.owed.remove(&name);
        }
        if !wildcard && watch.wildcard {
            watch.end_wildcard();
        }
        watch.forget_settled_rejection();
        for name in request.names.iter().filter(|name| *name != WILDCARD) {
            let new = watch.held.get(name.as_str()).is_none_or(|held| !held.named);
            watch.subscribe(kind, name, new)?;
        }
        if first {
            self.brought[kind as usize] = Version::parse(&request.version);
        }
        Ok(())
    }

    fn next(&mut self, resources: &dyn Resources) -> Option<Response> {
        for kind in ResourceType::ALL {
            self.accept_what_was_brought(kind, resources);
            let watch = self.watches.get(kind);
            // One response at a time: the next would make the client's answer to this one stale.
            if watch.must_answer()
                && watch.in_flight.is_empty()
                && let Some(response) = self.respond(kind, resources)
            {
                return Some(response);
            }
        }
        // A type whose last push is unanswered holds back the types after it: their resources may refer to its own.
        for kind in ResourceType::ALL {
            let watch = self.watches.get_mut(kind);
            // Changes and removals travel in the same responses here, so that `removals` always names what `changes` does.
            if watch.changes.is_nothing() {
                continue;
            }
            if !watch.differs(kind, resources) {
                watch.changes = Compare::Nothing;
                watch.removals = Compare::Nothing;
                continue;
            }
            if !watch.in_flight.is_empty() {
                return None;
            }
            if let Some(response) = self.respond(kind, resources) {
                return Some(response);
            }
        }
        None
    }

    fn watches(&self) -> &Watches {
        &self.watches
    }

    fn watches_mut(&mut self) -> &mut Watches {
        &mut self.watches
    }
}

impl StateOfTheWorld {
    /// Makes the response that brings the client up to date; `None` if this dialect cannot say it (absence, but of
    /// listeners and clusters).
    fn respond(&mut self, kind: ResourceType, resources: &dyn Resources) -> Option<Response> {
        let watch = self.watches.get_mut(kind);
        let full = kind.is_full_state();
        let mut page = Page::default();
        let mut complete = true;
        for name in &watch.candidates(kind, resources) {
            let Some(rendered) = resources.get(kind, name) else {
                watch.told_absent(name);
                watch.owed.remove(name);
                continue;
            };
            let wanted = watch.owed.contains(name) || watch.changed(kind, name, resources).is_some();
            if full {
                // What does not fit cannot be left out: that would delete it.
                page.resources.push((name.clone(), rendered));
            } else if wanted && !page.take(name, rendered) {
                complete = false;
                break;
            }
            watch.owed.remove(name);
        }
        let even_empty = std::mem::take(&mut watch.owes_first) || full;
        watch.changes = if complete { Compare::Nothing } else { Compare::All };
        watch.removals = Compare::Nothing;
        if page.resources.is_empty() && !even_empty {
            return None;
        }
        self.last_nonce += 1;
        self.newest[kind as usize] = Some(self.last_nonce);
        Some(watch.send(kind, self.last_nonce, page.resources, Vec::new()))
    }

    /// On a new stream a client says which version it holds. A version stands for a set of names and contents, so if it
    /// is the one we would send, there is nothing to send.
    fn accept_what_was_brought(&mut self, kind: ResourceType, resources: &dyn Resources) {
        let Some(brought) = self.brought[kind as usize].take() else {
            return;
        };
        let watch = self.watches.get_mut(kind);
        let current: Vec<_> = watch
            .candidates(kind, resources)
            .into_iter()
            .filter_map(|name| {
                let version = resources.get(kind, &name)?.version;
                Some((name, version))
            })
            .collect();
        let version = current.iter().fold(Version::EMPTY, |sum, (name, version)| sum.with(name, *version));
        if version != brought {
            return;
        }
        for (name, version) in current {
            watch.held.entry(name).or_insert(Held::new(Sent::Nothing)).sent = Sent::Version(version);
        }
        watch.owed.clear();
        watch.owes_first = false;
        watch.accepted = Some(brought);
    }
}
