//! Reading and writing `google.protobuf.Struct`, the JSON-like value that metadata is made of.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

/// Builds a struct from its entries.
///
/// ```
/// use weft_xds::metadata;
/// let entry = metadata::object([("weft", "mtls".into()), ("weight", 2.0.into())]);
/// assert_eq!(metadata::str(&entry, "weft"), Some("mtls"));
/// ```
pub fn object<K: Into<String>>(entries: impl IntoIterator<Item = (K, Field)>) -> Struct {
    Struct { fields: entries.into_iter().map(|(key, field)| (key.into(), field.0)).collect() }
}

/// A value on its way into a struct; made with `into()` from strings, numbers, booleans, lists and structs.
#[derive(Debug, Clone, PartialEq)]
pub struct Field(Value);

impl From<Kind> for Field {
    fn from(kind: Kind) -> Self {
        Self(Value { kind: Some(kind) })
    }
}
impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Kind::StringValue(text.to_owned()).into()
    }
}
impl From<String> for Field {
    fn from(text: String) -> Self {
        Kind::StringValue(text).into()
    }
}
impl From<f64> for Field {
    fn from(number: f64) -> Self {
        Kind::NumberValue(number).into()
    }
}
impl From<bool> for Field {
    fn from(truth: bool) -> Self {
        Kind::BoolValue(truth).into()
    }
}
impl From<Struct> for Field {
    fn from(object: Struct) -> Self {
        Kind::StructValue(object).into()
    }
}
impl<T: Into<Field>> From<Vec<T>> for Field {
    fn from(list: Vec<T>) -> Self {
        Kind::ListValue(ListValue { values: list.into_iter().map(|item| item.into().0).collect() }).into()
    }
}

/// Sets one entry.
pub fn insert(object: &mut Struct, key: impl Into<String>, field: impl Into<Field>) {
    object.fields.insert(key.into(), field.into().0);
}

/// The entry's string, if it is one.
#[must_use]
pub fn str<'a>(object: &'a Struct, key: &str) -> Option<&'a str> {
    match kind(object, key)? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// The entry's number, if it is one.
#[must_use]
pub fn number(object: &Struct, key: &str) -> Option<f64> {
    match kind(object, key)? {
        Kind::NumberValue(number) => Some(*number),
        _ => None,
    }
}

/// The entry's boolean, if it is one.
#[must_use]
pub fn bool(object: &Struct, key: &str) -> Option<bool> {
    match kind(object, key)? {
        Kind::BoolValue(truth) => Some(*truth),
        _ => None,
    }
}

/// The entry's struct, if it is one.
#[must_use]
pub fn nested<'a>(object: &'a Struct, key: &str) -> Option<&'a Struct> {
    match kind(object, key)? {
        Kind::StructValue(object) => Some(object),
        _ => None,
    }
}

/// The entry's list of strings; `None` if it is no list or holds anything else.
#[must_use]
pub fn strings<'a>(object: &'a Struct, key: &str) -> Option<Vec<&'a str>> {
    match kind(object, key)? {
        Kind::ListValue(list) => list
            .values
            .iter()
            .map(|value| match &value.kind {
                Some(Kind::StringValue(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// `metadata.filter_metadata[namespace]`.
#[must_use]
pub fn of<'a>(metadata: Option<&'a Metadata>, namespace: &str) -> Option<&'a Struct> {
    metadata?.filter_metadata.get(namespace)
}

/// Metadata with one namespace.
pub fn single(namespace: impl Into<String>, object: Struct) -> Metadata {
    Metadata { filter_metadata: [(namespace.into(), object)].into(), ..Default::default() }
}

fn kind<'a>(object: &'a Struct, key: &str) -> Option<&'a Kind> {
    object.fields.get(key)?.kind.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_comes_back_as_written() {
        let mut object = object([
            ("text", Field::from("a")),
            ("number", 2.5.into()),
            ("truth", true.into()),
            ("list", vec!["a", "b"].into()),
        ]);
        insert(&mut object, "inner", super::object([("x", "y".into())]));
        assert_eq!(str(&object, "text"), Some("a"));
        assert_eq!(number(&object, "number"), Some(2.5));
        assert_eq!(bool(&object, "truth"), Some(true));
        assert_eq!(strings(&object, "list"), Some(vec!["a", "b"]));
        assert_eq!(str(nested(&object, "inner").unwrap(), "x"), Some("y"));
        assert_eq!(str(&object, "number"), None, "a number is no string");
        let metadata = single("weft.mesh", object);
        assert!(of(Some(&metadata), "weft.mesh").is_some());
        assert!(of(Some(&metadata), "other").is_none());
    }
}
