//! What the admin server answers, by path.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use weft_xds::envoy::config::bootstrap::v3::Bootstrap as BootstrapMessage;

use super::drain::DrainTrigger;
use super::probes::{self, Probes};
use super::readiness::Readiness;
use super::{dump, logging, show};
use crate::ads;
use crate::memory;
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::tls::LocalIdentity;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const HELP: &str = "\
GET  /ready               200 when certificate and configuration are there; else 503 and what is missing
GET  /live                200 while the process answers
GET  /stats/prometheus    metrics
GET  /probe/CONTAINER/P   the application's probe P (liveness, readiness, …), asked on its behalf; not over the Unix socket
GET  /config_dump         configuration as received, with versions and refusals (JSON, Envoy's form)
GET  /clusters            clusters and endpoints with their state; ?format=json
GET  /certs               certificate and trust bundle (JSON, Envoy's form)
GET  /logging             what is logged
POST /logging?level=L     log L: info, debug, weft_proxy::ads=debug,info, info,access=info
POST /drain               say goodbye on every connection; ?wait=SECONDS answers when nothing is at work, or the time is over
";

/// Longest `?wait=`, so that a client that is gone does not leave a task for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Which socket a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Loopback or the Unix socket: everything.
    Private,
    /// All addresses: what a kubelet and a scraper need.
    Public,
}

/// What the answers are made from.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) bootstrap: Box<BootstrapMessage>,
    pub(super) store: Arc<Store>,
    pub(super) identity: Arc<LocalIdentity>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    pub(super) drain: DrainTrigger,
    pub(super) configuration: Option<ads::Handle>,
    pub(super) probes: Probes,
}

/// An answer before it is a response.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
    allow: Option<&'static str>,
}

impl Answer {
    fn new(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into(), allow: None }
    }

    fn json(body: &serde_json::Value) -> Self {
        Self { content_type: JSON, ..Self::new(StatusCode::OK, format!("{body:#}\n")) }
    }
}

impl Admin {
    /// Answers one request. Bodies of requests are not read: parameters are in the query.
    /// `local` is the address that the client came to; a Unix socket has none.
    pub(super) async fn respond(
        &self,
        method: &Method,
        uri: &Uri,
        scope: Scope,
        local: Option<IpAddr>,
    ) -> Response<Full<Bytes>> {
        let answer = match local.filter(|_| uri.path().starts_with(probes::PREFIX)) {
            Some(address) => self.probe(method, uri.path(), address).await,
            None => self.answer(method, uri, scope).await,
        };
        // HEAD gets the head of the answer; hyper leaves the body out.
        let mut response = Response::new(Full::new(Bytes::from(answer.body)));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(allow) = answer.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }

    async fn answer(&self, method: &Method, uri: &Uri, scope: Scope) -> Answer {
        let reads = method == Method::GET || method == Method::HEAD;
        let path = uri.path();
        match (path, scope) {
            ("/ready" | "/stats/prometheus", _)
            | ("/" | "/help" | "/live" | "/config_dump" | "/clusters" | "/certs", Scope::Private)
                if !reads =>
            {
                wrong_method("GET, HEAD")
            }
            ("/ready", _) => self.ready(),
            ("/stats/prometheus", _) => {
                Answer { content_type: OPENMETRICS, ..Answer::new(StatusCode::OK, self.metrics.encode()) }
            }
            (_, Scope::Public) => Answer::new(
                StatusCode::NOT_FOUND,
                "only /ready, /stats/prometheus and the application's probes are served here\n",
            ),
            ("/" | "/help", _) => Answer::new(StatusCode::OK, HELP),
            ("/live", _) => Answer::new(StatusCode::OK, "live\n"),
            ("/config_dump", _) => self.config_dump().await,
            ("/clusters", _) if parameter(uri, "format") == Some("json") => {
                Answer::json(&show::clusters_json(&self.store.load()))
            }
            ("/clusters", _) => Answer::new(StatusCode::OK, show::clusters_text(&self.store.load())),
            ("/certs", _) => Answer::json(&show::certificates(&self.identity)),
            ("/logging", _) if reads => match logging::current() {
                Some(filter) => Answer::new(StatusCode::OK, format!("{filter}\n")),
                None => Answer::new(StatusCode::OK, "off\n"),
            },
            ("/logging", _) if method == Method::POST => set_logging(uri),
            ("/logging", _) => wrong_method("GET, HEAD, POST"),
            ("/drain", _) if method == Method::POST => self.start_drain(uri).await,
            ("/drain", _) => wrong_method("POST"),
            _ => Answer::new(StatusCode::NOT_FOUND, format!("there is no {path}; this is what there is:\n{HELP}")),
        }
    }

    async fn probe(&self, method: &Method, path: &str, address: IpAddr) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return wrong_method("GET, HEAD");
        }
        match self.probes.ask(path, address).await {
            Some(said) => Answer::new(said.status, said.text),
            None => Answer::new(StatusCode::NOT_FOUND, "this pod declares no such probe\n"),
        }
    }

    fn ready(&self) -> Answer {
        let pending = self.readiness.pending();
        if self.drain.is_draining() {
            Answer::new(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if pending.is_empty() {
            Answer::new(StatusCode::OK, "ready\n")
        } else {
            Answer::new(StatusCode::SERVICE_UNAVAILABLE, format!("not ready, waiting for: {}\n", pending.join(", ")))
        }
    }

    async fn config_dump(&self) -> Answer {
        let configuration = match &self.configuration {
            Some(handle) => handle.dump().await.unwrap_or_default(),
            None => ads::Dump::default(),
        };
        let answer = match dump::config_dump(&self.bootstrap, &configuration) {
            Ok(dump) => Answer::json(&dump),
            Err(error) => {
                Answer::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the configuration has no JSON form: {error}\n"))
            }
        };
        memory::give_back();
        answer
    }

    async fn start_drain(&self, uri: &Uri) -> Answer {
        let wait = match parameter(uri, "wait").map(str::parse) {
            None => Duration::ZERO,
            Some(Ok(seconds)) => Duration::from_secs(seconds).min(LONGEST_WAIT),
            Some(Err(_)) => return Answer::new(StatusCode::BAD_REQUEST, "wait is not a number of seconds\n"),
        };
        self.drain.start();
        // Nothing may be at work at once, and with no wait that is still the answer.
        let _ = tokio::time::timeout(wait, self.drain.idle()).await;
        match self.drain.busy() {
            0 => Answer::new(StatusCode::OK, "draining; nothing is at work\n"),
            busy => Answer::new(StatusCode::OK, format!("draining; at work: {busy}\n")),
        }
    }
}

fn set_logging(uri: &Uri) -> Answer {
    let Some(filter) = parameter(uri, "level") else {
        return Answer::new(StatusCode::BAD_REQUEST, "say what to log: POST /logging?level=debug\n");
    };
    match logging::change(filter) {
        Ok(()) => Answer::new(StatusCode::OK, format!("{filter}\n")),
        Err(error) => Answer::new(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn wrong_method(allow: &'static str) -> Answer {
    let body = format!("use {allow}\n");
    Answer { allow: Some(allow), ..Answer::new(StatusCode::METHOD_NOT_ALLOWED, body) }
}

/// A parameter of the query, as it is: none of ours needs escaping.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
