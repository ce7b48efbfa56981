//! Readiness as a set of tasks that are not finished yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the process still waits for. Ready when nothing is left.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Readiness {
    /// Nothing to wait for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task; the process is not ready before the guard is dropped, so readiness cannot be forgotten on any way out.
    #[must_use = "the task counts as done when the guard is dropped"]
    pub fn wait_for(&self, task: &'static str) -> ReadyGuard {
        *self.lock().entry(task).or_default() += 1;
        ReadyGuard { readiness: self.clone(), task }
    }

    /// The tasks not done, in alphabetic order; empty when ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    /// Whether nothing is left to wait for.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, usize>> {
        // No panic can happen while the map is locked, so it is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's claim on readiness; dropping it says the task is done.
#[derive(Debug)]
pub struct ReadyGuard {
    readiness: Readiness,
    task: &'static str,
}

impl Drop for ReadyGuard {
    fn drop(&mut self) {
        let mut waiting = self.readiness.lock();
        if let Some(count) = waiting.get_mut(self.task) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(self.task);
                tracing::info!(task = self.task, left = waiting.len(), "ready");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_guard_is_dropped() {
        let readiness = Readiness::new();
        let certificate = readiness.wait_for("certificate");
        let one = readiness.wait_for("listener");
        let other = readiness.wait_for("listener");
        drop((certificate, one));
        assert_eq!(readiness.pending(), ["listener"]);
        drop(other);
        assert!(readiness.is_ready());
    }
}
