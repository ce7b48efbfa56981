//! Holds an encoded message against the table.

use std::collections::BTreeSet;

use prost::bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::{Kind, SUPPORT, Shape, Support, fields, find};
use crate::any::type_name;
use crate::field::{FieldError, FieldPath};

/// As deep as prost decodes.
const DEEPEST: u8 = 100;

/// Checks an encoded message: returns the paths of fields that are set and ignored, indices left out
/// (`endpoints[].lb_endpoints[].endpoint.hostname`), each once.
///
/// An `Any` of a type that is not in the table is reported as ignored: whether it may be skipped depends on where it is,
/// which is for what compiles the message to say.
///
/// # Errors
/// The path of the first field that is refused or unknown, or of what does not decode. A refused wrapper of `false` is
/// let through: the field is off.
pub fn check(type_url: &str, bytes: &[u8]) -> Result<Vec<String>, FieldError> {
    let name = type_name(type_url);
    let message = find(name).ok_or_else(|| {
        FieldError::new("", format!("`{name}` is no message that Weft implements; see docs/reference/xds.md"))
    })?;
    let mut ignored = BTreeSet::new();
    walk(message, bytes, &FieldPath::root(""), DEEPEST, &mut ignored)?;
    Ok(ignored.into_iter().collect())
}

fn walk(
    message: u16,
    mut bytes: &[u8],
    path: &FieldPath<'_>,
    depth: u8,
    ignored: &mut BTreeSet<String>,
) -> Result<(), FieldError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(FieldError::new(path, "is nested too deeply; flatten it"));
    };
    let index = usize::from(message);
    let fields = &fields::MESSAGES[index];
    let support = &SUPPORT[index];
    // How often each repeated field was seen, by its place.
    let mut seen = vec![0_usize; fields.fields.len()];
    while !bytes.is_empty() {
        let record = Record::read(&mut bytes).ok_or_else(|| malformed(path, fields.name))?;
        let Ok(at) = fields.fields.binary_search_by_key(&record.number, |field| field.number) else {
            let problem = format!(
                "has a field of number {}, which {} did not have when Weft was built; remove it, or update Weft",
                record.number, fields.name
            );
            return Err(FieldError::new(path, problem));
        };
        let field = &fields.fields[at];
        let here = path.field(field.name);
        match support[at] {
            Support::Refused if field.kind == Kind::Flag && is_false(record.payload) => continue,
            Support::Refused => {
                return Err(FieldError::new(here, "is not supported; remove it"));
            }
            Support::Ignored => {
                ignored.insert(without_indices(&here));
                continue;
            }
            Support::Enforced => {}
        }
        if matches!(field.kind, Kind::Leaf | Kind::Flag) {
            continue;
        }
        let payload = record.payload.ok_or_else(|| malformed(&here, fields.name))?;
        let mut below = |payload: &[u8], path: &FieldPath<'_>| match field.kind {
            Kind::Any => any(payload, path, depth, ignored),
            Kind::Message(message) => walk(message, payload, path, depth, ignored),
            Kind::Leaf | Kind::Flag => Ok(()),
        };
        match field.shape {
            Shape::One => below(payload, &here)?,
            Shape::Many => {
                below(payload, &here.index(seen[at]))?;
                seen[at] += 1;
            }
            Shape::Map => {
                let (key, value) = entry(payload).ok_or_else(|| malformed(&here, fields.name))?;
                below(value, &here.key(key))?;
            }
        }
    }
    Ok(())
}

fn any(bytes: &[u8], path: &FieldPath<'_>, depth: u8, ignored: &mut BTreeSet<String>) -> Result<(), FieldError> {
    // Any has the same shape as a map's entry: 1 is the type URL, 2 the value.
    let (type_url, value) = entry(bytes).ok_or_else(|| malformed(path, "google.protobuf.Any"))?;
    match find(type_name(type_url)) {
        Some(message) => walk(message, value, path, depth, ignored),
        None => {
            ignored.insert(without_indices(path));
            Ok(())
        }
    }
}

/// Fields 1, a string, and 2, a message, of a map's entry; what is missing is empty.
pub(super) fn entry(mut bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (mut key, mut value): (&str, &[u8]) = ("", &[]);
    while !bytes.is_empty() {
        let record = Record::read(&mut bytes)?;
        match record.number {
            1 => key = std::str::from_utf8(record.payload?).ok()?,
            2 => value = record.payload?,
            _ => {}
        }
    }
    Some((key, value))
}

/// Whether a `BoolValue` is false.
fn is_false(payload: Option<&[u8]>) -> bool {
    matches!(payload, Some([] | [8, 0]))
}

/// One field as it is on the wire.
pub(super) struct Record<'a> {
    pub(super) number: u32,
    /// Of length-delimited fields.
    pub(super) payload: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Takes a record off the front; `None` if it is malformed.
    pub(super) fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (number, wire_type) = decode_key(bytes).ok()?;
        let skip = match wire_type {
            WireType::Varint => {
                decode_varint(bytes).ok()?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => usize::try_from(decode_varint(bytes).ok()?).ok()?,
            // Groups are of proto2.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let payload = bytes.get(..skip)?;
        bytes.advance(skip);
        Some(Self { number, payload: (wire_type == WireType::LengthDelimited).then_some(payload) })
    }
}

fn malformed(path: &FieldPath<'_>, message: &str) -> FieldError {
    FieldError::new(path, format!("does not decode as {message}"))
}

/// The path with `[]` for each index: the same for all elements.
fn without_indices(path: &FieldPath<'_>) -> String {
    let path = path.to_string();
    let mut pattern = String::with_capacity(path.len());
    let mut rest = path.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        pattern.push_str(before);
        pattern.push('[');
        rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    }
    pattern + rest
}
