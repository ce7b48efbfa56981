//! The access log: one event per request or connection, on its own tracing target.

use std::net::SocketAddr;
use std::time::Duration;

use super::labels::{Direction, Flag};

/// The tracing target; `/logging?access=info` switches the log on, `off` switches it off.
pub const TARGET: &str = "access";

/// Whether anybody reads the access log: ask before a record is put together.
pub fn enabled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// What the access log says of one request, or of one opaque connection (then without method, path and status).
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// Which way.
    pub direction: Direction,
    /// Method, as sent.
    pub method: &'a [u8],
    /// Path with query, as sent.
    pub path: &'a [u8],
    /// `Host` or `:authority`.
    pub authority: &'a [u8],
    /// Status of the response, 0 where there was none.
    pub status: u16,
    /// Why the response is not the application's own.
    pub flag: Option<Flag>,
    /// The route's name.
    pub route: &'a str,
    /// The cluster that was chosen.
    pub cluster: &'a str,
    /// The endpoint of the last try.
    pub endpoint: Option<SocketAddr>,
    /// Who connected.
    pub source: Option<SocketAddr>,
    /// SPIFFE ID of the other side, or empty.
    pub peer: &'a str,
    /// Tries beyond the first.
    pub retries: u32,
    /// Body bytes from the caller.
    pub received: u64,
    /// Body bytes to the caller.
    pub sent: u64,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
}

impl AccessRecord<'_> {
    /// Writes the record.
    pub fn write(&self) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        tracing::info!(
            target: TARGET,
            direction = self.direction.as_str(),
            method = text(self.method),
            path = text(self.path),
            authority = text(self.authority),
            status = self.status,
            flag = self.flag.map_or("-", Flag::as_str),
            route = self.route,
            cluster = self.cluster,
            endpoint = self.endpoint.map(tracing::field::display),
            source = self.source.map(tracing::field::display),
            peer = self.peer,
            retries = self.retries,
            received = self.received,
            sent = self.sent,
            duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
        );
    }
}
