//! Watches of all objects of a kind or of one, whose lists do not wait for ever.
//!
//! A watch is silent for minutes where nothing changes, so the library waits that long for any answer. A list that takes its time is another
//! matter: whoever starts is not ready before it has come.

use std::fmt::Debug;
use std::future;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use kube::api::{Api, Resource};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Error, Event, watcher};
use serde::de::DeserializeOwned;

use super::backoff;

/// How long the next page of a list is waited for. The API server itself gives a list up after a minute.
const PATIENCE: Duration = Duration::from_secs(60);

/// All objects, and every change from then on. Failures are told, and tried again after a pause.
pub(crate) fn watch_all<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let start = move || Watch { events: watcher(api.clone(), config.clone()).backoff(backoff()).boxed(), lists: true };
    stream::unfold((start(), start), |(mut watch, start)| async move {
        if !watch.lists {
            let next = watch.events.next().await?;
            return Some((watch.saw(next), (watch, start)));
        }
        match tokio::time::timeout(PATIENCE, watch.events.next()).await {
            Ok(next) => {
                let next = next?;
                Some((watch.saw(next), (watch, start)))
            }
            Err(_) => {
                let problem = format!("the API server did not answer within {PATIENCE:?}");
                Some((Err(Error::InitialListFailed(kube::Error::Service(problem.into()))), (start(), start)))
            }
        }
    })
}

/// The one object of this name, or `None` where there is none, and every change from then on. Failures as in [`watch_all`].
pub(crate) fn watch_one<K>(api: Api<K>, name: &str) -> impl Stream<Item = watcher::Result<Option<K>>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watch_all(api, Config::default().fields(&format!("metadata.name={name}")));
    let read = |listed: &mut bool, event: watcher::Result<Event<K>>| {
        let told = match event {
            Ok(Event::Init) => {
                *listed = false;
                None
            }
            Ok(Event::InitApply(object)) => {
                *listed = true;
                Some(Ok(Some(object)))
            }
            Ok(Event::InitDone) => (!*listed).then_some(Ok(None)),
            Ok(Event::Apply(object)) => Some(Ok(Some(object))),
            Ok(Event::Delete(_)) => Some(Ok(None)),
            Err(error) => Some(Err(error)),
        };
        future::ready(Some(told))
    };
    events.scan(false, read).filter_map(future::ready)
}

struct Watch<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    /// Whether what comes next is a page of a list.
    lists: bool,
}

impl<K> Watch<K> {
    fn saw(&mut self, event: watcher::Result<Event<K>>) -> watcher::Result<Event<K>> {
        match &event {
            Ok(Event::Init | Event::InitApply(_)) => self.lists = true,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => self.lists = false,
            // Of either; what comes next says which.
            Err(_) => {}
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;

    use super::super::fake::api_server;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_never_answered_is_told_and_asked_for_again() {
        let (client, mut asked) = api_server(|_, _| None);
        let mut events = Box::pin(watch_all(Api::<Namespace>::all(client), Config::default()));
        for _ in 0..2 {
            let since = tokio::time::Instant::now();
            let failed = async {
                loop {
                    if let Err(error) = events.next().await.unwrap() {
                        return error;
                    }
                }
            };
            let error = tokio::time::timeout(PATIENCE * 10, failed).await.expect("it is waited for without end");
            assert!(matches!(error, Error::InitialListFailed(kube::Error::Service(_))), "{error}");
            assert_eq!(since.elapsed().as_secs(), PATIENCE.as_secs());
            assert_eq!(asked.next().await.what, "GET /api/v1/namespaces");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_may_be_silent_for_hours() {
        let (client, mut asked) = api_server(|what, _| {
            let list = json!({ "apiVersion": "v1", "kind": "NamespaceList", "metadata": { "resourceVersion": "1" }, "items": [] });
            what.starts_with("GET").then_some((200, list))
        });
        let mut events = Box::pin(watch_all(Api::<Namespace>::all(client), Config::default()));
        let silence = async { while events.next().await.unwrap().is_ok() {} };
        assert!(tokio::time::timeout(Duration::from_secs(7200), silence).await.is_err());
        assert_eq!(asked.next().await.what, "GET /api/v1/namespaces");
        assert_eq!(asked.next().await.what, "WATCH /api/v1/namespaces");
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_object_is_told_or_that_there_is_none() {
        for there in [true, false] {
            let (client, _asked) = api_server(move |what, _| {
                let items = if there { vec![json!({ "metadata": { "name": "shop" } })] } else { Vec::new() };
                let metadata = json!({ "resourceVersion": "1" });
                let list = json!({ "apiVersion": "v1", "kind": "NamespaceList", "metadata": metadata, "items": items });
                what.starts_with("GET").then_some((200, list))
            });
            let mut told = Box::pin(watch_one(Api::<Namespace>::all(client), "shop"));
            let first = told.next().await.unwrap().unwrap();
            assert_eq!(first.and_then(|namespace| namespace.metadata.name).as_deref(), there.then_some("shop"));
        }
    }
}
