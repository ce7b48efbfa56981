//! The front end's clients: pooled, kept alive, one per protocol.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::Uri;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tonic::metadata::MetadataMap;

use crate::client::http::Client;
use crate::client::{Extras, Failure, Outcome, Target, grpc};
use crate::pb::cart_client::CartClient;
use crate::pb::payments_client::PaymentsClient;
use crate::pb::{AddRequest, Answerer, CartState, ChargeRequest, GetRequest, Line, RemoveRequest};

pub(super) struct Backends {
    http1: Client,
    http2: Client,
    cart: CartClient<grpc::Transport>,
    payments: PaymentsClient<grpc::Transport>,
    products: Target,
    reviews: Target,
    publish: Target,
    pub(super) notifications: Uri,
    queue: String,
}

/// What a backend answered, and who did.
#[derive(Default)]
pub(super) struct Answered {
    pub(super) version: String,
    pub(super) replica: String,
    pub(super) body: Value,
    pub(super) failure: Option<Failure>,
    elapsed: Duration,
}

impl Answered {
    /// For the page: who answered, how fast, or what went wrong.
    pub(super) fn summary(&self) -> Value {
        json!({
            "ok": self.failure.is_none(),
            "version": self.version,
            "replica": self.replica,
            "ms": self.elapsed.as_secs_f64() * 1000.0,
            "error": self.failure,
        })
    }

    fn failed(failure: Failure, since: Instant) -> Self {
        Self { failure: Some(failure), elapsed: since.elapsed(), ..Self::default() }
    }

    fn from_outcome(outcome: Outcome, since: Instant) -> Self {
        let header = |name| outcome.header(name).unwrap_or_default().to_owned();
        let mut failure = outcome.failure.clone();
        if let (Some(failure), Some(flag)) = (&mut failure, outcome.header("x-weft-flag")) {
            failure.class = format!("{}_{flag}", failure.class);
        }
        Self {
            version: header("x-version"),
            replica: header("x-replica"),
            body: serde_json::from_slice(&outcome.body).unwrap_or_default(),
            failure,
            elapsed: since.elapsed(),
        }
    }

    fn by(answerer: Option<Answerer>, body: Value, since: Instant) -> Self {
        let Answerer { replica, version, .. } = answerer.unwrap_or_default();
        Self { version, replica, body, failure: None, elapsed: since.elapsed() }
    }
}

impl Backends {
    pub(super) fn new(args: &super::Args) -> anyhow::Result<Self> {
        let target = |method: &str, base: &Uri, path: &str| {
            let base = base.to_string();
            format!("{method} {}{path}", base.trim_end_matches('/'))
                .parse::<Target>()
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("{base} is not a base URL such as http://host:port"))
        };
        let transport = grpc::transport();
        Ok(Self {
            http1: Client::new(false, Extras::default()),
            http2: Client::new(true, Extras::default()),
            cart: CartClient::with_origin(transport.clone(), args.cart.clone()),
            payments: PaymentsClient::with_origin(transport, args.payments.clone()),
            products: target("GET", &args.catalog, "/products")?,
            reviews: target("GET", &args.reviews, "/reviews")?,
            publish: target("POST", &args.notifications, "/publish")?,
            notifications: args.notifications.clone(),
            queue: args.queue.clone(),
        })
    }

    pub(super) async fn catalog(&self, extras: &Extras) -> Answered {
        let since = Instant::now();
        Answered::from_outcome(self.http2.send(&self.products, extras).await, since)
    }

    pub(super) async fn reviews(&self, extras: &Extras) -> Answered {
        let since = Instant::now();
        Answered::from_outcome(self.http1.send(&self.reviews, extras).await, since)
    }

    pub(super) async fn announce(&self, order: &Value, extras: &Extras) -> Answered {
        let since = Instant::now();
        let extras = Extras { body: order.to_string().into(), ..extras.clone() };
        Answered::from_outcome(self.http1.send(&self.publish, &extras).await, since)
    }

    pub(super) async fn cart(&self, user: &str, extras: &Extras) -> Answered {
        let since = Instant::now();
        let request = request(GetRequest { user: user.to_owned() }, extras);
        cart_answer(self.cart.clone().get(request).await, since)
    }

    pub(super) async fn cart_add(&self, user: &str, sku: &str, extras: &Extras) -> Answered {
        let since = Instant::now();
        let line = Some(Line { sku: sku.to_owned(), quantity: 1 });
        let request = request(AddRequest { user: user.to_owned(), line }, extras);
        cart_answer(self.cart.clone().add(request).await, since)
    }

    pub(super) async fn cart_remove(&self, user: &str, sku: &str, extras: &Extras) -> Answered {
        let since = Instant::now();
        let request = request(RemoveRequest { user: user.to_owned(), sku: sku.to_owned() }, extras);
        cart_answer(self.cart.clone().remove(request).await, since)
    }

    pub(super) async fn charge(&self, user: &str, cents: u64, extras: &Extras) -> Answered {
        let since = Instant::now();
        let request = request(ChargeRequest { user: user.to_owned(), cents }, extras);
        match self.payments.clone().charge(request).await {
            Ok(response) => {
                let receipt = response.into_inner();
                Answered::by(receipt.answered_by, json!({ "id": receipt.id, "cents": receipt.cents }), since)
            }
            Err(status) => Answered::from_outcome(grpc::failed(&status), since),
        }
    }

    pub(super) async fn publish_order(&self, order: &Value) -> Answered {
        let since = Instant::now();
        match exchange(&self.queue, &format!("PUB {order}")).await {
            Ok((by, lines)) => Answered::by(Some(by), json!({ "answer": lines.first() }), since),
            Err(error) => Answered::failed(Failure::from_error(&error), since),
        }
    }

    pub(super) async fn orders(&self) -> Answered {
        let since = Instant::now();
        match exchange(&self.queue, "LIST 20").await {
            Ok((by, lines)) => {
                let orders: Vec<Value> = lines
                    .iter()
                    .skip(1)
                    .map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line)))
                    .collect();
                Answered::by(Some(by), json!({ "orders": orders }), since)
            }
            Err(error) => Answered::failed(Failure::from_error(&error), since),
        }
    }
}

fn request<T>(message: T, extras: &Extras) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let mut headers = http::HeaderMap::new();
    headers.extend(extras.headers.iter().cloned());
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request
}

fn cart_answer(answer: Result<tonic::Response<CartState>, tonic::Status>, since: Instant) -> Answered {
    match answer {
        Ok(response) => {
            let state = response.into_inner();
            let lines: Vec<_> =
                state.lines.iter().map(|line| json!({ "sku": line.sku, "quantity": line.quantity })).collect();
            Answered::by(state.answered_by, json!({ "lines": lines }), since)
        }
        Err(status) => Answered::from_outcome(grpc::failed(&status), since),
    }
}

/// One command on a connection of its own: who greeted, and the lines answered until the server closed.
async fn exchange(queue: &str, command: &str) -> std::io::Result<(Answerer, Vec<String>)> {
    let stream = TcpStream::connect(queue).await?;
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream).lines();
    let greeting = lines.next_line().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let info: Value = greeting
        .strip_prefix("INFO ")
        .and_then(|json| serde_json::from_str(json).ok())
        .ok_or_else(|| std::io::Error::other(format!("the queue greeted with {greeting:?}")))?;
    let field = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
    let by = Answerer { replica: field("replica"), version: field("version"), marker: field("marker") };
    lines.get_mut().write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        match lines.next_line().await? {
            Some(line) if line == "+BYE" => break,
            Some(line) => answer.push(line),
            None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
    match answer.first() {
        Some(first) if first.starts_with('+') => Ok((by, answer)),
        other => Err(std::io::Error::other(format!("the queue answered {other:?}"))),
    }
}
