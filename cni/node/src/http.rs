//! Readiness and metrics over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Metrics;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// What keeps the plugin from being in place; none if it is.
    pub status: watch::Receiver<Option<String>>,
    /// What has been counted.
    pub metrics: Arc<Metrics>,
}

/// Serves `/ready`, `/live` and `/metrics`.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(listener: TcpListener, pages: Pages) -> std::io::Result<()> {
    let router = Router::new()
        .route("/ready", get(ready))
        .route("/live", get(async || "alive\n"))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener, router).await
}

async fn ready(State(pages): State<Pages>) -> impl IntoResponse {
    match &*pages.status.borrow() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {problem}\n")),
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, TEXT)], pages.metrics.text())
}
