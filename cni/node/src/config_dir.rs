//! The node's folder of CNI configurations, with our plugin in the one that counts.
//!
//! Runtimes take the first file by name. If that is a list (`.conflist`), our entry goes into it. A configuration of a single plugin
//! (`.conf`, `.json`) has no place for it: beside `10-net.conf` we put `10-net-weft.conflist`, which comes before it by name, and leave the
//! original alone.
//!
//! [`reconcile`] looks at nothing but the folder, so it can be called whenever something might have changed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::conflist::{self, Unusable};
use crate::files;

/// What the folder is like now.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has configured a network yet.
    Waiting,
    /// The file that counts has our plugin; `changed` if it had to be written.
    InPlace {
        /// The file.
        path: PathBuf,
        /// Whether it had to be written.
        changed: bool,
    },
}

/// Why the plugin is not in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file that counts is of no use.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Unusable,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sees to it that our entry is in the configuration that counts, and in no other.
///
/// # Errors
/// [`Error::Unusable`] if there is no place for it; nothing has been changed then.
pub fn reconcile(folder: &Path, entry: &str) -> Result<State, Error> {
    let (ours, theirs) = configurations(folder)?;
    let Some((first, others)) = theirs.split_first() else {
        clear(&ours, None)?;
        return Ok(State::Waiting);
    };
    let text = read(first)?;
    let unusable = |reason| Error::Unusable { path: first.clone(), reason };
    let (path, changed) = if is_list(first) {
        let changed = match conflist::with_plugin(&text, entry).map_err(unusable)? {
            Some(with) => write_if_unchanged(first, &text, &with)?,
            None => false,
        };
        (first.clone(), changed)
    } else {
        let list = conflist::list_of(&text, entry).map_err(unusable)?;
        let beside = list_beside(first);
        let same = fs::read_to_string(&beside).is_ok_and(|there| there == list);
        let changed = !same && files::replace(&beside, list.as_bytes(), mode(first), || true)?;
        (beside, changed)
    };
    for other in others {
        strip(other)?;
    }
    clear(&ours, Some(&path))?;
    Ok(State::InPlace { path, changed })
}

/// Takes our plugin out of all configurations; true if there was one.
///
/// # Errors
/// If a file cannot be written or removed. What is no list is left alone.
pub fn remove(folder: &Path) -> Result<bool, Error> {
    let (ours, theirs) = configurations(folder)?;
    let mut removed = false;
    for path in &theirs {
        removed |= strip(path)?;
    }
    Ok(clear(&ours, None)? || removed)
}

/// Runtimes' candidates, in their order: the files we made as a whole, and everybody else's.
fn configurations(folder: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", folder.display()))),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let known = path
            .extension()
            .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known));
        if known && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files.into_iter().partition(|path| is_ours(path)))
}

/// A name right before that of `single`: '-' comes before '.'.
fn list_beside(single: &Path) -> PathBuf {
    let stem = single.file_stem().unwrap_or_default().to_string_lossy();
    single.with_file_name(format!("{stem}-weft.conflist"))
}

/// Whether we made the file as a whole.
fn is_ours(path: &Path) -> bool {
    is_list(path) && fs::read_to_string(path).is_ok_and(|text| conflist::is_made(&text))
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "conflist")
}

/// Removes the files we made, but `keep`.
fn clear(ours: &[PathBuf], keep: Option<&Path>) -> io::Result<bool> {
    let mut removed = false;
    for path in ours.iter().filter(|path| keep != Some(path)) {
        removed |= files::remove(path)?;
    }
    Ok(removed)
}

/// Takes our entry out of a list of somebody else's.
fn strip(path: &Path) -> Result<bool, Error> {
    if !is_list(path) {
        return Ok(false);
    }
    let text = read(path)?;
    match conflist::without_plugin(&text) {
        Ok(Some(without)) => Ok(write_if_unchanged(path, &text, &without)?),
        // What we cannot read we have not written.
        Ok(None) | Err(_) => Ok(false),
    }
}

/// Whoever wrote the file in between will be noticed by the next look at the folder.
fn write_if_unchanged(path: &Path, before: &str, after: &str) -> io::Result<bool> {
    files::replace(path, after.as_bytes(), mode(path), || fs::read_to_string(path).is_ok_and(|now| now == before))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777)
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"type":"weft-cni"}"#;
    const LIST: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"plugins\": [\n    { \"type\": \"bridge\" }\n  ]\n}\n";
    const SINGLE: &str = r#"{ "cniVersion": "0.4.0", "name": "n", "type": "ptp" }"#;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(name, text)| folder.write(name, text));
            folder
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.0.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn reconcile(&self) -> State {
            reconcile(self.0.path(), ENTRY).unwrap()
        }

        fn in_place(&self, name: &str, changed: bool) -> State {
            State::InPlace { path: self.0.path().join(name), changed }
        }
    }

    #[test]
    fn without_a_configuration_there_is_nothing_to_do_yet() {
        let folder = Folder::with(&[("README", "x"), ("10-net.conflist.bak", LIST)]);
        assert_eq!(folder.reconcile(), State::Waiting);
        assert_eq!(reconcile(&folder.0.path().join("gone"), ENTRY).unwrap(), State::Waiting);
        folder.write("10-net.conflist", LIST);
        assert_eq!(folder.reconcile(), folder.in_place("10-net.conflist", true));
    }

    #[test]
    fn the_first_list_gets_the_plugin_and_loses_it_without_a_trace() {
        let folder =
            Folder::with(&[("10-net.conflist", LIST), ("20-other.conflist", LIST), ("99-loopback.conf", SINGLE)]);
        fs::set_permissions(folder.0.path().join("10-net.conflist"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(folder.reconcile(), folder.in_place("10-net.conflist", true));
        assert!(folder.read("10-net.conflist").contains(ENTRY));
        assert_eq!(mode(&folder.0.path().join("10-net.conflist")), 0o600);
        assert_eq!(folder.reconcile(), folder.in_place("10-net.conflist", false));
        assert_eq!(folder.read("20-other.conflist"), LIST);
        assert!(remove(folder.0.path()).unwrap());
        assert_eq!(folder.read("10-net.conflist"), LIST);
        assert_eq!(folder.names(), ["10-net.conflist", "20-other.conflist", "99-loopback.conf"]);
        assert!(!remove(folder.0.path()).unwrap());
    }

    #[test]
    fn what_another_plugin_rewrites_gets_the_plugin_again() {
        let folder = Folder::with(&[("10-net.conflist", LIST)]);
        folder.reconcile();
        let rewritten = LIST.replace("bridge", "ptp");
        folder.write("10-net.conflist", &rewritten);
        assert_eq!(folder.reconcile(), folder.in_place("10-net.conflist", true));
        remove(folder.0.path()).unwrap();
        assert_eq!(folder.read("10-net.conflist"), rewritten);
    }

    #[test]
    fn the_plugin_moves_to_a_configuration_that_comes_first_now() {
        let folder = Folder::with(&[("10-net.conflist", LIST)]);
        folder.reconcile();
        folder.write("05-new.conflist", LIST);
        assert_eq!(folder.reconcile(), folder.in_place("05-new.conflist", true));
        assert_eq!(folder.read("10-net.conflist"), LIST);
    }

    #[test]
    fn a_single_plugins_configuration_gets_a_list_before_it_and_stays_as_it_is() {
        let folder = Folder::with(&[("10-net.conf", SINGLE)]);
        assert_eq!(folder.reconcile(), folder.in_place("10-net-weft.conflist", true));
        assert_eq!(folder.names(), ["10-net-weft.conflist", "10-net.conf"], "runtimes take the first");
        assert_eq!(folder.reconcile(), folder.in_place("10-net-weft.conflist", false));
        let rewritten = SINGLE.replace("ptp", "bridge");
        folder.write("10-net.conf", &rewritten);
        assert_eq!(folder.reconcile(), folder.in_place("10-net-weft.conflist", true));
        assert!(folder.read("10-net-weft.conflist").contains("bridge"));
        assert!(remove(folder.0.path()).unwrap());
        assert_eq!(folder.names(), ["10-net.conf"]);
        assert_eq!(folder.read("10-net.conf"), rewritten);
    }

    #[test]
    fn our_list_goes_with_the_configuration_it_was_made_of() {
        let folder = Folder::with(&[("10-net.conf", SINGLE)]);
        folder.reconcile();
        fs::remove_file(folder.0.path().join("10-net.conf")).unwrap();
        assert_eq!(folder.reconcile(), State::Waiting);
        assert!(folder.names().is_empty());
        let folder = Folder::with(&[("10-net.conf", SINGLE)]);
        folder.reconcile();
        folder.write("05-new.conflist", LIST);
        folder.reconcile();
        assert_eq!(folder.names(), ["05-new.conflist", "10-net.conf"]);
    }

    #[test]
    fn somebody_elses_file_with_a_name_like_ours_is_theirs() {
        let folder = Folder::with(&[("10-net-weft.conflist", LIST), ("10-net.conf", SINGLE)]);
        assert_eq!(folder.reconcile(), folder.in_place("10-net-weft.conflist", true));
        remove(folder.0.path()).unwrap();
        assert_eq!(folder.read("10-net-weft.conflist"), LIST);
    }

    #[test]
    fn a_configuration_that_is_half_written_is_waited_for() {
        let folder = Folder::with(&[("10-net.conflist", &LIST[..20]), ("20-other.conflist", LIST)]);
        let error = reconcile(folder.0.path(), ENTRY).unwrap_err().to_string();
        assert!(error.contains("10-net.conflist: it is no CNI configuration"), "{error}");
        assert_eq!(folder.read("20-other.conflist"), LIST);
        folder.write("10-net.conflist", LIST);
        assert_eq!(folder.reconcile(), folder.in_place("10-net.conflist", true));
    }
}
