//! What many messages hold: wrappers, durations, addresses, typed extensions.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use weft_xds::FieldError;
use weft_xds::envoy::config::core::v3::address::Address as AddressKind;
use weft_xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_xds::envoy::config::core::v3::socket_address::PortSpecifier;
use weft_xds::envoy::config::core::v3::{Address, CidrRange, ConfigSource};
use weft_xds::google::protobuf;

use crate::snapshot::Cidr;

/// Envoy's idle time-outs where unset.
pub(super) const ONE_HOUR: Duration = Duration::from_secs(60 * 60);

/// Refuses a field that is set although it is not implemented.
pub(crate) fn unsupported(set: bool, path: &str, field: &str) -> Result<(), FieldError> {
    if !set {
        return Ok(());
    }
    Err(FieldError::new(join(path, field), "is not supported; leave it unset"))
}

/// `path.field`, or `field` at the root.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A duration, never negative.
pub(crate) fn duration(value: &protobuf::Duration, path: &str, field: &str) -> Result<Duration, FieldError> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(FieldError::invalid(
            join(path, field),
            format!("{}s {}ns", value.seconds, value.nanos),
            "is not a duration",
            "give 0s or more",
        )),
    }
}

/// A time limit: unset is `default`, and zero is none.
pub(crate) fn limit(
    value: Option<&protobuf::Duration>,
    default: Option<Duration>,
    path: &str,
    field: &str,
) -> Result<Option<Duration>, FieldError> {
    match value {
        None => Ok(default),
        Some(value) => Ok(Some(duration(value, path, field)?).filter(|limit| !limit.is_zero())),
    }
}

/// Bounds of an HTTP/2 window: its first size and its largest (RFC 9113 §6.9).
pub(crate) const WINDOW_RANGE: RangeInclusive<u32> = 65_535..=0x7fff_ffff;

/// A number in a range, or the default where unset.
pub(crate) fn number(
    value: Option<&protobuf::UInt32Value>,
    default: u32,
    range: RangeInclusive<u32>,
    path: &str,
    field: &str,
) -> Result<u32, FieldError> {
    value.map_or(Ok(default), |value| within(value.value, range, path, field))
}

/// A number, if it is in a range.
pub(crate) fn within(value: u32, range: RangeInclusive<u32>, path: &str, field: &str) -> Result<u32, FieldError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let bounds = format!("give {} to {}", range.start(), range.end());
    Err(FieldError::invalid(join(path, field), value, "is out of range", bounds))
}

/// A boolean, or the default where unset.
pub(crate) fn flag(value: Option<&protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// A text, or nothing where it is empty.
pub(crate) fn text(value: &str) -> Option<std::sync::Arc<str>> {
    (!value.is_empty()).then(|| value.into())
}

/// A TCP socket's address.
pub(crate) fn socket_address(address: Option<&Address>, path: &str) -> Result<SocketAddr, FieldError> {
    let Some(address) = address.and_then(|address| address.address.as_ref()) else {
        return Err(FieldError::missing(path, "give a socket_address"));
    };
    let AddressKind::SocketAddress(socket) = address else {
        return Err(FieldError::new(path, "only socket_address is supported"));
    };
    let path = join(path, "socket_address");
    if socket.protocol != 0 {
        return Err(FieldError::new(join(&path, "protocol"), "only TCP is supported"));
    }
    unsupported(!socket.resolver_name.is_empty(), &path, "resolver_name")?;
    unsupported(!socket.network_namespace_filepath.is_empty(), &path, "network_namespace_filepath")?;
    let port = match &socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| FieldError::invalid(join(&path, "port_value"), port, "is not a port", "give 0 to 65535"))?,
        Some(PortSpecifier::NamedPort(_)) => {
            return Err(FieldError::new(join(&path, "named_port"), "is not supported; give port_value"));
        }
        None => return Err(FieldError::missing(join(&path, "port_value"), "give 0 to 65535")),
    };
    let ip = socket.address.parse().map_err(|_| {
        FieldError::invalid(
            join(&path, "address"),
            &socket.address,
            "is not an IP address",
            "give one such as 127.0.0.1 or ::1",
        )
    })?;
    Ok(SocketAddr::new(ip, port))
}

/// Address ranges.
pub(crate) fn ranges(ranges: &[CidrRange], path: &str, field: &str) -> Result<Vec<Cidr>, FieldError> {
    let compiled = ranges.iter().enumerate().map(|(i, range)| {
        let path = format!("{}[{i}]", join(path, field));
        let address = range.address_prefix.parse().map_err(|_| {
            FieldError::invalid(
                join(&path, "address_prefix"),
                &range.address_prefix,
                "is not an IP address",
                "give one such as 10.0.0.0",
            )
        })?;
        let bits = range.prefix_len.as_ref().map_or(0, |bits| bits.value);
        u8::try_from(bits).ok().and_then(|bits| Cidr::new(address, bits)).ok_or_else(|| {
            FieldError::invalid(
                join(&path, "prefix_len"),
                bits,
                "is longer than the address",
                "give at most 32 for IPv4 and 128 for IPv6",
            )
        })
    });
    compiled.collect()
}

/// Further resources come from the control plane. That it is the one of the bootstrap is for [`crate::ads::Source`] to say.
pub(crate) fn from_control_plane(source: Option<&ConfigSource>, path: &str) -> Result<(), FieldError> {
    match source.and_then(|source| source.config_source_specifier.as_ref()) {
        Some(
            ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_) | ConfigSourceSpecifier::ApiConfigSource(_),
        ) => Ok(()),
        Some(_) => Err(FieldError::new(path, "only a control plane is supported; write `ads: {}`")),
        None => Err(FieldError::missing(path, "write `ads: {}`")),
    }
}
