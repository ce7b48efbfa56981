//! What a filter chain does with a connection: HTTP or opaque TCP.

use std::sync::Arc;
use std::time::Duration;

use weft_rules::{Fault, Rbac, RouteTable};

/// A compiled `HttpConnectionManager`. Every value is the one in force: unset fields hold Envoy's default.
#[derive(Debug)]
pub struct HttpChain {
    /// Which HTTP version the connection speaks (`codec_type`).
    pub codec: Codec,
    /// Where the routes come from.
    pub routes: RouteSource,
    /// HTTP filters in order; the router, which is always last, is implied.
    pub filters: Vec<HttpFilter>,
    /// Prefix of statistics' names, and the label of the chain in logs (`stat_prefix`).
    pub stat_prefix: Arc<str>,
    /// Largest request head in bytes (`max_request_headers_kb`, 60 KiB where unset).
    pub max_request_head: usize,
    /// Most header fields in a request (`common_http_protocol_options.max_headers_count`, 100 where unset).
    pub max_headers_count: usize,
    /// Whether HTTP/1.0 requests are served (`http_protocol_options.accept_http_10`).
    pub accept_http_10: bool,
    /// Host given to an HTTP/1.0 request that has none (`default_host_for_http_10`); without it such a request is refused.
    pub default_host_for_http_10: Option<Arc<str>>,
    /// Whether HTTP/1.1 trailers are passed on (`http_protocol_options.enable_trailers`); otherwise they are dropped.
    pub enable_trailers: bool,
    /// HTTP/2 settings.
    pub h2: Http2Options,
    /// Upgrades that are let through (`upgrade_configs`).
    pub upgrades: Upgrades,
    /// Pass `100 Continue` on from upstream instead of answering it here (`proxy_100_continue`).
    pub proxy_100_continue: bool,
    /// Close a connection without requests after this long (`common_http_protocol_options.idle_timeout`, 1 h where unset); `None` never.
    pub idle_timeout: Option<Duration>,
    /// From the first byte of a request to the end of its head (`request_headers_timeout`); `None` never.
    pub request_headers_timeout: Option<Duration>,
    /// Longest time without a byte in either direction of a stream (`stream_idle_timeout`, 5 min where unset); `None` never.
    pub stream_idle_timeout: Option<Duration>,
    /// How long the end of an HTTP/1.1 connection may take: to send what is left, and after an early answer to read the rest of its
    /// request, since a close before that could cost the client the answer (`delayed_close_timeout`, 1 s where unset). `None` is an
    /// explicit 0 s: it is closed at once.
    pub delayed_close_timeout: Option<Duration>,
    /// Names whose underscore makes a request refused, a field dropped, or nothing (`headers_with_underscores_action`).
    pub underscores: UnderscoreAction,
}

impl HttpChain {
    /// From the first byte of a request to the end of its head; `None` never. The stream has begun with that byte, so its idle timeout
    /// counts as well.
    pub fn head_timeout(&self) -> Option<Duration> {
        self.request_headers_timeout.into_iter().chain(self.stream_idle_timeout).min()
    }
}

/// Which HTTP version a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codec {
    /// By the negotiated ALPN, else by the first bytes.
    #[default]
    Auto,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where a chain's routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// In the listener itself.
    Inline(Arc<RouteTable>),
    /// By name, from [`super::Snapshot::route`].
    Rds(Arc<str>),
}

/// One HTTP filter before the router.
#[derive(Clone, Debug)]
pub enum HttpFilter {
    /// Access by identity, method and path (`envoy.filters.http.rbac`).
    Rbac(Arc<Rbac>),
    /// Injected delays and aborts (`envoy.filters.http.fault`).
    Fault(Arc<Fault>),
}

/// HTTP/2 settings of the downstream side (`http2_protocol_options`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Options {
    /// Bytes a stream may be sent before it is read (`initial_stream_window_size`; 256 KiB where unset).
    pub initial_stream_window: u32,
    /// The same for the whole connection (`initial_connection_window_size`; 24 MiB where unset).
    pub initial_connection_window: u32,
    /// Streams at once (`max_concurrent_streams`; 1024 where unset).
    pub max_concurrent_streams: u32,
    /// Whether extended CONNECT (RFC 8441) is offered (`allow_connect`).
    pub allow_connect: bool,
    /// Bytes of the table that the client may compress heads with (`hpack_table_size`; `None` leaves HTTP/2's 4 KiB).
    pub hpack_table_size: Option<u32>,
    /// Time between keep-alive PINGs (`connection_keepalive.interval`); `None` sends none.
    pub keepalive_interval: Option<Duration>,
    /// How long a PING may stay unanswered (`connection_keepalive.timeout`; 20 s where unset).
    pub keepalive_timeout: Duration,
}

/// Upgrades that a chain lets through. A request that asks for another is served without it (RFC 9110 §7.8; Envoy answers 403); CONNECT
/// is answered 403.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrades {
    /// Enabled names in lower case (`websocket`, `connect`, …).
    enabled: Vec<Box<str>>,
}

impl Upgrades {
    pub(super) fn new(mut enabled: Vec<Box<str>>) -> Self {
        enabled.iter_mut().for_each(|name| name.make_ascii_lowercase());
        Self { enabled }
    }

    /// Whether the value of an `upgrade` field (or the `:protocol` of an extended CONNECT) may pass. Case does not count.
    pub fn allows(&self, protocol: &[u8]) -> bool {
        self.enabled.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(protocol))
    }

    /// Whether plain CONNECT may pass (`upgrade_type: CONNECT`).
    pub fn allows_connect(&self) -> bool {
        self.allows(b"connect")
    }
}

/// What to do with header names that hold an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnderscoreAction {
    /// Nothing.
    #[default]
    Allow,
    /// Refuse the request.
    RejectRequest,
    /// Drop the field.
    DropHeader,
}

/// A compiled `TcpProxy`.
#[derive(Debug)]
pub struct TcpChain {
    /// Where the bytes go; at least one, weights above zero.
    pub targets: Vec<TcpTarget>,
    /// Sum of the targets' weights.
    pub total_weight: u32,
    /// Close a relay without bytes after this long (`idle_timeout`, 1 h where unset); `None` never.
    pub idle_timeout: Option<Duration>,
    /// Connect attempts before the connection is given up (`max_connect_attempts`, 1 where unset).
    pub max_connect_attempts: u32,
    /// Prefix of statistics' names (`stat_prefix`).
    pub stat_prefix: Arc<str>,
}

impl TcpChain {
    /// The cluster for one connection. `random` is any number; its remainder by the total weight decides.
    pub fn pick(&self, random: u32) -> &Arc<str> {
        let mut point = random % self.total_weight.max(1);
        for target in &self.targets {
            if point < target.weight {
                return &target.cluster;
            }
            point -= target.weight;
        }
        // `point` is below the sum of the weights, so a target was found; the list is never empty.
        &self.targets[0].cluster
    }
}

/// One destination of a TCP chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpTarget {
    /// The cluster's name, for [`super::Snapshot::cluster`].
    pub cluster: Arc<str>,
    /// Its share.
    pub weight: u32,
}
