//! A Kubernetes API server: every change becomes a new model at once; changes that come while one is built are taken together.
//!
//! - `kinds`: what is watched, and how an object becomes one of `weft-api`.
//! - `pods`: pods as workloads.
//! - `world`: what is known, kind by kind; what happens at restarts, expired watches, outages and broken objects.
//!
//! Whatever happens to the API server, the last model stays. The first comes when every kind has been listed. Kinds that the
//! server does not have count as listed, and are asked for again.

mod kinds;
mod pods;
mod world;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Config, Error as WatchError};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

pub(crate) use self::kinds::Kind;
use self::kinds::Read;
use self::world::{Event, World};
use super::{Reports, Source, SourceState};
use crate::kubernetes::{describe, watch_all};
use crate::model::{MeshConfig, Model};

/// Events that wait while a model is built; beyond, the watches wait too.
const QUEUE: usize = 4096;
/// A kind that the API server does not have is asked for this often.
const ABSENT: Duration = Duration::from_secs(5);
/// Objects per page of a list.
const PAGE: u32 = 500;

/// Watches a cluster. Returns at once: the first model comes when every kind has been listed. What became of the objects that users
/// wrote comes after the model that it is about.
#[must_use]
pub(crate) fn watch_kubernetes(client: &Client, config: Arc<MeshConfig>) -> (Source, watch::Receiver<Reports>) {
    let (send, events) = mpsc::channel(QUEUE);
    let watches = Kind::ALL.map(|kind| tokio::spawn(watch_kind(client.clone(), kind, send.clone())));
    let models = watch::Sender::new(Arc::new(Model::empty(config.clone())));
    let state = watch::Sender::<Arc<SourceState>>::default();
    let (reports, reports_seen) = watch::channel(Reports::default());
    let (models_seen, state_seen) = (models.subscribe(), state.subscribe());
    let mut tasks = vec![tokio::spawn(follow(events, config, Told { models, state, reports }))];
    tasks.extend(watches);
    (Source::new(models_seen, state_seen, tasks), reports_seen)
}

async fn watch_kind(client: Client, kind: Kind, send: mpsc::Sender<(Kind, Event)>) {
    let config = || Config::default().page_size(PAGE);
    match kind {
        Kind::Pod => {
            let api: Api<Pod> = Api::all(client);
            let read = |pod: Pod| (key(&pod), kinds::read_pod(&pod));
            forward(kind, watch_all(api, config()), read, send).await;
        }
        Kind::Node => {
            // Of this type the API server sends metadata only.
            let api: Api<PartialObjectMeta<Node>> = Api::all(client);
            let read = |node: PartialObjectMeta<Node>| (key(&node), Some(kinds::read_node(&node.metadata)));
            forward(kind, watch_all(api, config()), read, send).await;
        }
        _ => {
            let resource = kind.resource();
            let api: Api<DynamicObject> = Api::all_with(client, &resource);
            let read = move |object: DynamicObject| (key(&object), Some(kinds::read(kind, object)));
            // The watcher itself does not tell an absent kind from an outage.
            loop {
                forward(kind, watch_all(api.clone(), config()), read, send.clone()).await;
                if send.is_closed() {
                    return;
                }
                tokio::time::sleep(ABSENT).await;
            }
        }
    }
}

fn key<K: ResourceExt>(object: &K) -> world::Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Takes what a watch tells to the queue, until the kind turns out to be absent or nobody listens.
async fn forward<K: Debug>(
    kind: Kind,
    stream: impl Stream<Item = Result<watcher::Event<K>, WatchError>>,
    read: impl Fn(K) -> (world::Key, Option<Read>),
    send: mpsc::Sender<(Kind, Event)>,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(next) = stream.next().await {
        let event = match next {
            Ok(watcher::Event::Init) => Event::Listing,
            Ok(watcher::Event::InitApply(object)) => {
                let (key, read) = read(object);
                Event::Listed(key, read)
            }
            Ok(watcher::Event::InitDone) => Event::ListDone,
            Ok(watcher::Event::Apply(object)) => {
                let (key, read) = read(object);
                Event::Changed(key, read)
            }
            Ok(watcher::Event::Delete(object)) => Event::Gone(read(object).0),
            Err(error) if is_absent(&error) => Event::Absent,
            Err(error) => {
                let problem = describe(&error);
                warn!(kind = kind.name(), "watch failed, the last good configuration stays: {problem}");
                Event::Failed(problem)
            }
        };
        let ends = matches!(event, Event::Absent);
        if send.send((kind, event)).await.is_err() || ends {
            return;
        }
    }
}

fn is_absent(error: &WatchError) -> bool {
    match error {
        WatchError::InitialListFailed(kube::Error::Api(status))
        | WatchError::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// What others are told.
struct Told {
    models: watch::Sender<Arc<Model>>,
    state: watch::Sender<Arc<SourceState>>,
    reports: watch::Sender<Reports>,
}

/// Takes events to models.
async fn follow(mut events: mpsc::Receiver<(Kind, Event)>, config: Arc<MeshConfig>, told: Told) {
    let mut world = World::default();
    let mut generation = 0;
    // A change that could not be built yet, because not every kind has been listed.
    let mut pending = false;
    while let Some((kind, event)) = events.recv().await {
        let now = SystemTime::now();
        pending |= world.apply(kind, event, now);
        // What came while the last model was built is taken together; nothing is waited for.
        while let Ok((kind, event)) = events.try_recv() {
            pending |= world.apply(kind, event, now);
        }
        let before = told.state.borrow().clone();
        let mut problems = before.problems.clone();
        let build = pending && world.is_synced();
        if build {
            let (snapshot, config, previous) = (world.snapshot(), config.clone(), told.models.borrow().clone());
            // Building takes milliseconds of CPU: not on the threads that serve.
            let built = tokio::task::spawn_blocking(move || snapshot.build(&config, &previous)).await;
            let Ok((model, found)) = built else {
                tracing::error!("building the model failed; the last good configuration stays");
                continue;
            };
            pending = false;
            generation += 1;
            tell(&found, &before);
            problems = found.into();
            told.models.send_replace(Arc::new(model));
        }
        told.state.send_replace(Arc::new(world::state(generation, problems.clone(), world.watches())));
        if build && generation == 1 {
            info!("every kind has been listed; configuration applied");
        }
        // Of a status that changed and nothing else there is no new model, but whoever writes statuses must know.
        if generation > 0 && !pending {
            let objects = world.reported();
            if build || objects.is_some() {
                told.reports.send_modify(|reports| {
                    if let Some(objects) = objects {
                        reports.objects = objects;
                    }
                    reports.problems = problems;
                });
            }
        }
    }
}

/// Says each problem once.
fn tell(problems: &[weft_api::Problem], before: &SourceState) {
    let before: std::collections::HashSet<_> = before.problems.iter().collect();
    for problem in problems.iter().filter(|problem| !before.contains(problem)) {
        warn!("{problem}");
    }
}
