//! The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService`.
//!
//! Written by hand, not generated, because its responses are ours ([`super::wire`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Body;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::stream::{self, Shared};
use super::subscriptions::{Delta, StateOfTheWorld};
use super::wire::Dialect;
use crate::identity::Authenticator;

/// The service's methods, by dialect: delta first.
pub(crate) const PATHS: [&str; 2] = [
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
];

/// Responses made ahead of the connection's flow control. Few, so that none is out of date when it leaves.
const RESPONSES_AHEAD: usize = 2;

/// Serves both dialects.
#[derive(Clone)]
pub(crate) struct AdsService {
    pub(crate) shared: Shared,
    pub(crate) authenticator: Arc<Authenticator>,
}

impl<B> Service<http::Request<B>> for AdsService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(if request.uri().path() == PATHS[0] {
                dispatch::<Delta, B>(service, request).await
            } else {
                dispatch::<StateOfTheWorld, B>(service, request).await
            })
        })
    }
}

async fn dispatch<D: Dialect, B>(service: AdsService, request: http::Request<B>) -> http::Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let codec = ProstCodec::<D::Outgoing, D::Incoming>::default();
    Grpc::new(codec).streaming(Method::<D>(service, std::marker::PhantomData), request).await
}

struct Method<D>(AdsService, std::marker::PhantomData<fn() -> D>);

impl<D: Dialect> StreamingService<D::Incoming> for Method<D> {
    type Response = D::Outgoing;
    type ResponseStream = Pin<Box<ReceiverStream<Result<D::Outgoing, Status>>>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<D::Incoming>>) -> Self::Future {
        let AdsService { shared, authenticator } = self.0.clone();
        Box::pin(async move {
            if !shared.source.borrow().loaded {
                // Every name would be absent, and proxies would give up what they have.
                return Err(Status::unavailable(
                    "the configuration has not been read without errors yet; see `weft status`",
                ));
            }
            let caller = authenticator
                .caller(request.extensions(), request.metadata(), &shared.cache)
                .await
                .inspect_err(|status| {
                    tracing::warn!(code = ?status.code(), "stream refused: {}", status.message());
                })?;
            let (sender, receiver) = mpsc::channel(RESPONSES_AHEAD);
            tokio::spawn(stream::serve::<D>(shared, caller, request.into_inner(), sender));
            Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
        })
    }
}
