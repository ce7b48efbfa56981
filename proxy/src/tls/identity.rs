//! Our own identity: key, certificate and trust bundle, replaced while connections run.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::sync::{Notify, watch};

use super::peer::PeerIdentity;
use super::provider::provider;

/// Why a key, certificate or bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The chain holds no certificate.
    #[error("the certificate chain is empty; the first certificate must be the workload's own")]
    EmptyChain,
    /// The certificate does not parse.
    #[error("the certificate does not parse: {0}")]
    Certificate(String),
    /// The key is of no supported kind, or not the certificate's.
    #[error("the private key does not fit the certificate: {0}")]
    Key(rustls::Error),
    /// No certificate in the bundle.
    #[error("the trust bundle is empty; at least one root certificate is needed")]
    EmptyBundle,
    /// A root does not parse.
    #[error("certificate {index} of the trust bundle cannot be a root: {problem}")]
    Root {
        /// Its place in the bundle, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Holds the identity of this proxy; shared by everything that makes handshakes.
///
/// Readers take a consistent [`Credentials`] without a lock. Each change of key, certificate or bundle raises the
/// generation, by which pools tell connections of an older identity.
pub struct LocalIdentity {
    current: ArcSwap<Credentials>,
    generation: watch::Sender<u64>,
    /// Changes are read-modify-write.
    changing: Mutex<()>,
    renew: Notify,
    failure: Mutex<Option<String>>,
}

/// A consistent view of [`LocalIdentity`].
#[derive(Debug, Default)]
pub struct Credentials {
    /// Raised by each change.
    pub generation: u64,
    /// Key and certificate; `None` until the first arrives.
    pub leaf: Option<Arc<Leaf>>,
    /// Trusted roots; `None` until the first arrive.
    pub bundle: Option<Arc<TrustBundle>>,
}

impl Credentials {
    /// Whether a peer with our own bundle would accept our certificate now. After a root was withdrawn it would not,
    /// however much life the certificate has left.
    pub fn verifies_itself(&self) -> bool {
        let (Some(leaf), Some(bundle)) = (&self.leaf, &self.bundle) else {
            return false;
        };
        let Some((own, intermediates)) = leaf.certified.cert.split_first() else {
            return false;
        };
        let algorithms = provider().signature_verification_algorithms.all;
        ParsedCertificate::try_from(own).is_ok_and(|own| {
            let now = UnixTime::now();
            verify_server_cert_signed_by_trust_anchor(&own, &bundle.roots, intermediates, now, algorithms).is_ok()
        })
    }
}

impl LocalIdentity {
    /// An identity that holds nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Credentials::default()),
            generation: watch::Sender::new(0),
            changing: Mutex::new(()),
            renew: Notify::new(),
            failure: Mutex::new(None),
        })
    }

    /// What is in force now.
    pub fn current(&self) -> Arc<Credentials> {
        self.current.load_full()
    }

    /// The generation in force now.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// When the certificate in force expires.
    pub fn expiry(&self) -> Option<SystemTime> {
        Some(self.current.load().leaf.as_ref()?.not_after)
    }

    /// Notified of each change with its generation.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Waits until there are both a certificate and a bundle.
    pub async fn ready(&self) {
        let mut changes = self.subscribe();
        // An error means that `self` is gone, which the borrow rules out.
        let _ = changes.wait_for(|_| self.is_ready()).await;
    }

    /// Whether there are both a certificate and a bundle.
    pub fn is_ready(&self) -> bool {
        let current = self.current.load();
        current.leaf.is_some() && current.bundle.is_some()
    }

    /// Puts a new key and certificate in force, and the bundle that came with it, if any.
    pub fn install(&self, leaf: Leaf, bundle: Option<TrustBundle>) {
        self.change(|current| Credentials {
            generation: current.generation + 1,
            leaf: Some(Arc::new(leaf)),
            bundle: match bundle {
                Some(bundle) => Some(same_or_new(current.bundle.as_ref(), bundle)),
                None => current.bundle.clone(),
            },
        });
    }

    /// Puts a new bundle in force, for every handshake from now on. The same bundle again changes nothing.
    pub fn set_bundle(&self, bundle: TrustBundle) {
        self.change(|current| {
            let bundle = same_or_new(current.bundle.as_ref(), bundle);
            let same = current.bundle.as_ref().is_some_and(|old| Arc::ptr_eq(old, &bundle));
            Credentials {
                generation: current.generation + u64::from(!same),
                leaf: current.leaf.clone(),
                bundle: Some(bundle),
            }
        });
    }

    /// Asks whoever renews the certificate to do it now instead of at half life.
    pub fn request_renewal(&self) {
        self.renew.notify_one();
    }

    /// Waits for [`request_renewal`](Self::request_renewal).
    pub(super) async fn renewal_requested(&self) {
        self.renew.notified().await;
    }

    /// Why the last attempt to get a certificate failed; `None` after a success.
    pub fn last_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records how the last attempt to get a certificate ended.
    pub(super) fn record_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn change(&self, next: impl FnOnce(&Credentials) -> Credentials) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next(&self.current.load());
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.send_if_modified(|seen| {
            let changed = *seen != generation;
            *seen = generation;
            changed
        });
    }
}

impl fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalIdentity").field(&*self.current.load()).finish()
    }
}

fn same_or_new(old: Option<&Arc<TrustBundle>>, new: TrustBundle) -> Arc<TrustBundle> {
    match old {
        Some(old) if old.certificates == new.certificates => Arc::clone(old),
        _ => Arc::new(new),
    }
}

/// A key and its certificate.
pub struct Leaf {
    /// For handshakes.
    pub certified: Arc<CertifiedKey>,
    /// What the certificate says about us.
    pub identity: PeerIdentity,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// The certificate's serial number in hexadecimal.
    pub serial: String,
}

impl Leaf {
    /// Checks that `key` belongs to the first certificate of `chain`. Validity in time is not checked: peers do.
    ///
    /// # Errors
    /// If the chain is empty or does not parse, or the key is not its leaf's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::EmptyChain)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let identity = PeerIdentity::from_certificate(leaf).map_err(IdentityError::Certificate)?;
        let not_before = time(parsed.validity().not_before.timestamp());
        let not_after = time(parsed.validity().not_after.timestamp());
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let key = provider().key_provider.load_private_key(key).map_err(IdentityError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(IdentityError::Key)?;
        Ok(Self { certified: Arc::new(certified), identity, not_before, not_after, serial })
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("identity", &self.identity.to_string())
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The roots that a peer's chain may end in.
pub struct TrustBundle {
    certificates: Vec<CertificateDer<'static>>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) client_verifier: Arc<dyn ClientCertVerifier>,
}

impl TrustBundle {
    /// A bundle of DER certificates.
    ///
    /// # Errors
    /// If there is none, or one does not parse.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        if certificates.is_empty() {
            return Err(IdentityError::EmptyBundle);
        }
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            roots
                .add(certificate.clone())
                .map_err(|error| IdentityError::Root { index, problem: error.to_string() })?;
        }
        let roots = Arc::new(roots);
        let client_verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider()))
            .build()
            // The builder refuses an empty store only, which this is not.
            .map_err(|_| IdentityError::EmptyBundle)?;
        Ok(Self { certificates, roots, client_verifier })
    }

    /// The roots, DER, as given.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustBundle({} roots)", self.certificates.len())
    }
}

/// Certificates carry seconds since the epoch, before it too (RFC 5280 §4.1.2.5).
fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds >= 0 { SystemTime::UNIX_EPOCH + distance } else { SystemTime::UNIX_EPOCH - distance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{TestCa, alice};

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_only_with_certificate_and_bundle() {
        let ca = TestCa::new();
        let identity = LocalIdentity::new();
        let waiting = tokio::spawn({
            let identity = Arc::clone(&identity);
            async move { identity.ready().await }
        });
        identity.install(ca.leaf(&alice()), None);
        tokio::task::yield_now().await;
        assert!(!identity.is_ready());
        assert!(!waiting.is_finished());
        identity.set_bundle(ca.bundle());
        waiting.await.unwrap();
        assert!(identity.is_ready());
    }

    #[test]
    fn each_change_raises_the_generation_and_the_same_bundle_does_not() {
        let ca = TestCa::new();
        let identity = LocalIdentity::new();
        let mut changes = identity.subscribe();
        identity.install(ca.leaf(&alice()), Some(ca.bundle()));
        assert_eq!(identity.generation(), 1);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        identity.set_bundle(ca.bundle());
        assert_eq!(identity.generation(), 1);
        assert!(!changes.has_changed().unwrap());
        identity.set_bundle(TestCa::new().bundle());
        assert_eq!(identity.generation(), 2);
        identity.install(ca.leaf(&alice()), None);
        assert_eq!(identity.generation(), 3);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = TestCa::new();
        let (chain, _) = ca.issue(&alice());
        let (_, key) = ca.issue(&alice());
        assert!(matches!(Leaf::new(chain, key), Err(IdentityError::Key(_))));
        let (_, key) = ca.issue(&alice());
        assert!(matches!(Leaf::new(vec![], key), Err(IdentityError::EmptyChain)));
        assert!(matches!(TrustBundle::new(vec![]), Err(IdentityError::EmptyBundle)));
    }
}
