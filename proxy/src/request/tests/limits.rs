//! Time limits: who is cut off, when, and what is told.

use super::frames::{ACK, PREFACE, SETTINGS, frame, get, read_frame};
use super::http2::{H2_CLUSTER, client, request};
use super::sim::{APP, Config, PATIENT, SOCKET_BUFFER, Sim, read_until, serve, with_proxy};
use crate::upstream::breaker::Resource;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};

/// Envoy's `stream_idle_timeout` where unset.
const IDLE: Duration = Duration::from_secs(300);

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";

async fn silent(mut io: DuplexStream) {
    read_until(&mut io, |_| false).await;
}

fn requests_under_way(sim: &Sim) -> u32 {
    sim.worker.store().cluster("app").unwrap().breaker().in_use(Resource::Requests)
}

fn assert_about(elapsed: Duration, expected: Duration) {
    assert!(elapsed >= expected && elapsed < expected + Duration::from_millis(100), "{elapsed:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_owes_its_body_is_told_408_and_gives_its_permit_back() {
    for first_part in ["", "some"] {
        with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
            sim.servers.add(APP, silent);
            let started = Instant::now();
            let mut client = sim.connect();
            client.write_all(POST.as_bytes()).await.unwrap();
            client.write_all(first_part.as_bytes()).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(requests_under_way(&sim), 1);
            let answer = read_until(&mut client, |_| false).await;
            assert_about(started.elapsed(), IDLE);
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert!(answer.contains("x-weft-flag: SI\r\n") && answer.contains("connection: close\r\n"), "{answer}");
            drop(client);
            sleep(Duration::from_secs(2)).await;
            assert_eq!(requests_under_way(&sim), 0);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_byte_of_a_body_gives_it_the_whole_idle_timeout_again() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, silent);
        let mut client = sim.connect();
        client.write_all(POST.as_bytes()).await.unwrap();
        for _ in 0..5 {
            sleep(Duration::from_secs(290)).await;
            client.write_all(b"x").await.unwrap();
        }
        let last_byte = Instant::now();
        let answer = read_until(&mut client, |_| false).await;
        assert_about(last_byte.elapsed(), IDLE);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_owes_its_answer_is_a_504() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, silent);
        let started = Instant::now();
        let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "timeout\n").await;
        assert_about(started.elapsed(), IDLE);
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("x-weft-flag: SI\r\n"), "{answer}");
        assert_eq!(requests_under_way(&sim), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_http2_stream_that_owes_its_body_is_told_408_and_its_connection_goes_on() {
    for cluster in ["", H2_CLUSTER] {
        with_proxy(Config { routes: PATIENT, cluster, ..Config::default() }, |sim| async move {
            sim.servers.add(APP, silent);
            let mut client = client(&sim).await;
            let started = Instant::now();
            let (response, _send) = client.send_request(request("POST", "/"), false).unwrap();
            assert_eq!(response.await.unwrap().status(), 408);
            assert_about(started.elapsed(), IDLE);
            assert_eq!(requests_under_way(&sim), 0);
            let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 504);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_routes_idle_timeout_is_its_own() {
    const SHORT: &str = "[{match: {prefix: /}, route: {cluster: app, timeout: 0s, idle_timeout: 10s}}]";
    const NONE: &str = "[{match: {prefix: /}, route: {cluster: app, timeout: 0s, idle_timeout: 0s}}]";
    with_proxy(Config { routes: SHORT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, silent);
        let started = Instant::now();
        let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "timeout\n").await;
        assert_about(started.elapsed(), Duration::from_secs(10));
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    })
    .await;
    with_proxy(Config { routes: NONE, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            sleep(10 * IDLE).await;
            io.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        });
        let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_response_breaks_at_the_idle_timeout() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            sleep(Duration::from_secs(100)).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
            silent(io).await;
        });
        let started = Instant::now();
        let answer = sim.talk("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |_| false).await;
        assert_about(started.elapsed(), Duration::from_secs(100) + IDLE);
        assert!(answer.ends_with("half"), "{answer}");
        let counted = sim.metrics("weft_requests_total");
        assert!(counted.len() == 1 && counted[0].contains("flag=\"SI\""), "{counted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_response_is_cut_off_though_bytes_are_left_for_it() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await.unwrap();
            while io.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
        });
        let mut client = sim.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        sleep(IDLE + Duration::from_secs(5)).await;
        assert_eq!(requests_under_way(&sim), 0);
        // Nobody is there any more: the connection's task has ended, with what it had for the client.
        assert!(client.write_all(&[0; 128 * 1024]).await.is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_in_has_one_limit_for_all_of_it() {
    for (manager, limit) in [("request_headers_timeout: 10s", Duration::from_secs(10)), ("", IDLE)] {
        with_proxy(Config { manager, ..Config::default() }, |sim| async move {
            let _seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            let (mut answers, mut client) = tokio::io::split(sim.connect());
            // The limit runs from the first byte, not from the connection's begin.
            sleep(Duration::from_secs(60)).await;
            let started = Instant::now();
            tokio::task::spawn_local(async move {
                for byte in b"GET / HTTP/1.1\r\nHost: ".iter().chain(std::iter::repeat(&b'a')) {
                    if client.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_secs(4)).await;
                }
            });
            let mut answer = [0; 12];
            answers.read_exact(&mut answer).await.unwrap();
            assert_about(started.elapsed(), limit);
            assert_eq!(&answer, b"HTTP/1.1 408");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_attempts_timeout_waits_for_the_end_of_the_request() {
    const PER_TRY: &str = "[{match: {prefix: /}, route: {cluster: app, timeout: 0s, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 2s}}}]";
    with_proxy(Config { routes: PER_TRY, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, silent);
        let mut client = sim.connect();
        client.write_all(POST.as_bytes()).await.unwrap();
        for byte in b"0123456789" {
            sleep(Duration::from_secs(5)).await;
            client.write_all(&[*byte]).await.unwrap();
        }
        let complete = Instant::now();
        let answer = read_until(&mut client, |text| text.ends_with("timeout\n")).await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        let elapsed = complete.elapsed();
        // Two attempts, and a back-off of some milliseconds between them.
        assert!(elapsed >= Duration::from_secs(4) && elapsed < Duration::from_millis(4200), "{elapsed:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_which_nothing_moves_is_followed_by_another() {
    const IDLE_TRY: &str = "[{match: {prefix: /}, route: {cluster: app, timeout: 0s, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_idle_timeout: 2s}}}]";
    with_proxy(Config { routes: IDLE_TRY, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, silent);
        let started = Instant::now();
        let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "timeout\n").await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_secs(4) && elapsed < Duration::from_millis(4200), "{elapsed:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_whose_body_is_there_leaves_its_connection_usable() {
    let known = "[{match: {prefix: /known}, route: {cluster: app}}]";
    with_proxy(Config { routes: known, ..Config::default() }, |sim| async move {
        let _seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let two = format!("{POST}0123456789GET /known HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = sim.ask(&two, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("HTTP/1.1 200 OK"), "{answer}");
        let answer = sim.talk(POST, |_| false).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close\r\n"), "{answer}");
    })
    .await;
}

/// A client whose socket is full with the answer to its first request, and who says more; what the server does then is `next`.
async fn full_client<F: Future<Output = ()> + 'static>(
    sim: &Sim,
    more: &str,
    next: impl Fn(DuplexStream) -> F + Clone + 'static,
) -> DuplexStream {
    sim.servers.add(APP, move |mut io| {
        let next = next.clone();
        async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            // With its head, that leaves room for but a few bytes.
            let body = SOCKET_BUFFER - 60;
            io.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n{:x<body$}", "").as_bytes())
                .await
                .unwrap();
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            next(io).await;
        }
    });
    let mut client = sim.connect();
    client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{more}").as_bytes()).await.unwrap();
    client
}

const EMPTY_POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

const LONGEST: &str =
    "[{match: {prefix: /}, route: {cluster: app, timeout: 0s, max_stream_duration: {max_stream_duration: 3s}}}]";

#[tokio::test(start_paused = true)]
async fn the_answer_that_tells_of_a_limit_is_not_cut_by_it() {
    with_proxy(Config { routes: LONGEST, ..Config::default() }, |sim| async move {
        let mut client = full_client(&sim, EMPTY_POST, silent).await;
        sleep(Duration::from_secs(10)).await;
        let answers = read_until(&mut client, |text| text.ends_with("duration\n")).await;
        let answer = answers.rsplit_once("xx").unwrap().1;
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("x-weft-flag: DT\r\n"), "{answer}");
        let counted = sim.metrics("weft_requests_total");
        assert!(counted.len() == 2 && counted.iter().any(|line| line.contains("flag=\"DT\"")), "{counted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_counted_by_the_limit_that_ends_it() {
    for (routes, flag, after) in [(LONGEST, "DT", 3), (PATIENT, "SI", 300)] {
        with_proxy(Config { routes, ..Config::default() }, |sim| async move {
            let client = full_client(&sim, EMPTY_POST, async |io| drop(io)).await;
            sleep(Duration::from_secs(after - 1)).await;
            assert_eq!(sim.metrics("weft_requests_total").len(), 1);
            sleep(Duration::from_secs(2)).await;
            let counted = sim.metrics("weft_requests_total");
            assert!(counted.iter().any(|line| line.contains(&format!("flag=\"{flag}\""))), "{counted:?}");
            drop(client);
        })
        .await;
    }
}

/// Whether the proxy has let go of a connection of HTTP/1.1.
async fn is_gone(client: &mut DuplexStream) -> bool {
    client.write_all(b"x").await.is_err()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_http1_connection_takes_one_delayed_close_timeout_at_most() {
    for (manager, limit) in [("delayed_close_timeout: 4s", 4000), ("", 1000), ("delayed_close_timeout: 0s", 0)] {
        with_proxy(Config { manager, ..Config::default() }, |sim| async move {
            // What is no request is answered, to a client that does not read; then it is waited for that it closes.
            let mut deaf = full_client(&sim, "?\r\n\r\n", silent).await;
            // Here the answer is read, but the rest of the request does not come.
            let mut slow = sim.connect();
            slow.write_all(b"POST / HTTP/1.0\r\nContent-Length: 10\r\n\r\n").await.unwrap();
            let answer = read_until(&mut slow, |_| false).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            if limit > 0 {
                sleep(Duration::from_millis(limit - 100)).await;
                assert!(!is_gone(&mut deaf).await && !is_gone(&mut slow).await, "{manager}");
            }
            sleep(Duration::from_millis(200)).await;
            assert!(is_gone(&mut deaf).await && is_gone(&mut slow).await, "{manager}");
        })
        .await;
    }
}

/// A client of HTTP/2 that says what it has to say and never reads.
async fn deaf(sim: &Sim, says: &[u8]) -> DuplexStream {
    let mut io = sim.connect();
    io.write_all(PREFACE).await.unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    io.write_all(says).await.unwrap();
    io
}

/// Whether the proxy has let go of its end.
async fn is_closed(io: &mut DuplexStream) -> bool {
    io.write_all(&frame(SETTINGS, ACK, 0, &[])).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_closed_though_its_client_does_not_answer() {
    let manager = "common_http_protocol_options: {idle_timeout: 30s}";
    with_proxy(Config { manager, ..Config::default() }, |sim| async move {
        let mut silent = deaf(&sim, &[]).await;
        sleep(Duration::from_secs(29)).await;
        assert!(!is_closed(&mut silent).await);
        sleep(Duration::from_secs(40)).await;
        assert!(is_closed(&mut silent).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_loses_its_connection() {
    let manager = "http2_protocol_options: {connection_keepalive: {interval: 10s, timeout: 5s}}";
    with_proxy(Config { manager, ..Config::default() }, |sim| async move {
        let mut silent = deaf(&sim, &[]).await;
        // The h2 crate answers for this one.
        let answering = client(&sim).await;
        sleep(Duration::from_millis(14_900)).await;
        assert!(!is_closed(&mut silent).await);
        sleep(Duration::from_millis(200)).await;
        assert!(is_closed(&mut silent).await);
        sleep(Duration::from_secs(60)).await;
        assert!(answering.clone().ready().await.is_ok());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_the_size_of_the_table_it_may_compress_heads_with() {
    for (manager, told) in [("", None), ("http2_protocol_options: {hpack_table_size: 8192}", Some(8192))] {
        with_proxy(Config { manager, ..Config::default() }, |sim| async move {
            let mut client = deaf(&sim, &[]).await;
            let (kind, _, _, settings) = read_frame(&mut client).await.unwrap();
            assert_eq!(kind, SETTINGS);
            // RFC 9113 §6.5.1: an identifier, and a value.
            let size = settings.chunks(6).find(|setting| setting[..2] == [0, 1]);
            assert_eq!(size.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap())), told);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_is_idle_from_the_end_of_its_last_stream() {
    let manager = "common_http_protocol_options: {idle_timeout: 30s}";
    with_proxy(Config { manager, ..Config::default() }, |sim| async move {
        let _seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let (send, connection) = h2::client::handshake(sim.connect()).await.unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut client = send.ready().await.unwrap();
        let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        let started = Instant::now();
        // The client's own handle stays: it is the proxy that closes.
        let _ = connection.await;
        assert_about(started.elapsed(), Duration::from_secs(30));
        drop(client);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_http2_clients_that_do_not_read() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await.unwrap();
            while io.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
        });
        let mut stalled = deaf(&sim, &get(1)).await;
        let mut quiet = deaf(&sim, &[]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(requests_under_way(&sim), 1);
        sim.drain.start();
        sleep(Duration::from_secs(12)).await;
        assert!(is_closed(&mut quiet).await);
        assert!(!is_closed(&mut stalled).await, "a request under way has its idle timeout");
        sleep(IDLE).await;
        assert!(is_closed(&mut stalled).await);
        assert_eq!(requests_under_way(&sim), 0);
    })
    .await;
}
