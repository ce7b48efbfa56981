//! Payments, over gRPC in all four call shapes.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

use crate::pb::payments_server::{Payments, PaymentsServer};
use crate::pb::{BatchReceipt, ChargeRequest, InstalmentsRequest, Receipt};
use crate::server::{self, Args, Instance, Protocol};

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("payments", 50051, &args).await?;
    let service = PaymentsServer::new(Terminal { instance: instance.clone(), next: Arc::new(AtomicU64::new(1)) });
    server::serve(listener, instance, Protocol::Http2, move |request| {
        let service = service.clone();
        async move {
            // Infallible: tonic puts every failure into the response.
            let Ok(response) = service.oneshot(request).await;
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        }
    })
    .await
}

#[derive(Clone)]
struct Terminal {
    instance: Instance,
    next: Arc<AtomicU64>,
}

impl Terminal {
    fn charge(&self, cents: u64) -> Result<Receipt, Status> {
        if cents == 0 {
            return Err(Status::invalid_argument("cents must be more than 0"));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Receipt {
            id: format!("{}-{number}", self.instance.identity.replica),
            cents,
            answered_by: self.instance.identity.answerer(),
        })
    }
}

#[tonic::async_trait]
impl Payments for Terminal {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<Receipt>, Status> {
        Terminal::charge(self, request.get_ref().cents).map(Response::new)
    }

    type InstalmentsStream = Pin<Box<dyn Stream<Item = Result<Receipt, Status>> + Send>>;

    async fn instalments(
        &self,
        request: Request<InstalmentsRequest>,
    ) -> Result<Response<Self::InstalmentsStream>, Status> {
        let InstalmentsRequest { cents, parts, .. } = request.into_inner();
        if parts == 0 {
            return Err(Status::invalid_argument("parts must be more than 0"));
        }
        let (terminal, parts) = (self.clone(), u64::from(parts));
        // What does not divide evenly is in the first part.
        let sum = move |part| cents / parts + if part == 0 { cents % parts } else { 0 };
        let receipts = tokio_stream::iter(0..parts).map(move |part| terminal.charge(sum(part)));
        Ok(Response::new(Box::pin(receipts)))
    }

    async fn charge_batch(&self, request: Request<Streaming<ChargeRequest>>) -> Result<Response<BatchReceipt>, Status> {
        let mut charges = request.into_inner();
        let mut batch = BatchReceipt { charges: 0, cents: 0, answered_by: self.instance.identity.answerer() };
        while let Some(charge) = charges.message().await? {
            let receipt = Terminal::charge(self, charge.cents)?;
            batch.charges += 1;
            batch.cents = batch.cents.saturating_add(receipt.cents);
        }
        Ok(Response::new(batch))
    }

    type SettleStream = Pin<Box<dyn Stream<Item = Result<Receipt, Status>> + Send>>;

    async fn settle(&self, request: Request<Streaming<ChargeRequest>>) -> Result<Response<Self::SettleStream>, Status> {
        let terminal = self.clone();
        let receipts = request.into_inner().map(move |charge| terminal.charge(charge?.cents));
        Ok(Response::new(Box::pin(receipts)))
    }
}
