//! A watched folder of YAML files: every good edit becomes a new model; a bad one changes nothing and is told.

mod files;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};
use weft_api::{Located, Problem};

use files::{Files, Fingerprint, is_manifest};

use super::build::{EndpointsFrom, build_from};
use super::{Source, SourceState};
use crate::model::{MeshConfig, Model};

/// An edit of several files is one edit if no more than this lies between two events.
const QUIET: Duration = Duration::from_millis(5);
/// An edit that never ends is looked at anyway.
const PATIENCE: Duration = Duration::from_millis(100);
/// A file that was changed and not closed is read after this, complete or not: its writer may keep it open for ever.
const UNCLOSED: Duration = Duration::from_secs(1);
/// Notifications can get lost (network file systems, overflowing queues): the folder is compared this often.
const RESCAN: Duration = Duration::from_secs(2);

/// A folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}; name a folder of YAML files that this user may read", path.display())]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

/// Reads a folder once, then follows it.
///
/// # Errors
/// If the folder itself cannot be read. Whatever is wrong with its files is in [`SourceState::problems`].
pub async fn watch_folder(path: &Path, config: Arc<MeshConfig>) -> Result<Source, FolderError> {
    let (send, events) = mpsc::unbounded_channel();
    // Watching starts before the first reading, so that no edit falls between.
    let watcher = watcher(path, send);
    let mut reader = Reader::new(path, config);
    let (models, state) = (reader.models.subscribe(), reader.state.subscribe());
    reader.read().await.map_err(|source| FolderError { path: path.to_owned(), source })?;
    let task = tokio::spawn(follow(reader, watcher, events));
    Ok(Source::new(models, state, vec![task]))
}

/// Reads all files of a folder and checks each by itself: the objects, and all problems.
///
/// # Errors
/// If the folder cannot be listed. A file that cannot be read is a problem of the file.
pub fn read_folder(path: &Path) -> io::Result<(Vec<Located>, Vec<Problem>)> {
    let files = Files::read(&Fingerprint::of(path)?, &Files::default());
    Ok((files.objects().cloned().collect(), files.problems().cloned().collect()))
}

/// The files of a folder that are read as manifests, in the order of their paths.
///
/// # Errors
/// If the folder cannot be listed.
pub fn manifests_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(Fingerprint::of(path)?.paths().cloned().collect())
}

fn watcher(path: &Path, send: mpsc::UnboundedSender<notify::Event>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        // A failed watch is made up for by the rescan; a closed channel means that nobody follows any more.
        if let Ok(event) = event {
            let _ = send.send(event);
        }
    };
    let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
        watcher.watch(path, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(folder = %path.display(), %error, "no notifications of edits; looking every {RESCAN:?} instead");
            None
        }
    }
}

async fn follow(
    mut reader: Reader,
    _watcher: Option<RecommendedWatcher>,
    mut events: mpsc::UnboundedReceiver<notify::Event>,
) {
    let mut rescan = tokio::time::interval(RESCAN);
    let mut watching = true;
    loop {
        let edited = tokio::select! {
            event = events.recv(), if watching => match event {
                Some(event) => settle(event, &mut events).await,
                None => { watching = false; false }
            },
            _ = rescan.tick() => reader.has_changed().await,
        };
        if edited && let Err(error) = reader.read().await {
            error!(folder = %reader.path.display(), %error, "cannot read the folder; the last good configuration stays");
        }
    }
}

/// Waits for the end of an edit. False if nothing was edited.
///
/// A file that is written in place is empty at first, and an empty file is a valid one: so a changed file has to be closed
/// before it is read.
async fn settle(first: notify::Event, events: &mut mpsc::UnboundedReceiver<notify::Event>) -> bool {
    let mut unclosed: HashMap<PathBuf, Instant> = HashMap::new();
    let mut edited = note(first, &mut unclosed);
    let started = Instant::now();
    while edited {
        let quiet = Instant::now() + QUIET;
        let until = match unclosed.values().min() {
            Some(oldest) => *oldest + UNCLOSED,
            None => quiet.min(started + PATIENCE),
        };
        match tokio::time::timeout_at(until, events.recv()).await {
            Ok(Some(event)) => edited |= note(event, &mut unclosed),
            Ok(None) | Err(_) => break,
        }
        if unclosed.is_empty() && Instant::now() >= started + PATIENCE {
            break;
        }
    }
    edited
}

/// Whether an event is part of an edit.
fn note(event: notify::Event, unclosed: &mut HashMap<PathBuf, Instant>) -> bool {
    if !event.paths.iter().any(|path| is_relevant(path)) {
        return false;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => {
            for path in &event.paths {
                unclosed.remove(path);
            }
            true
        }
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => {
            let now = Instant::now();
            unclosed.extend(event.paths.into_iter().filter(|p| is_manifest(p)).map(|p| (p, now)));
            true
        }
        _ => true,
    }
}

/// Whether a change there may change what the folder says: manifests, and what may be folders of them (also the hidden link by
/// which Kubernetes swaps the files of a mounted ConfigMap).
fn is_relevant(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    is_manifest(path) || name == b"..data" || (path.extension().is_none() && !name.starts_with(b"."))
}

struct Reader {
    path: PathBuf,
    config: Arc<MeshConfig>,
    seen: Fingerprint,
    files: Arc<Files>,
    models: watch::Sender<Arc<Model>>,
    state: watch::Sender<Arc<SourceState>>,
}

impl Reader {
    fn new(path: &Path, config: Arc<MeshConfig>) -> Self {
        Self {
            path: path.to_owned(),
            config: config.clone(),
            seen: Fingerprint::default(),
            files: Arc::default(),
            models: watch::Sender::new(Arc::new(Model::empty(config))),
            state: watch::Sender::default(),
        }
    }

    async fn has_changed(&self) -> bool {
        let path = self.path.clone();
        match blocking(move || Fingerprint::of(&path)).await {
            Ok(now) => now != self.seen,
            Err(_) => false,
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let (path, config) = (self.path.clone(), self.config.clone());
        let (known, previous) = (self.files.clone(), self.models.borrow().clone());
        let (seen, files, digest, result) = blocking(move || {
            // Taken first: a file that changes while it is read looks changed at the next comparison.
            let seen = Fingerprint::of(&path)?;
            let files = Files::read(&seen, &known);
            let digest = files.digest(&path);
            let mut problems: Vec<_> = files.problems().cloned().collect();
            if problems.iter().any(Problem::is_error) {
                return Ok((seen, files, digest, Err(problems)));
            }
            let result = match build_from(files.objects(), EndpointsFrom::Selectors, &config, Some(&previous)) {
                Ok(built) => {
                    problems.extend(built.warnings);
                    Ok((built.model, problems))
                }
                Err(more) => {
                    problems.extend(more);
                    Err(problems)
                }
            };
            Ok((seen, files, digest, result))
        })
        .await?;
        self.files = Arc::new(files);
        self.seen = seen;
        self.publish(digest, result);
        Ok(())
    }

    fn publish(&mut self, digest: String, result: Result<(Model, Vec<Problem>), Vec<Problem>>) {
        let before = self.state.borrow().clone();
        // One edit may be noticed twice, on a busy machine for example.
        let problems = match &result {
            Ok((_, problems)) | Err(problems) => problems,
        };
        if before.digest == digest && before.refused == result.is_err() && *before.problems == **problems {
            return;
        }
        let state = match result {
            Ok((model, problems)) => {
                self.models.send_replace(Arc::new(model));
                SourceState {
                    loaded: true,
                    generation: before.generation + 1,
                    digest,
                    problems: problems.into(),
                    ..SourceState::default()
                }
            }
            Err(problems) => {
                SourceState { digest, refused: true, problems: problems.into(), ..SourceState::clone(&before) }
            }
        };
        for problem in state.problems.iter().filter(|p| !before.problems.contains(p)) {
            if problem.is_error() { error!("{problem}") } else { warn!("{problem}") }
        }
        if state.is_refused() {
            error!(folder = %self.path.display(), "the folder is refused; the last good configuration stays");
        } else {
            info!(folder = %self.path.display(), generation = state.generation, "configuration applied");
        }
        self.state.send_replace(Arc::new(state));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The work panicked, or the runtime is going away.
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_text_read_again_is_no_new_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let account = |name: &str| format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n");
        std::fs::write(&file, account("a")).unwrap();
        let mut reader = Reader::new(folder.path(), Arc::default());
        for (text, generation) in [(account("a"), 1), (account("a"), 1), (account("b"), 2), (account("b"), 2)] {
            std::fs::write(&file, text).unwrap();
            reader.read().await.unwrap();
            assert_eq!(reader.state.borrow().generation, generation);
        }
    }
}
