//! The authority's keys in a Secret of the control plane's namespace: one for all replicas.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::kubernetes::{describe, in_time, watch_one};

/// The Secret's name.
pub(crate) const NAME: &str = "weft-ca";

/// Its key: what the state folder holds in a file of this name.
const KEY: &str = "authority.json";

/// The Secret could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server said no.
    #[error(
        "cannot {action} Secret {namespace}/{NAME}: {problem}; the control plane's service account needs a Role as `weft install` writes it"
    )]
    Api {
        /// What was tried.
        action: &'static str,
        /// The control plane's namespace.
        namespace: String,
        /// What the API server said.
        problem: String,
    },
    /// Its content is not what was written.
    #[error(
        "Secret {namespace}/{NAME} does not hold {KEY}; restore it from a backup, or delete it to start with a new authority"
    )]
    Empty {
        /// The control plane's namespace.
        namespace: String,
    },
    /// Another replica was faster.
    #[error("another replica changed Secret {namespace}/{NAME} at the same time; try again")]
    Conflict {
        /// The control plane's namespace.
        namespace: String,
    },
}

/// What the Secret holds.
pub(super) struct Held {
    pub(super) content: Vec<u8>,
    /// Tells whether somebody changed it meanwhile.
    pub(super) version: String,
}

/// The Secret.
pub(crate) struct AuthoritySecret {
    api: Api<Secret>,
    namespace: String,
}

impl AuthoritySecret {
    pub(crate) fn new(client: kube::Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// How problems name it.
    pub(super) fn describe(&self) -> String {
        format!("Secret {}/{NAME}", self.namespace)
    }

    pub(super) async fn load(&self) -> Result<Option<Held>, SecretError> {
        let secret = in_time(self.api.get_opt(NAME)).await.map_err(|error| self.failed("read", &error))?;
        secret.map(|secret| self.held(secret)).transpose()
    }

    /// Creates it unless it exists: of replicas that start together one wins, and the others read what that one wrote.
    pub(super) async fn create_once(&self, content: &[u8]) -> Result<(), SecretError> {
        let secret = self.secret(content, None);
        match in_time(self.api.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(self.failed("create", &error)),
        }
    }

    /// Replaces what it held at `version`. Returns the new version.
    pub(super) async fn replace(&self, content: &[u8], version: &str) -> Result<String, SecretError> {
        let secret = self.secret(content, Some(version.to_owned()));
        match in_time(self.api.replace(NAME, &PostParams::default(), &secret)).await {
            Ok(replaced) => Ok(replaced.metadata.resource_version.unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                Err(SecretError::Conflict { namespace: self.namespace.clone() })
            }
            Err(error) => Err(self.failed("replace", &error)),
        }
    }

    /// What it holds now, and after every change; `None` if it is gone. Outages of the API server are waited out.
    pub(super) fn watch(&self) -> impl Stream<Item = Result<Option<Held>, SecretError>> + Send + use<'_> {
        watch_one(self.api.clone(), NAME).map(|next| match next {
            Ok(Some(secret)) => self.held(secret).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(self.failed("watch", &error)),
        })
    }

    fn held(&self, secret: Secret) -> Result<Held, SecretError> {
        let content = secret.data.and_then(|mut data| data.remove(KEY));
        let content = content.ok_or_else(|| SecretError::Empty { namespace: self.namespace.clone() })?.0;
        Ok(Held { content, version: secret.metadata.resource_version.unwrap_or_default() })
    }

    fn secret(&self, content: &[u8], version: Option<String>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(crate::kubernetes::labels()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(content.to_vec()))])),
            ..Secret::default()
        }
    }

    fn failed(&self, action: &'static str, error: &(dyn std::error::Error + 'static)) -> SecretError {
        SecretError::Api { action, namespace: self.namespace.clone(), problem: describe(error) }
    }
}
