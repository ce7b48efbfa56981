//! A compiled listener and its filter chains.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::chain::{HttpChain, TcpChain};
use super::cidr::Cidr;
use super::select::{self, ChainMatch, Criteria};
use crate::tls::DownstreamTls;

/// One listener: the filter chains a connection may be given to (`envoy.config.listener.v3.Listener`).
#[derive(Debug)]
pub struct Listener {
    /// The resource's name.
    pub name: Arc<str>,
    /// Where to bind, or `None` for a listener that is chosen by original destination (`bind_to_port: false`).
    pub bind: Option<SocketAddr>,
    /// Further addresses that lead to the same chains (`additional_addresses`).
    pub also_bind: Vec<SocketAddr>,
    /// Length of the kernel's accept queue; `None` takes the largest the kernel allows.
    pub backlog: Option<u32>,
    /// Which way the listener's traffic goes, when the sender said so (`traffic_direction`).
    pub direction: Direction,
    /// Chains with their conditions, in the order of the message.
    pub chains: Vec<Arc<FilterChain>>,
    /// What takes a connection that no chain's conditions fit (`default_filter_chain`).
    pub default_chain: Option<Arc<FilterChain>>,
    /// The mesh's address ranges; only on a sidecar's inbound listener.
    pub mesh: Option<MeshScope>,
    /// What may be read from the connection's first bytes before a chain is chosen.
    pub inspection: Inspection,
    /// When a connection last asked for it; only for listeners on demand.
    pub last_used: LastUsed,
}

impl Listener {
    /// The chain for a connection, by Envoy's order of criteria, or the default chain, or nothing (close the connection).
    pub fn select(&self, criteria: &Criteria<'_>) -> Option<&Arc<FilterChain>> {
        select::choose(&self.chains, criteria).or(self.default_chain.as_ref())
    }

    /// Whether the chain for this port may depend on a ClientHello (transport, server name or ALPN).
    pub fn wants_tls_inspection(&self, destination_port: u16) -> bool {
        select::for_port(&self.chains, destination_port).any(|chain| {
            let m = &chain.matches;
            !m.server_names.is_empty() || !m.application_protocols.is_empty() || m.transport.is_some()
        })
    }

    /// Whether the chain for this port may depend on the bytes being HTTP/1.x or the HTTP/2 preface.
    pub fn wants_http_inspection(&self, destination_port: u16) -> bool {
        self.inspection.http
            && select::for_port(&self.chains, destination_port).any(|chain| chain.matches.names_http_protocol())
    }

    /// Whether only TLS is accepted on this port, so that first bytes are awaited without a detection timer.
    pub fn strict_tls(&self, destination_port: u16) -> bool {
        let mut chains = select::for_port(&self.chains, destination_port).chain(self.default_chain.as_ref()).peekable();
        chains.peek().is_some() && chains.all(|chain| chain.expects_tls())
    }
}

/// When something was last asked for, in seconds of some clock: what is forgotten first when there is too much.
#[derive(Debug, Default)]
pub struct LastUsed(AtomicU32);

impl LastUsed {
    /// Notes a use. One relaxed store; the order of uses within a second does not matter.
    pub fn touch(&self, seconds: u32) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    /// The last use.
    pub fn seconds(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which way a listener's traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// Towards the local application.
    Inbound,
    /// From the local application.
    Outbound,
}

/// What may be looked at before a filter chain is chosen (`listener_filters` and their time-out).
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Plaintext may be classified as HTTP/1.x or HTTP/2 (`envoy.filters.listener.http_inspector`).
    pub http: bool,
    /// The connection's destination is the one before redirection (`envoy.filters.listener.original_dst`, `use_original_dst`).
    pub original_destination: bool,
    /// How long the inspectors may wait for bytes (`listener_filters_timeout`, 15 s where unset); `None` waits for ever.
    pub timeout: Option<Duration>,
    /// When the time is over: choose by what is known (true) or close (false).
    pub continue_on_timeout: bool,
}

/// The mesh as the inbound listener describes it (`metadata.filter_metadata["weft.mesh"]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshScope {
    /// Address ranges of the mesh's services and workloads.
    pub ranges: Vec<Cidr>,
    /// What happens to an address the control plane says it does not know.
    pub unknown_destination: UnknownDestination,
}

impl MeshScope {
    /// Whether the address belongs to the mesh, so that a call to it must not pass without configuration.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

/// What happens to a destination that is known to be absent from the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnknownDestination {
    /// Relayed as it is.
    #[default]
    PassThrough,
    /// Refused.
    Refuse,
}

/// One filter chain: the conditions, the TLS, and what is done with the bytes.
#[derive(Debug)]
pub struct FilterChain {
    /// The chain's name, or its place (`filter_chains[2]`) where it has none.
    pub name: Arc<str>,
    /// When the chain applies.
    pub matches: ChainMatch,
    /// TLS to terminate; `None` takes the bytes as they are.
    pub tls: Option<Arc<DownstreamTls>>,
    /// How long the TLS handshake may take (`transport_socket_connect_timeout`); `None` is the caller's default.
    pub handshake_timeout: Option<Duration>,
    /// Connection-level access rules, in order; the first that denies closes the connection.
    pub network_rbac: Vec<Arc<weft_rules::Rbac>>,
    /// What is done with the bytes.
    pub body: ChainBody,
}

impl FilterChain {
    /// Whether bytes that are not TLS can never be served by this chain.
    fn expects_tls(&self) -> bool {
        self.tls.is_some() || self.matches.transport == Some(select::Transport::Tls)
    }
}

/// What a filter chain does with its connection.
#[derive(Debug)]
pub enum ChainBody {
    /// HTTP by `HttpConnectionManager`.
    Http(Arc<HttpChain>),
    /// Opaque bytes by `TcpProxy`.
    Tcp(Arc<TcpChain>),
}
