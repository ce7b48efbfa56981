//! What TLS contexts have from files, read again when the files change.
//!
//! Files are looked at once per second, each certificate and each set of roots on a thread of its own: a file system that hangs holds no
//! connection up, and none of the others. Connections that are open keep what they began with.
//! A file is another one when its identity, time or length differs, as at the end of its symbolic links: Kubernetes replaces the
//! link, others the file. What cannot be used, for example a key that is not yet the new certificate's, leaves the
//! last good one in force and is reported once.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use weft_xds::FieldError;
use weft_xds::envoy::config::core::v3::{DataSource, data_source::Specifier};

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Something made of data sources.
pub(super) struct FromFiles<T>(Arc<Watched<T>>);

struct Watched<T> {
    current: ArcSwap<T>,
    /// Empty where everything was inline.
    files: Vec<PathBuf>,
    load: Load<T>,
}

type Load<T> = Box<dyn Fn() -> Result<Arc<T>, FieldError> + Send + Sync>;

/// The last look at the files.
struct Seen {
    prints: Vec<Option<Print>>,
    problem: Option<String>,
}

/// What tells one version of a file from another: device, inode, time of its last change, length.
type Print = (u64, u64, (i64, i64), u64);

impl<T: Send + Sync + 'static> FromFiles<T> {
    /// Loads for the first time, and watches the files for as long as this lives.
    pub(super) fn new(
        sources: &[Option<&DataSource>],
        load: impl Fn() -> Result<Arc<T>, FieldError> + Send + Sync + 'static,
    ) -> Result<Self, FieldError> {
        let (watched, seen) = Watched::new(sources, load)?;
        let watched = Arc::new(watched);
        if !watched.files.is_empty() {
            let weak = Arc::downgrade(&watched);
            let watcher = thread::Builder::new().name("tls-files".to_owned()).spawn(move || watch(&weak, seen));
            if let Err(error) = watcher {
                tracing::warn!(files = ?watched.files, %error, "cannot be watched; changes are not noticed");
            }
        }
        Ok(Self(watched))
    }
}

impl<T> FromFiles<T> {
    /// The newest that can be used.
    pub(super) fn current(&self) -> Arc<T> {
        self.0.current.load_full()
    }
}

fn watch<T>(watched: &Weak<Watched<T>>, mut seen: Seen) {
    loop {
        thread::sleep(INTERVAL);
        let Some(watched) = watched.upgrade() else { return };
        watched.look(&mut seen);
    }
}

impl<T> Watched<T> {
    fn new(
        sources: &[Option<&DataSource>],
        load: impl Fn() -> Result<Arc<T>, FieldError> + Send + Sync + 'static,
    ) -> Result<(Self, Seen), FieldError> {
        let specifiers = sources.iter().flatten().filter_map(|source| source.specifier.as_ref());
        let files: Vec<PathBuf> = specifiers
            .filter_map(|specifier| match specifier {
                Specifier::Filename(name) => Some(name.into()),
                _ => None,
            })
            .collect();
        // Looked at before they are read: a change in between is seen the next time.
        let seen = Seen { prints: prints(&files), problem: None };
        let current = ArcSwap::new(load()?);
        Ok((Self { current, files, load: Box::new(load) }, seen))
    }

    fn look(&self, seen: &mut Seen) {
        let prints = prints(&self.files);
        if prints == seen.prints {
            return;
        }
        match (self.load)() {
            Ok(value) => {
                self.current.store(value);
                tracing::info!(files = ?self.files, "changed; new connections use them");
                *seen = Seen { prints, problem: None };
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
        f.debug_struct("FromFiles").field("files", &self.0.files).finish_non_exhaustive()
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
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, symlink};
    use std::path::Path;
    use std::time::Instant;

    fn source(file: &Path) -> DataSource {
        DataSource { specifier: Some(Specifier::Filename(file.display().to_string())), ..Default::default() }
    }

    /// Reads a number from a file.
    fn number(file: &Path) -> impl Fn() -> Result<Arc<u32>, FieldError> + Send + Sync + 'static {
        let path = file.to_owned();
        move || {
            let text = fs::read_to_string(&path).map_err(|error| FieldError::new("file", error.to_string()))?;
            text.parse().map(Arc::new).map_err(|_| FieldError::new("file", format!("`{text}` is no number")))
        }
    }

    /// A number that is looked at only when the test does.
    fn watched(file: &Path) -> (Watched<u32>, Seen) {
        Watched::new(&[Some(&source(file))], number(file)).unwrap()
    }

    /// As every careful writer does.
    fn replace(file: &Path, text: &str) {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let ends = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(it) = ready() {
                return it;
            }
            assert!(Instant::now() < ends, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_file_system_that_hangs_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, "1");
        let number = FromFiles::new(&[Some(&source(&file))], number(&file)).unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        fs::rename(pipe, &file).unwrap();
        // Only once somebody reads it, and waits, can it be opened to be written without waiting.
        let open = || OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&file).ok();
        let mut pipe = wait_for("the change is seen", open);
        assert_eq!(*number.current(), 1);
        pipe.write_all(b"2").unwrap();
        drop(pipe);
        wait_for("what it gave in the end is in force", || (*number.current() == 2).then_some(()));
    }

    #[test]
    fn nobody_watches_for_what_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, "1");
        let (number, seen) = watched(&file);
        let number = Arc::new(number);
        let weak = Arc::downgrade(&number);
        let watcher = thread::spawn(move || watch(&weak, seen));
        drop(number);
        wait_for("the watcher ends", || watcher.is_finished().then_some(()));
    }

    #[test]
    fn what_cannot_be_used_leaves_the_last_good_one_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, "1");
        let (number, mut seen) = watched(&file);
        for (text, expected) in [(Some("x"), 1), (None, 1), (Some("2"), 2)] {
            match text {
                Some(text) => replace(&file, text),
                None => fs::remove_file(&file).unwrap(),
            }
            number.look(&mut seen);
            assert_eq!(**number.current.load(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_folder_whose_link_is_swapped_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "1"), ("v2", "2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), text).unwrap();
        }
        // As Kubernetes lays out a volume: file -> ..data/file, ..data -> the version.
        symlink("v1", at("..data")).unwrap();
        symlink("..data/file", at("file")).unwrap();
        let (number, mut seen) = watched(&at("file"));
        symlink("v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        number.look(&mut seen);
        assert_eq!(**number.current.load(), 2);
    }
}
