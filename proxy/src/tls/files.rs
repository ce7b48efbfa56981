//! What TLS contexts have from files, read again when the files change.
//!
//! Files are looked at when a handshake needs them, at most once per second; connections that are open keep what they began with.
//! A file is another one when its identity, time or length differs, as at the end of its symbolic links: Kubernetes replaces the
//! link, others the file. What cannot be used, for example a key that is not yet the new certificate's, leaves the
//! last good one in force and is reported once.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use weft_xds::FieldError;
use weft_xds::envoy::config::core::v3::{DataSource, data_source::Specifier};

/// How often files are looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Something made of data sources.
pub(super) struct FromFiles<T> {
    current: ArcSwap<T>,
    /// Empty where everything was inline.
    files: Vec<PathBuf>,
    load: Load<T>,
    seen: Mutex<Seen>,
}

type Load<T> = Box<dyn Fn() -> Result<Arc<T>, FieldError> + Send + Sync>;

/// The last look at the files.
struct Seen {
    at: Instant,
    prints: Vec<Option<Print>>,
    problem: Option<String>,
}

/// What tells one version of a file from another: device, inode, time of its last change, length.
type Print = (u64, u64, (i64, i64), u64);

impl<T> FromFiles<T> {
    /// Loads for the first time.
    pub(super) fn new(
        sources: &[Option<&DataSource>],
        load: impl Fn() -> Result<Arc<T>, FieldError> + Send + Sync + 'static,
    ) -> Result<Self, FieldError> {
        let specifiers = sources.iter().flatten().filter_map(|source| source.specifier.as_ref());
        let files: Vec<PathBuf> = specifiers
            .filter_map(|specifier| match specifier {
                Specifier::Filename(name) => Some(name.into()),
                _ => None,
            })
            .collect();
        // Looked at before they are read: a change in between is seen the next time.
        let prints = prints(&files);
        let current = ArcSwap::new(load()?);
        let seen = Mutex::new(Seen { at: Instant::now(), prints, problem: None });
        Ok(Self { current, files, load: Box::new(load), seen })
    }

    /// The newest that can be used.
    pub(super) fn current(&self) -> Arc<T> {
        if !self.files.is_empty() {
            self.look();
        }
        self.current.load_full()
    }

    fn look(&self) {
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            // Another worker looks.
            Err(TryLockError::WouldBlock) => return,
            // Whoever panicked changed at most what is overwritten here.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        if seen.at.elapsed() < INTERVAL {
            return;
        }
        seen.at = Instant::now();
        let prints = prints(&self.files);
        if prints == seen.prints {
            return;
        }
        match (self.load)() {
            Ok(value) => {
                self.current.store(value);
                tracing::info!(files = ?self.files, "changed; new connections use them");
                seen.prints = prints;
                seen.problem = None;
            }
            // The prints stay as they were, so that it is tried again.
            Err(error) => {
                let problem = error.to_string();
                if seen.problem.as_ref() != Some(&problem) {
                    tracing::warn!(%error, "changed, and cannot be used; the last good one stays in force");
                }
                seen.problem = Some(problem);
            }
        }
    }
}

impl<T> std::fmt::Debug for FromFiles<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FromFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

fn prints(files: &[PathBuf]) -> Vec<Option<Print>> {
    let print = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.dev(), metadata.ino(), (metadata.mtime(), metadata.mtime_nsec()), metadata.len()))
    };
    files.iter().map(print).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use tokio::time::advance;

    fn source(file: &Path) -> DataSource {
        DataSource { specifier: Some(Specifier::Filename(file.display().to_string())), ..Default::default() }
    }

    /// A number from a file.
    fn number(file: &Path) -> FromFiles<u32> {
        let path = file.to_owned();
        FromFiles::new(&[Some(&source(file))], move || {
            let text = fs::read_to_string(&path).map_err(|error| FieldError::new("file", error.to_string()))?;
            text.parse().map(Arc::new).map_err(|_| FieldError::new("file", format!("`{text}` is no number")))
        })
        .unwrap()
    }

    /// As every careful writer does.
    fn replace(file: &Path, text: &str) {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_after_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, "1");
        let number = number(&file);
        replace(&file, "2");
        assert_eq!(*number.current(), 1, "handshakes in quick succession share one look");
        advance(INTERVAL).await;
        assert_eq!(*number.current(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_leaves_the_last_good_one_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, "1");
        let number = number(&file);
        for (text, expected) in [(Some("x"), 1), (None, 1), (Some("2"), 2)] {
            match text {
                Some(text) => replace(&file, text),
                None => fs::remove_file(&file).unwrap(),
            }
            advance(INTERVAL).await;
            assert_eq!(*number.current(), expected, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_whose_link_is_swapped_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "1"), ("v2", "2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), text).unwrap();
        }
        // As Kubernetes lays out a volume: file -> ..data/file, ..data -> the version.
        symlink("v1", at("..data")).unwrap();
        symlink("..data/file", at("file")).unwrap();
        let number = number(&at("file"));
        assert_eq!(*number.current(), 1);
        symlink("v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        advance(INTERVAL).await;
        assert_eq!(*number.current(), 2);
    }
}
