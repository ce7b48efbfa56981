//! Products and prices, over HTTP/2 without TLS: `GET /products`, `GET /products/SKU`, `POST /search`.

use std::process::ExitCode;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::server::{self, Args, Body, Identity, Protocol};

/// `(sku, name, price in cents, picture)`.
const PRODUCTS: [(&str, &str, u64, &str); 6] = [
    ("tea", "Darjeeling, first flush", 1290, "🍵"),
    ("loom", "Table loom, 40 cm", 18900, "🧵"),
    ("yarn", "Merino yarn, 100 g", 890, "🧶"),
    ("lamp", "Weaver's lamp", 4500, "💡"),
    ("book", "Warp and Weft", 2400, "📘"),
    ("shears", "Thread shears", 1650, "✂️"),
];

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("catalog", 8080, &args).await?;
    let identity = instance.identity.clone();
    server::serve(listener, instance, Protocol::Http2, move |request| {
        let response = respond(&request, &identity);
        async move { response }
    })
    .await
}

fn respond(request: &Request<Incoming>, identity: &Identity) -> Response<Body> {
    let path = request.uri().path();
    // The same goods, asked for by a method that nobody may repeat on his own (RFC 9110 §9.2.2).
    let path = if (request.method(), path) == (&Method::POST, "/search") { "/products" } else { path };
    match path.strip_prefix("/products") {
        Some("") | Some("/") => server::json(
            StatusCode::OK,
            &json!({
                "marker": identity.marker,
                "version": identity.version,
                "replica": identity.replica,
                "products": PRODUCTS.iter().map(product).collect::<Vec<_>>(),
            }),
        ),
        Some(sku) => match PRODUCTS.iter().find(|entry| Some(entry.0) == sku.strip_prefix('/')) {
            Some(entry) => server::json(StatusCode::OK, &product(entry)),
            None => server::not_found(path),
        },
        None => server::not_found(path),
    }
}

fn product((sku, name, cents, picture): &(&str, &str, u64, &str)) -> serde_json::Value {
    json!({ "sku": sku, "name": name, "cents": cents, "picture": picture })
}
