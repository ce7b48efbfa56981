//! Stands in for what has no JSON form: an `Any` of a type that is not among the descriptors.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, MapKey, ReflectMessage as _, Value};

use crate::any::{PREFIX, type_name};

/// The message with a `google.protobuf.Struct` in the place of each such `Any`, at any depth.
pub(super) fn without(message: &DynamicMessage) -> DynamicMessage {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return any(message);
    }
    let mut changed = message.clone();
    for (field, value) in message.fields() {
        changed.set_field(&field, replaced(value));
    }
    changed
}

fn replaced(value: &Value) -> Value {
    match value {
        Value::Message(message) => Value::Message(without(message)),
        Value::List(items) => Value::List(items.iter().map(replaced).collect()),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), replaced(value)));
            Value::Map(entries.collect())
        }
        other => other.clone(),
    }
}

fn any(message: &DynamicMessage) -> DynamicMessage {
    let (Some(type_url), Some(bytes)) = (
        message.get_field_by_name("type_url").and_then(|url| url.as_str().map(str::to_owned)),
        message.get_field_by_name("value").and_then(|value| value.as_bytes().cloned()),
    ) else {
        return message.clone();
    };
    let descriptor = message.descriptor();
    let known = descriptor.parent_pool().get_message_by_name(type_name(&type_url));
    let decoded = known.and_then(|known| DynamicMessage::decode(known, bytes.clone()).ok());
    let mut changed = message.clone();
    match decoded {
        Some(inner) => {
            let inner = prost::Message::encode_to_vec(&without(&inner));
            changed.set_field_by_name("value", Value::Bytes(inner.into()));
        }
        None => {
            let note = note(message, &type_url, bytes.len());
            changed.set_field_by_name("type_url", Value::String(format!("{PREFIX}google.protobuf.Struct")));
            changed.set_field_by_name("value", Value::Bytes(note.into()));
        }
    }
    changed
}

/// An encoded struct that says what is not shown.
fn note(any: &DynamicMessage, type_url: &str, length: usize) -> Vec<u8> {
    let pool = any.descriptor().parent_pool().clone();
    let text = |text: String| {
        let mut value = DynamicMessage::new(pool.get_message_by_name("google.protobuf.Value")?);
        value.set_field_by_name("string_value", Value::String(text));
        Some(Value::Message(value))
    };
    let note = || {
        let mut note = DynamicMessage::new(pool.get_message_by_name("google.protobuf.Struct")?);
        let fields = HashMap::from([
            (MapKey::String("unknown_type".into()), text(type_url.to_owned())?),
            (MapKey::String("length".into()), text(format!("{length} bytes"))?),
        ]);
        note.set_field_by_name("fields", Value::Map(fields));
        Some(prost::Message::encode_to_vec(&note))
    };
    // The descriptors hold both; an empty struct would do as well.
    note().unwrap_or_default()
}
