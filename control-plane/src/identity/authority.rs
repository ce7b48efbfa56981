//! The certificate authority: its roots, their rotation, and the policy for what they sign.
//!
//! A rotation has three steps, each a point in time written down when it starts, so that a restart changes nothing:
//!
//! 1. at once: a new root joins the bundle. The old one signs on; every peer learns to trust the new one.
//! 2. after the overlap: the new root signs.
//! 3. when the last leaf of the old root has expired: the old root leaves the bundle.

mod maintenance;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use weft_xds::names::{PodName, SpiffeId};

use super::secret::{AuthoritySecret, SecretError};
use super::store::{self, StoreError};
use super::token::JoinKey;

/// How long a root is valid. Rotation is how a root ends; this is for roots that were forgotten.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far `notBefore` lies back, so that a peer whose clock is behind accepts a new certificate. Short-lived certificates
/// are backdated less, so that half of their validity still lies ahead.
pub(super) const BACKDATE: Duration = Duration::from_secs(120);

/// How far peers' clocks may be behind when an old root leaves the bundle.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The longest CSR looked at. One with a P-256 key is some 400 bytes.
const MAX_CSR: usize = 16 << 10;

/// Why a certificate was not signed, or a root not rotated.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The Secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What the state file or the Secret holds is not what was written.
    #[error(
        "{place} does not hold the certificate authority's roots: {problem}; restore it from a backup, or move it away to start with a new one"
    )]
    Corrupt {
        /// The file or the Secret.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The CSR is not one that is signed.
    #[error(
        "the certificate signing request is refused: {0}; send a PKCS #10 request for an ECDSA P-256 key, signed by that key"
    )]
    Request(String),
    /// The cryptography library failed.
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
    /// A rotation is still under way.
    #[error("a root rotation is under way: the new root signs from {}; rotate again after that", format_time(*.signs_from))]
    Rotating {
        /// Unix time in seconds.
        signs_from: u64,
    },
}

/// What a workload's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The only URI SAN.
    pub id: SpiffeId,
    /// The only DNS SAN.
    pub pod: PodName,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The leaf, DER.
    pub leaf: CertificateDer<'static>,
    /// Unix time in seconds.
    pub not_before: u64,
    /// Unix time in seconds.
    pub not_after: u64,
}

/// What is trusted now. Published whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Every trusted root, oldest first.
    pub bundle: Vec<CertificateDer<'static>>,
    /// Which of them signs.
    pub signer: usize,
}

impl Trust {
    /// The bundle as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.bundle.iter().map(pem).collect()
    }
}

/// The authority of one trust domain, kept in one file of the state folder, or in a Secret that all replicas share.
pub struct Authority {
    trust_domain: String,
    keep: Keep,
    /// How long certificates are valid from now on.
    lifetime: Duration,
    overlap: Duration,
    roots: Mutex<Roots>,
    /// Held from the look at the roots until what follows from it has been written.
    writing: tokio::sync::Mutex<()>,
    trust: watch::Sender<Arc<Trust>>,
}

/// Where the roots outlive this process.
enum Keep {
    File(PathBuf),
    Secret(Box<AuthoritySecret>),
}

/// The roots as they were last read or written.
#[derive(Clone)]
struct Roots {
    all: Vec<Root>,
    /// Of the Secret; empty for a file.
    version: String,
}

impl std::ops::Deref for Roots {
    type Target = [Root];

    fn deref(&self) -> &[Root] {
        &self.all
    }
}

/// How certificates are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// How long leaf certificates are valid.
    pub certificate_lifetime: Duration,
    /// How long a new root is trusted before it signs.
    pub root_overlap: Duration,
}

impl Authority {
    /// Loads the authority from the state folder, or makes one there the first time.
    ///
    /// # Errors
    /// If the folder or its file cannot be used.
    pub fn open(folder: &Path, settings: Settings, now: SystemTime) -> Result<Self, AuthorityError> {
        store::create_folder(folder)?;
        let file = folder.join("authority.json");
        let read = || -> Result<Option<Vec<Root>>, AuthorityError> {
            store::read(&file)?.map(|content| parse(&file.display(), &content)).transpose()
        };
        let roots = match read()? {
            Some(roots) => roots,
            None => {
                let first = vec![Root::generate(&settings.trust_domain, now, unix(now))?];
                store::create_once(&file, &serialize(&first))?;
                read()?.unwrap_or(first)
            }
        };
        Ok(Self::new(Keep::File(file), Roots { all: roots, version: String::new() }, settings, now))
    }

    /// Loads the authority from its Secret, or makes it the first time. Of replicas that start together one makes it.
    ///
    /// # Errors
    /// If the Secret cannot be used.
    pub(crate) async fn in_secret(
        secret: AuthoritySecret,
        settings: Settings,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let held = match secret.load().await? {
            Some(held) => held,
            None => {
                let first = vec![Root::generate(&settings.trust_domain, now, unix(now))?];
                secret.create_once(&serialize(&first)).await?;
                secret.load().await?.ok_or_else(|| AuthorityError::Corrupt {
                    place: secret.describe(),
                    problem: "it was deleted at once".to_owned(),
                })?
            }
        };
        let roots = Roots { all: parse(&secret.describe(), &held.content)?, version: held.version };
        Ok(Self::new(Keep::Secret(Box::new(secret)), roots, settings, now))
    }

    fn new(keep: Keep, roots: Roots, settings: Settings, now: SystemTime) -> Self {
        Self {
            trust_domain: settings.trust_domain,
            keep,
            lifetime: settings.certificate_lifetime,
            overlap: settings.root_overlap,
            trust: watch::Sender::new(Arc::new(trust(&roots, now))),
            roots: Mutex::new(roots),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// The SPIFFE trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// How long certificates signed now are valid.
    #[must_use]
    pub fn certificate_lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The roots trusted now, and every later change.
    #[must_use]
    pub fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// The keys of join tokens, one for each trusted root, that of the one that signs first. Replicas that share roots share them.
    pub(super) fn join_keys(&self, now: SystemTime) -> Vec<JoinKey> {
        let roots = self.lock();
        let first = signer(&roots, now);
        let others = (0..roots.len()).filter(|at| *at != first && roots[*at].is_trusted(now));
        let all = std::iter::once(first).chain(others);
        all.map(|at| JoinKey::of_root(&roots[at].issuer.key().serialize_der())).collect()
    }

    /// Signs the public key of a workload's CSR. Everything else in the certificate is policy: names, validity and usages
    /// come from here, whatever the CSR asks for.
    ///
    /// # Errors
    /// If the CSR is malformed, not signed by its key, or for another kind of key than ECDSA P-256.
    pub fn sign(&self, csr: &[u8], subject: &Subject, now: SystemTime) -> Result<Signed, AuthorityError> {
        if csr.len() > MAX_CSR {
            return Err(AuthorityError::Request(format!("it is {} bytes long, more than {MAX_CSR}", csr.len())));
        }
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
        check_key(&request)?;
        request.params = self.leaf(
            vec![
                SanType::URI(subject.id.to_string().try_into()?),
                SanType::DnsName(subject.pod.to_string().try_into()?),
            ],
            now,
        );
        let roots = self.lock();
        let root = &roots[signer(&roots, now)];
        let certificate = request.signed_by(&root.issuer)?;
        Ok(signed(certificate.der().clone(), &request.params))
    }

    /// Makes a key and a certificate for a server of the control plane itself.
    ///
    /// # Errors
    /// If a name is none, or the cryptography library fails.
    pub fn issue_serving(&self, names: &[String], now: SystemTime) -> Result<(Signed, KeyPair), AuthorityError> {
        let names = CertificateParams::new(names)?.subject_alt_names;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = self.leaf(names, now);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let roots = self.lock();
        let root = &roots[signer(&roots, now)];
        let certificate = params.signed_by(&key, &root.issuer)?;
        Ok((signed(certificate.der().clone(), &params), key))
    }

    /// Starts a rotation. Returns the Unix times in seconds from which the new root signs and the old is no longer trusted.
    ///
    /// # Errors
    /// If one is under way, or the state cannot be written; nothing changes then.
    pub async fn rotate(&self, now: SystemTime) -> Result<(u64, u64), AuthorityError> {
        let _writing = self.writing.lock().await;
        let roots = self.lock().clone();
        if let Some(next) = roots.iter().find(|root| root.signs_from > unix(now)) {
            return Err(AuthorityError::Rotating { signs_from: next.signs_from });
        }
        // Rounded up to whole seconds, which is what the file holds.
        let signs_from = unix(now + self.overlap + Duration::from_millis(999));
        let until = signs_from + (self.lifetime + CLOCK_SKEW).as_secs();
        let next = Root::generate(&self.trust_domain, now, signs_from)?;
        let mut rotated = roots.all;
        for root in &mut rotated {
            root.trusted_until.get_or_insert(until);
        }
        rotated.push(next);
        self.write(rotated, &roots.version).await?;
        self.publish(now);
        Ok((signs_from, until))
    }

    /// Takes the steps of a rotation that are due. Returns how long until the next one.
    ///
    /// # Errors
    /// If the state cannot be written; the step is then due still.
    pub async fn advance(&self, now: SystemTime) -> Result<Option<Duration>, AuthorityError> {
        let _writing = self.writing.lock().await;
        let roots = self.lock().clone();
        let kept: Vec<_> = roots.iter().filter(|root| root.is_trusted(now)).cloned().collect();
        if kept.len() < roots.len() && !kept.is_empty() {
            match self.write(kept, &roots.version).await {
                // Another replica took the step; its result is on its way.
                Err(AuthorityError::Secret(SecretError::Conflict { .. })) => {}
                other => other?,
            }
        }
        self.publish(now);
        let roots = self.lock();
        let next = roots
            .iter()
            .flat_map(|root| [Some(root.signs_from), root.trusted_until])
            .flatten()
            .filter(|at| *at > unix(now))
            .min();
        Ok(next.map(|at| (SystemTime::UNIX_EPOCH + Duration::from_secs(at)).duration_since(now).unwrap_or_default()))
    }

    /// Puts roots in the place of those at `version`. The caller holds `writing`.
    async fn write(&self, roots: Vec<Root>, version: &str) -> Result<(), AuthorityError> {
        let content = serialize(&roots);
        let version = match &self.keep {
            Keep::File(file) => {
                store::replace(file, &content)?;
                String::new()
            }
            Keep::Secret(secret) => secret.replace(&content, version).await?,
        };
        *self.lock() = Roots { all: roots, version };
        Ok(())
    }

    fn leaf(&self, names: Vec<SanType>, now: SystemTime) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name("Weft");
        params.subject_alt_names = names;
        params.not_before = OffsetDateTime::from(now - BACKDATE.min(self.lifetime / 10));
        params.not_after = OffsetDateTime::from(now + self.lifetime);
        params.serial_number = Some(serial_number());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn publish(&self, now: SystemTime) {
        let new = trust(&self.lock(), now);
        self.trust.send_if_modified(|trust| {
            let changed = **trust != new;
            if changed {
                *trust = Arc::new(new);
            }
            changed
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Roots> {
        // Roots are only ever replaced as a whole, so a panic elsewhere cannot have left them half changed.
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A root and its place in a rotation.
#[derive(Clone)]
struct Root {
    certificate: CertificateDer<'static>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// Unix time in seconds.
    signs_from: u64,
    /// Unix time in seconds; set when its successor is made.
    trusted_until: Option<u64>,
}

/// A root in the state file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRoot {
    /// PEM.
    certificate: String,
    /// PKCS #8 PEM.
    key: String,
    signs_from: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trusted_until: Option<u64>,
}

impl Root {
    fn generate(trust_domain: &str, now: SystemTime, signs_from: u64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // A name of its own for each root: chains are built by name, and two roots are trusted during a rotation.
        params.distinguished_name =
            distinguished_name(&format!("Weft root {trust_domain} {:08x}", rand::random::<u32>()));
        // SPIFFE X.509-SVID §3.2: a signing certificate carries its trust domain's id, without a path.
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
        params.not_before = OffsetDateTime::from(now - Duration::from_secs(3600));
        params.not_after = OffsetDateTime::from(now + ROOT_LIFETIME);
        params.serial_number = Some(serial_number());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, issuer: Arc::new(Issuer::new(params, key)), signs_from, trusted_until: None })
    }

    fn is_trusted(&self, now: SystemTime) -> bool {
        self.trusted_until.is_none_or(|until| until > unix(now))
    }
}

/// The newest root whose time to sign has come; the first, if a clock went back.
fn signer(roots: &[Root], now: SystemTime) -> usize {
    roots.iter().rposition(|root| root.signs_from <= unix(now)).unwrap_or(0)
}

fn trust(roots: &[Root], now: SystemTime) -> Trust {
    let signer = &roots[signer(roots, now)].certificate;
    let bundle: Vec<_> = roots
        .iter()
        // The signer is trusted whatever the clock says: what is signed now must be accepted now.
        .filter(|root| root.is_trusted(now) || root.certificate == *signer)
        .map(|root| root.certificate.clone())
        .collect();
    Trust { signer: bundle.iter().position(|root| root == signer).unwrap_or(0), bundle }
}

fn serialize(roots: &[Root]) -> Vec<u8> {
    let stored: Vec<_> = roots
        .iter()
        .map(|root| StoredRoot {
            certificate: pem(&root.certificate),
            key: root.issuer.key().serialize_pem(),
            signs_from: root.signs_from,
            trusted_until: root.trusted_until,
        })
        .collect();
    // Strings and numbers: this cannot fail.
    serde_json::to_vec_pretty(&stored).unwrap_or_default()
}

fn parse(place: &dyn std::fmt::Display, content: &[u8]) -> Result<Vec<Root>, AuthorityError> {
    let corrupt = |problem: String| AuthorityError::Corrupt { place: place.to_string(), problem };
    let stored: Vec<StoredRoot> = serde_json::from_slice(content).map_err(|error| corrupt(error.to_string()))?;
    if stored.is_empty() {
        return Err(corrupt("it lists no root".into()));
    }
    stored
        .into_iter()
        .map(|root| {
            let certificate = CertificateDer::from_pem_slice(root.certificate.as_bytes())
                .map_err(|error| corrupt(error.to_string()))?;
            let key = KeyPair::from_pem(&root.key).map_err(|error| corrupt(error.to_string()))?;
            let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| corrupt(error.to_string()))?;
            Ok(Root {
                certificate,
                issuer: Arc::new(issuer),
                signs_from: root.signs_from,
                trusted_until: root.trusted_until,
            })
        })
        .collect()
}

/// Only the key's algorithm and curve are taken from the request, so only they must be checked.
fn check_key(request: &CertificateSigningRequestParams) -> Result<(), AuthorityError> {
    use rcgen::PublicKeyData;
    // An uncompressed point: 0x04, x, y.
    let point = request.public_key.der_bytes();
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 || point.len() != 65 || point[0] != 4 {
        return Err(AuthorityError::Request("its key is not an ECDSA P-256 key".into()));
    }
    Ok(())
}

fn signed(leaf: CertificateDer<'static>, params: &CertificateParams) -> Signed {
    Signed {
        leaf,
        not_before: u64::try_from(params.not_before.unix_timestamp()).unwrap_or(0),
        not_after: u64::try_from(params.not_after.unix_timestamp()).unwrap_or(0),
    }
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// 127 random bits: unique (RFC 5280 §4.1.2.2) and positive.
fn serial_number() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

fn pem(certificate: &CertificateDer<'static>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    // RFC 7468 §2: 64 characters a line.
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn format_time(unix: u64) -> String {
    i64::try_from(unix)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests;
