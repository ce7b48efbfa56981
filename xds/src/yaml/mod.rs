//! Envoy's file format: YAML or JSON in the proto3 JSON mapping, to and from messages.
//!
//! Durations are `"1.5s"`, names may be `snake_case` or `lowerCamelCase`, an `Any` holds `"@type"`. A field that does
//! not exist is an error that names its path.

mod locate;
mod unreadable;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::field::FieldError;

/// Written by `cargo run -p weft-xds --example prune_descriptors`.
static DESCRIPTORS: &[u8] = include_bytes!("../../descriptors/envoy.bin");

/// Reads a file in Envoy's format, YAML or JSON (which is YAML), as a message: a
/// [`Bootstrap`](crate::envoy::config::bootstrap::v3::Bootstrap), say.
///
/// ```
/// use weft_xds::envoy::config::bootstrap::v3::Bootstrap;
/// let bootstrap: Bootstrap = weft_xds::yaml::from_str("node: {id: shop/web-0}")?;
/// assert_eq!(bootstrap.node.unwrap().id, "shop/web-0");
/// let error = weft_xds::yaml::from_str::<Bootstrap>("node: {idd: x}").unwrap_err();
/// assert!(error.to_string().starts_with("node.idd: "), "{error}");
/// # Ok::<(), weft_xds::FieldError>(())
/// ```
///
/// # Errors
/// With line and column when the text is no YAML, else with the path of the first field that does not fit.
pub fn from_str<M: Message + Name + Default>(text: &str) -> Result<M, FieldError> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| FieldError::new("", format!("is not valid YAML or JSON: {error}")))?;
    from_json(value)
}

/// Reads a message from its proto3 JSON form.
///
/// # Errors
/// With the path of the first field that does not fit.
pub fn from_json<M: Message + Name + Default>(value: Value) -> Result<M, FieldError> {
    let descriptor = descriptor(&pool()?, &M::full_name())?;
    let dynamic = read(descriptor.clone(), &value).map_err(|error| locate::locate(&descriptor, &value, &error))?;
    M::decode(dynamic.encode_to_vec().as_slice())
        .map_err(|error| FieldError::new("", format!("does not decode: {error}")))
}

/// Writes a message in its proto3 JSON form with proto field names, as Envoy's `/config_dump` does.
///
/// Inline private keys and passwords are `[redacted]`. An `Any` of a type that Weft does not know is replaced by a
/// `google.protobuf.Struct` that names the type.
///
/// # Errors
/// If the message is of a type that Weft does not know.
pub fn to_json<M: Message + Name>(message: &M) -> Result<Value, FieldError> {
    to_json_all([message]).map(|mut values| values.swap_remove(0))
}

/// [`to_json`] for many messages: the descriptors (megabytes, milliseconds) are loaded once.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_all<'a, M: Message + Name + 'a>(
    messages: impl IntoIterator<Item = &'a M>,
) -> Result<Vec<Value>, FieldError> {
    let descriptor = descriptor(&pool()?, &M::full_name())?;
    messages.into_iter().map(|message| write(&descriptor, &message.encode_to_vec())).collect()
}

/// Writes an encoded message, given its type URL, in its proto3 JSON form, without `"@type"`.
///
/// # Errors
/// As [`to_json`].
pub fn bytes_to_json(type_url: &str, bytes: &[u8]) -> Result<Value, FieldError> {
    write(&descriptor(&pool()?, crate::any::type_name(type_url))?, bytes)
}

fn write(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<Value, FieldError> {
    let dynamic = DynamicMessage::decode(descriptor.clone(), bytes)
        .map_err(|error| FieldError::new("", format!("does not decode: {error}")))?;
    let options =
        SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true).stringify_64_bit_integers(true);
    let to_value = |message: &DynamicMessage| message.serialize_with_options(serde_json::value::Serializer, &options);
    let written = to_value(&dynamic).or_else(|_| to_value(&unreadable::without(&dynamic)));
    let mut value = written.map_err(|error| FieldError::new("", format!("has no JSON form: {error}")))?;
    redact(&mut value);
    Ok(value)
}

/// Fields that Envoy marks as sensitive.
const SECRETS: &[&str] = &["private_key", "password", "pkcs12"];

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if SECRETS.contains(&name.as_str()) {
                    for inline in ["inline_bytes", "inline_string"] {
                        if let Some(secret) = value.get_mut(inline) {
                            *secret = "[redacted]".into();
                        }
                    }
                }
                redact(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn read(descriptor: MessageDescriptor, value: &Value) -> Result<DynamicMessage, serde_json::Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor, value, &options)
}

fn descriptor(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor, FieldError> {
    pool.get_message_by_name(name).ok_or_else(|| FieldError::new("", format!("`{name}` is no message that Weft knows")))
}

/// Built for each conversion and dropped after it: it takes megabytes, and a proxy converts only at start and for a dump.
pub(crate) fn pool() -> Result<DescriptorPool, FieldError> {
    DescriptorPool::decode(DESCRIPTORS)
        .map_err(|error| FieldError::new("", format!("the embedded descriptors do not load: {error}")))
}

#[cfg(test)]
mod tests;
