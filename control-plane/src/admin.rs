//! The loopback HTTP server: metrics, readiness, status, resources as they would be served, root rotation, join tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::token::Claim;
use crate::identity::{Authenticator, Authority};
use crate::metrics::Metrics;
use crate::sources::SourceState;
use crate::status::{RenderedResource, RootStatus, SourceStatus, Status};
use crate::xds::{Cache, Registry, Version};
use crate::{ResourceKey, ResourceType, View};

/// A browser sends this header to another origin only after asking first, and is not allowed then: so no web page that the
/// user visits can rotate the root.
pub const REQUEST_HEADER: &str = "x-weft-request";

/// Where Kubernetes puts the token of the control plane's own service account, which only its own container can read. Whoever asks for a
/// join token shows that: a port-forward reaches this server too, and so does every user of a machine; neither may become a workload by it.
pub const OWN_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What the server reads from.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) folder: String,
    pub(crate) source: watch::Receiver<Arc<SourceState>>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) authenticator: Arc<Authenticator>,
}

/// The answer of `POST /rotate-root`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// From when the new root signs, in seconds of Unix time.
    pub signs_from: u64,
    /// Until when the old root is trusted, in seconds of Unix time.
    pub old_trusted_until: u64,
}

/// The question of `POST /join-token`; the answer is the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// How long the token is valid, in seconds.
    pub lifetime: u64,
}

/// Serves operators until told to stop.
pub(crate) async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let router = health()
        .route("/status", get(status))
        .route("/resource", get(resource))
        .route("/ca", get(ca))
        .route("/rotate-root", post(rotate_root))
        .route("/join-token", post(join_token));
    run(listener, router.with_state(admin), stop).await;
}

/// Serves those who only ask how it is, from anywhere, until told to stop: the kubelet's probes, and Prometheus.
pub(crate) async fn serve_health(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    run(listener, health().with_state(admin), stop).await;
}

fn health() -> Router<Admin> {
    Router::new().route("/live", get(|| async { "live\n" })).route("/ready", get(ready)).route("/metrics", get(metrics))
}

async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!("HTTP server: {error}");
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    // The authority was loaded before this server started.
    if admin.source.borrow().loaded {
        "ready\n".into_response()
    } else {
        let text = "not ready: the configuration has not been read without errors yet; see `weft status`\n";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.encode()).into_response()
}

async fn status(State(admin): State<Admin>) -> Json<Status> {
    let source = admin.source.borrow().clone();
    let trust = admin.authority.trust().borrow().clone();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: source.loaded,
        trust_domain: admin.authority.trust_domain().to_owned(),
        roots: trust
            .bundle
            .iter()
            .enumerate()
            .map(|(at, root)| RootStatus { fingerprint: hex(&Sha256::digest(root)), signs: at == trust.signer })
            .collect(),
        source: SourceStatus {
            folder: admin.folder.clone(),
            loaded: source.loaded,
            generation: source.generation,
            digest: source.digest.clone(),
            refused: source.is_refused(),
            problems: source.problems.iter().map(Into::into).collect(),
            watches: source.watches.iter().map(Into::into).collect(),
        },
        services: admin.cache.configuration().services(),
        proxies: admin.registry.proxies(),
    })
}

/// Which resource, and for whom.
#[derive(Debug, Deserialize)]
struct Wanted {
    /// `LDS`, `RDS`, …
    r#type: String,
    name: String,
    namespace: String,
}

async fn resource(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Json<Option<RenderedResource>> {
    let kind = ResourceType::ALL.into_iter().find(|kind| kind.short() == wanted.r#type);
    let rendered = kind.and_then(|kind| {
        let view = View::weft(wanted.namespace).narrowed_to(kind);
        admin.cache.configuration().render(&ResourceKey::new(kind, wanted.name), &view)
    });
    Json(rendered.map(|any| RenderedResource {
        version: Version::of(&any.encode_to_vec()).to_string(),
        message: hex(&any.value),
    }))
}

async fn ca(State(admin): State<Admin>) -> String {
    admin.authority.trust().borrow().pem()
}

/// The refusal of what a web page may have sent.
fn refusal(headers: &HeaderMap, command: &str) -> Option<Response> {
    let text = || format!("the header `{REQUEST_HEADER}` is missing; use `weft-control-plane {command}`\n");
    (!headers.contains_key(REQUEST_HEADER)).then(|| (StatusCode::FORBIDDEN, text()).into_response())
}

/// Whether a request carries what the file `own` holds now.
async fn shows(headers: &HeaderMap, own: &str) -> bool {
    let Ok(own) = tokio::fs::read_to_string(own).await else { return false };
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // Digests, so that the time of the comparison says nothing about the token.
    shown.is_some_and(|shown| !own.trim().is_empty() && Sha256::digest(shown.trim()) == Sha256::digest(own.trim()))
}

async fn join_token(State(admin): State<Admin>, headers: HeaderMap, Json(request): Json<TokenRequest>) -> Response {
    if let Some(refused) = refusal(&headers, "token") {
        return refused;
    }
    if !shows(&headers, OWN_TOKEN).await {
        let text = "join tokens are for processes of the control plane's own container on Kubernetes: `kubectl exec` \
                    `weft-control-plane token` there; elsewhere use its --state\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let TokenRequest { namespace, pod, lifetime } = request;
    let (claim, lifetime) = (Claim { namespace, pod }, Duration::from_secs(lifetime));
    match admin.authenticator.join_token(&claim, lifetime, &admin.cache, SystemTime::now()) {
        Ok(token) => {
            tracing::info!(namespace = claim.namespace, pod = claim.pod, ?lifetime, "join token made");
            token.into_response()
        }
        Err(problem) => (StatusCode::CONFLICT, format!("{problem}\n")).into_response(),
    }
}

async fn rotate_root(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Some(refused) = refusal(&headers, "rotate-root") {
        return refused;
    }
    match admin.authority.rotate(SystemTime::now()).await {
        Ok((signs_from, old_trusted_until)) => {
            tracing::info!(signs_from, old_trusted_until, "root rotation started");
            Json(Rotation { signs_from, old_trusted_until }).into_response()
        }
        Err(error) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_join_token_is_made_only_for_who_can_read_the_containers_own_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("own"), "a.b.c\n").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        for (file, shown, expected) in [
            ("own", Some("Bearer a.b.c"), true),
            ("own", Some("Bearer a.b.d"), false),
            ("own", Some("a.b.c"), false),
            ("own", None, false),
            ("empty", Some("Bearer "), false),
            ("absent", Some("Bearer a.b.c"), false),
        ] {
            let headers = shown.map(|shown| (header::AUTHORIZATION, shown.parse().unwrap()));
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(shows(&headers, &path(file)).await, expected, "{file} {shown:?}");
        }
    }
}
