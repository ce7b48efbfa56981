//! Streams to a control plane: one for everything or one for each kind, in either dialect, seen by the client as one that speaks delta.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered, SelectAll, StreamExt as _};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::channel::{ControlPlaneChannel, Dialect, Streams};
use super::client::{Connect, Responses};
use super::kind::Kind;
use super::state_of_the_world::StateOfTheWorld;

/// Large enough for the endpoints of the largest service; tonic's own limit of 4 MiB is not.
const MAX_RESPONSE: usize = 64 << 20;

type Requests = mpsc::UnboundedReceiver<DeltaDiscoveryRequest>;

impl Connect for ControlPlaneChannel {
    fn open(&mut self, requests: Requests) -> BoxFuture<'static, Result<Responses, Status>> {
        let this = self.clone();
        match self.streams() {
            Streams::Aggregated => Box::pin(async move { this.stream(AGGREGATED, requests).await }),
            Streams::Separate => Box::pin(separate(requests, move |kind, requests| {
                let this = this.clone();
                Box::pin(async move { this.stream(service(kind), requests).await })
            })),
        }
    }
}

/// A service's method in both dialects.
struct Service {
    delta: &'static str,
    state_of_the_world: &'static str,
}

const AGGREGATED: Service = Service {
    delta: "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    state_of_the_world: "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
};

/// The service of one kind alone.
const fn service(kind: Kind) -> Service {
    match kind {
        Kind::Secret => Service {
            delta: "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            state_of_the_world: "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        },
        Kind::Endpoints => Service {
            delta: "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
            state_of_the_world: "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
        },
        Kind::Cluster => Service {
            delta: "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
            state_of_the_world: "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
        },
        Kind::Route => Service {
            delta: "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
            state_of_the_world: "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        },
        Kind::Listener => Service {
            delta: "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
            state_of_the_world: "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
        },
    }
}

impl ControlPlaneChannel {
    async fn stream(&self, service: Service, requests: Requests) -> Result<Responses, Status> {
        let requests = UnboundedReceiverStream::new(requests);
        match self.dialect() {
            Dialect::Delta => Ok(self.call(service.delta, requests).await?.boxed()),
            Dialect::StateOfTheWorld => {
                let dialect = Arc::new(Mutex::new(StateOfTheWorld::default()));
                let (refuse, refusals) = mpsc::unbounded_channel();
                let asking = dialect.clone();
                let requests = requests.map(move |request| lock(&asking).request(request));
                let requests = stream::select(requests, UnboundedReceiverStream::new(refusals));
                let responses = self.call(service.state_of_the_world, requests).await?;
                let responses = responses.filter_map(move |response| {
                    let translated = match response.map(|response| lock(&dialect).response(response)) {
                        Ok(Ok(response)) => Some(Ok(response)),
                        Ok(Err(refusal)) => {
                            tracing::warn!(error = ?refusal.error_detail, "configuration refused");
                            // A stream that no longer reads reports its end itself.
                            let _ = refuse.send(*refusal);
                            None
                        }
                        Err(status) => Some(Err(status)),
                    };
                    std::future::ready(translated)
                });
                Ok(responses.boxed())
            }
        }
    }

    /// Resolves at the server's first sign of life.
    async fn call<Q, P>(
        &self,
        method: &'static str,
        requests: impl futures_util::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<P>, Status>
    where
        Q: Message + Default + 'static,
        P: Message + Default + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel()).max_decoding_message_size(MAX_RESPONSE);
        let mut request = tonic::Request::new(requests);
        if let Some(authorization) = self.authorization() {
            request.metadata_mut().insert("authorization", authorization);
        }
        let ready = client.ready().await.map_err(|error| Status::unavailable(error.to_string()));
        let called = match ready {
            Ok(()) => client.streaming(request, PathAndQuery::from_static(method), ProstCodec::default()).await,
            Err(status) => Err(status),
        };
        Ok(called.inspect_err(|_| self.failed())?.into_inner())
    }
}

fn lock(dialect: &Mutex<StateOfTheWorld>) -> MutexGuard<'_, StateOfTheWorld> {
    // A translation that panicked ended its stream with it.
    dialect.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a stream for one kind.
type Open = dyn Fn(Kind, Requests) -> BoxFuture<'static, Result<Responses, Status>> + Send;

/// Spreads the requests over a stream for each kind, opened at its first request, and brings their responses together. All are lost with
/// one of them: what the client knows of one would be of another time than the rest.
async fn separate(
    requests: Requests,
    open: impl Fn(Kind, Requests) -> BoxFuture<'static, Result<Responses, Status>> + Send + 'static,
) -> Result<Responses, Status> {
    let mut split = Split {
        requests,
        open: Box::new(open),
        node: None,
        kinds: HashMap::new(),
        opening: FuturesUnordered::new(),
        responses: SelectAll::new(),
    };
    // The first of them that is answered is the sign of life. The others may be silent until they have something to say.
    while split.responses.is_empty() {
        split.step().await?;
    }
    let responses = stream::unfold(Some(split), |split| async move {
        let mut split = split?;
        loop {
            match split.step().await {
                Ok(None) => {}
                Ok(Some(response)) => return Some((Ok(response), Some(split))),
                Err(status) => return Some((Err(status), None)),
            }
        }
    });
    Ok(responses.boxed())
}

struct Split {
    requests: Requests,
    open: Box<Open>,
    /// Who we are, which the client says once, and each stream is told once.
    node: Option<Node>,
    kinds: HashMap<Kind, mpsc::UnboundedSender<DeltaDiscoveryRequest>>,
    opening: FuturesUnordered<BoxFuture<'static, (Kind, Result<Responses, Status>)>>,
    responses: SelectAll<BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>>,
}

impl Split {
    /// Does the next thing that there is to do; returns what a stream brought.
    async fn step(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        tokio::select! {
            request = self.requests.recv() => match request {
                Some(request) => self.send(request),
                None => return Err(Status::cancelled("the client asks for nothing more")),
            },
            Some((kind, opened)) = self.opening.next() => self.responses.push(whole(kind, opened?)),
            Some(response) = self.responses.next() => return response.map(Some),
        }
        Ok(None)
    }

    fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        self.node = request.node.take().or(self.node.take());
        // Streams of one kind bring no other: `whole`.
        let Some(kind) = Kind::of_type_url(&request.type_url) else { return };
        let requests = self.kinds.entry(kind).or_insert_with(|| {
            let (sender, requests) = mpsc::unbounded_channel();
            let opening = (self.open)(kind, requests);
            self.opening.push(Box::pin(async move { (kind, opening.await) }));
            request.node.clone_from(&self.node);
            sender
        });
        // A stream that no longer reads reports its end itself.
        let _ = requests.send(request);
    }
}

/// The responses of a stream of one kind, whose end is an error.
fn whole(kind: Kind, responses: Responses) -> Responses {
    let checked = responses.map(move |response| match response {
        Ok(response) if response.type_url != kind.type_url() => {
            Err(Status::internal(format!("the {kind} stream brought {}", response.type_url)))
        }
        other => other,
    });
    let end = async move { Err(Status::unavailable(format!("the control plane ended the {kind} stream"))) };
    checked.chain(stream::once(end)).boxed()
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
