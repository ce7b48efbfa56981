//! Keeps the plugin in the node's CNI configuration, whoever rewrites it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};

use crate::Metrics;
use crate::config_dir::{self, State};

/// Sees to the folder again and again: when something in it changes, and every `PERIOD` in case a change went unnoticed. `status` tells
/// what keeps the plugin from being in place; none if it is.
pub async fn keep(folder: PathBuf, entry: String, status: watch::Sender<Option<String>>, metrics: Arc<Metrics>) {
    const PERIOD: Duration = Duration::from_secs(30);
    // Two that fight over a file shall not do so more often.
    const REST: Duration = Duration::from_millis(200);
    let changed = Arc::new(Notify::new());
    let mut watcher = None;
    loop {
        // Before looking, so that no change after it is missed; again if the folder was not there, or was replaced.
        if watcher.is_none() {
            watcher = watch_folder(&folder, &changed);
        }
        let result = config_dir::reconcile(&folder, &entry);
        let problem = match &result {
            Ok(State::Waiting) => {
                watcher = watcher.filter(|_| folder.is_dir());
                Some(format!(
                    "there is no CNI configuration in {} yet: the cluster's network plugin writes it",
                    folder.display()
                ))
            }
            Ok(State::InPlace { path, changed }) => {
                if *changed {
                    metrics.configuration_writes.inc();
                    tracing::info!(path = %path.display(), "put the plugin into the CNI configuration");
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        metrics.configured.set(i64::from(problem.is_none()));
        status.send_if_modified(|known| {
            let is_new = *known != problem;
            if let Some(problem) = problem.as_ref().filter(|_| is_new) {
                tracing::warn!("{problem}");
            }
            *known = problem;
            is_new
        });
        // Both ends are fine: a change, or the time.
        let _ = tokio::time::timeout(PERIOD, changed.notified()).await;
        tokio::time::sleep(REST).await;
    }
}

/// None if the folder cannot be watched; then looking from time to time has to do.
fn watch_folder(folder: &Path, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let changed = Arc::clone(changed);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading it, as we do, is no change.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher.inspect_err(|error| tracing::debug!(%error, folder = %folder.display(), "cannot watch the folder")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#;
    const ENTRY: &str = r#"{"type":"weft-cni"}"#;
    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_plugin_comes_with_the_networks_configuration_and_comes_back_when_it_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("10-net.conflist");
        let (status, mut seen) = watch::channel(Some("starting".into()));
        let metrics = Arc::new(Metrics::default());
        let keeper = tokio::spawn(keep(folder.path().into(), ENTRY.into(), status, Arc::clone(&metrics)));
        let is_waiting = |problem: &Option<String>| problem.as_ref().is_some_and(|text| text.contains("yet"));
        seen.wait_for(is_waiting).await.unwrap();
        for round in 1..=3 {
            // As network plugins do it: written beside, renamed.
            let new = folder.path().join("new");
            std::fs::write(&new, LIST).unwrap();
            std::fs::rename(&new, &path).unwrap();
            let patched = async {
                while std::fs::read_to_string(&path).unwrap() == LIST || metrics.configuration_writes.get() < round {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(LIMIT, patched).await.unwrap();
        }
        tokio::time::timeout(LIMIT, seen.wait_for(Option::is_none)).await.unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        tokio::time::timeout(LIMIT, seen.wait_for(is_waiting)).await.unwrap().unwrap();
        keeper.abort();
    }
}
