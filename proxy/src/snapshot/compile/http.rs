//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use weft_rules::{Action, Fault, Rbac, RouteTable};
use weft_xds::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use weft_xds::envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions};
use weft_xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use weft_xds::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use weft_xds::envoy::extensions::filters::http::router::v3::Router;
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, UpgradeConfig,
};
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter as FilterMessage,
};
use weft_xds::google::protobuf;
use weft_xds::{FieldError, any, unpack};

use super::Needs;
use super::fields::{ONE_HOUR, WINDOW_RANGE, flag, join, limit, number, text, unsupported};
use super::listener::rds_name;
use crate::snapshot::chain::UnderscoreAction;
use crate::snapshot::{Codec, Http2Options, HttpChain, HttpFilter, RouteSource, Upgrades};
use crate::stream::keep_alive::PING_TIMEOUT;

/// Envoy's `max_request_headers_kb` where unset, and the most it allows.
const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MOST_REQUEST_HEADERS_KB: u32 = 8192;
/// Envoy's `max_headers_count` where unset.
const MAX_HEADERS_COUNT: u32 = 100;
/// Envoy's `stream_idle_timeout` where unset.
const STREAM_IDLE: Duration = Duration::from_secs(5 * 60);
/// Envoy's `delayed_close_timeout` where unset.
const DELAYED_CLOSE: Duration = Duration::from_secs(1);
/// HTTP/2 windows where unset. A connection's is Envoy's, since 1.35; a stream's is not its 16 MiB: that much would be held for each upload whose
/// reader has stalled.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Envoy's `max_concurrent_streams` where unset, since 1.35.
const MAX_STREAMS: u32 = 1024;
/// The only names under which routes find a filter to override.
const RBAC_NAME: &str = "envoy.filters.http.rbac";
const FAULT_NAME: &str = "envoy.filters.http.fault";

/// Compiles the message; adds the routes and clusters it names to `needs`.
pub(super) fn compile(message: &HttpConnectionManager, path: &str, needs: &mut Needs) -> Result<HttpChain, FieldError> {
    refuse_unsupported(message, path)?;
    let codec = match CodecType::try_from(message.codec_type) {
        Ok(CodecType::Auto) => Codec::Auto,
        Ok(CodecType::Http1) => Codec::Http1,
        Ok(CodecType::Http2) => Codec::Http2,
        _ => {
            return Err(FieldError::invalid(
                join(path, "codec_type"),
                message.codec_type,
                "is not supported",
                "give AUTO, HTTP1 or HTTP2",
            ));
        }
    };
    let routes = match &message.route_specifier {
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = RouteTable::compile(config, &join(path, "route_config"))?;
            needs.clusters.extend(clusters_of(&table));
            RouteSource::Inline(Arc::new(table))
        }
        Some(RouteSpecifier::Rds(rds)) => {
            let name = rds_name(rds, &join(path, "rds"))?;
            needs.routes.push(name.clone());
            RouteSource::Rds(name)
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            return Err(FieldError::new(join(path, "scoped_routes"), "is not supported; give route_config or rds"));
        }
        None => return Err(FieldError::missing(join(path, "route_config"), "give route_config or rds")),
    };
    let common = message.common_http_protocol_options.unwrap_or_default();
    let common_path = join(path, "common_http_protocol_options");
    let http1 = message.http_protocol_options.clone().unwrap_or_default();
    let (http1_path, http2_path) = (join(path, "http_protocol_options"), join(path, "http2_protocol_options"));
    refuse_unsupported_http1(&http1, &http1_path)?;
    let h2 = http2_options(&message.http2_protocol_options.clone().unwrap_or_default(), &http2_path)?;
    Ok(HttpChain {
        codec,
        routes,
        filters: filters(&message.http_filters, &join(path, "http_filters"))?,
        stat_prefix: message.stat_prefix.as_str().into(),
        max_request_head: 1024
            * number(
                message.max_request_headers_kb.as_ref(),
                MAX_REQUEST_HEADERS_KB,
                1..=MOST_REQUEST_HEADERS_KB,
                path,
                "max_request_headers_kb",
            )? as usize,
        max_headers_count: number(
            common.max_headers_count.as_ref(),
            MAX_HEADERS_COUNT,
            1..=u32::MAX,
            &common_path,
            "max_headers_count",
        )? as usize,
        accept_http_10: http1.accept_http_10,
        default_host_for_http_10: text(&http1.default_host_for_http_10),
        enable_trailers: http1.enable_trailers,
        h2,
        upgrades: upgrades(&message.upgrade_configs, &join(path, "upgrade_configs"))?,
        proxy_100_continue: message.proxy_100_continue,
        idle_timeout: limit(common.idle_timeout.as_ref(), Some(ONE_HOUR), &common_path, "idle_timeout")?,
        request_headers_timeout: limit(
            message.request_headers_timeout.as_ref(),
            None,
            path,
            "request_headers_timeout",
        )?,
        stream_idle_timeout: limit(
            message.stream_idle_timeout.as_ref(),
            Some(STREAM_IDLE),
            path,
            "stream_idle_timeout",
        )?,
        delayed_close_timeout: limit(
            message.delayed_close_timeout.as_ref(),
            Some(DELAYED_CLOSE),
            path,
            "delayed_close_timeout",
        )?,
        underscores: underscores(&common, &common_path)?,
    })
}

/// The clusters a route table may send to.
pub(crate) fn clusters_of(table: &RouteTable) -> impl Iterator<Item = Arc<str>> {
    table
        .routes()
        .flat_map(|route| match &route.action {
            Action::Forward(forward) => forward.clusters(),
            Action::Redirect(_) | Action::Direct { .. } => &[],
        })
        .map(|choice| choice.name.clone())
}

/// Whether a time limit is on: zero is none.
fn is_set(limit: Option<&protobuf::Duration>) -> bool {
    limit.is_some_and(|limit| limit.seconds != 0 || limit.nanos != 0)
}

fn refuse_unsupported(message: &HttpConnectionManager, path: &str) -> Result<(), FieldError> {
    for (set, field) in [
        (flag(message.add_user_agent.as_ref(), false), "add_user_agent"),
        (message.http3_protocol_options.is_some(), "http3_protocol_options"),
        (message.scheme_header_transformation.is_some(), "scheme_header_transformation"),
        (!message.original_ip_detection_extensions.is_empty(), "original_ip_detection_extensions"),
        (!message.early_header_mutation_extensions.is_empty(), "early_header_mutation_extensions"),
        (message.always_set_request_id_in_response, "always_set_request_id_in_response"),
        (message.forward_client_cert_details != 0, "forward_client_cert_details"),
        (message.forward_client_cert_matcher.is_some(), "forward_client_cert_matcher"),
        (
            message.represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        ),
        // 0 is Envoy's default and 1 is KEEP_UNCHANGED: both leave the path as it is.
        (message.path_with_escaped_slashes_action > 1, "path_with_escaped_slashes_action"),
        (message.request_id_extension.is_some(), "request_id_extension"),
        (message.local_reply_config.is_some(), "local_reply_config"),
        (message.strip_matching_host_port, "strip_matching_host_port"),
        (message.path_normalization_options.is_some(), "path_normalization_options"),
        (message.strip_trailing_host_dot, "strip_trailing_host_dot"),
        (message.proxy_status_config.is_some(), "proxy_status_config"),
        (message.typed_header_validation_config.is_some(), "typed_header_validation_config"),
        (message.append_x_forwarded_port, "append_x_forwarded_port"),
        (message.append_local_overload, "append_local_overload"),
        (message.forward_proto_config.is_some(), "forward_proto_config"),
        (message.strip_port_mode.is_some(), "strip_any_host_port"),
        (message.drain_timeout_jitter.is_some(), "drain_timeout_jitter"),
        (flag(message.use_remote_address.as_ref(), false), "use_remote_address"),
        (message.xff_num_trusted_hops != 0, "xff_num_trusted_hops"),
        (!message.via.is_empty(), "via"),
        (flag(message.normalize_path.as_ref(), false), "normalize_path"),
        (message.merge_slashes, "merge_slashes"),
        (is_set(message.request_timeout.as_ref()), "request_timeout"),
        (message.stream_flush_timeout.is_some(), "stream_flush_timeout"),
        (message.http1_safe_max_connection_duration, "http1_safe_max_connection_duration"),
    ] {
        unsupported(set, path, field)?;
    }
    let common = message.common_http_protocol_options.unwrap_or_default();
    let common_path = join(path, "common_http_protocol_options");
    for (set, field) in [
        (common.max_response_headers_kb.is_some(), "max_response_headers_kb"),
        (common.max_connection_duration_jitter.is_some(), "max_connection_duration_jitter"),
        (is_set(common.max_connection_duration.as_ref()), "max_connection_duration"),
        (common.max_requests_per_connection.is_some_and(|max| max.value != 0), "max_requests_per_connection"),
        (is_set(common.max_stream_duration.as_ref()), "max_stream_duration"),
    ] {
        unsupported(set, &common_path, field)?;
    }
    Ok(())
}

fn refuse_unsupported_http1(http1: &Http1ProtocolOptions, path: &str) -> Result<(), FieldError> {
    // Names always keep the case they came with, which is what `header_key_format` is there for; any method token is accepted.
    for (set, field) in [
        (http1.allow_chunked_length, "allow_chunked_length"),
        (!flag(http1.allow_absolute_url.as_ref(), true), "allow_absolute_url"),
        (http1.send_fully_qualified_url, "send_fully_qualified_url"),
        (
            http1.override_stream_error_on_invalid_http_message.is_some(),
            "override_stream_error_on_invalid_http_message",
        ),
        (!http1.ignore_http_11_upgrade.is_empty(), "ignore_http_11_upgrade"),
    ] {
        unsupported(set, path, field)?;
    }
    Ok(())
}

fn http2_options(message: &Http2ProtocolOptions, path: &str) -> Result<Http2Options, FieldError> {
    for (set, field) in [
        (message.allow_metadata, "allow_metadata"),
        (!message.custom_settings_parameters.is_empty(), "custom_settings_parameters"),
        (message.max_header_field_size_kb.is_some(), "max_header_field_size_kb"),
    ] {
        unsupported(set, path, field)?;
    }
    let keepalive = message.connection_keepalive.unwrap_or_default();
    let keepalive_path = join(path, "connection_keepalive");
    Ok(Http2Options {
        initial_stream_window: number(
            message.initial_stream_window_size.as_ref(),
            STREAM_WINDOW,
            WINDOW_RANGE,
            path,
            "initial_stream_window_size",
        )?,
        initial_connection_window: number(
            message.initial_connection_window_size.as_ref(),
            CONNECTION_WINDOW,
            WINDOW_RANGE,
            path,
            "initial_connection_window_size",
        )?,
        max_concurrent_streams: number(
            message.max_concurrent_streams.as_ref(),
            MAX_STREAMS,
            1..=0x7fff_ffff,
            path,
            "max_concurrent_streams",
        )?,
        allow_connect: message.allow_connect,
        hpack_table_size: message.hpack_table_size.as_ref().map(|size| size.value),
        keepalive_interval: limit(keepalive.interval.as_ref(), None, &keepalive_path, "interval")?,
        keepalive_timeout: limit(keepalive.timeout.as_ref(), None, &keepalive_path, "timeout")?.unwrap_or(PING_TIMEOUT),
    })
}

fn underscores(common: &HttpProtocolOptions, path: &str) -> Result<UnderscoreAction, FieldError> {
    match HeadersWithUnderscoresAction::try_from(common.headers_with_underscores_action) {
        Ok(HeadersWithUnderscoresAction::Allow) => Ok(UnderscoreAction::Allow),
        Ok(HeadersWithUnderscoresAction::RejectRequest) => Ok(UnderscoreAction::RejectRequest),
        Ok(HeadersWithUnderscoresAction::DropHeader) => Ok(UnderscoreAction::DropHeader),
        Err(_) => Err(FieldError::new(join(path, "headers_with_underscores_action"), "is not a known value")),
    }
}

fn upgrades(configs: &[UpgradeConfig], path: &str) -> Result<Upgrades, FieldError> {
    let mut enabled = Vec::new();
    for (i, config) in configs.iter().enumerate() {
        let path = format!("{path}[{i}]");
        unsupported(!config.filters.is_empty(), &path, "filters")?;
        if config.upgrade_type.is_empty() {
            return Err(FieldError::missing(join(&path, "upgrade_type"), "name the protocol, such as websocket"));
        }
        if flag(config.enabled.as_ref(), true) {
            enabled.push(config.upgrade_type.as_str().into());
        }
    }
    Ok(Upgrades::new(enabled))
}

fn filters(messages: &[FilterMessage], path: &str) -> Result<Vec<HttpFilter>, FieldError> {
    let mut filters = Vec::new();
    let mut ended = false;
    for (i, message) in messages.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if ended {
            return Err(FieldError::new(path, "comes after the router, which ends the chain; move it before"));
        }
        unsupported(message.disabled, &path, "disabled")?;
        let config = match &message.config_type {
            Some(ConfigType::TypedConfig(config)) => config,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(FieldError::new(join(&path, "config_discovery"), "is not supported; give typed_config"));
            }
            None => return Err(FieldError::missing(join(&path, "typed_config"), "give the filter's configuration")),
        };
        let config_path = join(&path, "typed_config");
        if any::is::<Router>(config) {
            ended = true;
        } else if any::is::<HttpRbac>(config) {
            named(message, RBAC_NAME, &path)?;
            filters.push(HttpFilter::Rbac(Arc::new(Rbac::compile(&unpack(config, &config_path)?, &config_path)?)));
        } else if any::is::<HttpFault>(config) {
            named(message, FAULT_NAME, &path)?;
            filters.push(HttpFilter::Fault(Arc::new(Fault::compile(&unpack(config, &config_path)?, &config_path)?)));
        } else if !message.is_optional {
            let known = "rbac, fault and router are supported; mark it is_optional to skip it";
            return Err(FieldError::invalid(
                path,
                any::type_name(&config.type_url),
                "is not a known HTTP filter",
                known,
            ));
        }
    }
    if !ended {
        return Err(FieldError::missing(path, "end it with envoy.filters.http.router"));
    }
    Ok(filters)
}

/// Routes override a filter by its name. One with another name than Envoy's own would be missed, and access rules with it.
fn named(message: &FilterMessage, name: &str, path: &str) -> Result<(), FieldError> {
    if message.name == name {
        return Ok(());
    }
    Err(FieldError::invalid(join(path, "name"), &message.name, "is not the filter's name", format!("write {name}")))
}
