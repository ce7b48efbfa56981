//! Listeners on loopback, published, changed and removed.

use super::*;
use crate::admin::drain::Drain;
use crate::snapshot::Store;
use crate::snapshot::compile::compile_listener;
use crate::upstream::pool::TcpNetwork;
use crate::worker::Settings;
use socket2::Socket;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::LocalSet;

/// Runs a test beside a worker that follows `store`.
async fn with_worker<F: Future<Output = ()>>(drain_time: Duration, test: impl FnOnce(Arc<Store>) -> F) {
    let store = Arc::new(Store::new());
    let settings = Settings { drain_time, ..Settings::default() };
    let worker = Worker::alone(store.clone(), settings, Drain::never(), Rc::new(TcpNetwork::default()));
    let set = LocalSet::new();
    set.spawn_local(worker.sweep.clone().run());
    set.spawn_local(follow(worker, Vec::new()));
    set.run_until(test(store)).await;
}

/// A port that nobody else gets while the socket lives: bound, but not listening.
fn reserved() -> (Socket, SocketAddr) {
    let socket = socket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn publish(store: &Store, address: SocketAddr, body: &str) {
    store.update(|next| next.insert_listener(listener("here", address, body)));
}

/// A listener that answers every request with `body`.
fn listener(name: &str, address: SocketAddr, body: &str) -> Arc<Listener> {
    let text = format!(
        r#"
name: {name}
address: {{socket_address: {{address: {}, port_value: {}}}}}
filter_chains:
- filters:
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: here
      http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
      route_config:
        virtual_hosts:
        - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}]}}
"#,
        address.ip(),
        address.port()
    );
    Arc::new(compile_listener(&weft_xds::yaml::from_str(&text).unwrap()).unwrap().listener)
}

async fn connect(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Asks once; the connection's answer, as far as its body of three bytes.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let is_whole = |answer: &str| answer.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() == 3);
    while !is_whole(&answer) {
        let mut buffer = [0; 1024];
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    answer
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 16]).await.unwrap_or(0) == 0
}

#[tokio::test]
async fn a_new_version_takes_new_connections_and_lets_the_old_ones_end_politely() {
    with_worker(Duration::from_secs(60), |store| async move {
        let (_reserved, address) = reserved();
        publish(&store, address, "one");
        let mut old = connect(address).await;
        let answer = ask(&mut old).await;
        assert!(answer.ends_with("one") && !answer.contains("connection: close"), "{answer}");
        publish(&store, address, "two");
        while !ask(&mut connect(address).await).await.ends_with("two") {}
        let answer = ask(&mut old).await;
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(is_closed(&mut old).await);
        let mut new = connect(address).await;
        let answer = ask(&mut new).await;
        assert!(answer.ends_with("two") && !answer.contains("connection: close"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_removed_listener_takes_nothing_more_and_answers_what_it_has() {
    with_worker(Duration::from_secs(60), |store| async move {
        let (_reserved, address) = reserved();
        publish(&store, address, "one");
        let mut last = connect(address).await;
        ask(&mut last).await;
        store.update(|next| next.remove_listener("here"));
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let answer = ask(&mut last).await;
        assert!(answer.ends_with("one") && answer.contains("connection: close"), "{answer}");
        assert!(is_closed(&mut last).await);
    })
    .await;
}

#[tokio::test]
async fn connections_of_a_removed_listener_are_cut_when_the_drain_time_is_over() {
    with_worker(Duration::from_millis(50), |store| async move {
        let (_reserved, address) = reserved();
        publish(&store, address, "one");
        let mut idle = connect(address).await;
        ask(&mut idle).await;
        store.update(|next| next.remove_listener("here"));
        assert!(is_closed(&mut idle).await);
    })
    .await;
}

#[tokio::test]
async fn another_address_is_opened_before_the_former_is_closed() {
    with_worker(Duration::from_secs(60), |store| async move {
        let (_one, former) = reserved();
        let (_two, latter) = reserved();
        publish(&store, former, "one");
        connect(former).await;
        publish(&store, latter, "two");
        while TcpStream::connect(former).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(ask(&mut TcpStream::connect(latter).await.unwrap()).await.ends_with("two"));
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_bound_once_it_is_free() {
    with_worker(Duration::from_secs(60), |store| async move {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (_reserved, free) = reserved();
        store.update(|next| {
            next.insert_listener(listener("taken", address, "one"));
            next.insert_listener(listener("free", free, "two"));
        });
        // One failure keeps no other listener from being opened.
        connect(free).await;
        drop(taken);
        assert!(ask(&mut connect(address).await).await.ends_with("one"));
    })
    .await;
}
