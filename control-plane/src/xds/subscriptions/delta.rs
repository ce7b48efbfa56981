//! The incremental dialect (`DeltaAggregatedResources`): names are added and removed, every response says only what is new.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Compare, Held, MAX_IN_FLIGHT, Page, Resources, Response, Sent, Session, TooMany, Watches};
use crate::ResourceType;
use crate::xds::cache::Version;

/// The name that means every resource of a type.
const WILDCARD: &str = "*";

/// What a `DeltaDiscoveryRequest` says about one type.
#[derive(Debug, Default)]
pub(crate) struct DeltaRequest {
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
    /// Name → version of what the client kept from an earlier stream. Only in a type's first request.
    pub(crate) initial_versions: HashMap<String, String>,
    /// The response this request answers, if any.
    pub(crate) nonce: Option<u64>,
    /// Why that response was rejected.
    pub(crate) error: Option<String>,
}

/// A delta stream's subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    watches: Watches,
    last_nonce: u64,
}

impl Session for Delta {
    type Request = DeltaRequest;

    fn receive(&mut self, kind: ResourceType, request: DeltaRequest) -> Result<(), TooMany> {
        let watch = self.watches.get_mut(kind);
        let first = !std::mem::replace(&mut watch.started, true);
        if let Some(nonce) = request.nonce {
            watch.answered(nonce, request.error);
        }

        let nothing_named = request.subscribe.is_empty() && request.unsubscribe.is_empty();
        if (first && nothing_named && kind.is_full_state()) || request.subscribe.iter().any(|name| name == WILDCARD) {
            watch.start_wildcard();
            // Clients wait for the first answer to a wildcard; one that brought its state has it already.
            watch.owes_first |= request.initial_versions.is_empty();
        }
        for name in request.unsubscribe.iter().filter(|name| *name != WILDCARD) {
            watch.unsubscribe(name);
        }
        if request.unsubscribe.iter().any(|name| name == WILDCARD) {
            watch.end_wildcard();
        }

        let named = request.subscribe.iter().filter(|name| *name != WILDCARD);
        if !first {
            return named.into_iter().try_for_each(|name| watch.subscribe(kind, name, true));
        }
        for name in named {
            let known = request.initial_versions.contains_key(name);
            watch.subscribe(kind, name, !known)?;
        }
        for (name, version) in &request.initial_versions {
            let sent = Version::parse(version).map_or(Sent::Foreign, Sent::Version);
            if let Some(held) = watch.held.get_mut(name.as_str()) {
                held.sent = sent;
            } else if watch.wildcard {
                if watch.held.len() >= super::MAX_NAMES {
                    return Err(TooMany { kind });
                }
                watch.held.insert(name.as_str().into(), Held::new(sent));
            }
        }
        watch.compare_all();
        Ok(())
    }

    fn next(&mut self, resources: &dyn Resources) -> Option<Response> {
        for kind in ResourceType::ALL {
            if let Some(response) = self.answer(kind, resources) {
                return Some(response);
            }
        }
        // A type whose last push is unanswered holds back the types after it: their resources may refer to its own.
        for kind in ResourceType::ALL {
            let watch = self.watches.get_mut(kind);
            if watch.changes.is_nothing() {
                continue;
            }
            let mut page = Page::default();
            let mut complete = true;
            for name in watch.to_compare(&watch.changes, kind, resources) {
                if let Some(rendered) = watch.changed(kind, &name, resources)
                    && !page.take(&name, rendered)
                {
                    complete = false;
                    break;
                }
            }
            if page.resources.is_empty() {
                watch.changes = Compare::Nothing;
                continue;
            }
            if !watch.in_flight.is_empty() {
                return None;
            }
            if complete {
                watch.changes = Compare::Nothing;
            }
            self.last_nonce += 1;
            return Some(watch.send(kind, self.last_nonce, page.resources, Vec::new()));
        }
        for kind in ResourceType::ALL.into_iter().rev() {
            let watch = self.watches.get_mut(kind);
            if watch.removals.is_nothing() {
                continue;
            }
            let is_gone = |name: &Arc<str>| {
                let sent = watch.held.get(name).map(|held| held.sent);
                matches!(sent, Some(Sent::Version(_) | Sent::Foreign)) && resources.get(kind, name).is_none()
            };
            let mut gone = watch.to_compare(&watch.removals, kind, resources);
            gone.retain(is_gone);
            if gone.is_empty() {
                watch.removals = Compare::Nothing;
                continue;
            }
            if !watch.in_flight.is_empty() {
                return None;
            }
            watch.removals = Compare::Nothing;
            self.last_nonce += 1;
            return Some(watch.send(kind, self.last_nonce, Vec::new(), gone.into_iter().collect()));
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

impl Delta {
    /// Answers new subscriptions, at once even while a push is unanswered: a request is waiting for it.
    fn answer(&mut self, kind: ResourceType, resources: &dyn Resources) -> Option<Response> {
        let watch = self.watches.get_mut(kind);
        if !watch.must_answer() || watch.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let mut page = Page::default();
        let mut absent = Vec::new();
        let mut answered = Vec::new();
        for name in &watch.owed {
            match resources.get(kind, name) {
                Some(rendered) => {
                    if !page.take(name, rendered) {
                        break;
                    }
                }
                None => absent.push(name.clone()),
            }
            answered.push(name.clone());
        }
        for name in &answered {
            watch.owed.remove(name);
        }
        if std::mem::take(&mut watch.owes_first) {
            for name in watch.candidates(kind, resources) {
                if answered.contains(&name) {
                    continue;
                }
                if let Some(rendered) = watch.changed(kind, &name, resources)
                    && !page.take(&name, rendered)
                {
                    // The rest follows as a push, when this page is answered.
                    watch.changes = Compare::All;
                    break;
                }
            }
        }
        self.last_nonce += 1;
        Some(watch.send(kind, self.last_nonce, page.resources, absent))
    }
}
