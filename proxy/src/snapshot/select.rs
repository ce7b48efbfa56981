//! Which filter chain takes a connection: `envoy.config.listener.v3.FilterChainMatch`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smallvec::SmallVec;

use super::cidr::Cidr;
use super::listener::FilterChain;

/// What is known of a connection when its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Criteria<'a> {
    /// The (original) destination.
    pub destination: SocketAddr,
    /// Whether the first bytes are a ClientHello.
    pub transport: Transport,
    /// The ALPN names of the ClientHello in the client's order, or `http/1.0`, `http/1.1` or `h2c` where plaintext was recognised.
    pub application: &'a [&'a [u8]],
    /// The ClientHello's server name, as sent.
    pub server_name: Option<&'a str>,
    /// The peer's address.
    pub source: SocketAddr,
}

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Not TLS, or not looked at (`raw_buffer`).
    Raw,
    /// A TLS ClientHello (`tls`).
    Tls,
}

/// A chain's conditions. An empty list or `None` does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainMatch {
    /// The destination's port.
    pub destination_port: Option<u16>,
    /// Ranges of the destination's address (`prefix_ranges`).
    pub destinations: Vec<Cidr>,
    /// Server names in lower case: `name.example`, or `*.example` for everything below it.
    pub server_names: Vec<Box<str>>,
    /// TLS or not.
    pub transport: Option<Transport>,
    /// ALPN or recognised protocols.
    pub application_protocols: Vec<Box<str>>,
    /// Ranges of the peer's own address (`direct_source_prefix_ranges`).
    pub direct_sources: Vec<Cidr>,
    /// Local peers only, remote peers only, or both.
    pub source_type: SourceType,
    /// Ranges of the peer's address (`source_prefix_ranges`).
    pub sources: Vec<Cidr>,
    /// The peer's ports.
    pub source_ports: Vec<u16>,
}

/// Which peers a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SourceType {
    /// All.
    #[default]
    Any,
    /// Loopback, or the same address as the destination.
    SameIpOrLoopback,
    /// All others.
    External,
}

impl ChainMatch {
    pub(super) fn names_http_protocol(&self) -> bool {
        self.application_protocols
            .iter()
            .any(|name| matches!(&**name, "http/1.0" | "http/1.1" | "h2c"))
    }
}

/// Chains that stay in the race for a connection.
type Candidates<'a> = SmallVec<[&'a Arc<FilterChain>; 8]>;

/// The chains to consider for a port: those that name it, or, if there are none, those that name no port.
///
/// There is no way back, here and in every later step: once a chain names the port, chains without one are out (Envoy's rule).
pub(super) fn for_port(
    chains: &[Arc<FilterChain>],
    port: u16,
) -> impl Iterator<Item = &Arc<FilterChain>> {
    let named = chains.iter().any(|chain| chain.matches.destination_port == Some(port));
    chains
        .iter()
        .filter(move |chain| chain.matches.destination_port == named.then_some(port))
}

/// Envoy's order: each criterion in turn keeps only the chains that fit it most specifically.
pub(super) fn choose<'a>(
    chains: &'a [Arc<FilterChain>],
    criteria: &Criteria<'_>,
) -> Option<&'a Arc<FilterChain>> {
    let destination = criteria.destination.ip().to_canonical();
    let source = criteria.source.ip().to_canonical();
    let local = source.is_loopback() || source == destination;
    let server_name = criteria.server_name.map(str::to_ascii_lowercase);

    let mut left: Candidates<'a> = for_port(chains, criteria.destination.port()).collect();
    narrow(&mut left, |m| longest_prefix(&m.destinations, destination));
    narrow(&mut left, |m| server_name_rank(&m.server_names, server_name.as_deref()));
    narrow(&mut left, |m| match m.transport {
        None => Some(0),
        Some(transport) => (transport == criteria.transport).then_some(1),
    });
    narrow(&mut left, |m| application_rank(&m.application_protocols, criteria.application));
    narrow(&mut left, |m| longest_prefix(&m.direct_sources, source));
    narrow(&mut left, |m| match m.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    });
    narrow(&mut left, |m| longest_prefix(&m.sources, source));
    narrow(&mut left, |m| match m.source_ports.as_slice() {
        [] => Some(0),
        ports => ports.contains(&criteria.source.port()).then_some(1),
    });
    left.first().copied()
}

/// Keeps the candidates with the highest rank; `None` is no match.
fn narrow(left: &mut Candidates<'_>, rank: impl Fn(&ChainMatch) -> Option<usize>) {
    let best = left.iter().filter_map(|chain| rank(&chain.matches)).max();
    match best {
        Some(best) => left.retain(|chain| rank(&chain.matches) == Some(best)),
        None => left.clear(),
    }
}

/// One more than the length of the longest range that holds the address; 0 where nothing is asked.
fn longest_prefix(ranges: &[Cidr], address: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges
        .iter()
        .filter(|range| range.contains(address))
        .map(|range| usize::from(range.bits()) + 1)
        .max()
}

/// An exact name beats any wildcard, a longer wildcard beats a shorter one, and no condition comes last.
fn server_name_rank(names: &[Box<str>], server_name: Option<&str>) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let server_name = server_name?;
    names
        .iter()
        .filter_map(|name| match name.strip_prefix('*') {
            // `*.example` becomes `.example`: at least one label must come before it.
            Some(suffix) => (server_name.len() > suffix.len() && server_name.ends_with(suffix))
                .then_some(suffix.len()),
            None => (**name == *server_name).then_some(usize::MAX),
        })
        .max()
}

/// The client's order decides: the first of its protocols that any chain names wins.
fn application_rank(wanted: &[Box<str>], offered: &[&[u8]]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    offered
        .iter()
        .position(|offer| wanted.iter().any(|name| name.as_bytes() == *offer))
        .map(|position| offered.len() - position)
}
