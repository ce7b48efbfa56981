//! Sockets of a test's own in pods: they stay in the namespace they were made in, so that a test holds both ends of a call.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_sandbox::Pod;
use weft_sandbox::testing::Failure;

/// Listens on all addresses of a pod.
pub(crate) async fn listen(pod: &Pod, port: u16) -> Result<TcpListener, Failure> {
    let listener = pod.run(move || std::net::TcpListener::bind(("::", port))).await??;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

/// Connects as an application in the pod does.
pub(crate) async fn connect(pod: &Pod, address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = pod.run(move || std::net::TcpStream::connect(address)).await??;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// One request of HTTP/1.1 on an open connection, and its answer; empty if the connection is closed instead.
pub(crate) async fn ask(connection: &mut TcpStream) -> io::Result<String> {
    connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: reviews\r\n\r\n").await?;
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while !answer.ends_with("ok\n") {
        match connection.read(&mut buffer).await? {
            0 => break,
            length => answer.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    Ok(answer)
}

/// The calling side of an HTTP/2 connection without TLS.
pub(crate) async fn connect_http2(pod: &Pod, address: SocketAddr) -> Result<SendRequest<Bytes>, Failure> {
    let (requests, connection) = h2::client::handshake(connect(pod, address).await?).await?;
    // Its end is seen by the requests on it.
    tokio::spawn(async move { connection.await.ok() });
    Ok(requests.ready().await?)
}

/// An HTTP/2 server in a pod whose requests a test answers itself.
pub(crate) struct Http2Server(mpsc::Receiver<Http2Call>);

/// A request, and what answers it.
pub(crate) type Http2Call = (Request<RecvStream>, SendResponse<Bytes>);

impl Http2Server {
    pub(crate) async fn start(pod: &Pod, port: u16) -> Result<Self, Failure> {
        let listener = listen(pod, port).await?;
        let (calls, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_http2(stream, calls.clone()));
            }
        });
        Ok(Self(receiver))
    }

    /// The next request of any connection.
    pub(crate) async fn next(&mut self) -> Http2Call {
        self.0.recv().await.expect("the server accepts until it is dropped")
    }
}

async fn serve_http2(stream: TcpStream, calls: mpsc::Sender<Http2Call>) {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok(call)) = connection.accept().await {
        if calls.send(call).await.is_err() {
            return;
        }
    }
}
