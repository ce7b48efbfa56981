//! gRPC calls of all four shapes.

use bytes::Bytes;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Status};

use super::{Extras, Failure, Outcome, Target, http};
use crate::pb::cart_client::CartClient;
use crate::pb::payments_client::PaymentsClient;
use crate::pb::{Answerer, ChargeRequest, GetRequest, WatchRequest};

pub(crate) type Transport = legacy::Client<HttpConnector, tonic::body::Body>;

/// Messages sent by one streaming call.
const STREAMED: u64 = 3;

pub(super) struct Client {
    cart: CartClient<Transport>,
    payments: PaymentsClient<Transport>,
    extras: Extras,
}

impl Client {
    pub(super) fn new(origin: &::http::Uri, extras: Extras) -> Self {
        let transport = transport();
        Self {
            cart: CartClient::with_origin(transport.clone(), origin_of(origin)),
            payments: PaymentsClient::with_origin(transport, origin_of(origin)),
            extras,
        }
    }

    pub(super) async fn call(&mut self, target: &Target) -> Outcome {
        let answered = match target.uri.path() {
            "/cart" => {
                let request = self.request(GetRequest { user: "guest".to_owned() });
                self.cart.get(request).await.map(|response| {
                    let lines = response.get_ref().lines.len();
                    let by = response.get_ref().answered_by.clone();
                    answer(response.metadata(), by, json!({ "lines": lines }))
                })
            }
            "/watch" => self.watch().await,
            "/charge" => {
                let request = self.request(charge(100));
                self.payments.charge(request).await.map(|response| {
                    let receipt = response.get_ref();
                    let body = json!({ "id": receipt.id, "cents": receipt.cents });
                    answer(response.metadata(), receipt.answered_by.clone(), body)
                })
            }
            "/batch" => {
                let request = self.request(tokio_stream::iter((1..=STREAMED).map(charge)));
                self.payments.charge_batch(request).await.map(|response| {
                    let batch = response.get_ref();
                    let body = json!({ "charges": batch.charges, "cents": batch.cents });
                    answer(response.metadata(), batch.answered_by.clone(), body)
                })
            }
            "/settle" => self.settle().await,
            other => {
                Err(Status::unimplemented(format!("{other} is not one of /cart, /watch, /charge, /batch, /settle")))
            }
        };
        answered.unwrap_or_else(|status| failed(&status))
    }

    async fn watch(&mut self) -> Result<Outcome, Status> {
        let request = self.request(WatchRequest { user: "guest".to_owned(), events: 1 });
        let (metadata, mut stream, _) = self.cart.watch(request).await?.into_parts();
        let mut events = 0;
        let mut by = None;
        while let Some(state) = stream.message().await? {
            events += 1;
            by = state.answered_by;
        }
        Ok(answer(&metadata, by, json!({ "events": events })))
    }

    async fn settle(&mut self) -> Result<Outcome, Status> {
        let request = self.request(tokio_stream::iter((1..=STREAMED).map(charge)));
        let (metadata, mut stream, _) = self.payments.settle(request).await?.into_parts();
        let mut receipts = 0_u64;
        let mut by = None;
        while let Some(receipt) = stream.message().await? {
            receipts += 1;
            by = receipt.answered_by;
        }
        if receipts != STREAMED {
            return Err(Status::data_loss(format!("{receipts} receipts for {STREAMED} charges")));
        }
        Ok(answer(&metadata, by, json!({ "receipts": receipts })))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let mut headers = ::http::HeaderMap::new();
        headers.extend(self.extras.headers.iter().cloned());
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        request
    }
}

/// A pooled HTTP/2 connection per origin, shared by the clones.
pub(crate) fn transport() -> Transport {
    legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(http::connector())
}

fn origin_of(uri: &::http::Uri) -> ::http::Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(::http::uri::PathAndQuery::from_static("/"));
    // Scheme, authority and path are all set: the one way in which this could fail is a missing one.
    ::http::Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn charge(cents: u64) -> ChargeRequest {
    ChargeRequest { user: "guest".to_owned(), cents }
}

fn answer(metadata: &MetadataMap, by: Option<Answerer>, mut body: serde_json::Value) -> Outcome {
    body["marker"] = json!(by.map(|by| by.marker));
    Outcome {
        status: Some(0),
        protocol: "gRPC",
        headers: list(metadata),
        body: Bytes::from(body.to_string()),
        ..Outcome::default()
    }
}

/// A gRPC failure, told apart from one of the transport beneath it.
pub(crate) fn failed(status: &Status) -> Outcome {
    let code = status.code() as i32;
    let mut failure = Failure::new(format!("grpc_{code}"), status.message());
    // A status with a cause was made by the client: the transport failed.
    if let Some(source) = std::error::Error::source(status) {
        failure = Failure::from_error(source);
    }
    Outcome {
        status: u16::try_from(code).ok(),
        protocol: "gRPC",
        headers: list(status.metadata()),
        failure: Some(failure),
        ..Outcome::default()
    }
}

fn list(metadata: &MetadataMap) -> Vec<(String, String)> {
    metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.to_string(), value.to_str().ok()?.to_owned())),
            KeyAndValueRef::Binary(..) => None,
        })
        .collect()
}
