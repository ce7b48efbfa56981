//! A cluster's settings (`envoy.config.cluster.v3.Cluster`).

use std::sync::Arc;
use std::time::Duration;

use weft_xds::envoy::config::cluster::v3::Cluster as Message;
use weft_xds::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};
use weft_xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
};
use weft_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use weft_xds::google::protobuf::UInt32Value;
use weft_xds::names::{METADATA, key};
use weft_xds::{FieldError, any, metadata};

use super::balance::Policy;
use super::breaker::Limits;
use super::discovery::Discovery;
use super::fields::{optional_duration, unsupported};
use super::outlier::OutlierSettings;
use super::sockets::Sockets;
use crate::snapshot::compile::fields::{WINDOW_RANGE, limit, within};

/// A compiled cluster message. Durations and limits hold Envoy's defaults where the message sets none.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// The cluster's name.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// What its endpoints speak.
    pub protocol: UpstreamProtocol,
    /// How attempts are spread.
    pub policy: Policy,
    /// Share of fit endpoints, in percent, below which health is not looked at.
    pub panic_threshold: u32,
    /// Longest time to connect, handshakes included (5 s).
    pub connect_timeout: Duration,
    /// How long a connection may be without requests (1 h); `None` never closes it.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection; `None` is no limit.
    pub max_connection_duration: Option<Duration>,
    /// Most requests on a connection; `None` is no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Longest life of a stream; `None` is no limit.
    pub max_stream_duration: Option<Duration>,
    /// Whether HTTP/1.1 trailers are passed on in both directions (`enable_trailers`); otherwise they are dropped.
    pub enable_trailers: bool,
    /// HTTP/2 settings, where the protocol may be HTTP/2.
    pub h2: Http2Settings,
    /// Circuit breakers.
    pub limits: Limits,
    /// Outlier detection, if there is any.
    pub outlier: Option<OutlierSettings>,
    pub(super) sockets: Sockets,
}

/// What a cluster's endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1; also where nothing is said, which for opaque TCP does not matter.
    Http1,
    /// HTTP/2.
    Http2,
    /// What the client speaks.
    UseDownstream,
}

/// HTTP/2 settings of the upstream side; `None` leaves the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http2Settings {
    /// Bytes a stream may be sent before it is read.
    pub initial_stream_window: Option<u32>,
    /// The same for the whole connection.
    pub initial_connection_window: Option<u32>,
    /// Bytes of the table that the endpoint may compress heads with.
    pub hpack_table_size: Option<u32>,
    /// Streams at once on a connection.
    pub max_concurrent_streams: Option<u32>,
    /// Time between keep-alive PINGs; `None` sends none.
    pub keepalive_interval: Option<Duration>,
    /// How long a PING may stay unanswered.
    pub keepalive_timeout: Option<Duration>,
}

/// Envoy's defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const PANIC_THRESHOLD: u32 = 50;

impl ClusterConfig {
    /// Compiles the message; `path` is where it sits, empty for a resource of its own.
    ///
    /// # Errors
    /// The first field that is wrong or not supported.
    pub fn compile(message: &Message, path: &str) -> Result<Self, FieldError> {
        Self::compile_at(message, path).map_err(|error| match error.path.strip_prefix('.') {
            Some(rooted) if path.is_empty() => FieldError::new(rooted, error.problem),
            _ => error,
        })
    }

    fn compile_at(message: &Message, path: &str) -> Result<Self, FieldError> {
        refuse_unsupported(message, path)?;
        let field = |name: &str| format!("{path}.{name}");
        if message.name.is_empty() {
            return Err(FieldError::missing(field("name"), "name the cluster"));
        }
        let http = Http::compile(message, path)?;
        let connect_timeout =
            optional_duration(message.connect_timeout.as_ref(), &field("connect_timeout"))?.unwrap_or(CONNECT_TIMEOUT);
        if connect_timeout.is_zero() {
            return Err(FieldError::invalid(
                field("connect_timeout"),
                "0s",
                "is no time to connect in",
                "give a duration above zero",
            ));
        }
        let outlier = message.outlier_detection.as_ref();
        Ok(Self {
            name: message.name.as_str().into(),
            discovery: Discovery::compile(message, path)?,
            policy: policy(message, path)?,
            panic_threshold: panic_threshold(message, path)?,
            connect_timeout,
            protocol: http.protocol,
            idle_timeout: http.idle_timeout,
            max_connection_duration: http.max_connection_duration,
            max_requests_per_connection: http.max_requests_per_connection,
            max_stream_duration: http.max_stream_duration,
            enable_trailers: http.enable_trailers,
            h2: http.h2,
            limits: Limits::compile(message.circuit_breakers.as_ref(), &field("circuit_breakers"))?,
            outlier: outlier
                .map(|outlier| OutlierSettings::compile(outlier, &field("outlier_detection")))
                .transpose()?,
            sockets: Sockets::compile(message, path)?,
        })
    }
}

#[allow(deprecated)]
fn refuse_unsupported(m: &Message, path: &str) -> Result<(), FieldError> {
    unsupported(m.transport_socket_matcher.is_some(), path, "transport_socket_matcher")?;
    unsupported(!m.health_checks.is_empty(), path, "health_checks")?;
    unsupported(m.upstream_bind_config.is_some(), path, "upstream_bind_config")?;
    unsupported(m.lb_subset_config.is_some(), path, "lb_subset_config")?;
    unsupported(!m.filters.is_empty(), path, "filters")?;
    unsupported(m.lrs_server.is_some(), path, "lrs_server")?;
    unsupported(m.upstream_config.is_some(), path, "upstream_config")?;
    unsupported(m.preconnect_policy.is_some(), path, "preconnect_policy")?;
    unsupported(m.connection_pool_per_downstream_connection, path, "connection_pool_per_downstream_connection")?;
    unsupported(m.queuing_policies.is_some(), path, "queuing_policies")?;
    unsupported(m.dns_resolution_config.is_some(), path, "dns_resolution_config")?;
    unsupported(!m.dns_resolvers.is_empty(), path, "dns_resolvers")?;
    unsupported(m.typed_dns_resolver_config.is_some(), path, "typed_dns_resolver_config")?;
    let Some(common) = &m.common_lb_config else { return Ok(()) };
    let path = format!("{path}.common_lb_config");
    unsupported(
        common.locality_config_specifier.is_some(),
        &path,
        "zone_aware_lb_config or locality_weighted_lb_config",
    )?;
    unsupported(common.consistent_hashing_lb_config.is_some(), &path, "consistent_hashing_lb_config")?;
    unsupported(common.override_host_status.is_some(), &path, "override_host_status")
}

fn policy(message: &Message, path: &str) -> Result<Policy, FieldError> {
    let wanted = metadata::of(message.metadata.as_ref(), METADATA).and_then(|mesh| metadata::str(mesh, key::BALANCER));
    match wanted {
        Some(key::PEAK_EWMA) => return Ok(Policy::PeakEwma),
        Some(other) => {
            let at = format!("{path}.metadata.filter_metadata[{METADATA:?}].{}", key::BALANCER);
            return Err(FieldError::invalid(
                at,
                other,
                "is no balancer",
                "use peak-ewma, or leave it out and set lb_policy",
            ));
        }
        None => {}
    }
    if let Some(policies) = &message.load_balancing_policy {
        return extension_policy(policies, &format!("{path}.load_balancing_policy"));
    }
    let choices = match &message.lb_config {
        Some(LbConfig::LeastRequestLbConfig(config)) => {
            let path = format!("{path}.least_request_lb_config");
            unsupported(config.slow_start_config.is_some(), &path, "slow_start_config")?;
            unsupported(config.active_request_bias.is_some(), &path, "active_request_bias")?;
            config.choice_count.as_ref().map_or(2, |count| count.value)
        }
        Some(LbConfig::RoundRobinLbConfig(config)) => {
            unsupported(
                config.slow_start_config.is_some(),
                &format!("{path}.round_robin_lb_config"),
                "slow_start_config",
            )?;
            2
        }
        Some(LbConfig::OriginalDstLbConfig(_)) => {
            return Err(FieldError::new(format!("{path}.original_dst_lb_config"), "not supported; leave it unset"));
        }
        _ => 2,
    };
    match LbPolicy::try_from(message.lb_policy) {
        // An ORIGINAL_DST cluster has to say CLUSTER_PROVIDED and never picks.
        Ok(LbPolicy::RoundRobin | LbPolicy::ClusterProvided) => Ok(Policy::RoundRobin),
        Ok(LbPolicy::LeastRequest) => Ok(Policy::LeastRequest { choices }),
        Ok(LbPolicy::Random) => Ok(Policy::Random),
        _ => {
            let way_out = "use ROUND_ROBIN, LEAST_REQUEST or RANDOM";
            Err(FieldError::invalid(format!("{path}.lb_policy"), message.lb_policy, "is not supported", way_out))
        }
    }
}

/// The first policy of the list that is known, as Envoy chooses.
fn extension_policy(
    message: &weft_xds::envoy::config::cluster::v3::LoadBalancingPolicy,
    path: &str,
) -> Result<Policy, FieldError> {
    const PACKAGE: &str = "envoy.extensions.load_balancing_policies.";
    let types =
        message.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref()?.typed_config.as_ref());
    for config in types {
        match any::type_name(&config.type_url).strip_prefix(PACKAGE) {
            Some("round_robin.v3.RoundRobin") => return Ok(Policy::RoundRobin),
            Some("least_request.v3.LeastRequest") => return Ok(Policy::LeastRequest { choices: 2 }),
            Some("random.v3.Random") => return Ok(Policy::Random),
            _ => {}
        }
    }
    Err(FieldError::new(format!("{path}.policies"), "none is supported; use RoundRobin, LeastRequest or Random"))
}

fn panic_threshold(message: &Message, path: &str) -> Result<u32, FieldError> {
    match message.common_lb_config.as_ref().and_then(|common| common.healthy_panic_threshold.as_ref()) {
        None => Ok(PANIC_THRESHOLD),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 100
        Some(percent) if (0.0..=100.0).contains(&percent.value) => Ok(percent.value as u32),
        Some(percent) => {
            let at = format!("{path}.common_lb_config.healthy_panic_threshold");
            Err(FieldError::invalid(at, percent.value, "is not a percentage", "give 0 to 100"))
        }
    }
}

/// What the HTTP options say, wherever they are.
struct Http {
    protocol: UpstreamProtocol,
    idle_timeout: Option<Duration>,
    max_connection_duration: Option<Duration>,
    max_requests_per_connection: Option<u32>,
    max_stream_duration: Option<Duration>,
    enable_trailers: bool,
    h2: Http2Settings,
}

impl Http {
    fn compile(message: &Message, path: &str) -> Result<Self, FieldError> {
        const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        if let Some(other) = message.typed_extension_protocol_options.keys().find(|name| *name != NAME) {
            let at = format!("{path}.typed_extension_protocol_options[{other:?}]");
            return Err(FieldError::new(at, format!("not supported; use {NAME}")));
        }
        match message.typed_extension_protocol_options.get(NAME) {
            Some(options) => {
                let path = format!("{path}.typed_extension_protocol_options[{NAME:?}]");
                Self::of_options(&any::unpack(options, &path)?, &path)
            }
            None => Self::of_cluster(message, path),
        }
    }

    fn of_options(options: &HttpProtocolOptions, path: &str) -> Result<Self, FieldError> {
        unsupported(options.upstream_http_protocol_options.is_some(), path, "upstream_http_protocol_options")?;
        unsupported(!options.http_filters.is_empty(), path, "http_filters")?;
        unsupported(options.header_validation_config.is_some(), path, "header_validation_config")?;
        unsupported(options.outlier_detection.is_some(), path, "outlier_detection")?;
        unsupported(!options.request_mirror_policies.is_empty(), path, "request_mirror_policies")?;
        unsupported(!options.hash_policy.is_empty(), path, "hash_policy")?;
        unsupported(options.retry_policy.is_some(), path, "retry_policy")?;
        let (protocol, http1, h2, h2_path) = match options.upstream_protocol_options.as_ref() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config.as_ref() {
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => (UpstreamProtocol::Http1, Some(http1), None, ""),
                Some(ProtocolConfig::Http2ProtocolOptions(h2)) => {
                    (UpstreamProtocol::Http2, None, Some(h2), "explicit_http_config.http2_protocol_options")
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return Err(FieldError::new(
                        format!("{path}.explicit_http_config.http3_protocol_options"),
                        "not supported; use HTTP/1.1 or HTTP/2",
                    ));
                }
                None => {
                    return Err(FieldError::missing(
                        format!("{path}.explicit_http_config"),
                        "set http_protocol_options or http2_protocol_options",
                    ));
                }
            },
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(downstream)) => {
                unsupported(
                    downstream.http3_protocol_options.is_some(),
                    path,
                    "use_downstream_protocol_config.http3_protocol_options",
                )?;
                let (http1, h2) =
                    (downstream.http_protocol_options.as_ref(), downstream.http2_protocol_options.as_ref());
                (UpstreamProtocol::UseDownstream, http1, h2, "use_downstream_protocol_config.http2_protocol_options")
            }
            Some(UpstreamProtocolOptions::AutoConfig(_)) => {
                return Err(FieldError::new(format!("{path}.auto_config"), "not supported; use explicit_http_config"));
            }
            None => {
                return Err(FieldError::missing(path, "set explicit_http_config or use_downstream_protocol_config"));
            }
        };
        let h2 = Http2Settings::compile(h2, &format!("{path}.{h2_path}"))?;
        let common = options.common_http_protocol_options.as_ref();
        Self::of_common(protocol, http1, h2, common, None, &format!("{path}.common_http_protocol_options"))
    }

    /// The deprecated fields of the cluster itself.
    #[allow(deprecated)]
    fn of_cluster(message: &Message, path: &str) -> Result<Self, FieldError> {
        unsupported(message.upstream_http_protocol_options.is_some(), path, "upstream_http_protocol_options")?;
        let protocol = match (message.protocol_selection, &message.http2_protocol_options) {
            (1, _) => UpstreamProtocol::UseDownstream,
            (_, Some(_)) => UpstreamProtocol::Http2,
            (_, None) => UpstreamProtocol::Http1,
        };
        let h2 =
            Http2Settings::compile(message.http2_protocol_options.as_ref(), &format!("{path}.http2_protocol_options"))?;
        let max_requests = message.max_requests_per_connection.as_ref().map(|max| max.value);
        let common = message.common_http_protocol_options.as_ref();
        Self::of_common(
            protocol,
            message.http_protocol_options.as_ref(),
            h2,
            common,
            max_requests,
            &format!("{path}.common_http_protocol_options"),
        )
    }

    fn of_common(
        protocol: UpstreamProtocol,
        http1: Option<&Http1ProtocolOptions>,
        h2: Http2Settings,
        common: Option<&CommonOptions>,
        max_requests: Option<u32>,
        path: &str,
    ) -> Result<Self, FieldError> {
        let duration = |value, field: &str| optional_duration(value, &format!("{path}.{field}"));
        let nonzero = |duration: Option<Duration>| duration.filter(|duration| !duration.is_zero());
        let idle = duration(common.and_then(|common| common.idle_timeout.as_ref()), "idle_timeout")?;
        let max_connection =
            duration(common.and_then(|common| common.max_connection_duration.as_ref()), "max_connection_duration")?;
        let max_stream =
            duration(common.and_then(|common| common.max_stream_duration.as_ref()), "max_stream_duration")?;
        let requests =
            common.and_then(|common| common.max_requests_per_connection.as_ref()).map(|max| max.value).or(max_requests);
        Ok(Self {
            protocol,
            // Envoy: 0 s is no timeout.
            idle_timeout: nonzero(Some(idle.unwrap_or(IDLE_TIMEOUT))),
            max_connection_duration: nonzero(max_connection),
            max_requests_per_connection: requests.filter(|&max| max != 0),
            max_stream_duration: nonzero(max_stream),
            enable_trailers: http1.is_some_and(|http1| http1.enable_trailers),
            h2,
        })
    }
}

impl Http2Settings {
    fn compile(message: Option<&Http2ProtocolOptions>, path: &str) -> Result<Self, FieldError> {
        let Some(message) = message else { return Ok(Self::default()) };
        let keepalive = message.connection_keepalive.unwrap_or_default();
        let window = |size: &Option<UInt32Value>, field: &str| {
            size.as_ref().map(|size| within(size.value, WINDOW_RANGE, path, field)).transpose()
        };
        let initial_stream_window = window(&message.initial_stream_window_size, "initial_stream_window_size")?;
        let initial_connection_window =
            window(&message.initial_connection_window_size, "initial_connection_window_size")?;
        let path = format!("{path}.connection_keepalive");
        Ok(Self {
            initial_stream_window,
            initial_connection_window,
            hpack_table_size: message.hpack_table_size.as_ref().map(|size| size.value),
            max_concurrent_streams: message.max_concurrent_streams.as_ref().map(|max| max.value),
            keepalive_interval: limit(keepalive.interval.as_ref(), None, &path, "interval")?,
            keepalive_timeout: limit(keepalive.timeout.as_ref(), None, &path, "timeout")?,
        })
    }
}
