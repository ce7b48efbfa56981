//! Messages of one type, wherever they are inside another.

use super::walk::{Record, entry};
use super::{Kind, SUPPORT, Shape, Support, fields, find};
use crate::any::type_name;
use crate::field::FieldPath;

/// A message that was found inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within<'a> {
    /// Where it is.
    pub path: String,
    /// The message, encoded.
    pub bytes: &'a [u8],
}

/// Every message of the type with the full name `wanted` inside an encoded message, at every depth, but not inside each other. Only
/// enforced fields are looked into; of what does not decode, nothing is returned.
pub fn each_within<'a>(type_url: &str, bytes: &'a [u8], wanted: &str) -> Vec<Within<'a>> {
    let mut found = Vec::new();
    if let (Some(message), Some(wanted)) = (find(type_name(type_url)), find(wanted)) {
        look(message, bytes, &FieldPath::root(""), wanted, &mut found);
    }
    found
}

fn look<'a>(message: u16, mut bytes: &'a [u8], path: &FieldPath<'_>, wanted: u16, found: &mut Vec<Within<'a>>) {
    if message == wanted {
        return found.push(Within { path: path.to_string(), bytes });
    }
    let index = usize::from(message);
    let fields = fields::MESSAGES[index].fields;
    // How often each repeated field was seen, by its place.
    let mut seen = vec![0_usize; fields.len()];
    while let (false, Some(record)) = (bytes.is_empty(), Record::read(&mut bytes)) {
        let Ok(at) = fields.binary_search_by_key(&record.number, |field| field.number) else { continue };
        let (field, Some(payload)) = (&fields[at], record.payload) else { continue };
        if SUPPORT[index][at] != Support::Enforced {
            continue;
        }
        let here = path.field(field.name);
        let mut below = |payload: &'a [u8], path: &FieldPath<'_>| match field.kind {
            Kind::Message(message) => look(message, payload, path, wanted, found),
            Kind::Any => {
                let Some((type_url, value)) = entry(payload) else { return };
                if let Some(message) = find(type_name(type_url)) {
                    look(message, value, path, wanted, found);
                }
            }
            Kind::Leaf | Kind::Flag => {}
        };
        match field.shape {
            Shape::One => below(payload, &here),
            Shape::Many => {
                below(payload, &here.index(seen[at]));
                seen[at] += 1;
            }
            Shape::Map => {
                if let Some((key, value)) = entry(payload) {
                    below(value, &here.key(key));
                }
            }
        }
    }
}
