//! The manifests of a folder: which there are, what they say, and what of them is read again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use weft_api::{Located, Problem};

/// All manifests of a folder, as they were when they were read.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<PathBuf, Arc<File>>);

#[derive(Debug)]
struct File {
    /// `None` if it cannot be read.
    text: Option<String>,
    objects: Vec<Located>,
    problems: Vec<Problem>,
}

impl Files {
    /// Reads the files that were seen; one that cannot be read is a problem of the file. What has the same text as in `before` is
    /// not parsed again: parsing is nearly all that reading costs.
    pub(super) fn read(seen: &Fingerprint, before: &Self) -> Self {
        let mut files = Self::default();
        for path in seen.0.keys() {
            let file = match std::fs::read_to_string(path) {
                Ok(text) => match before.0.get(path) {
                    Some(known) if known.text.as_ref() == Some(&text) => known.clone(),
                    _ => Arc::new(File::parse(path, text)),
                },
                // Removed since the folder was listed: the next event tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Arc::new(File::unreadable(path, &error)),
            };
            files.0.insert(path.clone(), file);
        }
        files
    }

    /// Every object, in the order of the files' paths.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Located> + Clone {
        self.0.values().flat_map(|file| &file.objects)
    }

    /// Everything wrong with the files, each by itself.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.0.values().flat_map(|file| &file.problems)
    }

    /// SHA-256 in hexadecimal over every manifest, in the order of their paths, as its path below `folder`, a zero byte, its text, and
    /// another zero byte. Whoever writes the folder can tell by it whether an edit has been read.
    pub(super) fn digest(&self, folder: &Path) -> String {
        let mut digest = Sha256::new();
        for (path, file) in &self.0 {
            let Some(text) = &file.text else { continue };
            digest.update(path.strip_prefix(folder).unwrap_or(path).as_os_str().as_encoded_bytes());
            digest.update([0]);
            digest.update(text);
            digest.update([0]);
        }
        format!("{:x}", digest.finalize())
    }
}

impl File {
    fn parse(path: &Path, text: String) -> Self {
        let manifest = weft_api::parse(&path.display().to_string(), &text);
        Self { text: Some(text), objects: manifest.objects, problems: manifest.problems }
    }

    fn unreadable(path: &Path, error: &io::Error) -> Self {
        let problem = Problem {
            file: path.display().to_string(),
            line: 1,
            object: String::new(),
            field: String::new(),
            value: String::new(),
            why: format!("cannot be read: {error}"),
            hint: "make it readable for the control plane, and UTF-8".to_owned(),
            severity: weft_api::Severity::Error,
        };
        Self { text: None, objects: Vec::new(), problems: vec![problem] }
    }
}

/// What a folder's files look like from outside.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, (u64, SystemTime)>);

impl Fingerprint {
    /// Lists a folder and the folders in it.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        files.add(folder)?;
        Ok(files)
    }

    /// The files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    fn add(&mut self, folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            // Follows links; what vanished meanwhile is not there.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
            if metadata.is_dir() && !hidden {
                self.add(&path)?;
            } else if metadata.is_file() && is_manifest(&path) {
                self.0.insert(path, (metadata.len(), metadata.modified()?));
            }
        }
        Ok(())
    }
}

/// YAML and JSON files; hidden ones are editors' scratch files.
pub(super) fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
    let known = path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e == *k));
    !hidden && known
}
