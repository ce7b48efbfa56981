//! Getting a certificate from the control plane, and renewing it in time.
//!
//! The key is made here and never leaves; the control plane sees a CSR. A certificate is renewed at half of what is left
//! of its life, give or take a tenth, so that sidecars started together do not come back together. Whatever fails, the
//! last good certificate stays in force.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::Rng as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::metadata::AsciiMetadataValue;
use weft_xds::identity::SignRequest;
use weft_xds::identity::identity_client::IdentityClient;

use super::identity::{IdentityError, Leaf, LocalIdentity, TrustBundle};
use super::state_dir::StateDir;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Before the first repetition of a failed attempt; doubled each time.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest pause between attempts while a certificate is in force.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// The same while there is none and the pod waits to become ready.
const LONGEST_BACK_OFF_UNREADY: Duration = Duration::from_secs(2);
/// How often a long wait looks at the wall clock: the timer stands still while the machine sleeps.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The join token cannot be used.
    #[error("the join token {path}: {problem}; make one with `weft-control-plane token`")]
    Token {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No key or CSR could be made.
    #[error("cannot make a key and a signing request: {0}")]
    Request(#[from] rcgen::Error),
    /// The control plane said no, or cannot be reached.
    #[error("the control plane did not sign: {:?}: {}", .0.code(), .0.message())]
    Refused(#[from] tonic::Status),
    /// No answer in time.
    #[error("the control plane did not answer within {} s", ATTEMPT.as_secs())]
    Timeout,
    /// The answer is no certificate for our key.
    #[error("the control plane's answer cannot be used: {0}")]
    Answer(#[from] IdentityError),
    /// The answer names nobody.
    #[error("the control plane's certificate is for {0}, which is not exactly one SPIFFE id")]
    Nameless(String),
    /// The certificate has no life left.
    #[error("the control plane's certificate has already expired; compare both clocks")]
    Expired,
}

/// Keeps a [`LocalIdentity`] supplied. `T` is a gRPC channel to the control plane.
#[derive(Debug)]
pub struct Renewal<T> {
    client: IdentityClient<T>,
    local: Arc<LocalIdentity>,
    token_file: Option<PathBuf>,
    state: Option<StateDir>,
}

impl<T> Renewal<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// Renews over `channel`, whose own client certificate proves who we are unless a token does.
    pub fn new(channel: T, local: Arc<LocalIdentity>) -> Self {
        Self { client: IdentityClient::new(channel), local, token_file: None, state: None }
    }

    /// Proves who we are with the join token in this file, read anew for each attempt.
    #[must_use]
    pub fn with_token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.token_file = Some(file.into());
        self
    }

    /// Keeps key, certificate and bundle in this folder, and starts from what is there.
    #[must_use]
    pub fn with_state_dir(mut self, state: StateDir) -> Self {
        self.state = Some(state);
        self
    }

    /// Puts what a former process saved in force, unless it has expired. `run` does it first; calling it earlier makes
    /// the identity ready before a channel can be used.
    pub fn restore(&self) {
        restore(&self.local, self.state.as_ref());
    }

    /// Runs until dropped.
    pub async fn run(mut self) -> Infallible {
        self.restore();
        let mut changes = self.local.subscribe();
        let mut due = self.local.is_ready().then(|| self.half_life()).flatten();
        let mut failures = 0;
        loop {
            if let Some(due) = due {
                tokio::select! {
                    () = due.wait() => {}
                    () = self.local.renewal_requested() => {}
                    Ok(()) = changes.changed() => {
                        // Another bundle by SDS.
                        self.save_bundle();
                        if self.local.current().verifies_itself() {
                            continue;
                        }
                        tracing::info!("the root of our certificate is no longer trusted; asking for a new one");
                    }
                }
            }
            due = match self.attempt().await {
                Ok(()) => {
                    // Our own change is no news: answered with another attempt, it could go on for ever.
                    changes.mark_unchanged();
                    failures = 0;
                    self.local.record_failure(None);
                    self.half_life()
                }
                Err(error) => {
                    failures += 1;
                    let pause = self.back_off(failures);
                    tracing::warn!(%error, attempt = failures, retry_in = ?pause, "no new certificate");
                    self.local.record_failure(Some(error.to_string()));
                    Some(Due::after(pause))
                }
            };
        }
    }

    async fn attempt(&mut self) -> Result<(), SigningError> {
        let (key, leaf, bundle) =
            tokio::time::timeout(ATTEMPT, self.sign()).await.map_err(|_| SigningError::Timeout)??;
        let chain = leaf.certified.cert.clone();
        tracing::info!(identity = %leaf.identity, serial = leaf.serial, "certificate signed");
        // Before it is in force: whoever hears that it is finds it in the folder too.
        if let Some(state) = &self.state
            && let Err(error) = state.save_leaf(&key.serialize_pem(), &chain)
        {
            tracing::warn!(%error, "the certificate will not survive a restart");
        }
        self.local.install(leaf, Some(bundle));
        self.save_bundle();
        Ok(())
    }

    async fn sign(&mut self) -> Result<(KeyPair, Leaf, TrustBundle), SigningError> {
        // rcgen's default is ECDSA P-256.
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?;
        let mut request = tonic::Request::new(SignRequest { csr_der: csr.der().to_vec() });
        if let Some(token) = self.token()? {
            request.metadata_mut().insert("authorization", token);
        }
        let answer = self.client.sign(request).await?.into_inner();
        let chain = answer.chain_der.into_iter().map(CertificateDer::from).collect();
        let key_der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        let leaf = Leaf::new(chain, key_der)?;
        if leaf.identity.spiffe.is_empty() {
            return Err(SigningError::Nameless(leaf.identity.to_string()));
        }
        if leaf.not_after <= SystemTime::now() {
            return Err(SigningError::Expired);
        }
        let bundle = answer.bundle_der.into_iter().map(CertificateDer::from).collect();
        Ok((key, leaf, TrustBundle::new(bundle)?))
    }

    fn token(&self) -> Result<Option<AsciiMetadataValue>, SigningError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let refuse = |problem: String| SigningError::Token { path: path.clone(), problem };
        let token = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        let mut value: AsciiMetadataValue = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| refuse("holds characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn save_bundle(&self) {
        if let (Some(state), Some(bundle)) = (&self.state, &self.local.current().bundle)
            && let Err(error) = state.save_bundle(bundle)
        {
            tracing::warn!(%error, "the trust bundle will not survive a restart");
        }
    }

    /// Half of what is left of the certificate's life, ± a tenth.
    fn half_life(&self) -> Option<Due> {
        let left = self.local.expiry()?.duration_since(SystemTime::now()).ok()?;
        Some(Due::after(left.mul_f64(rand::rng().random_range(0.45..0.55))))
    }

    fn back_off(&self, failures: u32) -> Duration {
        let left = self.local.expiry().and_then(|expiry| expiry.duration_since(SystemTime::now()).ok());
        let longest = match left {
            // Several attempts before it expires, however short its life.
            Some(left) => (left / 8).clamp(FIRST_BACK_OFF, LONGEST_BACK_OFF),
            None => LONGEST_BACK_OFF_UNREADY,
        };
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(longest).mul_f64(rand::rng().random_range(0.75..1.0))
    }
}

/// Puts what a former process saved in force, unless it has expired.
pub fn restore(local: &LocalIdentity, state: Option<&StateDir>) {
    let Some(state) = state else { return };
    if local.is_ready() {
        return;
    }
    match (state.load_leaf(), state.load_bundle()) {
        (Ok(Some(leaf)), Ok(Some(bundle))) if leaf.not_after > SystemTime::now() => {
            tracing::info!(identity = %leaf.identity, serial = leaf.serial, "certificate restored");
            local.install(leaf, Some(bundle));
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "the saved certificate cannot be used");
        }
        _ => {}
    }
}

/// A point in time by both clocks: whichever gets there first.
#[derive(Debug, Clone, Copy)]
struct Due {
    timer: Instant,
    wall: SystemTime,
}

impl Due {
    fn after(pause: Duration) -> Self {
        Self { timer: Instant::now() + pause, wall: SystemTime::now() + pause }
    }

    async fn wait(self) {
        while Instant::now() < self.timer && SystemTime::now() < self.wall {
            tokio::time::sleep_until(self.timer.min(Instant::now() + CLOCK_CHECK)).await;
        }
    }
}

#[cfg(test)]
mod tests;
