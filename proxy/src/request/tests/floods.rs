//! Peers that cost much and give nothing: each loses its own connection, and nobody else notices.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, OK, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, get, open_server, read_frame, settle, stream,
};
use super::http2::{H2_CLUSTER, client, echo, request};
use super::sim::{APP, Config, PATIENT, Sim, with_proxy};
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Another client's request.
async fn is_served(other: &mut SendRequest<Bytes>) -> bool {
    let (response, _) = other.send_request(request("GET", "/"), true).unwrap();
    response.await.is_ok_and(|response| response.status() == 200)
}

/// Sends what `batch` gives for 0, 1, 2, … until the proxy closes the connection, with requests of another client in between, which
/// must succeed. How many batches it took; more than `most` of them fail the test.
async fn flood(sim: &Sim, most: u32, batch: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut other = client(sim).await;
    let (mut answers, mut flood) = tokio::io::split(sim.connect());
    let reader = tokio::task::spawn_local(async move {
        let mut sink = [0; 4096];
        while matches!(answers.read(&mut sink).await, Ok(1..)) {}
    });
    flood.write_all(PREFACE).await.unwrap();
    flood.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut sent = 0;
    while flood.write_all(&batch(sent)).await.is_ok() {
        sent += 1;
        assert!(sent <= most, "{sent} batches were taken");
        if sent % 500 == 0 {
            assert!(is_served(&mut other).await, "after {sent} batches");
        }
    }
    reader.await.unwrap();
    assert!(is_served(&mut other).await);
    sent
}

#[tokio::test(start_paused = true)]
async fn control_frames() {
    for (kind, on, payload) in [
        (PING, 0, &[1u8, 2, 3, 4, 5, 6, 7, 8][..]),
        (SETTINGS, 0, &[]),
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        (PRIORITY, 1, &[0, 0, 0, 0, 1]),
    ] {
        with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
            sim.servers.add(APP, echo);
            flood(&sim, 50_000, |_| frame(kind, 0, on, payload)).await;
        })
        .await;
    }
}

/// CVE-2023-44487: each request is taken back at once.
#[tokio::test(start_paused = true)]
async fn rapid_resets() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        let reset = [0, 0, 0, 8];
        flood(&sim, 20_000, |n| [get(stream(n)), frame(RST_STREAM, 0, stream(n), &reset)].concat()).await;
    })
    .await;
    // All at once: none has been looked at when its reset arrives.
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        let batch = |n: u32| -> Vec<u8> {
            (200 * n..200 * (n + 1))
                .flat_map(|n| [get(stream(n)), frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat())
                .collect()
        };
        flood(&sim, 50, batch).await;
    })
    .await;
}

/// CVE-2025-8671: the client makes the server reset.
#[tokio::test(start_paused = true)]
async fn resets_that_the_proxy_is_made_to_send() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        let nothing = [0, 0, 0, 0];
        flood(&sim, 1_000, |n| [get(stream(n)), frame(WINDOW_UPDATE, 0, stream(n), &nothing)].concat()).await;
    })
    .await;
}

/// CVE-2024-27316: a head that never ends.
#[tokio::test(start_paused = true)]
async fn continuations() {
    for payload in [&[][..], &[0x82; 1024]] {
        with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
            sim.servers.add(APP, echo);
            flood(&sim, 1_000, |n| match n {
                0 => frame(HEADERS, END_STREAM, 1, GET),
                _ => frame(CONTINUATION, 0, 1, payload),
            })
            .await;
        })
        .await;
    }
}

/// CVE-2019-9518: frames without anything in them.
#[tokio::test(start_paused = true)]
async fn empty_frames() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        flood(&sim, 1_000, |n| match n {
            0 => frame(HEADERS, END_HEADERS, 1, GET),
            _ => frame(DATA, 0, 1, &[]),
        })
        .await;
    })
    .await;
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, echo);
        flood(&sim, 1_000, |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &[])).await;
    })
    .await;
}

/// Streams whose client lets nothing through hold no more than their windows, and no other client up.
#[tokio::test(start_paused = true)]
async fn stalled_windows() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        let taken = Rc::new(Cell::new(0usize));
        let count = taken.clone();
        sim.servers.add(APP, move |io| serve_much(io, count.clone()));
        let mut stalled = sim.connect();
        stalled.write_all(PREFACE).await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE: 0.
        stalled.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
        let streams = 64;
        for n in 0..streams {
            stalled.write_all(&get(stream(n))).await.unwrap();
        }
        settle().await;
        let each = taken.get() / streams as usize;
        assert!(each > 0 && each <= 256 * 1024 + 65 * 1024, "{each} bytes are held for each stalled stream");
        let mut other = client(&sim).await;
        for _ in 0..10 {
            let (response, _) = other.send_request(request("GET", "/small"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
    })
    .await;
}

/// Serves `/` without an end, counting what is taken, and anything else empty.
async fn serve_much(io: tokio::io::DuplexStream, taken: Rc<Cell<usize>>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let taken = taken.clone();
        tokio::task::spawn_local(async move {
            let is_much = request.uri().path() == "/";
            let mut send = respond.send_response(::http::Response::new(()), !is_much).unwrap();
            if !is_much {
                return;
            }
            loop {
                send.reserve_capacity(16 * 1024);
                let Some(Ok(n)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                send.send_data(Bytes::from(vec![b'x'; n]), false).unwrap();
                taken.set(taken.get() + n);
            }
        });
    }
}

/// A server can flood as well: it loses its connection, and the request on it fails.
#[tokio::test(start_paused = true)]
async fn control_frames_from_a_server() {
    for (kind, on, payload) in
        [(PING, 0, &[1u8, 2, 3, 4, 5, 6, 7, 8][..]), (SETTINGS, 0, &[]), (WINDOW_UPDATE, 0, &[0, 0, 0, 1])]
    {
        with_proxy(Config { cluster: H2_CLUSTER, routes: PATIENT, ..Config::default() }, |sim| async move {
            let sent = Rc::new(Cell::new(0));
            let count = sent.clone();
            sim.servers.add(APP, move |mut io| {
                let count = count.clone();
                async move {
                    open_server(&mut io).await;
                    let (mut reader, mut writer) = tokio::io::split(io);
                    tokio::task::spawn_local(async move {
                        let mut sink = [0; 4096];
                        while matches!(reader.read(&mut sink).await, Ok(1..)) {}
                    });
                    while count.get() < 50_000 && writer.write_all(&frame(kind, 0, on, payload)).await.is_ok() {
                        count.set(count.get() + 1);
                    }
                    // A flood that is over leaves the connection open.
                    std::future::pending::<()>().await;
                }
            });
            let mut client = client(&sim).await;
            let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
            let status = tokio::time::timeout(std::time::Duration::from_secs(60), response).await;
            assert!(status.is_ok_and(|response| response.unwrap().status() == 503), "{} frames were taken", sent.get());
        })
        .await;
    }
}

/// A server that answers and resets each stream, for ever, costs requests of its own only.
#[tokio::test(start_paused = true)]
async fn a_server_that_resets_what_it_accepted() {
    with_proxy(Config { cluster: H2_CLUSTER, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            open_server(&mut io).await;
            while let Some((kind, _, stream, _)) = read_frame(&mut io).await {
                if kind == HEADERS {
                    io.write_all(&frame(HEADERS, END_HEADERS, stream, OK)).await.unwrap();
                    io.write_all(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 2])).await.unwrap();
                }
            }
        });
        let mut client = client(&sim).await;
        for _ in 0..300 {
            let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
            // The head may have been passed on before the reset came.
            if let Ok(response) = response.await {
                assert!(response.into_body().data().await.is_none_or(|data| data.is_err()));
            }
        }
        let breaker = sim.worker.store().cluster("app").unwrap();
        settle().await;
        assert_eq!(breaker.breaker().in_use(crate::upstream::breaker::Resource::Requests), 0);
    })
    .await;
}
