//! Reviews of the shop's products, over HTTP/1.1. Version v2 adds stars.

use std::process::ExitCode;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::server::{self, Args, Body, Identity, Protocol};

/// `(sku, author, text, stars)`.
const REVIEWS: [(&str, &str, &str, u8); 4] = [
    ("tea", "Ada", "Light, floral, gone too soon.", 5),
    ("loom", "Joseph", "Needs no punched cards, sadly.", 4),
    ("yarn", "Penelope", "I unpicked it every night and it held.", 5),
    ("lamp", "Grace", "Found a moth in it.", 3),
];

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("reviews", 8080, &args).await?;
    let identity = instance.identity.clone();
    server::serve(listener, instance, Protocol::Http1, move |request| {
        let response = respond(&request, &identity);
        async move { response }
    })
    .await
}

fn respond(request: &Request<Incoming>, identity: &Identity) -> Response<Body> {
    if request.uri().path() != "/reviews" {
        return server::not_found(request.uri().path());
    }
    let stars = identity.version != "v1";
    let reviews: Vec<_> = REVIEWS
        .iter()
        .map(|(sku, author, text, count)| {
            let mut review = json!({ "sku": sku, "author": author, "text": text });
            if stars {
                review["stars"] = json!(count);
            }
            review
        })
        .collect();
    server::json(
        StatusCode::OK,
        &json!({
            "marker": identity.marker,
            "version": identity.version,
            "replica": identity.replica,
            "reviews": reviews,
        }),
    )
}
