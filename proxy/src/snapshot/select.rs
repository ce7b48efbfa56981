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
        self.application_protocols.iter().any(|name| matches!(&**name, "http/1.0" | "http/1.1" | "h2c"))
    }
}

/// Chains that stay in the race for a connection.
type Candidates<'a> = SmallVec<[&'a Arc<FilterChain>; 8]>;

/// The chains to consider for a port: those that name it, or, if there are none, those that name no port.
///
/// There is no way back, here and in every later step: once a chain names the port, chains without one are out (Envoy's rule).
pub(super) fn for_port(chains: &[Arc<FilterChain>], port: u16) -> impl Iterator<Item = &Arc<FilterChain>> {
    let named = chains.iter().any(|chain| chain.matches.destination_port == Some(port));
    chains.iter().filter(move |chain| chain.matches.destination_port == named.then_some(port))
}

/// Envoy's order: each criterion in turn keeps only the chains that fit it most specifically.
pub(super) fn choose<'a>(chains: &'a [Arc<FilterChain>], criteria: &Criteria<'_>) -> Option<&'a Arc<FilterChain>> {
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
    ranges.iter().filter(|range| range.contains(address)).map(|range| usize::from(range.bits()) + 1).max()
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
            Some(suffix) => (server_name.len() > suffix.len() && server_name.ends_with(suffix)).then_some(suffix.len()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ChainBody, TcpChain, TcpTarget};

    fn chain(name: &str, matches: ChainMatch) -> Arc<FilterChain> {
        let target = TcpTarget { cluster: name.into(), weight: 1 };
        let body = TcpChain {
            targets: vec![target],
            total_weight: 1,
            idle_timeout: None,
            max_connect_attempts: 1,
            stat_prefix: "".into(),
        };
        Arc::new(FilterChain {
            name: name.into(),
            matches,
            tls: None,
            handshake_timeout: None,
            network_rbac: Vec::new(),
            body: ChainBody::Tcp(Arc::new(body)),
        })
    }

    fn texts(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn cidrs(ranges: &[&str]) -> Vec<Cidr> {
        ranges.iter().map(|range| range.parse().unwrap()).collect()
    }

    fn tls<'a>(server_name: &'a str, alpn: &'a [&'a [u8]]) -> Criteria<'a> {
        Criteria {
            destination: "198.18.0.1:443".parse().unwrap(),
            transport: Transport::Tls,
            application: alpn,
            server_name: Some(server_name),
            source: "198.18.0.9:40000".parse().unwrap(),
        }
    }

    fn raw() -> Criteria<'static> {
        Criteria { transport: Transport::Raw, server_name: None, ..tls("", &[]) }
    }

    fn chosen(chains: &[Arc<FilterChain>], criteria: &Criteria<'_>) -> String {
        choose(chains, criteria).map_or_else(|| "none".to_owned(), |chain| chain.name.to_string())
    }

    #[test]
    fn the_port_comes_first_and_there_is_no_way_back() {
        let chains = [
            chain(
                "port",
                ChainMatch { destination_port: Some(443), server_names: texts(&["a.example"]), ..Default::default() },
            ),
            chain("any", ChainMatch::default()),
        ];
        assert_eq!(chosen(&chains, &tls("a.example", &[])), "port");
        assert_eq!(chosen(&chains, &tls("b.example", &[])), "none", "`any` is out because a chain names the port");
        let elsewhere = Criteria { destination: "198.18.0.1:80".parse().unwrap(), ..raw() };
        assert_eq!(chosen(&chains, &elsewhere), "any");
    }

    #[test]
    fn then_the_longest_range_of_the_destination() {
        let to = |ranges: &[&str]| ChainMatch { destinations: cidrs(ranges), ..Default::default() };
        let chains = [
            chain("wide", to(&["198.18.0.0/15"])),
            chain("near", to(&["10.0.0.0/8", "198.18.0.0/24"])),
            chain("rest", to(&[])),
        ];
        assert_eq!(chosen(&chains, &raw()), "near");
        let at = |address: &str| Criteria { destination: address.parse().unwrap(), ..raw() };
        assert_eq!(chosen(&chains, &at("198.19.0.1:1")), "wide");
        assert_eq!(chosen(&chains, &at("[::ffff:198.19.0.1]:1")), "wide");
        assert_eq!(chosen(&chains, &at("[fd00::1]:1")), "rest");
    }

    #[test]
    fn then_the_server_name_exact_before_wildcard_before_none() {
        let named = |names: &[&str]| ChainMatch { server_names: texts(names), ..Default::default() };
        let chains = [
            chain("rest", named(&[])),
            chain("all", named(&["*.example"])),
            chain("shop", named(&["*.shop.example"])),
            chain("exact", named(&["www.shop.example"])),
        ];
        for (name, expected) in [
            ("www.shop.example", "exact"),
            ("WWW.Shop.Example", "exact"),
            ("a.b.shop.example", "shop"),
            ("shop.example", "all"),
            ("example", "rest"),
            ("badexample", "rest"),
        ] {
            assert_eq!(chosen(&chains, &tls(name, &[])), expected, "{name}");
        }
        assert_eq!(chosen(&chains, &raw()), "rest");
    }

    #[test]
    fn the_server_name_decides_before_the_transport_does() {
        let chains = [
            chain("name", ChainMatch { server_names: texts(&["a.example"]), ..Default::default() }),
            chain("tls", ChainMatch { transport: Some(Transport::Tls), ..Default::default() }),
        ];
        assert_eq!(chosen(&chains, &tls("a.example", &[])), "name");
        assert_eq!(chosen(&chains, &tls("b.example", &[])), "tls");
        assert_eq!(chosen(&chains, &raw()), "none");
    }

    #[test]
    fn then_the_transport_then_the_clients_first_protocol_that_is_known() {
        let over = |transport, protocols: &[&str]| ChainMatch {
            transport,
            application_protocols: texts(protocols),
            ..Default::default()
        };
        let chains = [
            chain("mesh", over(Some(Transport::Tls), &["weft-http/1.1", "weft-h2"])),
            chain("h2", over(Some(Transport::Tls), &["h2"])),
            chain("own tls", over(Some(Transport::Tls), &[])),
            chain("plain", over(None, &[])),
        ];
        assert_eq!(chosen(&chains, &tls("x", &[b"weft-h2"])), "mesh");
        assert_eq!(chosen(&chains, &tls("x", &[b"spdy", b"h2", b"weft-h2"])), "h2", "the client's order decides");
        assert_eq!(chosen(&chains, &tls("x", &[b"http/1.1"])), "own tls");
        assert_eq!(chosen(&chains, &tls("x", &[])), "own tls");
        assert_eq!(chosen(&chains, &raw()), "plain");
    }

    #[test]
    fn plaintext_that_was_recognised_is_an_application_protocol() {
        let http = ChainMatch { application_protocols: texts(&["http/1.1", "h2c"]), ..Default::default() };
        let chains = [chain("http", http), chain("opaque", ChainMatch::default())];
        assert_eq!(chosen(&chains, &Criteria { application: &[b"h2c"], ..raw() }), "http");
        assert_eq!(chosen(&chains, &raw()), "opaque");
    }

    #[test]
    fn then_the_peer_by_kind_range_and_port() {
        let from = |source_type, sources: &[&str], source_ports: &[u16]| ChainMatch {
            source_type,
            sources: cidrs(sources),
            source_ports: source_ports.to_vec(),
            ..Default::default()
        };
        let chains = [
            chain("local", from(SourceType::SameIpOrLoopback, &[], &[])),
            chain("port", from(SourceType::External, &["198.18.0.0/24"], &[7])),
            chain("near", from(SourceType::External, &["198.18.0.0/24"], &[])),
            chain("far", from(SourceType::External, &[], &[])),
            chain("any", from(SourceType::Any, &[], &[])),
        ];
        let by = |source: &str| Criteria { source: source.parse().unwrap(), ..raw() };
        for (source, expected) in [
            ("127.0.0.1:1", "local"),
            ("198.18.0.1:9", "local"),
            ("198.18.0.9:7", "port"),
            ("198.18.0.9:8", "near"),
            ("198.18.1.9:7", "far"),
        ] {
            assert_eq!(chosen(&chains, &by(source)), expected, "{source}");
        }
    }

    #[test]
    fn a_direct_source_range_decides_before_the_kind_of_source() {
        let chains = [
            chain("direct", ChainMatch { direct_sources: cidrs(&["198.18.0.9/32"]), ..Default::default() }),
            chain("external", ChainMatch { source_type: SourceType::External, ..Default::default() }),
        ];
        assert_eq!(chosen(&chains, &raw()), "direct");
    }
}
