//! Live control of a running load.
//!
//! ```text
//! GET  /stats               counters since the start
//! POST /mark?name=N         begin counting under that name
//! GET  /since?name=N        counters since the mark
//! POST /rate?rps=250        change the rate
//! POST /stop                finish: print the summary and exit
//! ```

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::Shared;
use super::stats::Stats;
use crate::admin::Handler;
use crate::server::{self, Body, query, text};

/// Names in use at a time; a mark is meant to be used again.
const MAX_MARKS: usize = 64;

pub(super) fn routes(shared: Arc<Shared>) -> Handler {
    Arc::new(move |request| {
        let response = respond(&request, &shared);
        Box::pin(async move { response })
    })
}

fn respond(request: &Request<Incoming>, shared: &Shared) -> Response<Body> {
    let uri = request.uri();
    let name = query(uri, "name").unwrap_or("default");
    let now = Instant::now();
    match uri.path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/stats" => server::json(StatusCode::OK, &shared.book().total.report(now)),
        "/mark" => {
            let mut book = shared.book();
            if book.marks.len() >= MAX_MARKS && !book.marks.contains_key(name) {
                return text(StatusCode::CONFLICT, format!("{MAX_MARKS} marks are set already: use one again\n"));
            }
            book.marks.insert(name.to_owned(), Stats::new(now));
            server::json(StatusCode::OK, &json!({ "mark": name }))
        }
        "/since" => match shared.book().marks.get(name) {
            Some(mark) => server::json(StatusCode::OK, &mark.report(now)),
            None => text(StatusCode::NOT_FOUND, format!("no mark {name:?}: POST /mark?name={name} first\n")),
        },
        "/rate" => match query(uri, "rps").and_then(|rps| rps.parse::<f64>().ok()) {
            Some(rate) if rate.is_finite() && rate >= 0.0 => {
                shared.set_rate(rate);
                server::json(StatusCode::OK, &json!({ "rate": rate }))
            }
            _ => text(StatusCode::BAD_REQUEST, "rps must be a number, 0 or more\n"),
        },
        "/stop" => {
            shared.stop.cancel();
            server::json(StatusCode::OK, &json!({ "stopping": true }))
        }
        path => server::not_found(path),
    }
}
