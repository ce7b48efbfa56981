//! The parts of listeners that both directions share: connection managers, relays, filters.

use std::collections::HashMap;
use std::time::Duration;

use prost::{Message, Name};
use weft_xds::envoy::extensions::filters::http::fault::v3 as http_fault;
use weft_xds::envoy::extensions::filters::http::router::v3::Router;
use weft_xds::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use weft_xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use weft_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use weft_xds::envoy::extensions::filters::{common::fault::v3 as fault, listener::http_inspector::v3::HttpInspector};
use weft_xds::google::protobuf::Any;

use super::values::{any, core, duration, hcm, kind, limit, listener, number, truth};
use crate::ClientKind;
use crate::model::policy::{AbortStatus, Fault};

/// Far above what browsers and proxies send; Envoy's default of 60 KiB is a known cause of refused cookies.
const MAX_REQUEST_HEAD_KIB: u32 = 64;
const MAX_HEADERS: u32 = 1000;
/// Enough for 1 Gbit/s at 2 ms; a stalled reader holds no more than this.
const STREAM_WINDOW: u32 = 256 * 1024;
/// 96 stream windows: a proxy puts no more streams on a connection than its window holds.
const CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;
/// How long the first bytes are awaited where the client has to speak first, before they count as unknown: far longer than a ClientHello may
/// be late that was lost on its way or whose sender waits for a CPU. Where the server may speak first, a sidecar has a budget of its own.
const DETECTION: Duration = Duration::from_secs(15);

const FAULT: &str = "envoy.filters.http.fault";

/// A filter chain without conditions.
pub(super) fn chain(name: &str, filters: Vec<listener::Filter>) -> listener::FilterChain {
    listener::FilterChain { name: name.to_owned(), filters, ..Default::default() }
}

pub(super) fn connection_manager(
    client: ClientKind,
    codec: hcm::http_connection_manager::CodecType,
    label: &str,
    routes: hcm::http_connection_manager::RouteSpecifier,
    filters: Vec<hcm::HttpFilter>,
    idle_timeout: Option<Duration>,
) -> listener::Filter {
    let upgrade = |name: &str| hcm::http_connection_manager::UpgradeConfig {
        upgrade_type: name.to_owned(),
        enabled: truth(true),
        ..Default::default()
    };
    let mut http_filters = filters;
    // An Envoy would tell the application about itself.
    let router = Router { suppress_envoy_headers: client == ClientKind::Envoy, ..Router::default() };
    http_filters.push(http_filter("envoy.filters.http.router", weft_xds::pack(&router)));
    filter(
        "envoy.filters.network.http_connection_manager",
        weft_xds::pack(&hcm::HttpConnectionManager {
            codec_type: codec.into(),
            stat_prefix: label.to_owned(),
            route_specifier: Some(routes),
            http_filters,
            max_request_headers_kb: number(MAX_REQUEST_HEAD_KIB),
            common_http_protocol_options: Some(core::HttpProtocolOptions {
                idle_timeout: limit(idle_timeout),
                max_headers_count: number(MAX_HEADERS),
                headers_with_underscores_action: core::http_protocol_options::HeadersWithUnderscoresAction::Allow
                    .into(),
                ..Default::default()
            }),
            http_protocol_options: Some(core::Http1ProtocolOptions {
                accept_http_10: true,
                enable_trailers: true,
                allow_absolute_url: truth(true),
                ..Default::default()
            }),
            http2_protocol_options: Some(http2()),
            upgrade_configs: vec![upgrade("websocket"), upgrade("CONNECT")],
            // The application's own words pass, in both directions, byte for byte.
            server_header_transformation: hcm::http_connection_manager::ServerHeaderTransformation::PassThrough.into(),
            generate_request_id: truth(false),
            skip_xff_append: true,
            use_remote_address: truth(false),
            normalize_path: truth(false),
            merge_slashes: false,
            proxy_100_continue: true,
            // Streams of events and long polls are nobody's mistake; but one that says nothing for an hour holds a place in its
            // cluster's max_requests that a client owing its body would else hold for ever.
            stream_idle_timeout: duration(Duration::from_secs(3600)),
            request_timeout: duration(Duration::ZERO),
            request_headers_timeout: duration(Duration::from_secs(60)),
            delayed_close_timeout: duration(Duration::from_secs(1)),
            drain_timeout: duration(Duration::from_secs(5)),
            ..Default::default()
        }),
    )
}

pub(super) fn http2() -> core::Http2ProtocolOptions {
    core::Http2ProtocolOptions {
        max_concurrent_streams: number(1024_u32),
        initial_stream_window_size: number(STREAM_WINDOW),
        initial_connection_window_size: number(CONNECTION_WINDOW),
        allow_connect: true,
        ..Default::default()
    }
}

/// Bytes to a cluster.
pub(super) fn relay(label: &str, cluster: &str, idle_timeout: Option<Duration>) -> listener::Filter {
    filter(
        "envoy.filters.network.tcp_proxy",
        weft_xds::pack(&TcpProxy {
            stat_prefix: label.to_owned(),
            idle_timeout: limit(idle_timeout),
            max_connect_attempts: number(3_u32),
            cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
            ..Default::default()
        }),
    )
}

pub(super) fn fault_filter(said: &Fault) -> hcm::HttpFilter {
    http_filter(FAULT, weft_xds::pack(&fault_message(said)))
}

/// The filter of [`fault_by_route`]: without settings it does nothing.
pub(super) fn unset_fault_filter() -> hcm::HttpFilter {
    http_filter(FAULT, weft_xds::pack(&http_fault::HttpFault::default()))
}

/// A fault as settings of an Envoy's filter by its name, for a route table: those of a listener hold only for new connections.
pub(super) fn fault_by_route(said: Option<&Fault>) -> HashMap<String, Any> {
    said.map(|said| (FAULT.to_owned(), weft_xds::pack(&fault_message(said)))).into_iter().collect()
}

fn fault_message(said: &Fault) -> http_fault::HttpFault {
    let share = |numerator| {
        Some(kind::FractionalPercent {
            numerator,
            denominator: kind::fractional_percent::DenominatorType::Million.into(),
        })
    };
    http_fault::HttpFault {
        delay: said.delay.map(|(time, of)| fault::FaultDelay {
            percentage: share(of),
            fault_delay_secifier: duration(time).map(fault::fault_delay::FaultDelaySecifier::FixedDelay),
        }),
        abort: said.abort.map(|(status, of)| http_fault::FaultAbort {
            percentage: share(of),
            error_type: Some(match status {
                AbortStatus::Http(status) => http_fault::fault_abort::ErrorType::HttpStatus(status.into()),
                AbortStatus::Grpc(status) => http_fault::fault_abort::ErrorType::GrpcStatus(status),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub(super) fn filter(name: &str, config: Any) -> listener::Filter {
    listener::Filter { name: name.to_owned(), config_type: Some(listener::filter::ConfigType::TypedConfig(config)) }
}

/// The parts of a listener that do not depend on what it is for.
pub(super) fn base(name: String, http_inspection: bool) -> listener::Listener {
    let mut inspectors = vec![original_destination(), tls_inspector()];
    if http_inspection {
        inspectors.push(http_inspector());
    }
    listener::Listener {
        name,
        bind_to_port: truth(false),
        listener_filters: inspectors,
        listener_filters_timeout: duration(DETECTION),
        continue_on_listener_filters_timeout: true,
        ..Default::default()
    }
}

pub(super) fn original_destination() -> listener::ListenerFilter {
    inspector("envoy.filters.listener.original_dst", &OriginalDst {})
}

pub(super) fn tls_inspector() -> listener::ListenerFilter {
    inspector("envoy.filters.listener.tls_inspector", &TlsInspector::default())
}

pub(super) fn http_inspector() -> listener::ListenerFilter {
    inspector("envoy.filters.listener.http_inspector", &HttpInspector {})
}

fn inspector<M: Message + Name>(name: &str, config: &M) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: any(config).map(listener::listener_filter::ConfigType::TypedConfig),
        ..Default::default()
    }
}
