//! A reader that stalls in a gigabyte: it costs less than a megabyte, and its sender pauses until it reads on.

use super::http2::{H2_CLUSTER, request};
use super::sim::{APP, Config, PATIENT, SOCKET_BUFFER, Sim, with_proxy};
use crate::tcp;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::time::sleep;

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

const UPGRADES: &str =
    "upgrade_configs: [{upgrade_type: websocket}]\n      http2_protocol_options: {allow_connect: true}";

/// A sender's progress, and the word to a reader to read.
#[derive(Clone, Default)]
struct Stall {
    sent: Rc<Cell<usize>>,
    read: Rc<Notify>,
}

impl Stall {
    /// Sends a gigabyte as fast as `io` takes it.
    async fn pour(self, mut io: impl AsyncWrite + Unpin) {
        let chunk = [b'x'; 16 * 1024];
        while self.sent.get() < GIB {
            let Ok(n) = io.write(&chunk).await else { return };
            self.sent.set(self.sent.get() + n);
        }
    }

    /// As [`Stall::pour`], on a stream of HTTP/2.
    async fn pour_h2(self, mut stream: h2::SendStream<Bytes>) {
        while self.sent.get() < GIB {
            stream.reserve_capacity(16 * 1024);
            let Some(Ok(n)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            stream.send_data(Bytes::from(vec![b'x'; n]), false).unwrap();
            self.sent.set(self.sent.get() + n);
        }
    }

    /// Reads nothing until told to, and then two megabytes.
    async fn drip(self, mut io: impl AsyncRead + Unpin) {
        self.read.notified().await;
        io.read_exact(&mut vec![0; 2 * MIB]).await.unwrap();
        std::future::pending::<()>().await;
    }

    /// As [`Stall::drip`], on a stream of HTTP/2.
    async fn drip_h2(self, mut stream: h2::RecvStream) {
        self.read.notified().await;
        let mut read = 0;
        while read < 2 * MIB {
            let data = stream.data().await.expect("more").unwrap();
            stream.flow_control().release_capacity(data.len()).unwrap();
            read += data.len();
        }
        std::future::pending::<()>().await;
    }

    /// Watches the sender pause, and go on when the reader does.
    async fn judge(&self, case: &str) {
        sleep(Duration::from_secs(60)).await;
        let held = self.sent.get();
        assert!(held > 0, "{case}: nothing was sent");
        // The pipes on both sides stand for the kernel's buffers, and are counted though they are not ours.
        assert!(held < MIB, "{case}: {held} bytes are held for a reader that has stalled");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(self.sent.get(), held, "{case}: the sender did not pause");
        self.read.notify_one();
        sleep(Duration::from_secs(1)).await;
        let sent = self.sent.get() - held;
        assert!((2 * MIB - MIB..2 * MIB + MIB).contains(&sent), "{case}: {sent} bytes followed two megabytes read");
    }
}

/// A server that reads a head, says `answer`, and goes on with `then`.
fn server<F: Future<Output = ()> + 'static>(
    sim: &Sim,
    answer: &'static str,
    then: impl Fn(DuplexStream) -> F + 'static,
) {
    let then = Rc::new(then);
    sim.servers.add(APP, move |mut io| {
        let then = then.clone();
        async move {
            // Byte by byte: what follows the head is not this reader's.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.unwrap());
            }
            io.write_all(answer.as_bytes()).await.unwrap();
            then(io).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn http1_download() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let sender = stall.clone();
        server(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", move |io| sender.clone().pour(io));
        let mut client = sim.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::task::spawn_local(stall.clone().drip(client));
        stall.judge("HTTP/1.1 download").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http1_upload() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let reader = stall.clone();
        server(&sim, "", move |io| reader.clone().drip(io));
        let mut client = sim.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").await.unwrap();
        tokio::task::spawn_local(stall.clone().pour(client));
        stall.judge("HTTP/1.1 upload").await;
    })
    .await;
}

/// Serves HTTP/2: each stream's halves go to `serve`.
fn h2_server<F: Future<Output = ()> + 'static>(
    sim: &Sim,
    serve: impl Fn(h2::RecvStream, h2::SendStream<Bytes>) -> F + 'static,
) {
    let serve = Rc::new(serve);
    sim.servers.add(APP, move |io| {
        let serve = serve.clone();
        async move {
            let mut connection = h2::server::handshake(io).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let send = respond.send_response(::http::Response::new(()), false).unwrap();
                tokio::task::spawn_local(serve(request.into_body(), send));
            }
        }
    });
}

async fn h2_stream(sim: &Sim, request: ::http::Request<()>) -> (h2::RecvStream, h2::SendStream<Bytes>) {
    let (send, connection) = h2::client::handshake(sim.connect()).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut client = send.ready().await.unwrap();
    // Whether it takes extended CONNECT is in its settings.
    super::frames::settle().await;
    let (response, send) = client.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    (response.into_body(), send)
}

#[tokio::test(start_paused = true)]
async fn http2_download() {
    with_proxy(Config { routes: PATIENT, cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let sender = stall.clone();
        h2_server(&sim, move |_, send| sender.clone().pour_h2(send));
        let (body, _send) = h2_stream(&sim, request("GET", "/")).await;
        tokio::task::spawn_local(stall.clone().drip_h2(body));
        stall.judge("HTTP/2 download").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http2_upload() {
    with_proxy(Config { routes: PATIENT, cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let (reader, kept) = (stall.clone(), Rc::new(RefCell::new(Vec::new())));
        h2_server(&sim, move |body, send| {
            // Dropping it would end the response.
            kept.borrow_mut().push(send);
            reader.clone().drip_h2(body)
        });
        let (_body, send) = h2_stream(&sim, request("POST", "/")).await;
        tokio::task::spawn_local(stall.clone().pour_h2(send));
        stall.judge("HTTP/2 upload").await;
    })
    .await;
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn upgraded(sim: &Sim) -> DuplexStream {
    let mut client = sim.connect();
    client.write_all(ASK).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    client
}

#[tokio::test(start_paused = true)]
async fn upgrade_download() {
    with_proxy(Config { routes: PATIENT, manager: UPGRADES, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let sender = stall.clone();
        server(&sim, SWITCH, move |io| sender.clone().pour(io));
        let client = upgraded(&sim).await;
        tokio::task::spawn_local(stall.clone().drip(client));
        stall.judge("upgrade download").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn upgrade_upload() {
    with_proxy(Config { routes: PATIENT, manager: UPGRADES, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let reader = stall.clone();
        server(&sim, SWITCH, move |io| reader.clone().drip(io));
        let client = upgraded(&sim).await;
        tokio::task::spawn_local(stall.clone().pour(client));
        stall.judge("upgrade upload").await;
    })
    .await;
}

/// RFC 8441.
fn extended_connect() -> ::http::Request<()> {
    let mut ask = request("CONNECT", "/");
    ask.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    ask
}

#[tokio::test(start_paused = true)]
async fn http2_upgrade_download() {
    with_proxy(Config { routes: PATIENT, manager: UPGRADES, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let sender = stall.clone();
        server(&sim, SWITCH, move |io| sender.clone().pour(io));
        let (body, _send) = h2_stream(&sim, extended_connect()).await;
        tokio::task::spawn_local(stall.clone().drip_h2(body));
        stall.judge("HTTP/2 upgrade download").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http2_upgrade_upload() {
    with_proxy(Config { routes: PATIENT, manager: UPGRADES, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let reader = stall.clone();
        server(&sim, SWITCH, move |io| reader.clone().drip(io));
        let (_body, send) = h2_stream(&sim, extended_connect()).await;
        tokio::task::spawn_local(stall.clone().pour_h2(send));
        stall.judge("HTTP/2 upgrade upload").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn opaque_bytes_both_ways() {
    for upload in [false, true] {
        let stall = Stall::default();
        let set = tokio::task::LocalSet::new();
        let ((client, near), (far, server)) = (duplex(SOCKET_BUFFER), duplex(SOCKET_BUFFER));
        let (sender, reader) = if upload { (client, server) } else { (server, client) };
        set.spawn_local(tcp::relay(Box::new(near), Box::new(far), None));
        set.spawn_local(stall.clone().pour(sender));
        set.spawn_local(stall.clone().drip(reader));
        set.run_until(stall.judge(if upload { "opaque upload" } else { "opaque download" })).await;
    }
}

/// Detection reads ahead of the relay, and no further than it needs to.
#[tokio::test(start_paused = true)]
async fn a_head_without_an_end_is_not_collected() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        let stall = Stall::default();
        let mut client = sim.connect();
        client.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        let (mut answers, client) = tokio::io::split(client);
        tokio::task::spawn_local(stall.clone().pour(client));
        let mut answer = [0; 12];
        answers.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
        sleep(Duration::from_secs(60)).await;
        assert!(stall.sent.get() < MIB, "{}", stall.sent.get());
    })
    .await;
}
