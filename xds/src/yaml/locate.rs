//! Finds which field of a JSON value a failed conversion was about.
//!
//! The converter stops at the first problem without saying where. So each field is tried alone, depth first, until one
//! fails: that one has the path. Slow, but only on the way to an error.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::read;
use crate::field::{FieldError, FieldPath};

/// The error with the path of the field that `value` fails on; `error` is what the converter said.
pub(super) fn locate(descriptor: &MessageDescriptor, value: &Value, error: &serde_json::Error) -> FieldError {
    in_message(descriptor, value, &FieldPath::root("")).unwrap_or_else(|| FieldError::new("", error.to_string()))
}

fn in_message(descriptor: &MessageDescriptor, value: &Value, path: &FieldPath<'_>) -> Option<FieldError> {
    let error = match read(descriptor.clone(), value) {
        Ok(_) => return None,
        Err(error) => error,
    };
    if descriptor.full_name() == "google.protobuf.Any" {
        return Some(in_any(descriptor, value, path, &error));
    }
    if let (Value::Object(fields), false) = (value, is_well_known(descriptor)) {
        for (name, value) in fields {
            let Some(field) = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name))
            else {
                return Some(unknown_field(descriptor, name, path));
            };
            let path = path.field(field.name());
            if let Some(error) = in_field(descriptor, &field, name, value, &path) {
                return Some(error);
            }
        }
    }
    Some(FieldError::new(path, said(&error, value)))
}

fn in_field(
    descriptor: &MessageDescriptor,
    field: &FieldDescriptor,
    name: &str,
    value: &Value,
    path: &FieldPath<'_>,
) -> Option<FieldError> {
    let alone = Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
    let error = read(descriptor.clone(), &alone).err()?;
    let located = match (field.kind(), value) {
        (Kind::Message(entry), Value::Object(entries)) if field.is_map() => {
            let kind = entry.map_entry_value_field().kind();
            let message = kind.as_message();
            entries
                .iter()
                .find_map(|(key, value)| message.and_then(|message| in_message(message, value, &path.key(key))))
        }
        (Kind::Message(message), Value::Array(items)) if field.is_list() => {
            items.iter().enumerate().find_map(|(at, item)| in_message(&message, item, &path.index(at)))
        }
        (_, Value::Array(items)) if field.is_list() => items.iter().enumerate().find_map(|(at, item)| {
            let alone = Value::Array(vec![item.clone()]);
            let alone = Value::Object(Map::from_iter([(name.to_owned(), alone)]));
            let error = read(descriptor.clone(), &alone).err()?;
            Some(FieldError::new(path.index(at), said(&error, item)))
        }),
        (Kind::Message(message), _) => in_message(&message, value, path),
        _ => None,
    };
    Some(located.unwrap_or_else(|| FieldError::new(path, said(&error, value))))
}

/// An `Any` holds `"@type"` beside the fields of that message.
fn in_any(any: &MessageDescriptor, value: &Value, path: &FieldPath<'_>, error: &serde_json::Error) -> FieldError {
    let Some((fields, type_url)) = value.as_object().and_then(|fields| Some((fields, fields.get("@type")?.as_str()?)))
    else {
        return FieldError::missing(
            path.field("@type"),
            "name the message, such as type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        );
    };
    let Some(message) = any.parent_pool().get_message_by_name(crate::any::type_name(type_url)) else {
        return FieldError::invalid(
            path.field("@type"),
            type_url,
            "is no message that Weft implements",
            "remove it, or see docs/reference/xds.md for what is implemented",
        );
    };
    let mut fields = fields.clone();
    fields.remove("@type");
    in_message(&message, &Value::Object(fields), path).unwrap_or_else(|| FieldError::new(path, said(error, value)))
}

fn unknown_field(descriptor: &MessageDescriptor, name: &str, path: &FieldPath<'_>) -> FieldError {
    let near = descriptor
        .fields()
        .map(|field| (distance(field.name(), name), field.name().to_owned()))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let hint = match near {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => "remove it, or check its spelling and its indentation".to_owned(),
    };
    FieldError::new(path.field(name), format!("is no field of {}; {hint}", descriptor.full_name()))
}

/// What the converter said, with the value if it is short enough to help.
fn said(error: &serde_json::Error, value: &Value) -> String {
    let value = value.to_string();
    if value.len() <= 80 { format!("`{value}` does not fit: {error}") } else { error.to_string() }
}

/// Messages whose JSON form is not an object of their fields.
fn is_well_known(descriptor: &MessageDescriptor) -> bool {
    descriptor.package_name() == "google.protobuf"
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
