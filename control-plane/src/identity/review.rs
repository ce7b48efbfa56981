//! Service-account tokens: how a pod proves who it is before it has a certificate.
//!
//! The kubelet projects a token into the pod that is made for one audience and bound to the pod. The API server checks it
//! (TokenReview), and says whose it is. Answers are kept for a moment, so that a proxy that asks again and again costs the API
//! server little; so short that a deleted account or pod is refused soon.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::{Api, PostParams};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use weft_inject::names::TOKEN_AUDIENCE;

use crate::kubernetes::{describe, in_time};
use crate::metrics::Metrics;

/// How long the API server's answer is believed.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Answers remembered at most. Beyond, those that are out of date go, and if there are none nothing is remembered.
const MOST_REMEMBERED: usize = 16_384;

/// Questions asked at a time: a rollout of thousands of pods must not be a flood.
const AT_ONCE: usize = 32;

/// Where the API server says to which pod a token is bound.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What follows in the name of a service account's user is `<namespace>:<account>`.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Why a token does not prove anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReviewError {
    /// The API server does not accept it.
    #[error(
        "the API server does not accept the token for audience `{TOKEN_AUDIENCE}`: {0}; mount a token of the pod's service account, projected with `audience: {TOKEN_AUDIENCE}`"
    )]
    Refused(String),
    /// It is accepted, but not a pod's.
    #[error(
        "the token is of `{0}`, and not bound to a pod; mount a projected service-account token, not a token from a Secret or from `kubectl create token`"
    )]
    NoPod(String),
    /// Nobody knows.
    #[error("the Kubernetes API server cannot be asked about the token: {0}; ask again")]
    Unavailable(String),
}

/// The pod that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reviewed {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) service_account: String,
    /// Until when it proves anything.
    pub(crate) expires: SystemTime,
}

/// Asks the API server about tokens.
pub(crate) struct Reviewer {
    api: Api<TokenReview>,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    permits: Semaphore,
    metrics: Arc<Metrics>,
}

struct Remembered {
    until: Instant,
    answer: Result<Reviewed, ReviewError>,
}

impl Reviewer {
    pub(crate) fn new(client: kube::Client, metrics: Arc<Metrics>) -> Self {
        let (remembered, permits) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Self { api: Api::all(client), remembered, permits, metrics }
    }

    /// The pod that a token is bound to.
    ///
    /// # Errors
    /// If the API server does not accept it for Weft's audience, or it is no pod's, or the API server cannot be asked.
    pub(crate) async fn review(&self, token: &str, now: SystemTime) -> Result<Reviewed, ReviewError> {
        // What is kept must not be of use to who reads this memory.
        let digest: [u8; 32] = Sha256::digest(token).into();
        let answer = match self.recall(&digest) {
            Some(answer) => answer,
            None => {
                let answer = self.ask(token, now).await;
                self.metrics.token_review(match &answer {
                    Ok(_) => "accepted",
                    Err(ReviewError::Unavailable(_)) => "unavailable",
                    Err(_) => "refused",
                });
                self.remember(digest, &answer);
                answer
            }
        }?;
        if answer.expires <= now {
            return Err(ReviewError::Refused("it has expired".to_owned()));
        }
        Ok(answer)
    }

    async fn ask(&self, token: &str, now: SystemTime) -> Result<Reviewed, ReviewError> {
        let _permit = self.permits.acquire().await.map_err(|error| ReviewError::Unavailable(error.to_string()))?;
        let question = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let parameters = PostParams::default();
        let answer = in_time(self.api.create(&parameters, &question))
            .await
            .map_err(|error| ReviewError::Unavailable(describe(&error)))?;
        let status = answer.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            let why = status.error.filter(|why| !why.is_empty());
            return Err(ReviewError::Refused(why.unwrap_or_else(|| "it is none of its tokens".to_owned())));
        }
        // A server that does not know audiences answers for its own.
        if !status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
            return Err(ReviewError::Refused("the answer is not about this audience".to_owned()));
        }
        // Without the claim (which every API server writes) it is asked about again soon.
        let expires = expiry(token).unwrap_or(now + REMEMBERED);
        bound(&status.user.unwrap_or_default(), expires)
    }

    fn recall(&self, digest: &[u8; 32]) -> Option<Result<Reviewed, ReviewError>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(digest).filter(|one| one.until > Instant::now()).map(|one| one.answer.clone())
    }

    fn remember(&self, digest: [u8; 32], answer: &Result<Reviewed, ReviewError>) {
        if matches!(answer, Err(ReviewError::Unavailable(_))) {
            return;
        }
        let now = Instant::now();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, one| one.until > now);
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(digest, Remembered { until: now + REMEMBERED, answer: answer.clone() });
        }
    }
}

/// Whose token it is, by what the API server says.
fn bound(user: &UserInfo, expires: SystemTime) -> Result<Reviewed, ReviewError> {
    let name = user.username.as_deref().unwrap_or_default();
    let extra = |key: &str| Some(user.extra.as_ref()?.get(key)?.first()?.clone());
    let account = name.strip_prefix(SERVICE_ACCOUNT).and_then(|account| account.split_once(':'));
    match (account, extra(POD_NAME), extra(POD_UID)) {
        (Some((namespace, account)), Some(pod), Some(uid)) => {
            Ok(Reviewed { namespace: namespace.to_owned(), pod, uid, service_account: account.to_owned(), expires })
        }
        _ => Err(ReviewError::NoPod(name.to_owned())),
    }
}

/// The claim `exp`. The API server has checked the signature.
fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

#[cfg(test)]
mod tests;
