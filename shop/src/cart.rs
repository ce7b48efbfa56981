//! Shopping carts, over gRPC: unary calls and one server stream.

use std::collections::HashMap;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use http_body_util::BodyExt;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use crate::pb::cart_server::{Cart, CartServer};
use crate::pb::{AddRequest, Answerer, CartState, GetRequest, Line, RemoveRequest, WatchRequest};
use crate::server::{self, Args, Identity, Instance, Protocol};

/// Bounds of what one replica remembers: the demo runs for hours under load.
const MAX_USERS: usize = 10_000;
const MAX_LINES: usize = 50;

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("cart", 50051, &args).await?;
    let service = CartServer::new(Carts::new(instance.clone()));
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

impl Identity {
    /// What the gRPC messages carry instead of headers and a JSON field.
    pub(crate) fn answerer(&self) -> Option<Answerer> {
        Some(Answerer { replica: self.replica.clone(), version: self.version.clone(), marker: self.marker.clone() })
    }
}

struct Carts {
    instance: Instance,
    lines: Mutex<HashMap<String, Vec<Line>>>,
    /// The user whose cart changed.
    changes: broadcast::Sender<String>,
}

impl Carts {
    fn new(instance: Instance) -> Arc<Self> {
        Arc::new(Self { instance, lines: Mutex::default(), changes: broadcast::channel(256).0 })
    }

    fn state(&self, user: &str) -> CartState {
        let carts = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        CartState {
            lines: carts.get(user).cloned().unwrap_or_default(),
            answered_by: self.instance.identity.answerer(),
        }
    }

    fn change(&self, user: &str, edit: impl FnOnce(&mut Vec<Line>) -> Result<(), Status>) -> Result<(), Status> {
        let mut carts = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if carts.len() >= MAX_USERS && !carts.contains_key(user) {
            return Err(Status::resource_exhausted(format!("{MAX_USERS} carts are open already")));
        }
        let lines = carts.entry(user.to_owned()).or_default();
        edit(lines)?;
        if lines.is_empty() {
            carts.remove(user);
        }
        drop(carts);
        // Nobody watching is fine.
        let _ = self.changes.send(user.to_owned());
        Ok(())
    }
}

#[tonic::async_trait]
impl Cart for Arc<Carts> {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<CartState>, Status> {
        let AddRequest { user, line } = request.into_inner();
        let line = line.ok_or_else(|| Status::invalid_argument("line is missing"))?;
        self.change(&user, |lines| {
            let count = lines.len();
            match lines.iter_mut().find(|have| have.sku == line.sku) {
                Some(have) => have.quantity = have.quantity.saturating_add(line.quantity),
                None if count >= MAX_LINES => {
                    return Err(Status::resource_exhausted(format!("a cart holds {MAX_LINES} products")));
                }
                None => lines.push(line),
            }
            Ok(())
        })?;
        Ok(Response::new(self.state(&user)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<CartState>, Status> {
        Ok(Response::new(self.state(&request.into_inner().user)))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<CartState>, Status> {
        let RemoveRequest { user, sku } = request.into_inner();
        self.change(&user, |lines| {
            lines.retain(|line| line.sku != sku);
            Ok(())
        })?;
        Ok(Response::new(self.state(&user)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<CartState, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { user, events } = request.into_inner();
        let carts = self.clone();
        // Subscribed before the first state is read: no change falls between the two.
        let mut changes = self.changes.subscribe();
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut sent = 0_u32;
            loop {
                if sender.send(Ok(carts.state(&user))).await.is_err() {
                    return;
                }
                sent = sent.saturating_add(1);
                if events != 0 && sent >= events {
                    return;
                }
                loop {
                    tokio::select! {
                        () = sender.closed() => return,
                        () = carts.instance.shutdown.cancelled() => {
                            let _ = sender.send(Err(Status::unavailable("this replica is shutting down"))).await;
                            return;
                        }
                        changed = changes.recv() => match changed {
                            Ok(who) if who == user => break,
                            Ok(_) => {}
                            // Missed some: ours may be among them.
                            Err(broadcast::error::RecvError::Lagged(_)) => break,
                            Err(broadcast::error::RecvError::Closed) => return,
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
