//! One stream's life: requests and changes in, responses out.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weft_xds::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use weft_xds::{metadata, names};

use super::cache::{Cache, Missed, Rendered};
use super::registry::{Connected, Registry};
use super::subscriptions::Resources;
use super::wire::Dialect;
use crate::identity::{Caller, Principal};
use crate::metrics::Metrics;
use crate::sources::SourceState;
use crate::{ClientKind, ResourceType, View};

/// What all streams share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where what `cache` holds comes from, and whether there has ever been a good configuration.
    pub(crate) source: watch::Receiver<Arc<SourceState>>,
    pub(crate) stop: CancellationToken,
}

/// Serves one stream until either side ends it, the credentials that it was opened with expire, or its pod is gone.
///
/// Responses are made only when `responses` has room for one, so a client that does not read is not sent what has become
/// out of date meanwhile.
pub(crate) async fn serve<D: Dialect>(
    shared: Shared,
    caller: Caller,
    mut requests: impl Stream<Item = Result<D::Incoming, Status>> + Unpin,
    responses: mpsc::Sender<Result<D::Outgoing, Status>>,
) {
    let Caller { principal, expires, close } = caller;
    let connected = shared.registry.add(&shared.metrics, &principal, D::NAME);
    let mut stream = Serving::<D> {
        // Until it says what it is, which it does before it asks for anything.
        visible: Visible { view: principal.view(ClientKind::Weft), cache: shared.cache.clone(), principal },
        session: D::default(),
        metrics: shared.metrics,
        connected,
        introduced: false,
        seen: 0,
        converging: None,
    };
    let mut generations = shared.cache.generations();
    stream.seen = *generations.borrow_and_update();
    // The pod may have gone between the look at the credentials and the subscription to changes.
    let mut check_pod = true;
    let expiry = tokio::time::sleep(expires.duration_since(SystemTime::now()).unwrap_or_default());
    tokio::pin!(expiry);
    let mut may_have_more = false;
    let end = loop {
        if std::mem::take(&mut check_pod) && !stream.visible.is_current() {
            close.cancel();
            break Err(Status::unauthenticated(
                "the mesh knows the pod of this stream no longer, or as another workload; reconnect with its own credentials",
            ));
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => {
                break Err(Status::unavailable("the control plane is shutting down; reconnect"));
            }
            () = &mut expiry => {
                close.cancel();
                break Err(Status::unauthenticated(
                    "the certificate or token that this stream was opened with has expired; reconnect with a new one",
                ));
            }
            request = requests.next() => match request {
                None => break Ok(()),
                // The client is gone; there is nobody to tell.
                Some(Err(_)) => break Ok(()),
                Some(Ok(request)) => match stream.receive(request) {
                    Ok(()) => may_have_more = true,
                    Err(status) => break Err(status),
                },
            },
            // The sender lives in `shared.cache`.
            _ = generations.changed() => {
                generations.mark_unchanged();
                let missed = stream.catch_up();
                check_pod = missed.pods;
                if !missed.concerned {
                    continue;
                }
                may_have_more = true;
            }
            room = responses.reserve(), if may_have_more => match room {
                Err(_) => break Ok(()),
                Ok(room) => match stream.next() {
                    Some(response) => room.send(Ok(response)),
                    None => may_have_more = false,
                },
            },
        }
        stream.report();
    };
    if let Err(status) = end {
        let principal = &stream.visible.principal;
        tracing::info!(
            namespace = %principal.namespace,
            pod = %principal.pod,
            code = ?status.code(),
            "stream ended: {}",
            status.message()
        );
        // If the client does not read, it will see that the connection is gone.
        let _ = responses.try_send(Err(status));
    }
}

struct Serving<D> {
    visible: Visible,
    session: D,
    metrics: Arc<Metrics>,
    connected: Connected,
    introduced: bool,
    /// The generation of the cache up to which the session knows what has changed.
    seen: u64,
    /// Since when there is a change that this client has not acknowledged, and whether it was sent anything for it.
    converging: Option<(Instant, bool)>,
}

impl<D: Dialect> Serving<D> {
    fn receive(&mut self, request: D::Incoming) -> Result<(), Status> {
        if !self.introduced
            && let Some(node) = D::node(&request)
        {
            self.introduced = true;
            let version = match &node.user_agent_version_type {
                Some(UserAgentVersionType::UserAgentVersion(version)) => version.as_str(),
                _ => "",
            };
            let agent = format!("{} {version}", node.user_agent_name);
            self.connected.introduce(&node.id, agent.trim());
            self.visible.view = view_of(&self.visible.principal, node);
        }
        let url = D::type_url(&request);
        let kind = ResourceType::from_url(url).ok_or_else(|| {
            Status::invalid_argument(format!(
                "type_url: `{url}` is not served; served are {}",
                ResourceType::ALL.map(ResourceType::url).join(", ")
            ))
        })?;
        for name in D::names(&request) {
            self.visible
                .principal
                .may_see(kind, name)
                .map_err(|foreign| Status::permission_denied(foreign.to_string()))?;
        }
        if let Some(error) = D::error(&request) {
            let principal = &self.visible.principal;
            tracing::warn!(
                namespace = %principal.namespace,
                pod = %principal.pod,
                r#type = %kind,
                "configuration rejected by the proxy: {error}"
            );
            self.metrics.rejected(kind);
        }
        self.session.receive(kind, D::read(request)).map_err(|error| Status::resource_exhausted(error.to_string()))
    }

    /// Has the session compare what has changed since it last did, if it concerns this client.
    fn catch_up(&mut self) -> CaughtUp {
        let (generation, missed) = self.visible.cache.missed(self.seen);
        self.seen = generation;
        match missed {
            Missed::TooMany(since) => {
                self.session.resources_changed();
                self.converging.get_or_insert((since, false));
                CaughtUp { concerned: true, pods: true }
            }
            Missed::Changes(changes) => {
                let mut caught_up = CaughtUp::default();
                for change in changes {
                    caught_up.pods |= change.pods;
                    for kind in ResourceType::ALL {
                        if self.session.names_changed(kind, change.names(kind)) {
                            caught_up.concerned = true;
                            self.converging.get_or_insert((change.since, false));
                        }
                    }
                }
                caught_up
            }
        }
    }

    fn next(&mut self) -> Option<D::Outgoing> {
        let response = self.session.next(&self.visible)?;
        self.metrics.pushed(response.kind, response.resources.len());
        if let Some((_, sent)) = &mut self.converging {
            *sent = true;
        }
        Some(D::write(response))
    }

    /// Tells others how far the client has got.
    fn report(&mut self) {
        let watches = self.session.watches();
        self.connected.progress(watches);
        if watches.is_settled()
            && let Some((since, sent)) = self.converging.take()
            && sent
        {
            self.metrics.converged(since.elapsed());
        }
    }
}

/// How a client sees the configuration, by who it proved to be and what it says it is.
fn view_of(principal: &Principal, node: &Node) -> View {
    let client = ClientKind::of_user_agent(&node.user_agent_name);
    let mesh = node.metadata.as_ref().and_then(|all| metadata::nested(all, names::METADATA));
    let folder = mesh.and_then(|mesh| metadata::str(mesh, names::key::AGENT_FOLDER)).unwrap_or(names::AGENT_FOLDER);
    let agent_folder = (client == ClientKind::Envoy).then(|| folder.trim_end_matches('/').into());
    let workload = (client == ClientKind::Grpc).then(|| principal.workload.clone());
    View { agent_folder, workload, ..principal.view(client) }
}

/// What the changes since the last look mean for one stream.
#[derive(Debug, Default)]
struct CaughtUp {
    /// Whether the client may have to be told something.
    concerned: bool,
    /// Whether any pod changed, perhaps the client's.
    pods: bool,
}

/// The resources as one client may see them.
struct Visible {
    cache: Arc<Cache>,
    principal: Principal,
    view: View,
}

impl Visible {
    fn is_current(&self) -> bool {
        self.principal.is_current(&self.cache.configuration())
    }
}

impl Resources for Visible {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Rendered>> {
        // Subscriptions are checked when they are made; this also covers names of an earlier stream under a wildcard.
        self.principal.may_see(kind, name).ok()?;
        self.cache.get(kind, name, &self.view)
    }

    fn names(&self, kind: ResourceType) -> Vec<Arc<str>> {
        let workload = (&*self.principal.namespace, &*self.principal.workload);
        let mut names = self.cache.names(kind, self.view.client, workload);
        if kind == ResourceType::Listener {
            names.push(self.principal.inbound_listener().into());
        }
        names
    }
}

#[cfg(test)]
mod tests;
