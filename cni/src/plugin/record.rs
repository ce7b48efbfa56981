//! What the plugin installed where: CHECK compares with it, and GC clears it up. Lost with a reboot, as the namespaces are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use weft_cni::redirect::Redirect;

use super::call::{Attachment, Configuration};

/// The records of one network.
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(super) fn of(configuration: &Configuration) -> Self {
        Self { directory: configuration.settings.state_dir.join(&configuration.name) }
    }

    /// Notes that the attachment's pod has been redirected.
    pub(super) fn write(&self, attachment: &Attachment, redirect: &Redirect) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(attachment);
        // Calls for one container never run at once, so the name is nobody else's.
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(redirect)?)?;
        fs::rename(new, path)
    }

    /// What was installed; none for an attachment that was left alone, or installed by somebody else.
    pub(super) fn read(&self, attachment: &Attachment) -> Option<Redirect> {
        serde_json::from_slice(&fs::read(self.path(attachment)).ok()?).ok()
    }

    /// Forgets the attachment, and says whether another interface of the same container is still attached.
    pub(super) fn remove(&self, attachment: &Attachment) -> io::Result<bool> {
        ignore_missing(fs::remove_file(self.path(attachment)))?;
        let others = format!("{}@", attachment.container);
        // All networks: the rules are the pod's, not the network's.
        let networks = self.directory.parent().map(entries).transpose()?.unwrap_or_default();
        let mut records = networks.iter().flat_map(|network| entries(network).unwrap_or_default());
        Ok(records.any(|path| file_name(&path).is_some_and(|name| name.starts_with(&others))))
    }

    /// Forgets all attachments but those that `is_valid`, given container and interface.
    pub(super) fn keep(&self, is_valid: impl Fn(&str, &str) -> bool) -> io::Result<()> {
        for path in entries(&self.directory)? {
            let stem = file_name(&path).and_then(|name| name.strip_suffix(".json")?.split_once('@'));
            if !stem.is_some_and(|(container, interface)| is_valid(container, interface)) {
                ignore_missing(fs::remove_file(&path))?;
            }
        }
        Ok(())
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        // Neither a container's name nor an interface's has a slash, and the container's no '@'.
        self.directory.join(format!("{}@{}.json", attachment.container, attachment.interface))
    }
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
