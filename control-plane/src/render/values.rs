//! Shorthand for Envoy's messages and the values in them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use prost::{Message, Name};
pub(super) use weft_xds::envoy::config::{
    cluster::v3 as cluster, core::v3 as core, endpoint::v3 as endpoint, listener::v3 as listener, rbac::v3 as rbac,
    route::v3 as route,
};
pub(super) use weft_xds::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub(super) use weft_xds::envoy::extensions::transport_sockets::tls::v3 as sockets;
pub(super) use weft_xds::envoy::r#type::matcher::v3 as matcher;
pub(super) use weft_xds::envoy::r#type::v3 as kind;
use weft_xds::google::protobuf;
use weft_xds::google::protobuf::Any;

pub(super) fn duration(duration: Duration) -> Option<protobuf::Duration> {
    Some(protobuf::Duration {
        // Durations come from GEP-2257 texts: far below i64 seconds.
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    })
}

/// No limit is 0 s in Envoy's words.
pub(super) fn limit(limit: Option<Duration>) -> Option<protobuf::Duration> {
    duration(limit.unwrap_or(Duration::ZERO))
}

pub(super) fn number(value: impl Into<u32>) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value: value.into() })
}

pub(super) fn truth(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

pub(super) fn percent(value: f64) -> Option<kind::Percent> {
    Some(kind::Percent { value })
}

pub(super) fn any<M: Message + Name>(message: &M) -> Option<Any> {
    Some(weft_xds::pack(message))
}

/// From the same server, over the stream that this came by.
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

pub(super) fn address(at: SocketAddr) -> Option<core::Address> {
    Some(core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            protocol: core::socket_address::Protocol::Tcp.into(),
            address: at.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(at.port().into())),
            ..Default::default()
        })),
    })
}

pub(super) fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port)
}

/// The whole text matches.
pub(super) fn regex(text: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: text.to_owned(), ..Default::default() }
}

pub(super) fn string(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}
