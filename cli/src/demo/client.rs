//! Small HTTP/1.1 requests: to a pod's address, to a port on a pod's loopback, or to a Unix socket.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use weft_sandbox::Pod;

/// How long any of these requests may take. They go to processes on this machine.
const DEADLINE: Duration = Duration::from_secs(5);

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The body if the status is a success.
    pub(crate) fn text(self) -> anyhow::Result<String> {
        if !(200..300).contains(&self.status) {
            bail!("answered {}: {}", self.status, self.body.lines().next().unwrap_or_default());
        }
        Ok(self.body)
    }

    /// The body as JSON if the status is a success.
    pub(crate) fn json(self) -> anyhow::Result<Value> {
        let text = self.text()?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {:.200}", text))
    }

    /// A header's value; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Asks an address that this process reaches.
pub(crate) async fn tcp(address: SocketAddr, method: Method, path: &str) -> anyhow::Result<Answer> {
    within(format!("{method} http://{address}{path}"), async {
        exchange(TcpStream::connect(address).await?, &method, path, &[]).await
    })
    .await
}

/// Asks a server on a Unix socket.
pub(crate) async fn unix(socket: &Path, method: Method, path: &str) -> anyhow::Result<Answer> {
    within(format!("{method} {path} on {}", socket.display()), async {
        exchange(UnixStream::connect(socket).await?, &method, path, &[]).await
    })
    .await
}

/// Asks from inside a pod, so that loopback is the pod's own and the sidecar, if any, is in between.
pub(crate) async fn inside(
    pod: &Pod,
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> anyhow::Result<Answer> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let (name, path) = (pod.name().to_owned(), path.to_owned());
    within(format!("{method} http://{address}{path} from pod {name}"), async {
        pod.run_async(move || async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            exchange(TcpStream::connect(address).await?, &method, &path, &headers).await
        })
        .await?
    })
    .await
}

async fn within<T>(what: String, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(result) => result.context(what),
        Err(_) => bail!("{what}: no answer within {DEADLINE:?}"),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = send(&mut sender, method, path, headers).await;
    connection.abort();
    answer
}

/// One request on a connection that stays open.
pub(crate) async fn send(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    method: &Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> anyhow::Result<Answer> {
    let mut request = Request::builder().method(method).uri(path).header("host", "weft-demo");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.ready().await?;
    let response = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
