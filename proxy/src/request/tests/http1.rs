//! HTTP/1.1 on both sides.

use super::sim::{APP, Config, PATIENT, read_until, serve, with_proxy};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_request_and_its_response_pass_byte_for_byte() {
    with_proxy(Config::default(), |sim| async move {
        let seen = serve(&sim, "HTTP/1.1 200 Fine\r\nX-One: a\r\nx-one: b\r\nContent-Length: 2\r\n\r\nok");
        let request = "GET /a%2Fb//c?q=<x>&y HTTP/1.1\r\nHost: shop\r\nX-CamelCase: \u{e9}v\u{e9}\r\nx-twice: 1\r\nX-Twice: 2\r\n\r\n";
        let answer = sim.ask(request, "ok").await;
        assert_eq!(*seen.borrow(), request);
        assert_eq!(answer, "HTTP/1.1 200 Fine\r\nX-One: a\r\nx-one: b\r\nContent-Length: 2\r\n\r\nok");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn hop_by_hop_fields_end_here() {
    with_proxy(Config::default(), |sim| async move {
        let seen = serve(
            &sim,
            "HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nConnection: x-secret\r\nx-secret: 1\r\nContent-Length: 0\r\n\r\n",
        );
        let answer = sim
            .ask(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nProxy-Connection: x\r\n\r\n",
                "\r\n\r\n",
            )
            .await;
        assert_eq!(*seen.borrow(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order_over_one_upstream_connection() {
    with_proxy(Config::default(), |sim| async move {
        let connections = Rc::new(RefCell::new(0));
        let count = connections.clone();
        sim.servers.add(APP, move |mut io| {
            *count.borrow_mut() += 1;
            async move {
                loop {
                    let request = read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
                    let Some(path) = request.split(' ').nth(1) else { return };
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
                    io.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        let one = |n: u8| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = sim.ask(&[one(1), one(2), one(3)].concat(), "/3").await;
        let bodies: Vec<_> = answer.split("\r\n\r\n").skip(1).map(|part| &part[..2]).collect();
        assert_eq!(bodies, ["/1", "/2", "/3"]);
        assert_eq!(*connections.borrow(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn chunked_bodies_pass_both_ways_with_trailers() {
    let config = Config {
        manager: "http_protocol_options: {enable_trailers: true}",
        cluster: "http_protocol_options: {enable_trailers: true}",
        ..Config::default()
    };
    with_proxy(config, |sim| async move {
        let seen = serve(
            &sim,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Up: 1\r\n\r\n";
        let answer = sim.ask(request, "X-Sum: 7\r\n\r\n").await;
        assert_eq!(*seen.borrow(), request);
        assert_eq!(
            answer,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_has_a_length_and_no_body() {
    with_proxy(Config::default(), |sim| async move {
        let _seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
        let two = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = sim.talk(two, |answer| answer.matches("1234\r\n\r\n").count() == 2).await;
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".repeat(2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_with_the_connection_becomes_chunked() {
    with_proxy(Config::default(), |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            io.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
        });
        let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{answer}");
        assert!(answer.ends_with("d\r\nuntil the end\r\n0\r\n\r\n"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_response_is_not_passed_on_as_a_whole_one() {
    with_proxy(Config::default(), |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
        });
        let answer = sim.talk("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |_| false).await;
        assert!(answer.ends_with("3\r\nabc\r\n"), "the end must be missing: {answer}");
        let counted = sim.metrics("weft_requests_total");
        assert!(counted.len() == 1 && counted[0].contains("response_class=\"error\""), "{counted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn expect_continue_is_answered_here_unless_it_is_passed_on() {
    with_proxy(Config::default(), |sim| async move {
        let seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let mut client = sim.connect();
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hi").await.unwrap();
        let answer = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(*seen.borrow(), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    })
    .await;
    with_proxy(Config { manager: "proxy_100_continue: true", ..Config::default() }, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            let head = read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            assert!(head.contains("Expect: 100-continue"), "{head}");
            io.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            read_until(&mut io, |text| text.ends_with("hi")).await;
            io.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        });
        let mut client = sim.connect();
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            .await
            .unwrap();
        let interim = read_until(&mut client, |text| text.ends_with("Continue\r\n\r\n")).await;
        assert_eq!(interim, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hi").await.unwrap();
        assert_eq!(read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await, "HTTP/1.1 204 No Content\r\n\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    with_proxy(Config::default(), |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.contains("\r\n\r\n")).await;
            io.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await.unwrap();
        });
        let mut client = sim.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart").await.unwrap();
        let answer = read_until(&mut client, |text| text.ends_with("big")).await;
        assert!(answer.starts_with("HTTP/1.1 413 Too Large\r\n"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_becomes_a_tunnel_and_half_closes_pass() {
    let upgrades = Config { manager: "upgrade_configs: [{upgrade_type: websocket}]", ..Config::default() };
    with_proxy(upgrades, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            let head = read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
            assert!(head.contains("Upgrade: websocket"), "{head}");
            io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
                .await
                .unwrap();
            let said = read_until(&mut io, |_| false).await;
            io.write_all(said.to_uppercase().as_bytes()).await.unwrap();
        });
        let mut client = sim.connect();
        client
            .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
            .await
            .unwrap();
        let opened = read_until(&mut client, |text| text.ends_with("first")).await;
        assert!(opened.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{opened}");
        assert!(opened.to_ascii_lowercase().contains("connection: upgrade\r\n"), "{opened}");
        client.write_all(b" frames").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "EARLY FRAMES");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_upstream_request() {
    with_proxy(Config::default(), |sim| async move {
        let gone = Rc::new(tokio::sync::Notify::new());
        let signal = gone.clone();
        sim.servers.add(APP, move |mut io| {
            let signal = signal.clone();
            async move {
                read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
                assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
                signal.notify_one();
            }
        });
        let mut client = sim.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(client);
        gone.notified().await;
        let counted = sim.metrics("weft_requests_total");
        assert!(counted.len() == 1 && counted[0].contains("flag=\"DC\""), "{counted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_pauses_the_sender() {
    with_proxy(Config { routes: PATIENT, ..Config::default() }, |sim| async move {
        let sent = Rc::new(RefCell::new(0usize));
        let count = sent.clone();
        sim.servers.add(APP, move |mut io| {
            let count = count.clone();
            async move {
                read_until(&mut io, |text| text.ends_with("\r\n\r\n")).await;
                io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await.unwrap();
                while io.write_all(&[b'x'; 16 * 1024]).await.is_ok() {
                    *count.borrow_mut() += 16 * 1024;
                }
            }
        });
        let mut client = sim.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let buffered = *sent.borrow();
        // Two pipes of 64 KiB stand for the kernel; the rest is ours.
        assert!(buffered < 512 * 1024, "{buffered} bytes taken from a sender nobody reads");
        let mut chunk = vec![0; 256 * 1024];
        client.read_exact(&mut chunk).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(*sent.borrow() > buffered, "reading must set the sender going again");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_route_timeout_is_answered_504_and_never_early() {
    let timeout = Config { routes: "[{match: {prefix: /}, route: {cluster: app, timeout: 3s}}]", ..Config::default() };
    with_proxy(timeout, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |_| false).await;
        });
        let started = Instant::now();
        let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "timeout\n").await;
        let elapsed = started.elapsed();
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert!(answer.contains("x-weft-flag: UT\r\n"), "{answer}");
        assert!(elapsed >= Duration::from_secs(3) && elapsed <= Duration::from_millis(3020), "{elapsed:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn smuggling_forms_are_refused_and_close_the_connection() {
    with_proxy(Config::default(), |sim| async move {
        let seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        for head in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            let answer = sim.talk(head, |_| false).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{head:?}: {answer}");
        }
        assert_eq!(*seen.borrow(), "", "nothing of it may reach the application");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_connections_after_their_next_response() {
    with_proxy(Config::default(), |sim| async move {
        let _seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let mut client = sim.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
        assert!(!answer.contains("close"), "{answer}");
        sim.drain.start();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = read_until(&mut client, |_| false).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close\r\n"), "{answer}");
        sim.drain.idle().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_old_request_without_a_host_gets_the_default_one() {
    let manager = "http_protocol_options: {accept_http_10: true, default_host_for_http_10: old.example}";
    with_proxy(Config { manager, ..Config::default() }, |sim| async move {
        let seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert!(sim.ask("GET / HTTP/1.0\r\n\r\n", "ok").await.starts_with("HTTP/1.1 200"));
        assert!(seen.borrow().to_ascii_lowercase().contains("\r\nhost: old.example\r\n"), "{}", seen.borrow());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn underscores_in_names_pass_or_go_or_are_refused_as_configured() {
    for (action, expected) in [
        ("ALLOW", Some("GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\n\r\n")),
        ("DROP_HEADER", Some("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("REJECT_REQUEST", None),
    ] {
        let manager = format!("common_http_protocol_options: {{headers_with_underscores_action: {action}}}");
        with_proxy(Config { manager: manager.leak(), ..Config::default() }, |sim| async move {
            let seen = serve(&sim, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let answer = sim.ask("GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\n\r\n", "\r\n\r\n").await;
            assert_eq!(answer.starts_with("HTTP/1.1 200"), expected.is_some(), "{answer}");
            assert_eq!(*seen.borrow(), expected.unwrap_or_default());
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_timeout_runs_from_the_end_of_the_request() {
    let timeout = Config { routes: "[{match: {prefix: /}, route: {cluster: app, timeout: 3s}}]", ..Config::default() };
    with_proxy(timeout, |sim| async move {
        sim.servers.add(APP, |mut io| async move {
            read_until(&mut io, |text| text.ends_with("end")).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            read_until(&mut io, |_| false).await;
        });
        let mut client = sim.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nstart").await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.write_all(b"end").await.unwrap();
        let answer = read_until(&mut client, |text| text.ends_with("ok")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "a slow upload is no slow answer: {answer}");
    })
    .await;
}
