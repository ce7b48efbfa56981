//! One who sends more than is read: the sidecars on the way pause it, and keep nothing for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use weft_e2e::Mesh;
use weft_e2e::yaml::service;
use weft_local_mesh::{MeshPod, Spec, wait};
use weft_sandbox::Pod;
use weft_sandbox::testing::{self, Failure, TestResult};

use super::sockets::{Http2Server, connect, connect_http2, listen};

const LIMIT: Duration = Duration::from_secs(60);

/// What the sender has to send, in bytes.
const SIZE: u64 = 1 << 30;

/// More than all socket buffers and windows on the way hold: a sender that gets as far has not been paused.
const MUCH: u64 = 64 << 20;

/// The most that a sidecar may keep for a reader that does not read.
const COST: u64 = 1 << 20;

pub(crate) async fn a_stalled_reader_of_http1_costs_no_memory_and_pauses_its_sender() -> TestResult {
    let giant = Giant::start("http").await?;
    let listener = listen(giant.server.pod(), PORT).await?;
    let sent = giant.sent.clone();
    tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n");
        while let Ok((mut stream, _)) = listener.accept().await {
            // The request's head comes in one piece.
            if stream.read(&mut [0; 4096]).await.is_ok() && stream.write_all(head.as_bytes()).await.is_ok() {
                pour(&mut stream, &sent).await;
            }
        }
    });
    giant
        .stalls(async |pod, address| {
            let mut stream = connect(pod, address).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: giant\r\n\r\n").await?;
            Ok(Reader::Bytes(stream))
        })
        .await
}

pub(crate) async fn a_stalled_reader_of_http2_costs_no_memory_and_pauses_its_sender() -> TestResult {
    let giant = Giant::start("kubernetes.io/h2c").await?;
    let mut server = Http2Server::start(giant.server.pod(), PORT).await?;
    let sent = giant.sent.clone();
    tokio::spawn(async move {
        loop {
            let (_, mut respond) = server.next().await;
            if let Ok(body) = respond.send_response(Response::new(()), false) {
                pour_stream(body, &sent).await;
            }
        }
    });
    giant
        .stalls(async |pod, address| {
            let mut caller = connect_http2(pod, address).await?;
            let (response, _) = caller.send_request(Request::get("http://giant/").body(())?, true)?;
            Ok(Reader::Stream(response.await?.into_body()))
        })
        .await
}

pub(crate) async fn a_stalled_reader_of_bytes_costs_no_memory_and_pauses_its_sender() -> TestResult {
    let giant = Giant::start("tcp").await?;
    let listener = listen(giant.server.pod(), PORT).await?;
    let sent = giant.sent.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            pour(&mut stream, &sent).await;
        }
    });
    giant.stalls(async |pod, address| Ok(Reader::Bytes(connect(pod, address).await?))).await
}

pub(crate) async fn a_stalled_upload_by_http1_costs_no_memory_and_pauses_its_sender() -> TestResult {
    let giant = Giant::start("http").await?;
    let listener = listen(giant.server.pod(), PORT).await?;
    let head = format!("POST / HTTP/1.1\r\nHost: giant\r\nContent-Length: {SIZE}\r\n\r\n");
    giant.stalls(async |pod, address| giant.upload(pod, address, &listener, head.as_bytes()).await).await
}

pub(crate) async fn a_stalled_upload_by_http2_costs_no_memory_and_pauses_its_sender() -> TestResult {
    let giant = Giant::start("kubernetes.io/h2c").await?;
    let server = Mutex::new(Http2Server::start(giant.server.pod(), PORT).await?);
    giant
        .stalls(async |pod, address| {
            let mut caller = connect_http2(pod, address).await?;
            let (_response, body) = caller.send_request(Request::post("http://giant/").body(())?, false)?;
            let sent = giant.sent.clone();
            tokio::spawn(async move { pour_stream(body, &sent).await });
            let (request, _respond) = server.lock().await.next().await;
            Ok(Reader::Stream(request.into_body()))
        })
        .await
}

pub(crate) async fn a_stalled_upload_of_bytes_costs_no_memory_and_pauses_its_sender() -> TestResult {
    let giant = Giant::start("tcp").await?;
    let listener = listen(giant.server.pod(), PORT).await?;
    giant.stalls(async |pod, address| giant.upload(pod, address, &listener, b"first").await).await
}

const PORT: u16 = 8080;

/// How much is sent at a time.
const CHUNK: usize = 64 << 10;

/// Two pods, of which one sends what the other does not read.
struct Giant {
    mesh: Mesh,
    server: MeshPod,
    client: MeshPod,
    sent: Arc<AtomicU64>,
}

impl Giant {
    async fn start(protocol: &str) -> Result<Self, Failure> {
        let mesh = Mesh::start(testing::sandbox().await?).await?;
        mesh.serve(&[service("giant", "app: giant", 80, PORT, protocol)]).await?;
        let server = mesh.add(Spec::client("giant")).await?;
        let client = mesh.add(Spec::client("client")).await?;
        Ok(Self { mesh, server, client, sent: Arc::default() })
    }

    /// Reads a little with a reader that `open` makes, at either end, and then nothing; by IPv4 and by IPv6.
    async fn stalls(&self, open: impl AsyncFn(&Pod, SocketAddr) -> Result<Reader, Failure>) -> TestResult {
        for address in self.mesh.service_addresses("giant").await? {
            let address = SocketAddr::new(address, 80);
            let open = async || tokio::time::timeout(LIMIT, open(self.client.pod(), address)).await?;
            // The first call makes connections, sessions and buffers that stay.
            open().await?.read(8 << 20).await?;
            self.stall(open).await?;
        }
        Ok(())
    }

    /// Sends a head and then all of it to the listening server, which has read nothing yet.
    async fn upload(
        &self,
        pod: &Pod,
        address: SocketAddr,
        server: &TcpListener,
        head: &[u8],
    ) -> Result<Reader, Failure> {
        let mut stream = connect(pod, address).await?;
        stream.write_all(head).await?;
        let sent = self.sent.clone();
        tokio::spawn(async move { pour(&mut stream, &sent).await });
        Ok(Reader::Bytes(server.accept().await?.0))
    }

    async fn stall(&self, open: impl AsyncFn() -> Result<Reader, Failure>) -> TestResult {
        let sidecars = [&self.client, &self.server];
        let before = sidecars.map(resident);
        let begun = self.sent.load(Ordering::Relaxed);
        let mut reader = open().await?;
        reader.read(1).await?;
        let mut last = (0, Instant::now());
        let stalled = wait::until(LIMIT, "the sender is paused", async || {
            let now = self.sent.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((now > begun && last.1.elapsed() > Duration::from_millis(500)).then_some(now))
        })
        .await?;
        assert!(stalled - begun < MUCH, "{} bytes of {SIZE} were sent to nobody", stalled - begun);
        for ((sidecar, before), after) in sidecars.iter().zip(before).zip(sidecars.map(resident)) {
            let growth = after.saturating_sub(before);
            assert!(growth < COST, "the sidecar of {} grew by {growth} bytes from {before}", sidecar.name());
        }
        reader.read(MUCH).await?;
        assert!(self.sent.load(Ordering::Relaxed) > stalled, "it goes on where it was");
        Ok(())
    }
}

/// The reading end.
enum Reader {
    Bytes(TcpStream),
    Stream(RecvStream),
}

impl Reader {
    /// Reads at least so many bytes.
    async fn read(&mut self, enough: u64) -> Result<(), Failure> {
        let (mut read, mut buffer) = (0, vec![0; CHUNK]);
        while read < enough {
            let length = tokio::time::timeout(LIMIT, async {
                match self {
                    Self::Bytes(stream) => {
                        let most = usize::try_from(enough - read).map_or(CHUNK, |left| left.min(CHUNK));
                        Ok::<_, Failure>(stream.read(&mut buffer[..most]).await?)
                    }
                    Self::Stream(body) => {
                        let data = body.data().await.transpose()?.unwrap_or_default();
                        body.flow_control().release_capacity(data.len())?;
                        Ok(data.len())
                    }
                }
            })
            .await??;
            assert!(length > 0, "the answer ended after {read} bytes");
            read += length as u64;
        }
        Ok(())
    }
}

/// Sends it all, or as much as its reader takes.
async fn pour(stream: &mut TcpStream, sent: &AtomicU64) {
    let chunk = vec![b'x'; CHUNK];
    let mut left = SIZE;
    // A reader that leaves ends only its own answer.
    while left > 0 && stream.write_all(&chunk).await.is_ok() {
        sent.fetch_add(CHUNK as u64, Ordering::Relaxed);
        left = left.saturating_sub(CHUNK as u64);
    }
}

/// The same in a stream of HTTP/2.
async fn pour_stream(mut body: SendStream<Bytes>, sent: &AtomicU64) {
    let mut left = SIZE;
    while left > 0 {
        body.reserve_capacity(CHUNK);
        // A reader that leaves ends only its own answer.
        let Some(Ok(capacity)) = std::future::poll_fn(|context| body.poll_capacity(context)).await else { return };
        let length = capacity.min(CHUNK);
        if body.send_data(Bytes::from(vec![b'x'; length]), false).is_err() {
            return;
        }
        sent.fetch_add(length as u64, Ordering::Relaxed);
        left = left.saturating_sub(length as u64);
    }
}

/// The sidecar's resident memory in bytes.
fn resident(pod: &MeshPod) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.sidecar().id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.expect("a running process has resident memory") << 10
}
