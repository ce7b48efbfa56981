//! The folder of YAML that the control plane watches.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;

/// A folder that exists as long as its sandbox.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: PathBuf) -> Result<Self, Error> {
        std::fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces a file at once, as editors do: no reader sees half of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.0.join(file);
        // A name the control plane does not read.
        let draft = self.0.join(format!(".{file}.draft"));
        std::fs::write(&draft, text).map_err(Error::io(format!("write {}", draft.display())))?;
        std::fs::rename(&draft, &path).map_err(Error::io(format!("replace {}", path.display())))
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, file: &str) -> Result<(), Error> {
        let path = self.0.join(file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// What the folder holds, as the control plane's `/status` says of what it has read: SHA-256 in hexadecimal over every manifest in
    /// the order of their names (name, a zero byte, text, a zero byte).
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn digest(&self) -> Result<String, Error> {
        let mut files = Vec::new();
        let failed = || Error::io(format!("read {}", self.0.display()));
        for entry in std::fs::read_dir(&self.0).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if is_manifest(&path) {
                files.push(path);
            }
        }
        files.sort();
        let mut digest = Sha256::new();
        for path in files {
            let text = std::fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
            digest.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            digest.update([0]);
            digest.update(&text);
            digest.update([0]);
        }
        Ok(format!("{:x}", digest.finalize()))
    }
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|end| ["yaml", "yml", "json"].map(OsStr::new).contains(&end))
}
