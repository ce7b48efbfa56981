//! Whether an agent that is asked to end takes the plugin along.
//!
//! An upgrade ends every agent, and the plugin has to stay: it needs no agent for pods that are not the mesh's, and a gap would let injected
//! pods start without their redirection. When the DaemonSet is deleted, the plugin has to go. The API server tells one from the other.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::Api;
use kube::{Client, Error as ApiError};

/// When the plugin is taken out of the node's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// When the DaemonSet has been deleted
    Auto,
    /// Whenever the agent ends
    Always,
    /// Only by `weft-cni-node uninstall`
    Never,
}

/// The DaemonSet that runs the agent.
pub struct Owner {
    api: Api<DaemonSet>,
    name: String,
    /// Whether it could be seen when the agent started.
    was_seen: bool,
}

impl Owner {
    /// Looks whether the DaemonSet is there.
    pub async fn look(client: Client, namespace: &str, name: &str) -> Self {
        let mut owner = Self { api: Api::namespaced(client, namespace), name: name.into(), was_seen: true };
        owner.was_seen = matches!(owner.state().await, State::There);
        owner
    }

    /// Whether the DaemonSet has been deleted since. While the API server does not tell, it has not.
    pub async fn has_been_deleted(&self) -> bool {
        match self.state().await {
            State::There | State::Unknown => false,
            // Everything of an installation is deleted at once, our own rights too.
            State::Deleted | State::NoRight => self.was_seen,
        }
    }

    async fn state(&self) -> State {
        const PATIENCE: Duration = Duration::from_secs(5);
        match tokio::time::timeout(PATIENCE, self.api.get_metadata_opt(&self.name)).await {
            Ok(Ok(Some(owner))) if owner.metadata.deletion_timestamp.is_none() => State::There,
            Ok(Ok(_)) => State::Deleted,
            Ok(Err(ApiError::Api(status))) if [401, 403].contains(&status.code) => State::NoRight,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the API server does not tell whether the DaemonSet is still there");
                State::Unknown
            }
            Err(_) => State::Unknown,
        }
    }
}

enum State {
    There,
    Deleted,
    NoRight,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api;
    use serde_json::{Value, json};

    const PATH: &str = "/apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni";

    fn there() -> Value {
        json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": { "name": "weft-cni" } })
    }

    fn failure(code: u16, reason: &str) -> Value {
        json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no" })
    }

    async fn deleted(before: (u16, Value), after: (u16, Value)) -> bool {
        let mut owner = Owner::look(api(vec![(PATH, before.0, before.1)]), "weft-system", "weft-cni").await;
        owner.api = Api::namespaced(api(vec![(PATH, after.0, after.1)]), "weft-system");
        owner.has_been_deleted().await
    }

    #[tokio::test]
    async fn an_upgrade_leaves_the_plugin() {
        assert!(!deleted((200, there()), (200, there())).await);
    }

    #[tokio::test]
    async fn a_deleted_daemonset_takes_the_plugin_along() {
        assert!(deleted((200, there()), (404, failure(404, "NotFound"))).await);
        let mut ending = there();
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(deleted((200, there()), (200, ending)).await, "with foreground deletion it is still there");
    }

    #[tokio::test]
    async fn lost_rights_mean_that_all_is_being_deleted() {
        assert!(deleted((200, there()), (403, failure(403, "Forbidden"))).await);
        assert!(deleted((200, there()), (401, failure(401, "Unauthorized"))).await);
        assert!(
            !deleted((403, failure(403, "Forbidden")), (403, failure(403, "Forbidden"))).await,
            "they never were there"
        );
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_tells_nothing() {
        assert!(!deleted((200, there()), (500, failure(500, "InternalError"))).await);
    }
}
