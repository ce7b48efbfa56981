//! Keeps the endpoints of clusters that are given by name (STRICT_DNS, LOGICAL_DNS).
//!
//! One task per cluster; within it each name has its own clock. As in Envoy:
//! - a cluster is warm once each of its names was answered or has failed once;
//! - that a name has no address is an answer, and takes its endpoints away; a failure leaves what was known.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rand::Rng as _;
use tokio::task::JoinHandle;

use super::Cluster;
use super::discovery::{Discovery, DnsSettings};
use crate::dns::{DnsError, Resolved, Resolver};
use crate::snapshot::Store;

/// Resolves the names of all clusters in the store, whenever they come and go. Runs until dropped.
pub async fn resolve(store: Arc<Store>, resolver: Resolver) -> std::convert::Infallible {
    let mut changes = store.subscribe();
    let mut followed: HashMap<u64, Followed> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let snapshot = store.load_full();
        let mut gone: HashSet<u64> = followed.keys().copied().collect();
        for cluster in snapshot.clusters.values() {
            let Discovery::Dns(settings) = &cluster.config().discovery else { continue };
            gone.remove(&cluster.id());
            match followed.get(&cluster.id()) {
                Some(followed) if followed.settings == *settings => {}
                former => {
                    let known = former.map(|followed| followed.known.clone()).unwrap_or_default();
                    // The former task is stopped before the next one begins.
                    drop(followed.remove(&cluster.id()));
                    followed.insert(cluster.id(), Followed::start(cluster, settings, &resolver, known));
                }
            }
        }
        gone.iter().for_each(|id| drop(followed.remove(id)));
        // Invariant: the store, which we hold, keeps the sender.
        let _ = changes.changed().await;
    }
}

/// What names stood for when they last had an answer. It outlives changes of the settings.
type Known = Arc<Mutex<HashMap<Arc<str>, Vec<IpAddr>>>>;

/// A cluster's task.
struct Followed {
    settings: DnsSettings,
    known: Known,
    task: JoinHandle<()>,
}

impl Followed {
    fn start(cluster: &Arc<Cluster>, settings: &DnsSettings, resolver: &Resolver, known: Known) -> Self {
        let task = tokio::spawn(follow(cluster.clone(), settings.clone(), resolver.clone(), known.clone()));
        Self { settings: settings.clone(), known, task }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(cluster: Arc<Cluster>, settings: DnsSettings, resolver: Resolver, known: Known) {
    let names: HashSet<Arc<str>> = settings.assignment.names().map(Into::into).collect();
    let mut unanswered = names.clone();
    let ask = async |name: Arc<str>, pause: Duration, failures: u32| {
        tokio::time::sleep(pause).await;
        let answer = resolver.lookup(&name, settings.family).await;
        (name, answer, failures)
    };
    let mut questions: FuturesUnordered<_> = names.into_iter().map(|name| ask(name, Duration::ZERO, 0)).collect();
    let publish = || {
        // Entries are replaced whole, so a holder of the lock that panicked left them as they were.
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.set_assignment(settings.assignment.resolve(|name| known.get(name).cloned().unwrap_or_default()));
    };
    if unanswered.is_empty() {
        publish();
    }
    // Other settings make other endpoints of the same answers.
    let mut has_news = true;
    while let Some((name, answer, failures)) = questions.next().await {
        unanswered.remove(&name);
        let failures = match &answer {
            Err(error @ (DnsError::Failed(..) | DnsError::NotAName(..))) => {
                tracing::warn!(cluster = %cluster.name(), %error, "endpoints stay as they were");
                failures.saturating_add(1)
            }
            Err(DnsError::NoAddress(_)) | Ok(_) => 0,
        };
        let pause = settings.pause(&answer, failures);
        has_news |= take(&known, &name, answer, settings.one_address);
        // The first publication waits for all of them: a part would get the traffic of the whole.
        if unanswered.is_empty() && std::mem::take(&mut has_news) {
            publish();
        }
        questions.push(ask(name, pause, failures));
    }
}

/// Remembers an answer. Says whether it changes anything.
fn take(known: &Known, name: &Arc<str>, answer: Result<Resolved, DnsError>, one_address: bool) -> bool {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let mut addresses = match answer {
        Ok(resolved) => resolved.addresses,
        Err(DnsError::NoAddress(_)) => Vec::new(),
        Err(_) => return false,
    };
    let before = known.get(name);
    if one_address && addresses.len() > 1 {
        // The one in use stays as long as it is among them: servers turn their answers round.
        let stays = before.and_then(|before| before.first()).filter(|address| addresses.contains(address)).copied();
        let chosen = stays.unwrap_or_else(|| addresses[rand::rng().random_range(0..addresses.len())]);
        addresses = vec![chosen];
    }
    if before == Some(&addresses) {
        return false;
    }
    known.insert(name.clone(), addresses);
    true
}

impl DnsSettings {
    /// Time to the next question.
    fn pause(&self, answer: &Result<Resolved, DnsError>, failures: u32) -> Duration {
        if failures > 0 {
            let (first, longest) = self.failure_refresh;
            return first.saturating_mul(1 << (failures - 1).min(16)).min(longest);
        }
        let ttl = answer.as_ref().ok().and_then(|resolved| resolved.ttl);
        let pause = ttl.filter(|ttl| self.respect_ttl && !ttl.is_zero()).unwrap_or(self.refresh);
        match u64::try_from(self.jitter.as_millis()) {
            Ok(jitter @ 1..) => pause + Duration::from_millis(rand::rng().random_range(0..=jitter)),
            _ => pause,
        }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
