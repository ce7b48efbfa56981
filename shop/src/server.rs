//! What every server role shares: its flags, its listener, who it says it is, and how it ends.
//!
//! A role ends the way a well-behaved application does. On SIGTERM it stops accepting, answers what is in flight
//! (`connection: close` on HTTP/1.1, GOAWAY on HTTP/2), and exits 0 when the last connection is gone or after
//! [`GRACE`].

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Fault, Faults};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response of ours, whether JSON or a gRPC stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How long a role waits for open connections after SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Longer than a sidecar keeps an idle connection pooled, so that the client side closes first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Port to serve on all addresses, IPv6 and IPv4 (0: a free one, printed at start) [default: the role's]
    #[arg(long)]
    port: Option<u16>,
    /// Where to serve health and failure control: a loopback address with port, or unix:PATH
    #[arg(long, default_value = "127.0.0.1:9000")]
    admin: admin::Address,
    /// Name of this replica, shown in every answer [default: the host's name]
    #[arg(long)]
    replica: Option<String>,
    /// Version of this replica, shown in every answer
    #[arg(long = "app-version", alias = "version", default_value = "v1")]
    app_version: String,
}

/// One running replica of a role. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) identity: Arc<Identity>,
    pub(crate) faults: Faults,
    /// Cancelled on SIGTERM.
    pub(crate) shutdown: CancellationToken,
    /// Everything that must end before the process may.
    pub(crate) tasks: TaskTracker,
}

/// Who answers.
pub(crate) struct Identity {
    pub(crate) role: &'static str,
    pub(crate) version: String,
    pub(crate) replica: String,
    /// A text that packet captures can be searched for.
    pub(crate) marker: String,
}

/// Which HTTP a role speaks on its port. No role sniffs: a wrong protocol is a visible failure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Binds a role's ports, starts its admin port and its signal handling, and prints one line of JSON that says
/// where it listens.
pub(crate) async fn start(
    role: &'static str,
    default_port: u16,
    args: &Args,
) -> anyhow::Result<(Instance, TcpListener)> {
    let replica = match &args.replica {
        Some(name) => name.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("cannot read the host's name; name the replica with --replica")?
            .trim()
            .to_owned(),
    };
    let instance = Instance {
        identity: Arc::new(Identity {
            role,
            version: args.app_version.clone(),
            replica,
            marker: format!("weft-shop-plaintext-{role}"),
        }),
        faults: Faults::default(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let port = args.port.unwrap_or(default_port);
    let listener =
        listen(port).await.with_context(|| format!("cannot listen on port {port}; choose another with --port"))?;
    let admin = admin::serve(&args.admin, admin::routes(instance.clone())).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = instance.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    println!(
        "{}",
        serde_json::json!({
            "role": role,
            "replica": instance.identity.replica,
            "version": instance.identity.version,
            "port": listener.local_addr()?.port(),
            "admin": admin,
        })
    );
    Ok((instance, listener))
}

/// Serves HTTP until SIGTERM, then until the last connection is done or [`GRACE`] is over.
pub(crate) async fn serve<H, F>(
    listener: TcpListener,
    instance: Instance,
    protocol: Protocol,
    handler: H,
) -> anyhow::Result<ExitCode>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    accept_loop(listener, instance, move |stream, _, instance| connection(stream, instance, protocol, handler.clone()))
        .await
}

/// Accepts until SIGTERM and runs `connection` for each; then waits for them, at most [`GRACE`].
pub(crate) async fn accept_loop<C, F>(
    listener: TcpListener,
    instance: Instance,
    connection: C,
) -> anyhow::Result<ExitCode>
where
    C: Fn(TcpStream, SocketAddr, Instance) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        tokio::select! {
            () = instance.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Small answers must not wait for the peer's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    instance.tasks.spawn(connection(stream, peer, instance.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, usually: others may close theirs meanwhile.
                    eprintln!("weft-shop: cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop(listener);
    instance.tasks.close();
    if tokio::time::timeout(GRACE, instance.tasks.wait()).await.is_err() {
        eprintln!("weft-shop: {} connections still open after {GRACE:?}, leaving them", instance.tasks.len());
    }
    Ok(ExitCode::SUCCESS)
}

async fn connection<H, F>(stream: TcpStream, instance: Instance, protocol: Protocol, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = {
        let instance = instance.clone();
        service_fn(move |request| answer(request, instance.clone(), handler.clone()))
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    let builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A peer that goes away mid-request is its own affair.
        _ = connection.as_mut() => return,
        () = instance.shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Applies the failure that was asked for, if any; otherwise answers and signs the answer.
/// An error drops the HTTP/1.1 connection or resets the HTTP/2 stream without an answer.
async fn answer<H, F>(request: Request<Incoming>, instance: Instance, handler: H) -> Result<Response<Body>, BoxError>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let grpc = is_grpc(request.headers());
    let mut response = if request.uri().path() == "/healthz" {
        text(StatusCode::OK, "ok\n")
    } else {
        match instance.faults.next() {
            Some(Fault::Reset) => return Err("reset as asked".into()),
            Some(Fault::Crash) => admin::crash(),
            Some(Fault::Error(status)) if grpc => grpc_failure(status),
            Some(Fault::Error(status)) => {
                let replica = &instance.identity.replica;
                text(status, format!("{replica} fails as asked\n"))
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                handler(request).await
            }
            None => handler(request).await,
        }
    };
    sign(response.headers_mut(), &instance.identity);
    Ok(response)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A failure as a gRPC server reports it: HTTP 200, and the status in the (only) headers.
fn grpc_failure(status: StatusCode) -> Response<Body> {
    let code = match status.as_u16() {
        429 | 502..=504 => "14", // UNAVAILABLE
        401 => "16",             // UNAUTHENTICATED
        403 => "7",              // PERMISSION_DENIED
        404 => "5",              // NOT_FOUND
        _ => "13",               // INTERNAL
    };
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static("fails as asked"));
    response
}

fn sign(headers: &mut HeaderMap, identity: &Identity) {
    for (name, value) in
        [("x-service", identity.role), ("x-version", &identity.version), ("x-replica", &identity.replica)]
    {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Listens on `[::]`, which takes IPv4 too, or on 0.0.0.0 where the kernel has no IPv6.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => TcpListener::bind(("0.0.0.0", port)).await,
        other => other,
    }
}

/// Linux's "address family not supported".
const EAFNOSUPPORT: i32 = 97;

pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    with_type(status, "application/json", format!("{value}\n"))
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", text)
}

pub(crate) fn html(page: impl Into<Bytes>) -> Response<Body> {
    with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

pub(crate) fn not_found(path: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, format!("nothing is served at {path}\n"))
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The value of `key` in a query string. The shop's values need no decoding beyond `%20` and `+`.
pub(crate) fn query<'a>(uri: &'a http::Uri, key: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })
}
