//! Small HTTP/1.1 requests: to an address, to a Unix socket, or from inside a pod.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use weft_sandbox::Pod;

use crate::Error;

/// How long any of these requests may take. They go to processes on this machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Answer {
    /// The body if the status is a success.
    ///
    /// # Errors
    /// The status and the body's first line, if it is none.
    pub fn text(self) -> Result<String, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let line = self.body.lines().next().unwrap_or_default();
        Err(Error::unexpected("the answer is no success", format!("{} {line}", self.status)))
    }

    /// The body as JSON if the status is a success.
    ///
    /// # Errors
    /// As [`Answer::text`], or if it is no JSON.
    pub fn json(self) -> Result<Value, Error> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| Error::unexpected(format!("the answer is no JSON: {error}"), text))
    }

    /// A header's value; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A request to make.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
}

impl Call {
    /// `GET` of a path.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new() }
    }

    /// `POST` to a path, without a body.
    pub fn post(path: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Asks an address that this process reaches.
    ///
    /// # Errors
    /// If there is no complete answer within [`LIMIT`].
    pub async fn tcp(&self, address: SocketAddr) -> Result<Answer, Error> {
        let what = format!("{} http://{address}{}", self.method, self.path);
        let io = |what: &str| Error::io(what.to_owned());
        within(&what, async {
            let stream = TcpStream::connect(address).await.map_err(io(&what))?;
            self.exchange(stream, &what).await
        })
        .await
    }

    /// Asks a server on a Unix socket.
    ///
    /// # Errors
    /// As [`Call::tcp`].
    pub async fn unix(&self, socket: &Path) -> Result<Answer, Error> {
        let what = format!("{} {} on {}", self.method, self.path, socket.display());
        within(&what, async {
            let stream = UnixStream::connect(socket).await.map_err(Error::io(what.clone()))?;
            self.exchange(stream, &what).await
        })
        .await
    }

    /// Asks on a connection that stays open.
    ///
    /// # Errors
    /// As [`Call::tcp`].
    pub async fn on(&self, connection: &mut Connection) -> Result<Answer, Error> {
        let what = format!("{} {} on an open connection", self.method, self.path);
        within(&what, self.send(&mut connection.sender, &what)).await
    }

    /// Asks from inside a pod, so that loopback is the pod's own, and its sidecar, if it has one, is in between.
    ///
    /// # Errors
    /// As [`Call::tcp`].
    pub async fn inside(&self, pod: &Pod, address: SocketAddr) -> Result<Answer, Error> {
        let call = self.clone();
        pod.run_async(move || async move { call.tcp(address).await }).await?
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        what: &str,
    ) -> Result<Answer, Error> {
        self.send(&mut Connection::over(stream, what).await?.sender, what).await
    }

    async fn send(&self, sender: &mut Sender, what: &str) -> Result<Answer, Error> {
        let broken = |source| Error::Http { what: what.to_owned(), source };
        let mut request = Request::builder().method(&self.method).uri(&self.path).header("host", "local-mesh");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request =
            request.body(Full::new(Bytes::new())).map_err(|error| Error::unexpected(what, error.to_string()))?;
        sender.ready().await.map_err(broken)?;
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = body.collect().await.map_err(broken)?.to_bytes();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// A connection for one request after the other; closed when dropped.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    task: JoinHandle<hyper::Result<()>>,
}

impl Connection {
    /// Connects to an address that the calling thread reaches: inside [`Pod::run_async`], one that the pod reaches.
    ///
    /// # Errors
    /// If nobody answers within [`LIMIT`].
    pub async fn open(address: SocketAddr) -> Result<Self, Error> {
        let what = format!("connect to {address}");
        within(&what, async {
            let stream = TcpStream::connect(address).await.map_err(Error::io(what.clone()))?;
            Self::over(stream, &what).await
        })
        .await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, what: &str) -> Result<Self, Error> {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| Error::Http { what: what.to_owned(), source })?;
        Ok(Self { sender, task: tokio::spawn(connection) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::unexpected(what, format!("no answer within {LIMIT:?}"))),
    }
}
