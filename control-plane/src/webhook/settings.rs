//! What the installation says about sidecars.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use weft_inject::Settings;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the injection settings {path}: {source}; name another file with --injection", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file makes no sense.
    #[error("injection settings {path}: {problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Settings in a file, usually a mounted ConfigMap, which the kubelet replaces when it changes.
pub(super) struct SettingsFile {
    path: Option<PathBuf>,
    /// What was read last and could be used, and what it says.
    good: Mutex<(Vec<u8>, Arc<Settings>)>,
}

impl SettingsFile {
    /// Reads the file for the first time; without a file, the defaults.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, SettingsError> {
        let good = match path {
            None => (Vec::new(), Arc::default()),
            Some(path) => {
                let content = read(path)?;
                let settings = parse(path, &content)?;
                (content, Arc::new(settings))
            }
        };
        Ok(Self { path: path.map(Path::to_owned), good: Mutex::new(good) })
    }

    /// What the file says now; what it said before where it cannot be used, with the reason in the log.
    ///
    /// Reads the file: a page of memory, at most a few hundred times a second.
    pub(super) fn current(&self) -> Arc<Settings> {
        // Both halves are replaced at once, so a panic elsewhere cannot have left them half changed.
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path {
            match read(path) {
                Ok(content) if content == good.0 => {}
                Ok(content) => match parse(path, &content) {
                    Ok(settings) => {
                        tracing::info!("injection settings changed");
                        *good = (content, Arc::new(settings));
                    }
                    Err(error) => tracing::error!("{error}; what was said before applies"),
                },
                Err(error) => tracing::error!("{error}; what it said before applies"),
            }
        }
        good.1.clone()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })
}

fn parse(path: &Path, content: &[u8]) -> Result<Settings, SettingsError> {
    let invalid = |problem: String| SettingsError::Invalid { path: path.to_owned(), problem };
    let settings: Settings = serde_yaml_ng::from_slice(content).map_err(|error| invalid(error.to_string()))?;
    settings.check().map_err(|error| invalid(error.to_string()))?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_applies_and_a_wrong_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("injection.yaml");
        std::fs::write(&path, "proxyImage: mine:1\n").unwrap();
        let file = SettingsFile::open(Some(&path)).unwrap();
        assert_eq!(file.current().proxy_image, "mine:1");
        std::fs::write(&path, "proxyImage: mine:2\ncni: true\n").unwrap();
        assert_eq!((file.current().proxy_image.as_str(), file.current().cni), ("mine:2", true));
        std::fs::write(&path, "proxyColour: red\n").unwrap();
        assert_eq!(file.current().proxy_image, "mine:2");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.current().proxy_image, "mine:2");
    }

    #[test]
    fn a_wrong_file_at_the_start_is_told_with_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("injection.yaml");
        for (content, says) in [("proxyColour: red\n", "proxyColour"), ("memoryLimit: lots\n", "memoryLimit")] {
            std::fs::write(&path, content).unwrap();
            let Err(error) = SettingsFile::open(Some(&path)) else { panic!("{content}") };
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
