//! Names to addresses.
//!
//! Asks the system's servers (`/etc/resolv.conf`) with hickory: the C library's resolver is not part of a static binary. Both files of
//! the system are read anew for each lookup, so that a change needs no restart; nothing is cached here, because whoever asks
//! has a rate of its own.

mod sockets;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder};

use sockets::Sockets;

/// The longest a lookup may take: with a search list, each name on it may meet a server that does not answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Which addresses are wanted (`envoy.config.cluster.v3.Cluster.DnsLookupFamily`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv6, or IPv4 where there is none.
    #[default]
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4, or IPv6 where there is none.
    V4Preferred,
    /// Both.
    All,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses, sorted and each once; at least one.
    pub addresses: Vec<IpAddr>,
    /// How long they may be kept; `None` where they come from the hosts file.
    pub ttl: Option<Duration>,
}

/// Why a name stands for nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DnsError {
    /// It can be no name.
    #[error("`{0}` is not a DNS name: {1}")]
    NotAName(String, String),
    /// The servers know of no address.
    #[error("the DNS servers know no address of `{0}`")]
    NoAddress(String),
    /// No server gave an answer.
    #[error("`{0}` cannot be resolved: {1}; /etc/resolv.conf names the servers")]
    Failed(String, String),
}

/// Asks DNS servers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    sockets: Sockets,
    /// The servers to ask; `None` for the system's.
    servers: Option<Vec<SocketAddr>>,
}

impl Resolver {
    /// Asks the system's servers, from sockets with this mark: the redirect spares them by it.
    pub fn system(mark: Option<u32>) -> Self {
        Self { sockets: Sockets::new(mark), servers: None }
    }

    /// Asks these servers; the system's files are not looked at.
    pub fn with_servers(servers: Vec<SocketAddr>) -> Self {
        Self { sockets: Sockets::default(), servers: Some(servers) }
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// When there are none, or nobody said so within ten seconds.
    pub async fn lookup(&self, name: &str, family: Family) -> Result<Resolved, DnsError> {
        if let Ok(address) = name.parse() {
            return Ok(Resolved { addresses: vec![address], ttl: None });
        }
        let question =
            Name::from_str_relaxed(name).map_err(|error| DnsError::NotAName(name.to_owned(), error.to_string()))?;
        if let Some(addresses) = self.in_hosts_file(&question, family) {
            return Ok(Resolved { addresses, ttl: None });
        }
        let failed = |error: String| DnsError::Failed(name.to_owned(), error);
        let mut builder = self.builder().map_err(|error| failed(error.to_string()))?;
        let options = builder.options_mut();
        options.ip_strategy = family.strategy();
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let resolver = builder.build().map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(LIMIT, resolver.lookup_ip(question)).await;
        let records = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_no_records_found() => return Err(DnsError::NoAddress(name.to_owned())),
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(format!("no answer within {LIMIT:?}"))),
        };
        let records = records.as_lookup().answers().iter();
        let addresses = records.filter_map(|record| Some((record.data.ip_addr()?, record.ttl)));
        let (addresses, ttls): (Vec<_>, Vec<_>) = addresses.unzip();
        let Some(ttl) = ttls.into_iter().min() else { return Err(DnsError::NoAddress(name.to_owned())) };
        Ok(Resolved { addresses: tidy(addresses), ttl: Some(Duration::from_secs(ttl.into())) })
    }

    fn builder(&self) -> Result<ResolverBuilder<Sockets>, NetError> {
        let with_servers = |servers: &[SocketAddr]| {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            hickory_resolver::Resolver::builder_with_config(config, self.sockets.clone())
        };
        match &self.servers {
            Some(servers) => Ok(with_servers(servers)),
            None => match hickory_resolver::Resolver::builder(self.sockets.clone()) {
                // As the C library does where the file is missing: resolv.conf(5).
                Err(NetError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(with_servers(&[SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)]))
                }
                builder => builder,
            },
        }
    }

    /// What the hosts file says, which goes before every server: a name that is in it for one family is not asked for the other.
    fn in_hosts_file(&self, name: &Name, family: Family) -> Option<Vec<IpAddr>> {
        if self.servers.is_some() {
            return None;
        }
        let addresses = addresses_in(&Hosts::from_system().ok()?, name, family);
        Some(addresses).filter(|addresses| !addresses.is_empty())
    }
}

fn addresses_in(hosts: &Hosts, name: &Name, family: Family) -> Vec<IpAddr> {
    let of_type = |record_type| {
        let found = hosts.lookup_static_host(&Query::query(name.clone(), record_type));
        let records = found.iter().flat_map(|lookup| lookup.answers()).filter_map(|record| record.data.ip_addr());
        records.collect::<Vec<_>>()
    };
    tidy(family.choose(of_type(RecordType::A), of_type(RecordType::AAAA)))
}

impl Family {
    fn strategy(self) -> LookupIpStrategy {
        match self {
            Self::Auto => LookupIpStrategy::Ipv6thenIpv4,
            Self::V4Only => LookupIpStrategy::Ipv4Only,
            Self::V6Only => LookupIpStrategy::Ipv6Only,
            Self::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
            Self::All => LookupIpStrategy::Ipv4AndIpv6,
        }
    }

    fn choose(self, v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
        match self {
            Self::V4Only => v4,
            Self::V6Only => v6,
            Self::Auto if v6.is_empty() => v4,
            Self::Auto => v6,
            Self::V4Preferred if v4.is_empty() => v6,
            Self::V4Preferred => v4,
            Self::All => [v4, v6].concat(),
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn tidy(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
