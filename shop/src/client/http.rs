//! HTTP/1.1 and cleartext HTTP/2 calls, by hyper's pooled client.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Extras, Failure, Outcome, Target};

/// Longest answer kept, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

pub(crate) struct Client {
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    http2: bool,
    extras: Extras,
}

impl Client {
    pub(crate) fn new(http2: bool, extras: Extras) -> Self {
        Self {
            client: legacy::Client::builder(TokioExecutor::new()).http2_only(http2).build(connector()),
            http2,
            extras,
        }
    }

    /// Makes one call with the client's own headers and body.
    pub(super) async fn call(&self, target: &Target) -> Outcome {
        self.send(target, &self.extras).await
    }

    pub(crate) async fn send(&self, target: &Target, extras: &Extras) -> Outcome {
        let protocol = if self.http2 { "HTTP/2" } else { "HTTP/1.1" };
        let mut request = Request::new(Full::new(extras.body.clone()));
        *request.method_mut() = target.method.clone();
        *request.uri_mut() = target.uri.clone();
        for (name, value) in &extras.headers {
            request.headers_mut().append(name, value.clone());
        }
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Outcome::failed(protocol, Failure::from_error(&error)),
        };
        let (parts, body) = response.into_parts();
        let mut outcome = Outcome {
            status: Some(parts.status.as_u16()),
            protocol: version_name(parts.version),
            headers: list(&parts.headers),
            ..Outcome::default()
        };
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => {
                if let Some(trailers) = body.trailers() {
                    outcome.headers.extend(list(trailers));
                }
                outcome.body = body.to_bytes();
                outcome.failure = refusal(parts.status, &outcome.body);
            }
            Err(error) => outcome.failure = Some(Failure::from_error(error.as_ref())),
        }
        outcome
    }
}

pub(super) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector
}

/// 4xx and 5xx are failures; the message is the answer's first line.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> Option<Failure> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let line: String = text.lines().next().unwrap_or_default().chars().take(300).collect();
    Some(Failure::new(format!("http_{}", status.as_u16()), line))
}

pub(super) fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/?",
    }
}
