//! gRPC calls of all four shapes.

use bytes::Bytes;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Status, Streaming};

use super::{Extras, Failure, Outcome, Target, http};
use crate::pb::cart_client::CartClient;
use crate::pb::payments_client::PaymentsClient;
use crate::pb::{Answerer, ChargeRequest, GetRequest, InstalmentsRequest, Receipt, WatchRequest};
use crate::server::query;

pub(crate) type Transport = legacy::Client<HttpConnector, tonic::body::Body>;

/// Messages of one streaming call, unless the target says another number.
const STREAMED: u32 = 3;

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
            "/instalments" => self.instalments(messages(&target.uri)).await,
            "/batch" => self.batch(messages(&target.uri)).await,
            "/settle" => self.settle(messages(&target.uri)).await,
            other => Err(Status::unimplemented(format!(
                "{other} is not one of /cart, /watch, /charge, /instalments, /batch, /settle"
            ))),
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

    async fn instalments(&mut self, parts: u32) -> Result<Outcome, Status> {
        let request = InstalmentsRequest { user: "guest".to_owned(), cents: u64::from(parts), parts };
        let request = self.request(request);
        let (metadata, stream, _) = self.payments.instalments(request).await?.into_parts();
        receipts(&metadata, stream, parts).await
    }

    async fn batch(&mut self, charges: u32) -> Result<Outcome, Status> {
        let request = self.request(tokio_stream::iter((0..charges).map(|_| charge(1))));
        let response = self.payments.charge_batch(request).await?;
        let batch = response.get_ref();
        if batch.charges != charges {
            return Err(Status::data_loss(format!("{} of {charges} charges arrived", batch.charges)));
        }
        let body = json!({ "charges": batch.charges, "cents": batch.cents });
        Ok(answer(response.metadata(), batch.answered_by.clone(), body))
    }

    async fn settle(&mut self, charges: u32) -> Result<Outcome, Status> {
        let request = self.request(tokio_stream::iter((0..charges).map(|_| charge(1))));
        let (metadata, stream, _) = self.payments.settle(request).await?.into_parts();
        receipts(&metadata, stream, charges).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let mut headers = ::http::HeaderMap::new();
        headers.extend(self.extras.headers.iter().cloned());
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        request
    }
}

/// Reads a stream to its end; fails unless it holds so many receipts.
async fn receipts(metadata: &MetadataMap, mut stream: Streaming<Receipt>, expected: u32) -> Result<Outcome, Status> {
    let (mut received, mut by) = (0, None);
    while let Some(receipt) = stream.message().await? {
        received += 1;
        by = receipt.answered_by;
    }
    if received != expected {
        return Err(Status::data_loss(format!("{received} of {expected} receipts arrived")));
    }
    Ok(answer(metadata, by, json!({ "receipts": received })))
}

/// The number of messages that a target asks for.
fn messages(uri: &::http::Uri) -> u32 {
    query(uri, "messages").and_then(|number| number.parse().ok()).unwrap_or(STREAMED)
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
