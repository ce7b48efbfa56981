//! The front end: the shop's page and the JSON API behind it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page, with `/api/home` inside |
//! | `GET /api/home` | products, cart and reviews, and who answered for each; 502 if one backend failed |
//! | `POST /api/cart/add?sku=…`, `/api/cart/remove?sku=…` | the cart afterwards |
//! | `POST /api/checkout`, or `?sku=…` to buy one thing at once | charges, queues the order, announces it |
//! | `GET /api/orders` | the newest orders, from the queue |
//! | `GET /events` | WebSocket, relayed to the notifications service |
//!
//! `user=…` in the query names the cart, `guest` if absent. Headers a request was sent with for its own sake
//! ([`PASSED_ON`]) go to every backend, as an ordinary application passes them on.

mod backends;
mod relay;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::{Value, json};

use self::backends::{Answered, Backends};
use crate::client::Extras;
use crate::server::{self, Body, Identity, Protocol, query};

/// How long one request may take, with all the calls it makes.
const DEADLINE: Duration = Duration::from_secs(5);

/// Headers passed on to the backends.
const PASSED_ON: [HeaderName; 3] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-shop-cohort"),
];

const PAGE: &str = include_str!("page.html");

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    server: server::Args,
    /// The catalog's URL
    #[arg(long, default_value = "http://catalog")]
    catalog: Uri,
    /// The cart's URL
    #[arg(long, default_value = "http://cart:50051")]
    cart: Uri,
    /// The payments' URL
    #[arg(long, default_value = "http://payments:50051")]
    payments: Uri,
    /// The reviews' URL
    #[arg(long, default_value = "http://reviews")]
    reviews: Uri,
    /// The notifications' URL
    #[arg(long, default_value = "http://notifications")]
    notifications: Uri,
    /// The order queue's host and port
    #[arg(long, default_value = "queue:4222")]
    queue: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("web", 8080, &args.server).await?;
    let shop = Arc::new(Shop {
        identity: instance.identity.clone(),
        backends: Backends::new(&args)?,
        tasks: instance.tasks.clone(),
        shutdown: instance.shutdown.clone(),
    });
    server::serve(listener, instance, Protocol::Http1, move |request| respond(request, shop.clone())).await
}

struct Shop {
    identity: Arc<Identity>,
    backends: Backends,
    tasks: tokio_util::task::TaskTracker,
    shutdown: tokio_util::sync::CancellationToken,
}

async fn respond(request: Request<Incoming>, shop: Arc<Shop>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path == "/events" {
        return relay::events(request, &shop).await;
    }
    match tokio::time::timeout(DEADLINE, route(request, &shop)).await {
        Ok(response) => response,
        Err(_) => server::text(StatusCode::GATEWAY_TIMEOUT, format!("{path} took longer than {DEADLINE:?}\n")),
    }
}

async fn route(request: Request<Incoming>, shop: &Shop) -> Response<Body> {
    let uri = request.uri();
    let user = query(uri, "user").unwrap_or("guest");
    let sku = query(uri, "sku");
    let extras = passed_on(&request);
    match (request.method(), uri.path()) {
        (&Method::GET, "/") => page(shop, user, &extras).await,
        (&Method::GET, "/api/home") => home(shop, user, &extras).await,
        (&Method::GET, "/api/orders") => one(shop, "queue", shop.backends.orders().await),
        (&Method::POST, "/api/cart/add") => {
            one(shop, "cart", shop.backends.cart_add(user, sku.unwrap_or("tea"), &extras).await)
        }
        (&Method::POST, "/api/cart/remove") => {
            one(shop, "cart", shop.backends.cart_remove(user, sku.unwrap_or("tea"), &extras).await)
        }
        (&Method::POST, "/api/checkout") => checkout(shop, user, sku, &extras).await,
        (_, path) => server::not_found(path),
    }
}

fn passed_on(request: &Request<Incoming>) -> Extras {
    let headers =
        PASSED_ON.iter().filter_map(|name| Some((name.clone(), request.headers().get(name)?.clone()))).collect();
    Extras { headers, ..Extras::default() }
}

async fn page(shop: &Shop, user: &str, extras: &Extras) -> Response<Body> {
    let (home, _) = gather(shop, user, extras).await;
    // Inside a script element only "</" could end it; JSON may write "<" as an escape.
    let data = home.to_string().replace('<', "\\u003c");
    server::html(PAGE.replace("{{home}}", &data))
}

async fn home(shop: &Shop, user: &str, extras: &Extras) -> Response<Body> {
    let (home, parts) = gather(shop, user, extras).await;
    let status =
        if parts.iter().all(|(_, part)| part.failure.is_none()) { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    let mut response = server::json(status, &home);
    for (name, part) in &parts {
        for (what, value) in [("version", &part.version), ("replica", &part.replica)] {
            let header = HeaderName::try_from(format!("x-{name}-{what}"));
            if let (Ok(header), Ok(value)) = (header, HeaderValue::from_str(value)) {
                response.headers_mut().insert(header, value);
            }
        }
    }
    response
}

/// Asks the three backends of the home page at once.
async fn gather(shop: &Shop, user: &str, extras: &Extras) -> (Value, [(&'static str, Answered); 3]) {
    let backends = &shop.backends;
    let (catalog, reviews, cart) =
        tokio::join!(backends.catalog(extras), backends.reviews(extras), backends.cart(user, extras));
    let home = json!({
        "marker": shop.identity.marker,
        "version": shop.identity.version,
        "replica": shop.identity.replica,
        "user": user,
        "products": catalog.body["products"],
        "reviews": reviews.body["reviews"],
        "cart": cart.body["lines"],
        "backends": { "catalog": catalog.summary(), "reviews": reviews.summary(), "cart": cart.summary() },
    });
    (home, [("catalog", catalog), ("reviews", reviews), ("cart", cart)])
}

/// Takes what to buy from the cart, or `sku`; charges it, queues the order, and announces it.
async fn checkout(shop: &Shop, user: &str, sku: Option<&str>, extras: &Extras) -> Response<Body> {
    let backends = &shop.backends;
    let skus: Vec<String> = match sku {
        Some(sku) => vec![sku.to_owned()],
        None => {
            let cart = backends.cart(user, extras).await;
            if cart.failure.is_some() {
                return one(shop, "cart", cart);
            }
            let lines = cart.body["lines"].as_array().cloned().unwrap_or_default();
            lines.iter().filter_map(|line| line["sku"].as_str().map(str::to_owned)).collect()
        }
    };
    if skus.is_empty() {
        return server::text(StatusCode::CONFLICT, "the cart is empty: add something, or name a sku\n");
    }
    let payment = backends.charge(user, 1_000 * skus.len() as u64, extras).await;
    if payment.failure.is_some() {
        return one(shop, "payments", payment);
    }
    let order = json!({ "user": user, "skus": skus, "receipt": payment.body["id"] });
    let queued = backends.publish_order(&order).await;
    if queued.failure.is_some() {
        return one(shop, "queue", queued);
    }
    if sku.is_none() {
        for sku in &skus {
            let removed = backends.cart_remove(user, sku, extras).await;
            if removed.failure.is_some() {
                return one(shop, "cart", removed);
            }
        }
    }
    // The order stands whether or not anyone hears of it.
    let announced = backends.announce(&order, extras).await;
    server::json(
        StatusCode::OK,
        &json!({
            "marker": shop.identity.marker,
            "order": order,
            "backends": {
                "payments": payment.summary(),
                "queue": queued.summary(),
                "notifications": announced.summary(),
            },
        }),
    )
}

/// The answer of one backend as the front end's answer.
fn one(shop: &Shop, name: &str, answered: Answered) -> Response<Body> {
    let status = if answered.failure.is_none() { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    let summary = answered.summary();
    let mut body = answered.body;
    if !body.is_object() {
        body = json!({});
    }
    body["marker"] = json!(shop.identity.marker);
    body["backends"] = json!({ name: summary });
    server::json(status, &body)
}
