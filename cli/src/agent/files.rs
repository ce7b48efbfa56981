//! The agent's folder.
//!
//! ```text
//! key.pem    -> ..data/key.pem        identity.json, bundle.json: the same for Envoy (SDS by files)
//! chain.pem  -> ..data/chain.pem      .state/: the agent's own
//! bundle.pem -> ..data/bundle.pem
//! ..data     -> ..1795570260-000000003
//! ```
//! As Kubernetes lays out a volume: every version is a folder of its own, and one `rename` of the link `..data` puts it in force. Envoy watches the folder
//! for it (`watched_directory`); gRPC reads the files again and again.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Value, json};
use weft_xds::names;

/// The link to the version in force.
const DATA: &str = "..data";
const KEY: &str = "key.pem";
const CHAIN: &str = "chain.pem";
const BUNDLE: &str = "bundle.pem";

/// The folder.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it where it does not exist.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        make(path).with_context(|| format!("cannot make {}", path.display()))?;
        // Envoy is told where the files are, whatever folder it is started in.
        let path = path.canonicalize().with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where the agent keeps what is its own.
    pub(super) fn state(&self) -> PathBuf {
        self.0.join(".state")
    }

    /// Puts a key, its chain and the roots in force, all PEM.
    pub(super) fn replace(&self, key: &str, chain: &str, bundle: &str) -> anyhow::Result<()> {
        self.write_version(key, chain, bundle)
            .and_then(|()| self.tell())
            .with_context(|| format!("cannot write into {}", self.0.display()))
    }

    fn write_version(&self, key: &str, chain: &str, bundle: &str) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let version = format!("..{}-{:09}", now.as_secs(), now.subsec_nanos());
        let folder = self.0.join(&version);
        make(&folder)?;
        for (name, text) in [(KEY, key), (CHAIN, chain), (BUNDLE, bundle)] {
            write(&folder.join(name), text)?;
        }
        let former = fs::read_link(self.0.join(DATA)).ok();
        self.link(Path::new(&version), DATA)?;
        for name in [KEY, CHAIN, BUNDLE] {
            if fs::symlink_metadata(self.0.join(name)).is_err() {
                self.link(&Path::new(DATA).join(name), name)?;
            }
        }
        self.clean(&version, former.as_deref())
    }

    /// Replaces a link in one step.
    fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        let new = self.0.join(format!(".new-{name}"));
        remove(&new)?;
        symlink(target, &new)?;
        fs::rename(&new, self.0.join(name))
    }

    /// Removes all versions but the one in force and the one before it, which somebody may just be reading.
    fn clean(&self, version: &str, former: Option<&Path>) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_version = name
                .to_string_lossy()
                .strip_prefix("..")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if is_version && name != version && Some(Path::new(&name)) != former {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes down, in Envoy's words, where the files are. Last, so that whoever sees these files finds the others.
    fn tell(&self) -> io::Result<()> {
        let file = |name: &str| json!({ "filename": self.0.join(name) });
        let watched = json!({ "path": self.0 });
        let certificate = json!({
            "certificate_chain": file(CHAIN), "private_key": file(KEY), "watched_directory": watched,
        });
        let validation = json!({ "trusted_ca": file(BUNDLE), "watched_directory": watched });
        self.tell_once(names::AGENT_BUNDLE, &secret(names::SECRET_BUNDLE, "validation_context", &validation))?;
        self.tell_once(names::AGENT_IDENTITY, &secret(names::SECRET_IDENTITY, "tls_certificate", &certificate))
    }

    fn tell_once(&self, name: &str, content: &Value) -> io::Result<()> {
        let (path, text) = (self.0.join(name), format!("{content:#}\n"));
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            return Ok(());
        }
        let new = self.0.join(format!(".new-{name}"));
        remove(&new)?;
        write(&new, &text)?;
        fs::rename(new, path)
    }
}

/// A secret as SDS by a file has it: `envoy.service.discovery.v3.DiscoveryResponse`.
fn secret(name: &str, kind: &str, content: &Value) -> Value {
    json!({ "resources": [{ "@type": weft_xds::type_url::SECRET, "name": name, kind: content }] })
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn key_and_chain_change_in_one_step_and_nothing_else_is_left() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("a/agent")).unwrap();
        let read = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap();
        for turn in ["one", "two", "three", "four"] {
            folder.replace(&format!("key {turn}"), &format!("chain {turn}"), turn).unwrap();
            assert_eq!(
                [read(KEY), read(CHAIN), read(BUNDLE)],
                [format!("key {turn}"), format!("chain {turn}"), turn.into()]
            );
        }
        let mut names: Vec<_> =
            fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("..1") && !name.starts_with("..2"));
        names.sort();
        assert_eq!(
            names,
            [DATA, BUNDLE, CHAIN, "identity.json", KEY]
                .map(str::to_owned)
                .into_iter()
                .chain(["bundle.json".into()])
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert_eq!(
            fs::read_dir(&folder.0).unwrap().count(),
            names.len() + 2,
            "the version in force, and the one before"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&folder.0), 0o700);
        assert_eq!(mode(&folder.0.join(KEY)), 0o600);
    }
}
