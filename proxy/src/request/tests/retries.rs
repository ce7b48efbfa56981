//! Attempts that fail, and what comes after them.

use super::sim::{Config, Sim, canned, read_until, with_proxy};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::io::AsyncWriteExt;

const BAD: &str = "198.18.0.2:8080";
const GOOD: &str = "198.18.0.3:8080";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn retry(on: &'static str) -> String {
    format!(
        "[{{match: {{prefix: /}}, route: {{cluster: app, retry_policy: {{retry_on: '{on}', num_retries: 3, \
         retry_host_predicate: [{{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}}}]}}}}}}]"
    )
}

/// `n` requests on connections of their own; how many were answered 200.
async fn successes(sim: &Sim, request: &str, n: usize) -> usize {
    let mut ok = 0;
    for _ in 0..n {
        let answer = sim
            .talk(request, |text| {
                text.ends_with("ok") || text.ends_with('\n') && text.len() > 60 && !text.ends_with("\r\n")
            })
            .await;
        ok += usize::from(answer.starts_with("HTTP/1.1 200 "));
    }
    ok
}

fn good(sim: &Sim) -> Rc<RefCell<String>> {
    let seen = Rc::new(RefCell::new(String::new()));
    let record = seen.clone();
    sim.servers.add(GOOD, move |io| canned(io, record.clone(), OK));
    seen
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_connections_is_not_noticed_by_the_client() {
    let routes = retry("connect-failure");
    let config = Config { routes: &routes, endpoints: &[BAD, GOOD], ..Config::default() };
    with_proxy(config, |sim| async move {
        let _seen = good(&sim);
        assert_eq!(successes(&sim, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 20).await, 20);
        let retried: Vec<_> =
            sim.metrics("weft_request_retries_total").into_iter().filter(|line| !line.ends_with(" 0")).collect();
        assert!(retried.len() == 1 && retried[0].contains("outcome=\"success\""), "{retried:?}");
    })
    .await;
    let config = Config { endpoints: &[BAD, GOOD], ..Config::default() };
    with_proxy(config, |sim| async move {
        let _seen = good(&sim);
        assert!(successes(&sim, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 20).await < 20, "without retries failures show");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retried_body_is_sent_whole_again() {
    let routes = retry("5xx");
    let config =
        Config { routes: &routes, endpoints: &[BAD, GOOD], cluster: "lb_policy: ROUND_ROBIN", ..Config::default() };
    with_proxy(config, |sim| async move {
        let tried = Rc::new(Cell::new(0));
        let count = tried.clone();
        sim.servers.add(BAD, move |mut io| {
            count.set(count.get() + 1);
            async move {
                read_until(&mut io, |text| text.ends_with("0\r\n\r\n")).await;
                io.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        });
        let seen = good(&sim);
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(successes(&sim, request, 4).await, 4);
        assert!(tried.get() > 0, "the bad endpoint was never asked");
        assert_eq!(*seen.borrow(), request.repeat(4));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_outgrew_the_recording_is_not_sent_twice() {
    let routes = retry("5xx");
    let config = Config { routes: &routes, endpoints: &[BAD], ..Config::default() };
    with_proxy(config, |sim| async move {
        let tried = Rc::new(Cell::new(0));
        let count = tried.clone();
        sim.servers.add(BAD, move |mut io| {
            count.set(count.get() + 1);
            async move {
                read_until(&mut io, |text| text.len() > 100_000).await;
                io.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            }
        });
        let body = "x".repeat(100_000);
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}");
        let answer = sim.ask(&request, "no").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert_eq!(tried.get(), 1);
        let metrics = sim.metrics("weft_request_retries_total");
        assert!(metrics.iter().any(|line| line.contains("body_too_large") && line.ends_with(" 1")), "{metrics:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closed_by_the_server_is_replaced_without_a_failure() {
    with_proxy(Config { endpoints: &[GOOD], ..Config::default() }, |sim| async move {
        let served = Rc::new(Cell::new(0));
        let count = served.clone();
        // Serves one request per connection, and closes at the very moment the next one arrives.
        sim.servers.add(GOOD, move |mut io| {
            count.set(count.get() + 1);
            async move {
                read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
                io.write_all(OK.as_bytes()).await.unwrap();
                read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            }
        });
        assert_eq!(successes(&sim, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5).await, 5);
        assert!(served.get() > 2, "{}", served.get());
        // A POST may have been processed: it is not repeated on a guess.
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        let first = sim.talk(request, |text| text.ends_with("ok") || text.ends_with("response\n")).await;
        let second = sim.talk(request, |text| text.ends_with("ok") || text.ends_with("response\n")).await;
        let statuses = [&first[9..12], &second[9..12]];
        assert!(statuses.contains(&"503"), "{statuses:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_for_whoever_wants_to_know() {
    const ROUTES: &str = "[{match: {prefix: /}, route: {cluster: app, retry_policy: {retry_on: 5xx}}}]";
    let told = format!(
        "{ROUTES}\n          include_request_attempt_count: true\n          include_attempt_count_in_response: true"
    );
    for (routes, counted) in [(ROUTES, false), (&told, true)] {
        with_proxy(Config { routes, endpoints: &[GOOD], ..Config::default() }, |sim| async move {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let record = seen.clone();
            sim.servers.add(GOOD, move |mut io| {
                let record = record.clone();
                async move {
                    loop {
                        let request = read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
                        if request.is_empty() {
                            return;
                        }
                        record.borrow_mut().push(request);
                        let is_first = record.borrow().len() == 1;
                        let answer = if is_first { "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" } else { OK };
                        if io.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
            let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "ok").await;
            let seen = seen.borrow();
            for (n, request) in (1..).zip(seen.iter().take(2)) {
                assert_eq!(request.contains(&format!("x-envoy-attempt-count: {n}\r\n")), counted, "{request}");
            }
            assert_eq!(answer.contains("x-envoy-attempt-count: 2\r\n"), counted, "{answer}");
        })
        .await;
    }
}
