//! The loopback port of a replica: health, and orders to fail.
//!
//! ```text
//! GET  /healthz
//! GET  /control                                             the failure in force, as JSON
//! POST /control/fail?mode=error|reset|crash|delay&rate=0.5&status=503&delay_ms=200
//! POST /control/recover
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::server::{Body, Instance, json, not_found, query, text};

/// Where an admin or control port listens. A Unix socket is reachable from outside a network namespace, and
/// only by who may open the file.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let address: SocketAddr =
            text.parse().map_err(|error| format!("{error}: write an address such as 127.0.0.1:9000, or unix:PATH"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{address} is not a loopback address: anyone could make this replica fail"));
        }
        Ok(Self::Tcp(address))
    }
}

/// The failure a replica was told to show.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Option<Order>>>);

#[derive(Debug, Clone, Copy)]
struct Order {
    fault: Fault,
    /// Share of the requests that fail, from 0 to 1.
    rate: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Answer with this status (gRPC: the matching code).
    Error(StatusCode),
    /// Close without an answer.
    Reset,
    /// End the process in the middle of the request.
    Crash,
    /// Answer late.
    Delay(Duration),
}

impl Faults {
    /// What the request at hand has to suffer, if anything.
    pub(crate) fn next(&self) -> Option<Fault> {
        let order = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        (rand::random::<f64>() < order.rate).then_some(order.fault)
    }

    fn set(&self, order: Option<Order>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = order;
    }

    fn show(&self) -> serde_json::Value {
        let order = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match order {
            None => serde_json::json!({ "mode": "none" }),
            Some(Order { fault, rate }) => {
                serde_json::json!({ "mode": format!("{fault:?}"), "rate": rate })
            }
        }
    }
}

/// Dies as a process with a bug does: at once, nothing flushed, a non-zero status.
pub(crate) fn crash() -> ! {
    eprintln!("weft-shop: crashing as asked");
    std::process::exit(101)
}

pub(crate) type Handler =
    Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

pub(crate) fn routes(instance: Instance) -> Handler {
    Arc::new(move |request: Request<Incoming>| {
        let instance = instance.clone();
        Box::pin(async move {
            match request.uri().path() {
                "/healthz" => text(StatusCode::OK, "ok\n"),
                "/control" => json(StatusCode::OK, &instance.faults.show()),
                "/control/recover" => {
                    instance.faults.set(None);
                    json(StatusCode::OK, &instance.faults.show())
                }
                "/control/fail" => match order(request.uri()) {
                    Ok(order) => {
                        instance.faults.set(Some(order));
                        json(StatusCode::OK, &instance.faults.show())
                    }
                    Err(message) => text(StatusCode::BAD_REQUEST, format!("{message}\n")),
                },
                path => not_found(path),
            }
        })
    })
}

fn order(uri: &Uri) -> Result<Order, String> {
    fn number<T: FromStr>(uri: &Uri, key: &str, default: T) -> Result<T, String> {
        match query(uri, key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("{key}={value} is not a number {key} can take")),
        }
    }
    let rate: f64 = number(uri, "rate", 1.0)?;
    if !(0.0..=1.0).contains(&rate) {
        return Err(format!("rate={rate} must lie between 0 and 1"));
    }
    let fault = match query(uri, "mode").unwrap_or("error") {
        "error" => {
            let status = number(uri, "status", 503_u16)?;
            Fault::Error(StatusCode::from_u16(status).map_err(|_| format!("status={status} is no HTTP status"))?)
        }
        "reset" => Fault::Reset,
        "crash" => Fault::Crash,
        "delay" => Fault::Delay(Duration::from_millis(number(uri, "delay_ms", 1000)?)),
        other => {
            return Err(format!("mode={other} is not one of error, reset, crash, delay"));
        }
    };
    Ok(Order { fault, rate })
}

/// Serves `handler` over HTTP/1.1 in the background; returns where.
pub(crate) async fn serve(address: &Address, handler: Handler) -> anyhow::Result<String> {
    match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}; choose another loopback address"))?;
            let bound = listener.local_addr()?.to_string();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(one(stream, handler.clone()));
                }
            });
            Ok(bound)
        }
        Address::Unix(path) => {
            // A socket file left by a killed predecessor would make bind fail.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    bail!("cannot replace {}: {error}", path.display())
                }
                _ => {}
            }
            let listener = UnixListener::bind(path)
                .with_context(|| format!("cannot listen on {}; does its folder exist?", path.display()))?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(one(stream, handler.clone()));
                }
            });
            Ok(format!("unix:{}", path.display()))
        }
    }
}

async fn one<S: AsyncRead + AsyncWrite + Unpin>(stream: S, handler: Handler) {
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    // A client that hangs up early is no error here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
