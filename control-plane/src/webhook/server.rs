//! HTTPS for the API server's questions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::review::{self, Answer, Review, UnknownVersion, Verdict};
use super::settings::SettingsFile;
use super::validate;
use crate::accept::{self, Ended, HANDSHAKE};
use crate::identity::Serving;

/// etcd holds no object above 1.5 MiB; a review holds the pod, and little else.
const MAX_BODY: usize = 4 << 20;

/// How long open connections get to end after a stop: more than the API server waits for an answer.
const DRAIN: Duration = Duration::from_secs(10);

/// What the server answers from.
#[derive(Clone)]
pub(super) struct Webhooks {
    pub(super) settings: Arc<SettingsFile>,
}

/// Accepts until told to stop, then lets open connections end.
pub(super) async fn serve(listener: TcpListener, tls: Arc<Serving>, webhooks: Webhooks, stop: CancellationToken) {
    let router = router(webhooks);
    accept::serve("webhook", listener, stop.clone(), DRAIN, |socket| {
        connection(socket, tls.clone(), router.clone(), stop.clone())
    })
    .await;
}

/// The webhooks' paths. Which one of those for pods the API server calls is decided by the namespace's label.
fn router(webhooks: Webhooks) -> Router {
    Router::new()
        .route("/inject/{asked_by}", post(inject))
        .route("/validate", post(examine))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(webhooks)
}

async fn inject(
    State(webhooks): State<Webhooks>,
    Path(asked_by): Path<String>,
    Json(review): Json<Review>,
) -> Response {
    let enabled = match asked_by.as_str() {
        "namespace" => true,
        "pod" => false,
        _ => return (StatusCode::NOT_FOUND, "there are /inject/namespace and /inject/pod\n").into_response(),
    };
    say(review, |review| review::answer(review, enabled, &webhooks.settings.current()))
}

async fn examine(Json(review): Json<Review>) -> Response {
    say(review, validate::answer)
}

fn say(review: Review, answer: impl FnOnce(Review) -> Result<Answer, UnknownVersion>) -> Response {
    let since = Instant::now();
    let who = review.who();
    match answer(review) {
        Ok(answer) => {
            let Verdict { word, because } = &answer.verdict;
            tracing::info!(object = who, verdict = word, because, took = ?since.elapsed(), "admission");
            Json(answer).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn connection(socket: TcpStream, tls: Arc<Serving>, router: Router, stop: CancellationToken) -> Ended {
    socket.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls.current()).accept(socket)).await??;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
