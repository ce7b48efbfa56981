//! Join tokens: how a workload outside Kubernetes proves who it is before it has a certificate.
//!
//! A JSON Web Token (RFC 7519) over HMAC-SHA-256 that names one pod. Whoever holds it can become that pod, so it is made
//! for one pod, lasts for a limited time, and travels only over TLS or in a file for its owner.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::store::{self, StoreError};

/// The only audience: a token made for something else is none of ours.
const AUDIENCE: &str = "weft";

/// How far the clock of the machine that made a token may be ahead.
const CLOCK_SKEW: u64 = 60;

/// Why a token does not prove anything.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not a token, or not signed with this control plane's key.
    #[error("the join token is not one of this control plane ({0}); make a new one with `weft-control-plane token`")]
    Invalid(String),
    /// Out of date.
    #[error(
        "the join token expired {ago} seconds ago (the clock here says {now}, the token {expires}, Unix time); make a new one with `weft-control-plane token`"
    )]
    Expired {
        /// Seconds since.
        ago: u64,
        /// This clock.
        now: u64,
        /// The token's `exp`.
        expires: u64,
    },
    /// A new token could not be made.
    #[error("the token could not be signed: {0}")]
    Sign(String),
}

/// The pod a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
}

/// A token that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The pod it is for.
    pub claim: Claim,
    /// The uid that the pod must have, where the token was made for one.
    pub uid: Option<String>,
    /// Until when it proves anything.
    pub expires: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// `<namespace>/<pod>`, as in `node.id`.
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    aud: String,
    /// Unix time in seconds.
    iat: u64,
    /// Unix time in seconds.
    exp: u64,
}

/// The key that signs and checks join tokens: kept in the state folder, or made of a root's key where all replicas share those.
pub struct JoinKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl JoinKey {
    /// Loads the key from the state folder, or makes one there the first time.
    ///
    /// # Errors
    /// If the folder or its file cannot be used.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        store::create_folder(folder)?;
        let file = folder.join("join.key");
        let key = match store::read(&file)? {
            Some(key) => key,
            None => {
                let new: [u8; 32] = rand::random();
                store::create_once(&file, &new)?;
                store::read(&file)?.unwrap_or(new.to_vec())
            }
        };
        if key.len() != 32 {
            return Err(StoreError::Corrupt {
                path: file,
                expected: "a key of 32 bytes",
                problem: format!("it is {} bytes long", key.len()),
            });
        }
        Ok(Self::new(&key))
    }

    /// The key that belongs to a root's private key: whoever has that may say who anybody is anyway.
    pub(super) fn of_root(private_key: &[u8]) -> Self {
        let secret = Sha256::new().chain_update(b"weft join tokens\0").chain_update(private_key).finalize();
        Self::new(&secret)
    }

    fn new(secret: &[u8]) -> Self {
        Self { encoding: EncodingKey::from_secret(secret), decoding: DecodingKey::from_secret(secret) }
    }

    /// Makes a token for one pod, whatever pod has the name.
    ///
    /// # Errors
    /// If the cryptography library fails.
    pub fn issue(&self, claim: &Claim, lifetime: Duration, now: SystemTime) -> Result<String, TokenError> {
        self.issue_for(claim, None, lifetime, now)
    }

    /// Makes a token for one pod, and for no other of the same name where a uid tells them apart.
    pub(super) fn issue_for(
        &self,
        claim: &Claim,
        uid: Option<&str>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        let now = unix(now);
        let claims = Claims {
            sub: weft_xds::names::node_id(&claim.namespace, &claim.pod),
            uid: uid.map(str::to_owned),
            aud: AUDIENCE.into(),
            iat: now,
            exp: now + lifetime.as_secs(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| TokenError::Sign(error.to_string()))
    }

    /// Checks a token and says which pod it is for, and until when.
    ///
    /// # Errors
    /// If it is not ours, or out of date.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["sub", "aud", "exp"]);
        // Checked below, against the `now` given.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| TokenError::Invalid(error.to_string()))?
            .claims;
        let now = unix(now);
        if claims.exp <= now {
            return Err(TokenError::Expired { ago: now - claims.exp, now, expires: claims.exp });
        }
        if claims.iat > now + CLOCK_SKEW {
            return Err(TokenError::Invalid(format!("it was made at {} but the clock here says {now}", claims.iat)));
        }
        let (namespace, pod) = weft_xds::names::parse_node(&claims.sub)
            .ok_or_else(|| TokenError::Invalid(format!("subject `{}`", claims.sub)))?;
        Ok(Verified {
            claim: Claim { namespace: namespace.into(), pod: pod.into() },
            uid: claims.uid,
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(claims.exp),
        })
    }
}

/// Whether a token is of the kind that is made here, to judge by what it says of itself.
pub(super) fn is_join_token(token: &str) -> bool {
    jsonwebtoken::decode_header(token).is_ok_and(|header| header.alg == Algorithm::HS256)
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn claim() -> Claim {
        Claim { namespace: "shop".into(), pod: "web-0".into() }
    }

    #[test]
    fn a_token_proves_its_pod_until_it_expires_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let token = JoinKey::open(folder.path()).unwrap().issue(&claim(), HOUR, now).unwrap();
        let key = JoinKey::open(folder.path()).unwrap();
        assert_eq!(key.verify(&token, now).unwrap().claim, claim());
        let error = key.verify(&token, now + HOUR * 2).unwrap_err();
        assert!(matches!(error, TokenError::Expired { ago: 3600, .. }), "{error}");
    }

    #[test]
    fn a_token_of_another_control_plane_proves_nothing() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = SystemTime::now();
        let token = JoinKey::open(theirs.path()).unwrap().issue(&claim(), HOUR, now).unwrap();
        let error = JoinKey::open(ours.path()).unwrap().verify(&token, now).unwrap_err();
        assert!(matches!(error, TokenError::Invalid(_)), "{error}");
    }

    #[test]
    fn a_token_without_a_signature_proves_nothing() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        let folder = tempfile::tempdir().unwrap();
        let key = JoinKey::open(folder.path()).unwrap();
        let now = SystemTime::now();
        let token = key.issue(&claim(), HOUR, now).unwrap();
        let payload = token.split('.').nth(1).unwrap();
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS384"}"#] {
            let forged = format!("{}.{payload}.", BASE64.encode(header));
            assert!(key.verify(&forged, now).is_err(), "{header}");
        }
    }
}
