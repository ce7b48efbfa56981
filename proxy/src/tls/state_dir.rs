//! Key, certificate and trust bundle in a folder, so that a restart works without the control plane.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::{IdentityError, Leaf, TrustBundle};

/// Key and chain in one file, so that neither is ever seen without the other.
const IDENTITY: &str = "identity.pem";
const BUNDLE: &str = "bundle.pem";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or the folder cannot be read or written.
    #[error("{path}: {source}; the state folder must belong to the proxy's user")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others can read the key.
    #[error("{path} has mode {mode:o}, so others may have read the private key; delete it and a new one is made")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The contents are no PEM.
    #[error("{path}: {problem}; delete it and a new one is made")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The contents do not fit together.
    #[error("{path}: {source}; delete it and a new one is made")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
}

/// A folder that only the proxy's user can read.
#[derive(Debug, Clone)]
pub struct StateDir {
    folder: PathBuf,
}

impl StateDir {
    /// Opens the folder; makes it, with mode 0700, where it does not exist.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StateError> {
        let folder = folder.into();
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|source| at(&folder, source))?;
        Ok(Self { folder })
    }

    /// The key and certificate saved last; `None` if there are none.
    ///
    /// # Errors
    /// If they cannot be read, are readable by others, or do not fit together.
    pub fn load_leaf(&self) -> Result<Option<Leaf>, StateError> {
        let path = self.folder.join(IDENTITY);
        let Some(pem) = read(&path)? else {
            return Ok(None);
        };
        let mode = fs::metadata(&path).map_err(|source| at(&path, source))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Exposed { path, mode });
        }
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| StateError::Pem { path: path.clone(), problem: error.to_string() })?;
        let chain = certificates(&path, &pem)?;
        Leaf::new(chain, key).map(Some).map_err(|source| StateError::Identity { path, source })
    }

    /// The trust bundle saved last; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load_bundle(&self) -> Result<Option<TrustBundle>, StateError> {
        let path = self.folder.join(BUNDLE);
        let Some(pem) = read(&path)? else {
            return Ok(None);
        };
        TrustBundle::new(certificates(&path, &pem)?).map(Some).map_err(|source| StateError::Identity { path, source })
    }

    /// The key saved last, and its chain, each as PEM; `None` if there are none.
    ///
    /// # Errors
    /// As [`load_leaf`](Self::load_leaf).
    pub fn load_pem(&self) -> Result<Option<(String, String)>, StateError> {
        if self.load_leaf()?.is_none() {
            return Ok(None);
        }
        let path = self.folder.join(IDENTITY);
        let text = fs::read_to_string(&path).map_err(|source| at(&path, source))?;
        // As `save_leaf` writes it: the key first.
        let chain = text.find("-----BEGIN CERTIFICATE-----").unwrap_or(text.len());
        let (key, chain) = text.split_at(chain);
        Ok(Some((key.to_owned(), chain.to_owned())))
    }

    /// Saves a key (PKCS #8 PEM) with its chain.
    ///
    /// # Errors
    /// If it cannot be written; what was saved before is then still there.
    pub fn save_leaf(&self, key_pem: &str, chain: &[CertificateDer<'_>]) -> Result<(), StateError> {
        let mut text = key_pem.to_owned();
        for certificate in chain {
            push_pem(&mut text, certificate);
        }
        self.replace(IDENTITY, &text)
    }

    /// Saves the trust bundle.
    ///
    /// # Errors
    /// As [`save_leaf`](Self::save_leaf).
    pub fn save_bundle(&self, bundle: &TrustBundle) -> Result<(), StateError> {
        self.replace(BUNDLE, &bundle_pem(bundle))
    }

    /// Writes beside and renames, so that a reader sees the old contents or the new, never a part.
    fn replace(&self, name: &str, text: &str) -> Result<(), StateError> {
        let new = self.folder.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            // What a crash left behind may have other permissions.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.folder.join(name))?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| at(&new, source))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(at(path, source)),
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StateError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| StateError::Pem { path: path.to_owned(), problem: error.to_string() })
}

/// A trust bundle as PEM.
#[must_use]
pub fn bundle_pem(bundle: &TrustBundle) -> String {
    let mut text = String::new();
    for certificate in bundle.certificates() {
        push_pem(&mut text, certificate);
    }
    text
}

/// RFC 7468: lines of 64 characters.
fn push_pem(text: &mut String, certificate: &CertificateDer<'_>) {
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        STANDARD.encode_string(line, text);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
}

fn at(path: &Path, source: io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{TestCa, alice};
    use std::os::unix::fs::PermissionsExt as _;

    fn key_and_chain(ca: &TestCa) -> (String, Vec<CertificateDer<'static>>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        (key.serialize_pem(), vec![ca.sign(csr.der(), &alice())])
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path().join("a/b")).unwrap();
        assert!(state.load_leaf().unwrap().is_none());
        assert!(state.load_bundle().unwrap().is_none());
        let ca = TestCa::new();
        let (key, chain) = key_and_chain(&ca);
        state.save_leaf(&key, &chain).unwrap();
        state.save_leaf(&key, &chain).unwrap();
        state.save_bundle(&ca.bundle()).unwrap();
        let leaf = state.load_leaf().unwrap().unwrap();
        assert_eq!(leaf.certified.cert, chain);
        assert_eq!(state.load_bundle().unwrap().unwrap().certificates(), [ca.root()]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&state.folder), 0o700);
        assert_eq!(mode(&state.folder.join(IDENTITY)), 0o600);
        let names = fs::read_dir(&state.folder).unwrap().count();
        assert_eq!(names, 2, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (key, chain) = key_and_chain(&TestCa::new());
        state.save_leaf(&key, &chain).unwrap();
        let path = folder.path().join(IDENTITY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(state.load_leaf(), Err(StateError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.replace(IDENTITY, "nonsense").unwrap();
        let error = state.load_leaf().unwrap_err().to_string();
        assert!(error.contains("identity.pem: "), "{error}");
    }
}
