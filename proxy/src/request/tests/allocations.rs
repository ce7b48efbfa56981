//! What a request costs in memory: allocations while it runs, and the size of the futures that it lives in.

use super::sim::{APP, Config, Sim, with_proxy};
use crate::allocations;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Receives until `end` of a message that ends with it. Allocates nothing.
async fn receive(io: &mut DuplexStream, end: &[u8]) -> bool {
    let mut buffer = [0; 1024];
    let mut filled = 0;
    while !buffer[..filled].ends_with(end) {
        match io.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return false,
            Ok(n) => filled += n,
        }
    }
    true
}

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok";

/// An application that answers `request`s, one after the other, and allocates nothing.
fn application(sim: &Sim, request_end: &'static [u8]) {
    sim.servers.add(APP, move |mut io| async move {
        while receive(&mut io, request_end).await {
            io.write_all(ANSWER).await.unwrap();
        }
    });
}

/// Allocations per request of a warm keep-alive connection, in hundredths.
async fn per_request(sim: &Sim, request: &[u8]) -> usize {
    const REQUESTS: usize = 200;
    let mut client = sim.connect();
    let mut exchange = async |n: usize| {
        for _ in 0..n {
            client.write_all(request).await.unwrap();
            assert!(receive(&mut client, b"ok").await);
        }
    };
    exchange(50).await;
    let before = allocations::so_far();
    exchange(REQUESTS).await;
    (allocations::so_far() - before) * 100 / REQUESTS
}

#[tokio::test(start_paused = true)]
async fn a_request_on_warm_connections_allocates_nothing() {
    with_proxy(Config::default(), |sim| async move {
        application(&sim, b"\r\n\r\n");
        let request =
            b"GET /shop/1?q=x HTTP/1.1\r\nHost: shop\r\nUser-Agent: x\r\nAccept: */*\r\nX-Request-Id: 1\r\n\r\n";
        assert_eq!(per_request(&sim, request).await, 0, "hundredths of an allocation per GET");
    })
    .await;
    with_proxy(Config::default(), |sim| async move {
        application(&sim, b"hello");
        let request = b"POST /cart HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(per_request(&sim, request).await, 0, "hundredths of an allocation per POST");
    })
    .await;
}

/// Nearly all that an idle connection costs is its task, which is as large as its largest state.
#[tokio::test(start_paused = true)]
async fn the_futures_of_a_connection_stay_small() {
    with_proxy(Config::default(), |sim| async move {
        let sizes = crate::accept::connection::sizes(&sim.worker);
        let most = [("connection", 4096), ("HTTP/1.1", 3584), ("HTTP/2", 3584), ("relay", 768)];
        let too_large = sizes.iter().zip(most).any(|((_, size), (_, most))| *size > most);
        assert!(!too_large, "{sizes:?} are more than {most:?}");
    })
    .await;
}
