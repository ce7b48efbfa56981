//! What every source gives to whoever follows it.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weft_api::Problem;

use crate::model::Model;

/// A source that is being watched. Dropping it ends the watch.
#[derive(Debug)]
pub struct Source {
    /// The last good model.
    pub models: watch::Receiver<Arc<Model>>,
    /// How the last attempt to read the source went. Told after the model that it is about.
    pub state: watch::Receiver<Arc<SourceState>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Source {
    pub(super) fn new(
        models: watch::Receiver<Arc<Model>>,
        state: watch::Receiver<Arc<SourceState>>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        Self { models, state, tasks }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// How the last attempt to read a source went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Whether there has ever been a good model. Until then there is nothing that proxies should be told.
    pub loaded: bool,
    /// Good models so far.
    pub generation: u64,
    /// The digest of a folder when it was last read, good or not, as [`crate::SourceStatus`] has it; empty elsewhere.
    pub digest: String,
    /// Whether the source as it is now was refused as a whole, so that the model in force is older than it. A folder is refused
    /// for any error in it, an API server never: there an error concerns its object only.
    pub refused: bool,
    /// Everything wrong now.
    pub problems: Arc<[Problem]>,
    /// The watches of an API server by kind; none of a folder.
    pub watches: Vec<WatchState>,
}

impl SourceState {
    /// Whether the source as it is now was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused
    }
}

/// How the watch of one kind is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchState {
    /// The kind.
    pub kind: &'static str,
    /// Whether all its objects have been listed once.
    pub synced: bool,
    /// Whether the API server does not have the kind.
    pub absent: bool,
    /// Complete lists: the first, and one after each watch that expired.
    pub lists: u64,
    /// Times that the API server could not be asked.
    pub failures: u64,
    /// Why it cannot be asked now.
    pub error: Option<String>,
    /// When the API server last told something of the kind.
    pub last_event: Option<SystemTime>,
}
