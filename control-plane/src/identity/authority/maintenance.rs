//! What the authority does by itself: the steps of rotations, and what other replicas write.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Authority, AuthorityError, Keep, Roots, parse, serialize};
use crate::identity::secret::{AuthoritySecret, Held};

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Authority {
    /// Takes the steps of rotations when they are due, and takes over what other replicas write, until told to stop.
    pub(crate) async fn maintain(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.rotations(stop) => {}
            () = self.others() => {}
        }
    }

    async fn rotations(&self, stop: CancellationToken) {
        let mut trust = self.trust();
        loop {
            // Before the look at the state: a rotation that starts meanwhile must wake us.
            trust.mark_unchanged();
            let next_step = self.advance(SystemTime::now()).await.unwrap_or_else(|error| {
                tracing::error!("root rotation: {error}; trying again");
                Some(RETRY)
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next_step.unwrap_or(Duration::MAX)) => {}
                // A rotation has started. The sender lives in `self`.
                _ = trust.changed() => {}
            }
        }
    }

    /// Follows the Secret, which other replicas write too. A file is this process's alone.
    async fn others(&self) {
        let Keep::Secret(secret) = &self.keep else { return std::future::pending().await };
        let mut changes = std::pin::pin!(secret.watch());
        // Deleted, and not made again yet.
        let mut is_gone = false;
        loop {
            let change = tokio::select! {
                change = changes.next() => match change {
                    Some(change) => change,
                    // The watch never ends by itself.
                    None => return,
                },
                () = tokio::time::sleep(RETRY), if is_gone => Ok(None),
            };
            let taken = match change {
                Ok(Some(held)) => {
                    is_gone = false;
                    self.take_over(secret, held).await
                }
                Ok(None) => {
                    tracing::error!("{} was deleted; making it again of the roots in use", secret.describe());
                    let roots = self.lock().all.clone();
                    let made = secret.create_once(&serialize(&roots)).await;
                    is_gone = made.is_err();
                    made.map_err(AuthorityError::from)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = taken {
                tracing::warn!("{error}; going on with the roots in use");
            }
        }
    }

    async fn take_over(&self, secret: &AuthoritySecret, held: Held) -> Result<(), AuthorityError> {
        // Our own write and the news of it must not overtake each other.
        let _writing = self.writing.lock().await;
        if self.lock().version == held.version {
            return Ok(());
        }
        let all = parse(&secret.describe(), &held.content)?;
        *self.lock() = Roots { all, version: held.version };
        self.publish(SystemTime::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;
    use crate::identity::authority::Settings;
    use crate::kubernetes::fake::{api_server, refusal};

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_was_deleted_is_made_again_as_often_as_it_takes() {
        let stored: Mutex<Option<Value>> = Mutex::default();
        let mut refusals = 0..2;
        let refuses = Mutex::new(move |is_stored: bool| is_stored && refusals.next().is_some());
        let (client, mut asked) = api_server(move |what, object| {
            let mut stored = stored.lock().unwrap();
            match what.split(' ').next()? {
                "POST" if refuses.lock().unwrap()(stored.is_some()) => refusal(500, "InternalError"),
                "POST" => Some((201, stored.insert(object.clone()).clone())),
                "GET" if what.ends_with("/weft-ca") => match &*stored {
                    Some(object) => Some((200, object.clone())),
                    None => refusal(404, "NotFound"),
                },
                // Gone, for whoever watches.
                "GET" => {
                    let metadata = json!({ "resourceVersion": "1" });
                    Some((200, json!({ "apiVersion": "v1", "kind": "SecretList", "metadata": metadata, "items": [] })))
                }
                _ => None,
            }
        });
        let settings = Settings {
            trust_domain: "weft.local".into(),
            certificate_lifetime: Duration::from_secs(3600),
            root_overlap: Duration::from_secs(3600),
        };
        let secret = AuthoritySecret::new(client, "weft-system");
        let authority = Authority::in_secret(secret, settings, SystemTime::now()).await.unwrap();
        let mut made = Vec::new();
        let listen = async {
            while made.len() < 4 {
                let asked = asked.next().await;
                if asked.what.starts_with("POST") {
                    made.push(asked.object["data"].clone());
                }
            }
        };
        tokio::select! {
            () = authority.maintain(CancellationToken::new()) => unreachable!("nobody stops it"),
            () = listen => {}
        }
        assert!(made.iter().all(|data| data.is_object() && *data == made[0]), "always of the roots in use");
    }
}
