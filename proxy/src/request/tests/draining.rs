//! Requests to an application that may be ending, because its sidecar was told to.

use super::frames::{HEADERS, PREFACE, read_frame};
use super::pools::{h2_cluster, serve_h1, serve_h2};
use super::sim::{APP, Config, Sim, read_until, with_proxy};
use crate::observe::Direction;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const MARK: &str = "x-weft-undelivered: 1\r\n";

/// One request as another sidecar sends it, and the whole answer.
async fn call(sim: &Sim, direction: Direction, request: &str) -> String {
    let mut caller = sim.connect_as(direction);
    caller.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut caller, |_| false).await
}

#[tokio::test(start_paused = true)]
async fn an_application_that_may_be_ending_gets_a_connection_for_each_request() {
    let h2 = h2_cluster("", "");
    for (direction, cluster, expected) in [
        (Direction::Inbound, "", 3),
        (Direction::Inbound, &*h2, 3),
        // On the callers' side nothing is known of the endpoint's end.
        (Direction::Outbound, "", 1),
        (Direction::Outbound, &*h2, 1),
    ] {
        with_proxy(Config { cluster, ..Config::default() }, |sim| async move {
            let made = if cluster.is_empty() { serve_h1(&sim).0 } else { serve_h2(&sim) };
            for _ in 0..2 {
                call(&sim, direction, GET).await;
                assert_eq!(made.get(), 1, "{direction:?} {cluster}");
            }
            sim.drain.start();
            for _ in 0..2 {
                let answer = call(&sim, direction, GET).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
            assert_eq!(made.get(), expected, "{direction:?} {cluster}");
        })
        .await;
    }
}

/// So that whoever calls may send the request to another endpoint, whatever its policy.
#[tokio::test(start_paused = true)]
async fn what_an_application_that_may_be_ending_left_unanswered_is_marked_where_it_may_be_repeated() {
    for (draining, request, marked) in
        [(true, GET, true), (true, POST, false), (false, GET, false), (false, POST, false)]
    {
        with_proxy(Config::default(), |sim| async move {
            sim.servers.add(APP, |mut io| async move {
                read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            });
            if draining {
                sim.drain.start();
            }
            let answer = call(&sim, Direction::Inbound, request).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert_eq!(answer.contains(MARK), marked, "draining: {draining}, {answer}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_marked_at_any_time() {
    for draining in [false, true] {
        with_proxy(Config::default(), |sim| async move {
            if draining {
                sim.drain.start();
            }
            let answer = call(&sim, Direction::Inbound, POST).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(MARK), "{answer}");
        })
        .await;
    }
}

/// A listener that closes resets the connections that it has not handed on; one that hangs hands none on.
#[tokio::test(start_paused = true)]
async fn an_application_that_may_be_ending_is_sent_no_stream_before_its_settings() {
    for hangs in [false, true] {
        with_proxy(Config { cluster: &h2_cluster("", ""), ..Config::default() }, |sim| async move {
            sim.drain.start();
            let kinds = Rc::new(RefCell::new(Vec::new()));
            let record = kinds.clone();
            sim.servers.add(APP, move |mut io| {
                let record = record.clone();
                async move {
                    io.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
                    let ends = Instant::now() + Duration::from_millis(100);
                    while hangs || Instant::now() < ends {
                        let frame = read_frame(&mut io);
                        match tokio::time::timeout(Duration::from_millis(10), frame).await {
                            Ok(Some((kind, ..))) => record.borrow_mut().push(kind),
                            Ok(None) => return,
                            Err(_) => {}
                        }
                    }
                }
            });
            let answer = call(&sim, Direction::Inbound, POST).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(MARK), "{answer}");
            let kinds = kinds.borrow();
            assert!(!kinds.is_empty() && !kinds.contains(&HEADERS), "{kinds:?}");
        })
        .await;
    }
}
