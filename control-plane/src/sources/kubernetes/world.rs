//! Everything that the API server has told, and what can be made of it.
//!
//! Unlike a folder's, an error here concerns one object: a cluster has many authors, and the mistake of one must not freeze the
//! configuration of all others. The last good version of a broken object stays; one that cannot stand beside others is left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use weft_api::{Located, Object, Problem};

use super::kinds::{Kind, Read};
use crate::model::{MeshConfig, Model};
use crate::sources::build::{EndpointsFrom, build_from};
use crate::sources::{Reported, SourceState, WatchState};

/// Namespace and name.
pub(super) type Key = (String, String);

/// What a watch tells of its kind.
#[derive(Debug)]
pub(super) enum Event {
    /// A new list begins: the first, or one after the watch expired. What was known stays until it is complete.
    Listing,
    /// An element of the list.
    Listed(Key, Option<Read>),
    /// The list is complete: what was not in it is gone.
    ListDone,
    /// An object was made or changed.
    Changed(Key, Option<Read>),
    /// An object is gone.
    Gone(Key),
    /// The API server has no such kind (yet).
    Absent,
    /// The API server could not be asked. What was known stays.
    Failed(String),
}

/// One kind's objects.
#[derive(Default)]
struct Table {
    objects: BTreeMap<Key, Read>,
    listing: Option<BTreeMap<Key, Read>>,
    state: WatchState,
}

/// All objects of all kinds.
pub(super) struct World {
    tables: BTreeMap<Kind, Table>,
    /// Whether an object whose status is written may have changed since [`World::reported`].
    unreported: bool,
}

impl Default for World {
    fn default() -> Self {
        let table = |kind: Kind| {
            let state = WatchState { kind: kind.name(), ..WatchState::default() };
            (kind, Table { state, ..Table::default() })
        };
        Self { tables: Kind::ALL.into_iter().map(table).collect(), unreported: true }
    }
}

impl World {
    /// Takes an event; whether a model of what is known would be another.
    pub(super) fn apply(&mut self, kind: Kind, event: Event, now: std::time::SystemTime) -> bool {
        // Some of what makes no other model makes another status; a kind that stays absent makes neither, again and again.
        let of_objects = matches!(event, Event::ListDone | Event::Changed(..) | Event::Gone(_));
        let event = if kind == Kind::Pod { self.settled(event) } else { event };
        let table = self.tables.entry(kind).or_default();
        let was_synced = table.state.synced;
        if !matches!(event, Event::Failed(_)) {
            table.state.error = None;
            table.state.last_event = Some(now);
        }
        let changed = match event {
            Event::Listing => {
                table.listing = Some(BTreeMap::new());
                false
            }
            Event::Listed(key, read) => {
                let kept = keep_last_good(read, table.objects.get(&key));
                if let (Some(listing), Some(kept)) = (&mut table.listing, kept) {
                    listing.insert(key, kept);
                }
                false
            }
            Event::ListDone => {
                let listed = table.listing.take().unwrap_or_default();
                let same = table.objects.len() == listed.len()
                    && table.objects.iter().zip(&listed).all(|(a, b)| a.0 == b.0 && a.1.means_the_same(b.1));
                let changed = !(same && table.state.synced);
                table.objects = listed;
                table.state.lists += 1;
                table.state.absent = false;
                table.state.synced = true;
                changed
            }
            Event::Changed(key, read) => match keep_last_good(read, table.objects.get(&key)) {
                Some(kept) => {
                    let means_the_same = |before: &Read| before.means_the_same(&kept);
                    let changed = !table.objects.get(&key).is_some_and(means_the_same);
                    table.objects.insert(key, kept);
                    changed
                }
                None => table.objects.remove(&key).is_some(),
            },
            Event::Gone(key) => table.objects.remove(&key).is_some(),
            Event::Absent => {
                // A kind whose definition was removed has no objects any more.
                let changed = !table.state.synced || !table.objects.is_empty();
                (table.objects, table.listing) = (BTreeMap::new(), None);
                table.state.synced = true;
                table.state.absent = true;
                changed
            }
            Event::Failed(error) => {
                table.state.failures += 1;
                table.state.error = Some(error);
                false
            }
        };
        self.unreported |= kind.has_conditions() && (of_objects || changed);
        // Of a node only its pods' zone matters; but a list that was waited for has come.
        let waited = kind == Kind::Node && changed && !was_synced;
        if kind == Kind::Node && changed { self.settle_pods() || waited } else { changed }
    }

    /// With a pod in the zone of its node.
    fn settled(&self, event: Event) -> Event {
        let settle = |read: Option<Read>| {
            let mut read = read?;
            read.settle(|node| self.zone_of(node));
            Some(read)
        };
        match event {
            Event::Listed(key, read) => Event::Listed(key, settle(read)),
            Event::Changed(key, read) => Event::Changed(key, settle(read)),
            other => other,
        }
    }

    /// Puts every pod into the zone of its node. Whether any of them was elsewhere.
    fn settle_pods(&mut self) -> bool {
        let Some(nodes) = self.tables.get(&Kind::Node).map(|table| zones(&table.objects)) else { return false };
        let Some(pods) = self.tables.get_mut(&Kind::Pod) else { return false };
        let zone_of = |node: &str| nodes.get(node).cloned();
        for read in pods.listing.iter_mut().flat_map(BTreeMap::values_mut) {
            read.settle(zone_of);
        }
        let mut moved = false;
        for read in pods.objects.values_mut() {
            moved |= read.settle(zone_of);
        }
        moved
    }

    fn zone_of(&self, node: &str) -> Option<String> {
        let nodes = self.tables.get(&Kind::Node)?;
        // Nodes are in no namespace.
        Some(nodes.objects.get(&(String::new(), node.to_owned()))?.zone()?.to_owned())
    }

    /// Whether every kind has been listed: before that a model would lack things that exist.
    pub(super) fn is_synced(&self) -> bool {
        self.tables.values().all(|table| table.state.synced)
    }

    /// How the watches are.
    pub(super) fn watches(&self) -> Vec<WatchState> {
        self.tables.values().map(|table| table.state.clone()).collect()
    }

    /// The objects whose status is written, if any of them may have changed since they were last asked for.
    pub(super) fn reported(&mut self) -> Option<Vec<Arc<Reported>>> {
        let objects = || self.tables.values().flat_map(|table| table.objects.values());
        std::mem::take(&mut self.unreported).then(|| objects().filter_map(|read| read.written.clone()).collect())
    }

    /// What is known now, cheap to take elsewhere.
    pub(super) fn snapshot(&self) -> Snapshot {
        let reads = || self.tables.values().flat_map(|table| table.objects.values());
        Snapshot {
            objects: reads().filter_map(|read| read.located.clone()).collect(),
            problems: reads().flat_map(|read| read.problems.iter().cloned()).collect(),
        }
    }
}

/// Objects and what is wrong with each by itself.
pub(super) struct Snapshot {
    objects: Vec<Arc<Located>>,
    problems: Vec<Problem>,
}

impl Snapshot {
    /// A model of all objects that can stand together, and every problem.
    pub(super) fn build(self, config: &Arc<MeshConfig>, previous: &Model) -> (Model, Vec<Problem>) {
        let Self { objects, mut problems } = self;
        let mut objects = one_pod_per_address(objects);
        loop {
            let seen = objects.iter().map(|object| &**object);
            let found = match build_from(seen, EndpointsFrom::Slices, config, Some(previous)) {
                Ok(built) => {
                    problems.extend(built.warnings);
                    return (built.model, problems);
                }
                Err(found) => found,
            };
            // Whoever is named by an error goes; the warnings come again with the next attempt. Each round leaves out at least
            // one object, and every error names one, so this ends.
            let errors: Vec<_> = found.into_iter().filter(Problem::is_error).collect();
            let broken: HashSet<&str> = errors.iter().map(|problem| problem.object.as_str()).collect();
            let before = objects.len();
            objects.retain(|object| !broken.contains(object.origin.name()));
            if objects.len() == before {
                tracing::error!(?errors, "no object to leave out for these errors");
                objects.clear();
            }
            problems.extend(errors);
        }
    }
}

/// The zone of each node that says one.
fn zones(nodes: &BTreeMap<Key, Read>) -> HashMap<String, String> {
    nodes.iter().filter_map(|((_, name), read)| Some((name.clone(), read.zone()?.to_owned()))).collect()
}

/// The state to publish beside a model.
pub(super) fn state(generation: u64, problems: Arc<[Problem]>, watches: Vec<WatchState>) -> SourceState {
    SourceState { loaded: generation > 0, generation, problems, watches, ..SourceState::default() }
}

/// A broken version of an object leaves the last good one in force.
fn keep_last_good(read: Option<Read>, before: Option<&Read>) -> Option<Read> {
    let mut read = read?;
    if read.located.is_none() {
        read.located = before.and_then(|before| before.located.clone());
    }
    Some(read)
}

/// An address is given to a new pod while the deleted one that had it may still be known: the living one has it, then the younger.
fn one_pod_per_address(mut objects: Vec<Arc<Located>>) -> Vec<Arc<Located>> {
    let mut owners: HashMap<&str, usize> = HashMap::new();
    let rank = |at: usize| match &objects[at].object {
        Object::Workload(w) => (w.spec.terminating != Some(true), w.metadata.creation_timestamp.clone()),
        _ => (false, None),
    };
    let mut losers = HashSet::new();
    for (at, located) in objects.iter().enumerate() {
        let Object::Workload(workload) = &located.object else { continue };
        for address in &workload.spec.addresses {
            let Some(other) = owners.insert(address, at) else { continue };
            let (winner, loser) = if rank(other) > rank(at) { (other, at) } else { (at, other) };
            owners.insert(address, winner);
            losers.insert(loser);
        }
    }
    let mut at = 0..;
    objects.retain(|_| at.next().is_none_or(|at| !losers.contains(&at)));
    objects
}

#[cfg(test)]
mod tests;
