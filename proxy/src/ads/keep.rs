//! The last good configuration in a file, so that a restart works while the control plane does not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use weft_xds::google::protobuf::Any;

use super::kind::{Key, Kind};
use super::state::{Raw, Record};

/// The file's name in the state folder.
const FILE: &str = "configuration";

/// Raised when the file's meaning changes; another number is not read.
const FORMAT: u32 = 1;

/// The file's contents.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// `node.id`'s workload: configuration of another is of no use.
    #[prost(string, tag = "2")]
    owner: String,
    #[prost(message, repeated, tag = "3")]
    resources: Vec<KeptResource>,
}

#[derive(Clone, PartialEq, Message)]
struct KeptResource {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "vec", tag = "4")]
    message: Vec<u8>,
    #[prost(bool, tag = "5")]
    root: bool,
}

/// A resource read back.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) key: Key,
    pub(super) root: bool,
    pub(super) raw: Raw,
}

/// Where the last good configuration is kept.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    owner: String,
}

impl Keeper {
    /// In the folder, which exists, for the workload `owner`.
    pub(super) fn new(folder: &Path, owner: &str) -> Self {
        Self { path: folder.join(FILE), owner: owner.to_owned() }
    }

    /// What was saved last; empty if there is nothing, or nothing for this workload.
    pub(super) fn load(&self) -> io::Result<Vec<Restored>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let kept = Kept::decode(bytes.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if kept.format != FORMAT || kept.owner != self.owner {
            return Ok(Vec::new());
        }
        let restored = kept.resources.into_iter().filter_map(|resource| {
            Some(Restored {
                key: (Kind::of_type_url(&resource.type_url)?, resource.name.into()),
                root: resource.root,
                raw: Raw {
                    version: resource.version.into(),
                    message: Arc::new(Any { type_url: resource.type_url, value: resource.message }),
                },
            })
        });
        Ok(restored.collect())
    }

    /// The bytes to [`Keeper::save`].
    pub(super) fn encode(&self, records: impl Iterator<Item = Record>) -> Vec<u8> {
        let resources = records.filter_map(|record| {
            let active = record.active?;
            Some(KeptResource {
                type_url: record.key.0.type_url().to_owned(),
                name: record.key.1.to_string(),
                version: active.version.to_string(),
                message: active.message.value.clone(),
                root: record.root,
            })
        });
        Kept { format: FORMAT, owner: self.owner.clone(), resources: resources.collect() }.encode_to_vec()
    }

    /// Writes beside and renames, so that a crash leaves the old file or the new one. Only the owner can read it.
    pub(super) fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn record(active: bool) -> Record {
        let message = Arc::new(Any { type_url: Kind::Route.type_url().into(), value: vec![1, 2] });
        Record {
            key: (Kind::Route, "r".into()),
            root: true,
            active: active.then(|| Raw { version: "v1".into(), message }),
            warming: None,
            refused: None,
            absent: !active,
        }
    }

    #[test]
    fn what_is_saved_comes_back_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(folder.path(), "shop/web");
        assert!(keeper.load().unwrap().is_empty());
        keeper.save(&keeper.encode([record(true), record(false)].into_iter())).unwrap();
        keeper.save(&keeper.encode([record(true), record(false)].into_iter())).unwrap();
        let restored = keeper.load().unwrap();
        assert_eq!(restored.len(), 1, "what is not active is not kept");
        assert_eq!((restored[0].key.clone(), restored[0].root), ((Kind::Route, "r".into()), true));
        assert_eq!(*restored[0].raw.message, *record(true).active.unwrap().message);
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn anothers_configuration_is_not_taken_and_a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(folder.path(), "shop/web");
        keeper.save(&keeper.encode([record(true)].into_iter())).unwrap();
        assert!(Keeper::new(folder.path(), "shop/cart").load().unwrap().is_empty());
        keeper.save(&[0xff; 9]).unwrap();
        assert!(keeper.load().is_err());
    }
}
