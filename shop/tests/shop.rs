//! The shop as users of the binary see it: real processes, real sockets on loopback.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use support::{Shop, body, header, probe, wait_for};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn every_role_answers_in_its_protocol_and_says_who_it_is() {
    let cases = [
        ("catalog", "h2c", "/products", "HTTP/2"),
        ("reviews", "http", "/reviews", "HTTP/1.1"),
        ("cart", "grpc", "/cart", "gRPC"),
        ("cart", "grpc", "/watch", "gRPC"),
        ("payments", "grpc", "/charge", "gRPC"),
        ("payments", "grpc", "/instalments", "gRPC"),
        ("payments", "grpc", "/batch", "gRPC"),
        ("payments", "grpc", "/settle", "gRPC"),
        ("notifications", "ws", "/ws", "WebSocket"),
        ("queue", "tcp", "", "TCP"),
    ];
    for (role, scheme, path, protocol) in cases {
        let shop = Shop::role(role, &["--version", "v7"]);
        let answer = probe(&[&format!("{scheme}://{}{path}", shop.address())]);
        assert_eq!(answer["ok"], true, "{role}: {answer}");
        assert_eq!(answer["protocol"], protocol, "{role}");
        assert_eq!(header(&answer, "x-replica"), Some("r-0"), "{role}");
        assert_eq!(header(&answer, "x-version"), Some("v7"), "{role}");
        if role != "queue" {
            let marker = format!("weft-shop-plaintext-{role}");
            assert!(answer["body"].as_str().unwrap().contains(&marker), "{role}: {answer}");
        }
    }
}

#[test]
fn servers_listen_on_ipv6_too() {
    let reviews = Shop::role("reviews", &[]);
    assert_eq!(probe(&[&format!("http://[::1]:{}/reviews", reviews.started["port"])])["ok"], true);
}

#[test]
fn only_reviews_v2_has_stars() {
    for (version, stars) in [("v1", None), ("v2", Some(5))] {
        let reviews = Shop::role("reviews", &["--version", version]);
        let answer = probe(&[&format!("http://{}/reviews", reviews.address())]);
        assert_eq!(body(&answer)["reviews"][0]["stars"].as_u64(), stars);
    }
}

#[test]
fn the_queue_speaks_first_and_answers_after_the_client_closed_its_side() {
    let queue = Shop::role("queue", &[]);
    let mut stream = TcpStream::connect(queue.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut greeting = String::new();
    lines.read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("INFO ") && greeting.contains("weft-shop-plaintext-queue"), "{greeting}");

    stream.write_all(b"PUB {\"sku\":\"loom\"}\r\nLIST 5\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "+OK 1\r\n+ITEMS 1\r\n{\"sku\":\"loom\"}\r\n");
}

/// A whole shop behind one front end.
struct Whole {
    web: Shop,
    backends: Vec<Shop>,
}

fn whole() -> Whole {
    let backends: Vec<_> = ["catalog", "cart", "payments", "reviews", "notifications", "queue"]
        .into_iter()
        .map(|role| Shop::role(role, &[]))
        .collect();
    let url = |index: usize| format!("http://{}", backends[index].address());
    let web = Shop::role(
        "web",
        &[
            "--catalog",
            &url(0),
            "--cart",
            &url(1),
            "--payments",
            &url(2),
            "--reviews",
            &url(3),
            "--notifications",
            &url(4),
            "--queue",
            &backends[5].address(),
        ],
    );
    Whole { web, backends }
}

#[test]
fn the_front_end_shows_goods_and_who_answered() {
    let shop = whole();
    let web = shop.web.address();
    let page = probe(&[&format!("http://{web}/")]);
    assert_eq!(header(&page, "content-type"), Some("text/html; charset=utf-8"));
    let html = page["body"].as_str().unwrap();
    for expected in ["Darjeeling", "Penelope", "\"replica\":\"r-0\"", "weft-shop-plaintext-web"] {
        assert!(html.contains(expected), "the page lacks {expected}");
    }
    assert!(!html.contains("{{"), "a placeholder was left");

    let home = probe(&[&format!("http://{web}/api/home")]);
    assert_eq!(header(&home, "x-reviews-version"), Some("v1"));
    for backend in ["catalog", "cart", "reviews"] {
        assert_eq!(body(&home)["backends"][backend]["replica"], "r-0", "{home}");
    }
}

#[test]
fn a_checkout_goes_through_cart_payments_queue_and_notifications() {
    let shop = whole();
    let web = shop.web.address();
    let listener = EventStream::open(&web);
    let added = probe(&[&format!("POST http://{web}/api/cart/add?sku=loom")]);
    assert_eq!(body(&added)["lines"], json!([{ "sku": "loom", "quantity": 1 }]));

    let bought = probe(&[&format!("POST http://{web}/api/checkout")]);
    assert_eq!(bought["ok"], true, "{bought}");
    for backend in ["payments", "queue", "notifications"] {
        assert_eq!(body(&bought)["backends"][backend]["ok"], true, "{bought}");
    }
    assert!(listener.hears("loom"), "the order was not announced on the WebSocket");

    let orders = probe(&[&format!("http://{web}/api/orders")]);
    assert_eq!(body(&orders)["orders"][0]["skus"], json!(["loom"]));
    let again = probe(&[&format!("POST http://{web}/api/checkout")]);
    assert_eq!(again["status"], 409, "the cart was not emptied: {again}");
}

/// A WebSocket client of a few lines: the handshake, then the text of whatever comes.
/// What has been received and not been waited for yet is kept.
struct EventStream(TcpStream, Vec<u8>);

impl EventStream {
    fn open(web: &str) -> Self {
        let mut stream = TcpStream::connect(web).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let handshake = "GET /events HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(handshake.as_bytes()).unwrap();
        let mut events = Self(stream, Vec::new());
        // RFC 6455 §1.3 has this key's answer.
        assert!(events.reads_until("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(events.reads_until("hello"));
        events
    }

    fn hears(mut self, text: &str) -> bool {
        self.reads_until(text)
    }

    fn reads_until(&mut self, text: &str) -> bool {
        let mut chunk = [0; 4096];
        loop {
            let found = self.1.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                self.1.drain(..at + text.len());
                return true;
            }
            match self.0.read(&mut chunk) {
                Ok(0) | Err(_) => return false,
                Ok(length) => self.1.extend_from_slice(&chunk[..length]),
            }
        }
    }
}

#[test]
fn a_missing_backend_makes_the_api_fail_and_the_page_say_so() {
    let mut shop = whole();
    let reviews = shop.backends.remove(3);
    drop(reviews);
    let home = probe(&[&format!("http://{}/api/home", shop.web.address())]);
    assert_eq!(home["status"], 502);
    assert_eq!(body(&home)["backends"]["reviews"]["error"]["class"], "refused");
    assert_eq!(body(&home)["backends"]["catalog"]["ok"], true);
    assert_eq!(probe(&[&format!("http://{}/", shop.web.address())])["status"], 200);
}

#[test]
fn a_replica_fails_as_it_is_told() {
    let reviews = Shop::role("reviews", &[]);
    let url = format!("http://{}/reviews", reviews.address());
    reviews.admin("/control/fail?mode=error&status=500");
    assert_eq!(probe(&[&url])["error"]["class"], "http_500");
    reviews.admin("/control/fail?mode=reset");
    assert_eq!(probe(&[&url])["error"]["class"], "closed");
    reviews.admin("/control/fail?mode=delay&delay_ms=30000");
    assert_eq!(probe(&[&url, "--timeout", "0.2"])["error"]["class"], "timeout");
    reviews.admin("/control/recover");
    assert_eq!(probe(&[&url])["ok"], true);

    let refused = reviews.admin("/control/fail?mode=explode");
    assert_eq!(refused["status"], 400);
    assert!(refused["body"].as_str().unwrap().contains("error, reset, crash, delay"), "{refused}");
}

#[test]
fn a_grpc_replica_fails_with_a_grpc_status() {
    let cart = Shop::role("cart", &[]);
    cart.admin("/control/fail?status=503");
    let answer = probe(&[&format!("grpc://{}/cart", cart.address())]);
    assert_eq!(answer["error"]["class"], "grpc_14", "{answer}");
    assert_eq!(header(&answer, "x-replica"), Some("r-0"));
}

#[test]
fn a_crash_ends_the_process_in_the_middle_of_a_request() {
    let mut reviews = Shop::role("reviews", &[]);
    reviews.admin("/control/fail?mode=crash");
    let answer = probe(&[&format!("http://{}/reviews", reviews.address())]);
    assert!(["closed", "reset"].contains(&answer["error"]["class"].as_str().unwrap()), "{answer}");
    assert_eq!(reviews.wait(SOON).code(), Some(101));
}

#[test]
fn sigterm_answers_what_is_in_flight_then_exits_zero() {
    let mut reviews = Shop::role("reviews", &[]);
    reviews.admin("/control/fail?mode=delay&delay_ms=700");
    let mut stream = TcpStream::connect(reviews.address()).unwrap();
    stream.write_all(b"GET /reviews HTTP/1.1\r\nHost: reviews\r\n\r\n").unwrap();
    // A later request that was answered shows that the earlier one was read: one thread serves both.
    let mut parallel = TcpStream::connect(reviews.address()).unwrap();
    parallel.write_all(b"GET /healthz HTTP/1.1\r\nHost: reviews\r\n\r\n").unwrap();
    parallel.set_read_timeout(Some(SOON)).unwrap();
    let _ = parallel.read(&mut [0; 64]).unwrap();

    reviews.signal(Signal::SIGTERM);
    wait_for(SOON, "new connections to be refused", || TcpStream::connect(reviews.address()).is_err().then_some(()));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(reviews.wait(SOON).code(), Some(0));
}

#[test]
fn sigterm_ends_queue_connections_in_order() {
    let mut queue = Shop::role("queue", &[]);
    let mut idle = TcpStream::connect(queue.address()).unwrap();
    idle.set_read_timeout(Some(SOON)).unwrap();
    let _ = idle.read(&mut [0; 512]).unwrap();
    queue.signal(Signal::SIGTERM);
    assert_eq!(queue.wait(SOON).code(), Some(0));
    assert_eq!(idle.read(&mut [0; 512]).unwrap(), 0, "an orderly end, not a reset");
}

#[test]
fn the_load_generator_keeps_its_rate_and_counts_by_version() {
    let v1 = Shop::role("reviews", &[]);
    let v2 = Shop::role("reviews", &["--version", "v2"]);
    let url = |shop: &Shop| format!("http://{}/reviews", shop.address());
    let mut load = Shop::spawn(&[
        "loadgen",
        "--target",
        &url(&v1),
        "--target",
        &url(&v2),
        "--rate",
        "200",
        "--duration",
        "2",
        "--control",
        "127.0.0.1:0",
    ]);
    assert_eq!(load.wait(SOON).code(), Some(0));
    let lines = load.rest();
    let summary = lines.last().unwrap();
    assert_eq!(summary["summary"], true);
    let sent = summary["sent"].as_u64().unwrap();
    assert!((300..=402).contains(&sent), "200 a second for 2 s: {summary}");
    assert_eq!(summary["failed"], 0);
    assert_eq!(summary["versions"]["v1"].as_u64().unwrap() + summary["versions"]["v2"].as_u64().unwrap(), sent);
    assert!(summary["versions"]["v2"].as_u64().unwrap() >= sent / 3, "targets take turns: {summary}");
    assert!(summary["p99_ms"].as_f64().unwrap() > 0.0);
    assert!(lines.len() >= 2, "a line each second before the summary");
}

#[test]
fn the_load_generator_is_steered_live_and_counts_since_a_mark() {
    let reviews = Shop::role("reviews", &[]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control");
    let mut load = Shop::spawn(&[
        "loadgen",
        "--target",
        &format!("http://{}/reviews", reviews.address()),
        "--rate",
        "50",
        "--quiet",
        "--control",
        &format!("unix:{}", socket.display()),
    ]);
    let control = |line: &str| unix_request(&socket, line);
    wait_for(SOON, "load", || (control("GET /stats")["ok"].as_u64() > Some(10)).then_some(()));

    control("POST /mark?name=failing");
    reviews.admin("/control/fail?mode=error&status=503");
    wait_for(SOON, "failures", || {
        (control("GET /since?name=failing")["failures"]["http_503"].as_u64() > Some(5)).then_some(())
    });
    reviews.admin("/control/recover");
    let failing = control("GET /since?name=failing");
    assert_eq!(failing["first_failures"][0]["message"], "r-0 fails as asked");
    assert_eq!(failing["first_failures"][0]["replica"], "r-0");

    control("POST /mark?name=after");
    control("POST /rate?rps=500");
    wait_for(SOON, "calls", || (control("GET /since?name=after")["ok"].as_u64() > Some(200)).then_some(()));
    assert!(
        control("GET /since?name=after")["largest_gap_ms"].as_f64()
            < control("GET /since?name=failing")["largest_gap_ms"].as_f64()
    );
    control("POST /stop");
    assert_eq!(load.wait(SOON).code(), Some(1), "some calls failed");
    assert_eq!(load.rest().len(), 1, "quiet prints the summary only");
}

fn unix_request(socket: &std::path::Path, line: &str) -> serde_json::Value {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{answer}: {error}"))
}
