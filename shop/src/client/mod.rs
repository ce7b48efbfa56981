//! One call of any protocol the shop speaks, and precisely how it failed.
//!
//! | target | call |
//! |---|---|
//! | `http://host:port/path` | HTTP/1.1 request; `POST http://…` for another method |
//! | `h2c://host:port/path` | HTTP/2 request without TLS |
//! | `grpc://host:port/cart`, `/watch`, `/charge`, `/instalments`, `/batch`, `/settle` | the call of that name; the last three with `?messages=10000` or another number |
//! | `tcp://host:port` | one order to the queue |
//! | `ws://host:port/path` | one WebSocket message and its echo |
//!
//! A [`Caller`] keeps its connection between calls, as an ordinary client does.

pub(crate) mod grpc;
pub(crate) mod http;
mod tcp;
mod ws;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ::http::{HeaderName, HeaderValue, Method, Uri};
use bytes::Bytes;
use serde::Serialize;

/// What to call.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) method: Method,
    /// With the scheme `http`, whatever was written.
    pub(crate) uri: Uri,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    H2c,
    Grpc,
    Tcp,
    Ws,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, url) = match text.trim().split_once(' ') {
            None => (Method::GET, text.trim()),
            Some((method, url)) => (method.parse().map_err(|_| format!("{method:?} is no HTTP method"))?, url.trim()),
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| format!("{url:?} has no scheme: http, h2c, grpc, tcp or ws, then ://"))?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "h2c" => Scheme::H2c,
            "grpc" => Scheme::Grpc,
            "tcp" => Scheme::Tcp,
            "ws" => Scheme::Ws,
            other => {
                return Err(format!("scheme {other:?} is not one of http, h2c, grpc, tcp, ws"));
            }
        };
        let uri: Uri = format!("http://{rest}").parse().map_err(|error| format!("{url:?}: {error}"))?;
        if scheme == Scheme::Tcp && uri.port().is_none() {
            return Err(format!("{url:?} names no port"));
        }
        Ok(Self { scheme, method, uri, text: text.trim().to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Target {
    /// `host:port`, with HTTP's default port.
    fn address(&self) -> String {
        let host = self.uri.host().unwrap_or_default();
        format!("{host}:{}", self.uri.port_u16().unwrap_or(80))
    }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// HTTP's status, or gRPC's.
    pub(crate) status: Option<u16>,
    pub(crate) protocol: &'static str,
    /// Headers, and trailers after them; for protocols without headers `x-replica` and `x-version` as the
    /// server named them.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) failure: Option<Failure>,
    pub(crate) elapsed: Duration,
}

impl Outcome {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    fn failed(protocol: &'static str, failure: Failure) -> Self {
        Self { protocol, failure: Some(failure), ..Self::default() }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    /// A short stable word: `refused`, `reset`, `closed`, `gone_away`, `timeout`, `unreachable`, `name`, `http_503`,
    /// `grpc_14`, `protocol`; followed by `_FLAG` when the answer carries `x-weft-flag`.
    pub(crate) class: String,
    pub(crate) message: String,
}

impl Failure {
    fn new(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class: class.into(), message: message.into() }
    }

    /// Classifies an error by the innermost cause that says something.
    pub(crate) fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut class = None;
        let mut cause = Some(error);
        while let Some(error) = cause {
            class = classify(error).or(class);
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            // An I/O error that wraps another error shows that one's source, but not itself.
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            cause = match wrapped {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        Self::new(class.unwrap_or("protocol"), message)
    }
}

fn classify(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        use std::io::ErrorKind as Kind;
        return match error.kind() {
            Kind::ConnectionRefused => Some("refused"),
            Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => Some("reset"),
            Kind::UnexpectedEof => Some("closed"),
            Kind::TimedOut => Some("timeout"),
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable => Some("unreachable"),
            // getaddrinfo's failures have no kind of their own.
            _ if error.to_string().contains("lookup") => Some("name"),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return (error.is_incomplete_message() || error.is_closed() || error.is_canceled()).then_some("closed");
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return (error.is_remote() && error.is_reset()).then_some("reset");
    }
    None
}

/// Calls one target again and again on a connection of its own.
pub(crate) struct Caller {
    target: Target,
    timeout: Duration,
    kind: Kind,
}

enum Kind {
    Http(http::Client),
    Grpc(Box<grpc::Client>),
    Tcp(tcp::Client),
    Ws(ws::Client),
}

/// What a request carries besides its target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Caller {
    pub(crate) fn new(target: Target, extras: Extras, timeout: Duration) -> Self {
        let kind = match target.scheme {
            Scheme::Http => Kind::Http(http::Client::new(false, extras)),
            Scheme::H2c => Kind::Http(http::Client::new(true, extras)),
            Scheme::Grpc => Kind::Grpc(Box::new(grpc::Client::new(&target.uri, extras))),
            Scheme::Tcp => Kind::Tcp(tcp::Client::new(target.address(), extras)),
            Scheme::Ws => Kind::Ws(ws::Client::new(target.clone(), extras)),
        };
        Self { target, timeout, kind }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Makes one call. Never takes longer than the timeout.
    pub(crate) async fn call(&mut self) -> Outcome {
        let started = Instant::now();
        let target = &self.target;
        let call = async {
            match &mut self.kind {
                Kind::Http(client) => client.call(target).await,
                Kind::Grpc(client) => client.call(target).await,
                Kind::Tcp(client) => client.call().await,
                Kind::Ws(client) => client.call().await,
            }
        };
        let mut outcome = match tokio::time::timeout(self.timeout, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // A connection that did not answer is not used again.
                match &mut self.kind {
                    Kind::Tcp(client) => client.forget(),
                    Kind::Ws(client) => client.forget(),
                    Kind::Http(_) | Kind::Grpc(_) => {}
                }
                let message = format!("no complete answer within {:?}", self.timeout);
                Outcome::failed("", Failure::new("timeout", message))
            }
        };
        outcome.elapsed = started.elapsed();
        if let (Some(failure), Some(flag)) = (&outcome.failure, outcome.header("x-weft-flag")) {
            let class = format!("{}_{flag}", failure.class);
            outcome.failure = Some(Failure { class, message: failure.message.clone() });
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_method_and_a_url() {
        let target: Target = "POST http://web:8080/api/checkout?sku=tea".parse().unwrap();
        assert_eq!(target.method, Method::POST);
        assert_eq!(target.scheme, Scheme::Http);
        assert_eq!(target.uri.path_and_query().unwrap(), "/api/checkout?sku=tea");

        let target: Target = "h2c://catalog/products".parse().unwrap();
        assert_eq!((target.scheme, target.address()), (Scheme::H2c, "catalog:80".to_owned()));
    }

    #[test]
    fn a_wrong_target_is_told_what_to_write() {
        let message = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(message("web:8080").contains("has no scheme"));
        assert!(message("ftp://web").contains("not one of http, h2c, grpc, tcp, ws"));
        assert!(message("tcp://queue").contains("names no port"));
    }

    #[test]
    fn the_innermost_cause_names_the_class() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = Failure::from_error(&std::io::Error::other(refused));
        assert_eq!(failure.class, "refused");
    }
}
