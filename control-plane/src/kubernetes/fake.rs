//! An API server for tests, within this process: each request is a call of a function.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Method and path, without what follows the path; for a watch `WATCH` and the path.
    pub(crate) what: String,
    /// The object sent along.
    pub(crate) object: Value,
}

/// What is asked, in its order.
pub(crate) struct Questions(mpsc::UnboundedReceiver<Asked>);

impl Questions {
    /// The next question. Within an hour, which passes at once where time is paused.
    pub(crate) async fn next(&mut self) -> Asked {
        let next = tokio::time::timeout(Duration::from_secs(3600), self.0.recv());
        next.await.expect("nothing more was asked").expect("the client is gone")
    }
}

/// A client whose questions `answer` answers with a code and an object, or never, and all that was asked.
pub(crate) fn api_server(
    answer: impl Fn(&str, &Value) -> Option<(u16, Value)> + Send + Sync + 'static,
) -> (kube::Client, Questions) {
    let (send, asked) = mpsc::unbounded_channel();
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (send, answer) = (send.clone(), answer.clone());
        async move {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let method = if is_watch { "WATCH" } else { request.method().as_str() };
            let what = format!("{method} {}", request.uri().path());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let object = serde_json::from_slice(&body).unwrap_or_default();
            let answered = answer(&what, &object);
            // Nobody need listen.
            let _ = send.send(Asked { what, object });
            let Some((code, object)) = answered else { return std::future::pending().await };
            let response = Response::builder().status(code).body(Body::from(object.to_string().into_bytes()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    (kube::Client::new(service, "default"), Questions(asked))
}

/// An API server's refusal.
pub(crate) fn refusal(code: u16, reason: &str) -> Option<(u16, Value)> {
    let status = json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason });
    Some((code, status))
}
