//! A message with one enforced field left out, for every such field that is set: what a test of "enforced" is made from.

use std::ops::Range;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::walk::{Record, entry};
use super::{Field, Kind, SUPPORT, Shape, Support, fields, find};
use crate::any::type_name;
use crate::field::FieldPath;

/// An encoded message without one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Without {
    /// Full name of the message that the field is of.
    pub message: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// Where in the whole message it was.
    pub path: String,
    /// The whole message, without it.
    pub bytes: Vec<u8>,
}

/// The encoded message without each of its enforced fields in turn, at every depth; of a repeated field all elements are left out.
///
/// What implements the table is tested with it: if a message without a field compiles to the same as with it, the field is not
/// enforced. Nothing is returned for what does not decode.
pub fn without_each(type_url: &str, bytes: &[u8]) -> Vec<Without> {
    find(type_name(type_url)).and_then(|message| variants(message, bytes, &FieldPath::root(""))).unwrap_or_default()
}

fn variants(message: u16, bytes: &[u8], path: &FieldPath<'_>) -> Option<Vec<Without>> {
    let index = usize::from(message);
    let fields = &fields::MESSAGES[index];
    let records = records(bytes)?;
    let mut variants = Vec::new();
    for (field, support) in fields.fields.iter().zip(&SUPPORT[index]) {
        let is_field = |record: &Record<'_>| record.number == field.number;
        if *support != Support::Enforced || !records.iter().any(|(_, record)| is_field(record)) {
            continue;
        }
        let here = path.field(field.name);
        let others = records.iter().filter(|(_, record)| !is_field(record));
        variants.push(Without {
            message: fields.name,
            field: field.name,
            path: here.to_string(),
            bytes: others.flat_map(|(span, _)| &bytes[span.clone()]).copied().collect(),
        });
        for (i, (span, record)) in records.iter().filter(|(_, record)| is_field(record)).enumerate() {
            let Some(payload) = record.payload else { continue };
            let indexed = here.index(i);
            let here = if field.shape == Shape::Many { &indexed } else { &here };
            for mut inner in below(field, payload, here).unwrap_or_default() {
                let mut whole = bytes[..span.start].to_vec();
                append(&mut whole, field.number, &inner.bytes);
                whole.extend_from_slice(&bytes[span.end..]);
                inner.bytes = whole;
                variants.push(inner);
            }
        }
    }
    Some(variants)
}

fn below(field: &Field, payload: &[u8], path: &FieldPath<'_>) -> Option<Vec<Without>> {
    if field.shape != Shape::Map {
        return value(field, payload, path);
    }
    let (key, inner) = entry(payload)?;
    let variants = value(field, inner, &path.key(key))?;
    Some(variants.into_iter().map(|variant| Without { bytes: pair(key, &variant.bytes), ..variant }).collect())
}

fn value(field: &Field, payload: &[u8], path: &FieldPath<'_>) -> Option<Vec<Without>> {
    match field.kind {
        Kind::Leaf | Kind::Flag => None,
        Kind::Message(message) => variants(message, payload, path),
        Kind::Any => {
            let (type_url, inner) = entry(payload)?;
            let variants = variants(find(type_name(type_url))?, inner, path)?;
            let packed = |variant: Without| Without { bytes: pair(type_url, &variant.bytes), ..variant };
            Some(variants.into_iter().map(packed).collect())
        }
    }
}

fn records(bytes: &[u8]) -> Option<Vec<(Range<usize>, Record<'_>)>> {
    let mut rest = bytes;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let start = bytes.len() - rest.len();
        let record = Record::read(&mut rest)?;
        records.push((start..bytes.len() - rest.len(), record));
    }
    Some(records)
}

/// A map's entry, or an `Any`: both have a string as field 1 and a message as field 2.
fn pair(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, 1, key.as_bytes());
    append(&mut bytes, 2, value);
    bytes
}

fn append(bytes: &mut Vec<u8>, number: u32, payload: &[u8]) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(payload.len() as u64, bytes);
    bytes.extend_from_slice(payload);
}
