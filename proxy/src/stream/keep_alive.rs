//! Keep-alive PINGs on an HTTP/2 connection, whichever side it is on (`connection_keepalive`).

use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a PING may stay unanswered where the configuration says nothing.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Resolves when the peer owes an answer for longer than `patience`; never without `pings`, which are sent in that interval.
pub async fn keep_alive(pings: Option<(Duration, h2::PingPong)>, patience: Duration) {
    let Some((interval, mut pings)) = pings else { return std::future::pending().await };
    loop {
        sleep(interval).await;
        if !matches!(timeout(patience, pings.ping(h2::Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
