//! Which connections requests share, and for how long.

use super::frames::{
    END_HEADERS, END_STREAM, HEADERS, OK, SETTINGS, WINDOW_UPDATE, frame, open_server, read_frame, settle,
};
use super::http2::{client, request};
use super::sim::{APP, Config, PATIENT, Sim, canned, with_proxy};
use crate::upstream::pool::Pools;
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

/// A cluster that speaks HTTP/2, with these options of HTTP/2 and these common ones.
pub(super) fn h2_cluster(h2: &str, common: &str) -> String {
    format!(
        "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': \
         type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {{{common}}}, \
         explicit_http_config: {{http2_protocol_options: {{{h2}}}}}}}}}"
    )
}

/// Servers of HTTP/2 that answer `/much` with a body without end and anything else with none; how many connections they got.
pub(super) fn serve_h2(sim: &Sim) -> Rc<Cell<usize>> {
    let connections = Rc::new(Cell::new(0));
    let count = connections.clone();
    sim.servers.add(APP, move |io| {
        count.set(count.get() + 1);
        async move {
            let mut connection = h2::server::handshake(io).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let is_much = request.uri().path() == "/much";
                    let mut send = respond.send_response(::http::Response::new(()), false).unwrap();
                    loop {
                        send.reserve_capacity(if is_much { 16 * 1024 } else { 1 });
                        let Some(Ok(n)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                        send.send_data(Bytes::from(vec![b'x'; n]), !is_much).unwrap();
                        if !is_much {
                            return;
                        }
                    }
                });
            }
        }
    });
    connections
}

/// A client whose own windows never get in the way.
async fn generous_client(sim: &Sim) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 30);
    let (send, connection) = builder.handshake(sim.connect()).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

async fn get(client: &mut SendRequest<Bytes>, path: &str) -> h2::RecvStream {
    let (response, _) = client.send_request(request("GET", path), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

async fn get_whole(client: &mut SendRequest<Bytes>) {
    let mut body = get(client, "/").await;
    assert_eq!(body.data().await.expect("a byte").unwrap(), "x");
    assert!(body.data().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn readers_that_have_stalled_hold_nobody_else_up() {
    for (windows, streams) in
        [("initial_stream_window_size: 65535, initial_connection_window_size: 262144", 4), ("", 96)]
    {
        with_proxy(Config { cluster: &h2_cluster(windows, ""), ..Config::default() }, |sim| async move {
            let connections = serve_h2(&sim);
            let mut client = generous_client(&sim).await;
            let mut stalled = Vec::new();
            for _ in 0..streams {
                stalled.push(get(&mut client, "/much").await);
            }
            settle().await;
            assert_eq!(connections.get(), 1, "{windows:?}");
            get_whole(&mut client).await;
            assert_eq!(connections.get(), 2, "{windows:?}");
            // Room again on the first.
            stalled.pop();
            settle().await;
            for _ in 0..3 {
                get_whole(&mut client).await;
            }
            assert_eq!(connections.get(), 2, "{windows:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn streams_crowd_together_only_where_no_further_connection_is_allowed() {
    let cluster = format!(
        "{}\ncircuit_breakers: {{thresholds: [{{max_connections: 2}}]}}",
        h2_cluster("max_concurrent_streams: 3", "")
    );
    with_proxy(Config { cluster: &cluster, ..Config::default() }, |sim| async move {
        let connections = serve_h2(&sim);
        let mut client = generous_client(&sim).await;
        let mut open = Vec::new();
        for n in 0..10 {
            open.push(get(&mut client, "/much").await);
            assert_eq!(connections.get(), if n < 3 { 1 } else { 2 }, "stream {n}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_clusters_http2_settings_are_what_the_endpoint_is_told() {
    let h2 = "initial_stream_window_size: 100000, initial_connection_window_size: 300000, hpack_table_size: 8192";
    for (h2, expected, connection_window) in [
        (h2, [(1, 8192), (2, 0), (4, 100_000), (6, 61_440)].to_vec(), 300_000),
        ("", [(2, 0), (4, 262_144), (6, 61_440)].to_vec(), 25_165_824),
    ] {
        with_proxy(Config { cluster: &h2_cluster(h2, ""), ..Config::default() }, |sim| async move {
            let told = Rc::new(RefCell::new((Vec::new(), 65_535)));
            let record = told.clone();
            sim.servers.add(APP, move |mut io| {
                let record = record.clone();
                async move {
                    open_server(&mut io).await;
                    while let Some((kind, flags, stream, payload)) = read_frame(&mut io).await {
                        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                        match kind {
                            SETTINGS if flags == 0 => {
                                let settings =
                                    payload.chunks(6).map(|setting| (u32::from(setting[1]), word(&setting[2..])));
                                record.borrow_mut().0 = settings.collect();
                            }
                            WINDOW_UPDATE if stream == 0 => record.borrow_mut().1 += word(&payload),
                            HEADERS => {
                                io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, OK)).await.unwrap()
                            }
                            _ => {}
                        }
                    }
                }
            });
            let mut client = client(&sim).await;
            let _body = get(&mut client, "/").await;
            settle().await;
            assert_eq!(*told.borrow(), (expected, connection_window));
        })
        .await;
    }
}

/// HTTP/1.1 servers with one answer; how many connections they got, and how many of those are open.
pub(super) fn serve_h1(sim: &Sim) -> (Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let (made, open) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counts = (made.clone(), open.clone());
    sim.servers.add(APP, move |io| {
        let (made, open) = counts.clone();
        made.set(made.get() + 1);
        open.set(open.get() + 1);
        async move {
            canned(io, Rc::default(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            open.set(open.get() - 1);
        }
    });
    (made, open)
}

const H1_GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_connection_carries_no_more_requests_than_the_cluster_allows() {
    let common = "max_requests_per_connection: 2";
    let cluster = format!("common_http_protocol_options: {{{common}}}");
    with_proxy(Config { cluster: &cluster, ..Config::default() }, |sim| async move {
        let (made, open) = serve_h1(&sim);
        for expected in [1, 1, 2, 2, 3] {
            sim.ask(H1_GET, "ok").await;
            assert_eq!(made.get(), expected);
        }
        settle().await;
        assert_eq!(open.get(), 1, "spent connections are closed");
    })
    .await;
    with_proxy(Config { cluster: &h2_cluster("", common), ..Config::default() }, |sim| async move {
        let connections = serve_h2(&sim);
        let mut client = client(&sim).await;
        for expected in [1, 1, 2, 2, 3] {
            get_whole(&mut client).await;
            assert_eq!(connections.get(), expected);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_get_as_many_connections_as_they_need() {
    for (h2, common, expected) in [("", "max_requests_per_connection: 1", 30), ("max_concurrent_streams: 10", "", 3)] {
        with_proxy(Config { cluster: &h2_cluster(h2, common), ..Config::default() }, |sim| async move {
            let connections = serve_h2(&sim);
            let client = generous_client(&sim).await;
            let bodies = (0..30).map(|_| {
                let mut client = client.clone();
                async move { get(&mut client, "/much").await }
            });
            let _open = futures_util::future::join_all(bodies).await;
            assert_eq!(connections.get(), expected, "{h2}{common}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_gets_no_older_than_the_cluster_allows() {
    let common = "max_connection_duration: 60s";
    let cluster = format!("common_http_protocol_options: {{{common}}}");
    with_proxy(Config { cluster: &cluster, ..Config::default() }, |sim| async move {
        tokio::task::spawn_local(Pools::run(Rc::downgrade(&sim.worker)));
        let (made, open) = serve_h1(&sim);
        sim.ask(H1_GET, "ok").await;
        sleep(Duration::from_secs(50)).await;
        sim.ask(H1_GET, "ok").await;
        assert_eq!((made.get(), open.get()), (1, 1));
        sleep(Duration::from_secs(12)).await;
        assert_eq!(open.get(), 0, "an old connection does not wait for the next request");
        sim.ask(H1_GET, "ok").await;
        assert_eq!(made.get(), 2);
    })
    .await;
    with_proxy(Config { cluster: &h2_cluster("", common), routes: PATIENT, ..Config::default() }, |sim| async move {
        let connections = serve_h2(&sim);
        let mut client = generous_client(&sim).await;
        let mut long = get(&mut client, "/much").await;
        sleep(Duration::from_secs(61)).await;
        get_whole(&mut client).await;
        assert_eq!(connections.get(), 2);
        // What was under way goes on.
        for _ in 0..100 {
            let data = long.data().await.expect("more").unwrap();
            long.flow_control().release_capacity(data.len()).unwrap();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_lives_no_longer_than_the_cluster_allows() {
    let common = "max_stream_duration: 3s";
    let cluster = format!("common_http_protocol_options: {{{common}}}");
    with_proxy(Config { cluster: &cluster, routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            super::sim::read_until(&mut io, |_| false).await;
        });
        let started = Instant::now();
        let answer = sim.ask(H1_GET, "duration\n").await;
        assert!(started.elapsed() < Duration::from_millis(3100), "{:?}", started.elapsed());
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("x-weft-flag: UMSDR\r\n"), "{answer}");
    })
    .await;
    with_proxy(Config { cluster: &h2_cluster("", common), routes: PATIENT, ..Config::default() }, |sim| async move {
        serve_h2(&sim);
        let mut client = generous_client(&sim).await;
        let started = Instant::now();
        let mut body = get(&mut client, "/much").await;
        // Though it never pauses. What has been received already is read first.
        while started.elapsed() < Duration::from_secs(20)
            && let Some(Ok(data)) = body.data().await
        {
            body.flow_control().release_capacity(data.len()).unwrap();
            sleep(Duration::from_millis(50)).await;
        }
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_secs(3) && elapsed < Duration::from_secs(10), "{elapsed:?}");
        let counted = sim.metrics("weft_requests_total");
        assert!(counted.len() == 1 && counted[0].contains("flag=\"UMSDR\""), "{counted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_no_ping_loses_its_connection() {
    let cluster = h2_cluster("connection_keepalive: {interval: 10s, timeout: 5s}", "");
    with_proxy(Config { cluster: &cluster, routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            open_server(&mut io).await;
            while read_frame(&mut io).await.is_some() {}
        });
        let mut client = client(&sim).await;
        let started = Instant::now();
        let (response, _) = client.send_request(request("POST", "/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 503);
        assert!(started.elapsed() < Duration::from_millis(15_100), "{:?}", started.elapsed());
        assert!(started.elapsed() >= Duration::from_secs(15), "{:?}", started.elapsed());
    })
    .await;
}
