//! Conversions that every compiled message needs.

use std::time::Duration;

use weft_xds::FieldError;
use weft_xds::google::protobuf;

/// A protobuf duration as ours, if it is set.
pub(super) fn optional_duration(
    value: Option<&protobuf::Duration>,
    path: &str,
) -> Result<Option<Duration>, FieldError> {
    let Some(value) = value else { return Ok(None) };
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Some(Duration::new(seconds, nanos))),
        _ => {
            let text = format!("{}s {}ns", value.seconds, value.nanos);
            Err(FieldError::invalid(path, text, "is no duration", "give 0 s or more, with 0 to 999999999 ns"))
        }
    }
}

/// Refuses a field that is set although it is not implemented.
pub(super) fn unsupported(set: bool, path: &str, field: &str) -> Result<(), FieldError> {
    if set { Err(FieldError::new(format!("{path}.{field}"), "not supported; leave it unset")) } else { Ok(()) }
}
