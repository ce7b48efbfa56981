//! `envoy.config.listener.v3.Listener`.

use std::sync::Arc;
use std::time::Duration;

use weft_rules::Rbac;
use weft_xds::envoy::config::core::v3::TrafficDirection;
use weft_xds::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use weft_xds::envoy::config::core::v3::{Metadata, TransportSocket};
use weft_xds::envoy::config::listener::v3 as proto;
use weft_xds::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use weft_xds::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use weft_xds::envoy::config::listener::v3::listener_filter::ConfigType as ListenerFilterConfig;
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_xds::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use weft_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use weft_xds::google::protobuf::Any;
use weft_xds::names::{self, key};
use weft_xds::{FieldError, any, metadata, type_url, unpack};

use super::fields::{flag, from_control_plane, join, limit, number, ranges, socket_address, unsupported};
use super::{Needs, http, tcp};
use crate::snapshot::{
    ChainBody, ChainMatch, Direction, FilterChain, Inspection, Listener, MeshScope, SourceType, Transport,
    UnknownDestination,
};
use crate::tls::DownstreamTls;

/// Envoy's `listener_filters_timeout` where unset.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// A listener and what it needs.
#[derive(Debug)]
pub struct CompiledListener {
    /// The listener.
    pub listener: Listener,
    /// What must be there before it is of use.
    pub needs: Needs,
}

/// Compiles a listener.
///
/// # Errors
/// The first field that is wrong or not supported, by its path in the message.
pub fn compile_listener(message: &proto::Listener) -> Result<CompiledListener, FieldError> {
    unsupported(message.fcds_config.is_some(), "", "fcds_config")?;
    unsupported(message.filter_chain_matcher.is_some(), "", "filter_chain_matcher")?;
    unsupported(message.udp_listener_config.is_some(), "", "udp_listener_config")?;
    unsupported(message.api_listener.is_some(), "", "api_listener")?;
    unsupported(message.listener_specifier.is_some(), "", "internal_listener")?;
    unsupported(flag(message.transparent.as_ref(), false), "", "transparent")?;
    unsupported(flag(message.freebind.as_ref(), false), "", "freebind")?;
    unsupported(!message.socket_options.is_empty(), "", "socket_options")?;
    unsupported(message.tcp_fast_open_queue_length.is_some(), "", "tcp_fast_open_queue_length")?;
    unsupported(message.enable_mptcp, "", "enable_mptcp")?;
    #[allow(deprecated)] // Older files still say it so.
    let deprecated = message.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port.as_ref());
    let binds = flag(message.bind_to_port.as_ref().or(deprecated), true);
    let mut also_bind = Vec::new();
    let bind = if binds {
        for (i, more) in message.additional_addresses.iter().enumerate() {
            let path = format!("additional_addresses[{i}]");
            unsupported(more.socket_options.is_some(), &path, "socket_options")?;
            also_bind.push(socket_address(more.address.as_ref(), &join(&path, "address"))?);
        }
        Some(socket_address(message.address.as_ref(), "address")?)
    } else {
        None
    };
    let inspection = inspection(message, binds)?;
    // A socket of one's own is connected to directly; only a sidecar's ports get redirected connections.
    unsupported(binds && inspection.original_destination, "", "use_original_dst")?;
    if message.filter_chains.is_empty() && message.default_filter_chain.is_none() {
        return Err(FieldError::missing("filter_chains", "give at least one, or a default_filter_chain"));
    }
    let mut needs = Needs::default();
    let mut chains: Vec<Arc<FilterChain>> = Vec::with_capacity(message.filter_chains.len());
    for (i, chain) in message.filter_chains.iter().enumerate() {
        let path = format!("filter_chains[{i}]");
        let chain = filter_chain(chain, &path, &mut needs)?;
        if let Some(twin) = chains.iter().find(|other| same_conditions(&other.matches, &chain.matches)) {
            let problem = format!("has the same conditions as `{}`, so it could never be chosen", twin.name);
            return Err(FieldError::new(join(&path, "filter_chain_match"), problem));
        }
        chains.push(Arc::new(chain));
    }
    let default_chain = message
        .default_filter_chain
        .as_ref()
        .map(|chain| filter_chain(chain, "default_filter_chain", &mut needs).map(Arc::new))
        .transpose()?;
    for names in [&mut needs.routes, &mut needs.clusters] {
        names.sort_unstable();
        names.dedup();
    }
    let listener = Listener {
        name: message.name.as_str().into(),
        bind,
        also_bind,
        backlog: message.tcp_backlog_size.as_ref().map(|size| size.value),
        direction: match TrafficDirection::try_from(message.traffic_direction) {
            Ok(TrafficDirection::Inbound) => Direction::Inbound,
            Ok(TrafficDirection::Outbound) => Direction::Outbound,
            _ => Direction::Unspecified,
        },
        chains,
        default_chain,
        mesh: message.metadata.as_ref().map(mesh_scope).transpose()?.flatten(),
        inspection,
        last_used: Default::default(),
    };
    Ok(CompiledListener { listener, needs })
}

fn inspection(message: &proto::Listener, binds: bool) -> Result<Inspection, FieldError> {
    let mut inspection = Inspection {
        // A listener that is chosen by original destination lists no inspectors: detection is the sidecar's own.
        http: !binds,
        original_destination: flag(message.use_original_dst.as_ref(), false),
        timeout: limit(
            message.listener_filters_timeout.as_ref(),
            Some(INSPECTION_TIMEOUT),
            "",
            "listener_filters_timeout",
        )?,
        continue_on_timeout: message.continue_on_listener_filters_timeout,
    };
    for (i, filter) in message.listener_filters.iter().enumerate() {
        let path = format!("listener_filters[{i}]");
        unsupported(filter.filter_disabled.is_some(), &path, "filter_disabled")?;
        let kind = match &filter.config_type {
            Some(ListenerFilterConfig::TypedConfig(config)) => config.type_url.as_str(),
            Some(ListenerFilterConfig::ConfigDiscovery(_)) => {
                return Err(FieldError::new(join(&path, "config_discovery"), "is not supported; give typed_config"));
            }
            None => "",
        };
        // The name decides where there is no configuration, as in older files of Envoy.
        match (kind, filter.name.as_str()) {
            (type_url::ORIGINAL_DST, _) | ("", "envoy.filters.listener.original_dst") => {
                inspection.original_destination = true
            }
            (type_url::TLS_INSPECTOR, _) | ("", "envoy.filters.listener.tls_inspector") => {}
            (type_url::HTTP_INSPECTOR, _) | ("", "envoy.filters.listener.http_inspector") => inspection.http = true,
            _ => {
                let known = "original_dst, tls_inspector and http_inspector are supported";
                return Err(FieldError::invalid(
                    path,
                    extension(kind, &filter.name),
                    "is not a known listener filter",
                    known,
                ));
            }
        }
    }
    Ok(inspection)
}

fn filter_chain(message: &proto::FilterChain, path: &str, needs: &mut Needs) -> Result<FilterChain, FieldError> {
    #[allow(deprecated)] // Still acted upon by Envoy, so it must not be passed over.
    let use_proxy_proto = flag(message.use_proxy_proto.as_ref(), false);
    unsupported(use_proxy_proto, path, "use_proxy_proto")?;
    let matches = match &message.filter_chain_match {
        Some(message) => conditions(message, &join(path, "filter_chain_match"))?,
        None => ChainMatch::default(),
    };
    let tls = match &message.transport_socket {
        Some(socket) => transport_socket(socket, &join(path, "transport_socket"))?,
        None => None,
    };
    let filters = join(path, "filters");
    let Some(((last, terminal), before)) =
        message.filters.iter().enumerate().collect::<Vec<_>>().split_last().map(|(l, b)| (*l, b.to_vec()))
    else {
        return Err(FieldError::missing(filters, "end it with an HttpConnectionManager or a TcpProxy"));
    };
    let mut network_rbac = Vec::new();
    for (i, filter) in before {
        let path = format!("{filters}[{i}]");
        let config = typed_config(filter, &path)?;
        if !any::is::<NetworkRbac>(config) {
            let known = "before the last filter, only network RBAC is supported";
            return Err(FieldError::invalid(
                path,
                any::type_name(&config.type_url),
                "is not a known network filter",
                known,
            ));
        }
        let path = join(&path, "typed_config");
        network_rbac.push(Arc::new(Rbac::compile_network(&unpack(config, &path)?, &path)?));
    }
    let terminal_path = format!("{filters}[{last}]");
    let config = typed_config(terminal, &terminal_path)?;
    let config_path = join(&terminal_path, "typed_config");
    let body = if any::is::<HttpConnectionManager>(config) {
        ChainBody::Http(Arc::new(http::compile(&unpack(config, &config_path)?, &config_path, needs)?))
    } else if any::is::<TcpProxy>(config) {
        ChainBody::Tcp(Arc::new(tcp::compile(&unpack(config, &config_path)?, &config_path, needs)?))
    } else {
        let known = "end the chain with an HttpConnectionManager or a TcpProxy";
        return Err(FieldError::invalid(
            terminal_path,
            any::type_name(&config.type_url),
            "cannot end a filter chain",
            known,
        ));
    };
    Ok(FilterChain {
        name: if message.name.is_empty() { path.into() } else { message.name.as_str().into() },
        matches,
        tls,
        handshake_timeout: limit(
            message.transport_socket_connect_timeout.as_ref(),
            None,
            path,
            "transport_socket_connect_timeout",
        )?,
        network_rbac,
        body,
    })
}

fn typed_config<'a>(filter: &'a proto::Filter, path: &str) -> Result<&'a Any, FieldError> {
    match &filter.config_type {
        Some(FilterConfig::TypedConfig(config)) => Ok(config),
        Some(FilterConfig::ConfigDiscovery(_)) => {
            Err(FieldError::new(join(path, "config_discovery"), "is not supported; give typed_config"))
        }
        None => Err(FieldError::missing(join(path, "typed_config"), "give the filter's configuration")),
    }
}

fn transport_socket(socket: &TransportSocket, path: &str) -> Result<Option<Arc<DownstreamTls>>, FieldError> {
    let Some(SocketConfig::TypedConfig(config)) = &socket.config_type else {
        return Err(FieldError::missing(
            join(path, "typed_config"),
            "give a DownstreamTlsContext, or leave transport_socket unset",
        ));
    };
    match config.type_url.as_str() {
        type_url::RAW_BUFFER => Ok(None),
        _ => {
            let path = join(path, "typed_config");
            let message: DownstreamTlsContext = unpack(config, &path)?;
            Ok(Some(Arc::new(DownstreamTls::from_proto(&message, &path)?)))
        }
    }
}

fn conditions(message: &proto::FilterChainMatch, path: &str) -> Result<ChainMatch, FieldError> {
    unsupported(!message.address_suffix.is_empty(), path, "address_suffix")?;
    unsupported(message.suffix_len.is_some(), path, "suffix_len")?;
    let destination_port = match number(message.destination_port.as_ref(), 0, 1..=65535, path, "destination_port")? {
        0 => None,
        port => u16::try_from(port).ok(),
    };
    let transport = match message.transport_protocol.as_str() {
        "" => None,
        "raw_buffer" => Some(Transport::Raw),
        "tls" => Some(Transport::Tls),
        other => {
            let path = join(path, "transport_protocol");
            return Err(FieldError::invalid(path, other, "is not a known transport", "give tls or raw_buffer"));
        }
    };
    let mut source_ports = Vec::with_capacity(message.source_ports.len());
    for (i, port) in message.source_ports.iter().enumerate() {
        source_ports.push(u16::try_from(*port).ok().filter(|port| *port != 0).ok_or_else(|| {
            FieldError::invalid(format!("{path}.source_ports[{i}]"), port, "is not a port", "give 1 to 65535")
        })?);
    }
    for (i, name) in message.server_names.iter().enumerate() {
        let wild = name.strip_prefix("*.").unwrap_or(name);
        if wild.is_empty() || wild.contains('*') {
            let path = format!("{path}.server_names[{i}]");
            return Err(FieldError::invalid(
                path,
                name,
                "is not a server name",
                "a wildcard may only be the whole first label: *.example.com",
            ));
        }
    }
    Ok(ChainMatch {
        destination_port,
        destinations: ranges(&message.prefix_ranges, path, "prefix_ranges")?,
        server_names: message.server_names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        transport,
        application_protocols: message.application_protocols.iter().map(|name| name.as_str().into()).collect(),
        direct_sources: ranges(&message.direct_source_prefix_ranges, path, "direct_source_prefix_ranges")?,
        source_type: match ConnectionSourceType::try_from(message.source_type) {
            Ok(ConnectionSourceType::Any) => SourceType::Any,
            Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
            Ok(ConnectionSourceType::External) => SourceType::External,
            Err(_) => {
                let path = join(path, "source_type");
                return Err(FieldError::invalid(
                    path,
                    message.source_type,
                    "is not a known source type",
                    "give ANY, SAME_IP_OR_LOOPBACK or EXTERNAL",
                ));
            }
        },
        sources: ranges(&message.source_prefix_ranges, path, "source_prefix_ranges")?,
        source_ports,
    })
}

/// Whether two chains accept a common connection with nothing to tell which of them fits better.
fn same_conditions(a: &ChainMatch, b: &ChainMatch) -> bool {
    fn overlap<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        (a.is_empty() && b.is_empty()) || a.iter().any(|item| b.contains(item))
    }
    a.destination_port == b.destination_port
        && overlap(&a.destinations, &b.destinations)
        && overlap(&a.server_names, &b.server_names)
        && a.transport == b.transport
        && overlap(&a.application_protocols, &b.application_protocols)
        && overlap(&a.direct_sources, &b.direct_sources)
        && a.source_type == b.source_type
        && overlap(&a.sources, &b.sources)
        && overlap(&a.source_ports, &b.source_ports)
}

fn mesh_scope(message: &Metadata) -> Result<Option<MeshScope>, FieldError> {
    let Some(mesh) = message.filter_metadata.get(names::METADATA) else { return Ok(None) };
    let path = format!("metadata.filter_metadata[{:?}]", names::METADATA);
    let ranges = metadata::strings(mesh, key::RANGES).unwrap_or_default();
    let ranges = ranges.iter().enumerate().map(|(i, range)| {
        range.parse().map_err(|error| FieldError::new(format!("{path}.{}[{i}]", key::RANGES), format!("{error}")))
    });
    let unknown_destination = match metadata::str(mesh, key::UNKNOWN_DESTINATION) {
        None | Some("passthrough") => UnknownDestination::PassThrough,
        Some("refuse") => UnknownDestination::Refuse,
        Some(other) => {
            let path = join(&path, key::UNKNOWN_DESTINATION);
            return Err(FieldError::invalid(path, other, "is not a known policy", "give passthrough or refuse"));
        }
    };
    Ok(Some(MeshScope { ranges: ranges.collect::<Result<_, _>>()?, unknown_destination }))
}

/// What to call an extension in an error.
fn extension<'a>(type_url: &'a str, name: &'a str) -> &'a str {
    if type_url.is_empty() { name } else { any::type_name(type_url) }
}

/// The name of a route configuration that comes over the stream.
pub(super) fn rds_name(
    rds: &weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::Rds,
    path: &str,
) -> Result<Arc<str>, FieldError> {
    from_control_plane(rds.config_source.as_ref(), &join(path, "config_source"))?;
    if rds.route_config_name.is_empty() {
        return Err(FieldError::missing(join(path, "route_config_name"), "name a RouteConfiguration"));
    }
    Ok(rds.route_config_name.as_str().into())
}
