//! One encoding for equal messages.
//!
//! prost encodes a map in its `HashMap`'s order, which differs from run to run and from copy to copy. Where a version is
//! a hash of the encoded bytes, equal resources would look changed. So map entries are sorted, everywhere, also inside
//! `google.protobuf.Any`.

use std::collections::HashMap;
use std::sync::OnceLock;

use envoy_types::pb::google::protobuf::Any;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{Kind, MessageDescriptor};

use crate::any::type_name;

/// Sorts the map entries of an encoded message, in place: sorting changes no length.
///
/// Messages of types that Weft does not know, and bytes that do not decode, are left as they are.
pub fn canonicalize(any: &mut Any) {
    let schema = SCHEMA.get_or_init(Schema::load);
    if let Some(&message) = schema.by_name.get(type_name(&any.type_url)) {
        schema.sort(&mut any.value, message);
    }
}

/// Kilobytes, unlike the descriptors it is made from; only programs that call [`canonicalize`] make it.
static SCHEMA: OnceLock<Schema> = OnceLock::new();

const ANY: &str = "google.protobuf.Any";

/// For each message type, the fields below which there may be a map.
struct Schema {
    messages: Vec<HashMap<u32, Field>>,
    by_name: HashMap<String, usize>,
    any: Option<usize>,
}

#[derive(Clone, Copy)]
enum Field {
    Message(usize),
    /// A map whose entries are messages of this type.
    Map(usize),
}

impl Schema {
    fn load() -> Self {
        let mut schema = Self { messages: Vec::new(), by_name: HashMap::new(), any: None };
        // The descriptors are embedded and tested; without them nothing is sorted, and versions change needlessly.
        if let Ok(pool) = crate::yaml::pool() {
            for message in pool.all_messages() {
                schema.add(&message);
            }
        }
        schema.any = schema.by_name.get(ANY).copied();
        schema
    }

    fn add(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(&known) = self.by_name.get(message.full_name()) {
            return known;
        }
        let index = self.messages.len();
        self.messages.push(HashMap::new());
        self.by_name.insert(message.full_name().to_owned(), index);
        for field in message.fields() {
            if let Kind::Message(of) = field.kind() {
                let of = self.add(&of);
                let kind = if field.is_map() { Field::Map(of) } else { Field::Message(of) };
                self.messages[index].insert(field.number(), kind);
            }
        }
        index
    }

    fn sort(&self, bytes: &mut [u8], message: usize) {
        if Some(message) == self.any {
            return self.sort_any(bytes);
        }
        let fields = &self.messages[message];
        if fields.is_empty() {
            return;
        }
        let mut at = 0;
        // The run of map entries being read: field number, start, and each record's end.
        let mut run: Option<(u32, usize, Vec<usize>)> = None;
        while let Some(record) = Record::read(bytes, at) {
            let (start, end) = (at, record.end);
            at = end;
            if run.as_ref().is_some_and(|(number, ..)| *number != record.number)
                && let Some((_, start, ends)) = run.take()
            {
                sort_run(bytes, start, &ends);
            }
            let Some(value) = record.value else { continue };
            match fields.get(&record.number) {
                Some(Field::Message(of)) => self.sort(&mut bytes[value..end], *of),
                Some(Field::Map(entry)) => {
                    self.sort(&mut bytes[value..end], *entry);
                    run.get_or_insert((record.number, start, Vec::new())).2.push(end);
                }
                None => {}
            }
        }
        if let Some((_, start, ends)) = run {
            sort_run(bytes, start, &ends);
        }
    }

    fn sort_any(&self, bytes: &mut [u8]) {
        let mut of = None;
        let mut at = 0;
        while let Some(record) = Record::read(bytes, at) {
            at = record.end;
            match (record.number, record.value) {
                (1, Some(url)) => {
                    of = std::str::from_utf8(&bytes[url..at])
                        .ok()
                        .and_then(|url| self.by_name.get(type_name(url)))
                        .copied();
                }
                (2, Some(value)) => {
                    if let Some(of) = of {
                        self.sort(&mut bytes[value..at], of);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Puts adjacent records into the order of their bytes.
fn sort_run(bytes: &mut [u8], start: usize, ends: &[usize]) {
    if ends.len() < 2 {
        return;
    }
    let mut from = start;
    let mut records: Vec<Vec<u8>> =
        ends.iter().map(|&end| bytes[std::mem::replace(&mut from, end)..end].to_vec()).collect();
    records.sort();
    let mut at = start;
    for record in records {
        bytes[at..at + record.len()].copy_from_slice(&record);
        at += record.len();
    }
}

/// One field on the wire.
struct Record {
    number: u32,
    /// Where a length-delimited value starts; `None` for the other wire types.
    value: Option<usize>,
    end: usize,
}

impl Record {
    /// The record at `at`; `None` at the end, and at what is no record.
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let mut rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let (number, wire) = decode_key(&mut rest).ok()?;
        let mut value = None;
        let skip = match wire {
            WireType::Varint => {
                decode_varint(&mut rest).ok()?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                value = Some(bytes.len() - rest.len());
                length
            }
            // Groups: proto2 only.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let end = (bytes.len() - rest.len()).checked_add(skip)?;
        (end <= bytes.len()).then_some(Self { number, value, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
    use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
    use crate::{metadata, pack, unpack};

    /// A new `HashMap` each time, so each time another order.
    fn listener() -> Listener {
        let many = || metadata::object((0..20).map(|n| (format!("key-{n}"), metadata::Field::from("v"))));
        let manager = HttpConnectionManager { stat_prefix: "x".into(), ..Default::default() };
        let cluster = Cluster {
            name: "inner".into(),
            metadata: Some(metadata::single("weft.mesh", many())),
            ..Default::default()
        };
        Listener {
            name: "a".into(),
            metadata: Some(metadata::single("weft.mesh", many())),
            filter_chains: vec![FilterChain {
                filters: vec![
                    Filter { name: "b".into(), config_type: Some(ConfigType::TypedConfig(pack(&cluster))) },
                    Filter { name: "a".into(), config_type: Some(ConfigType::TypedConfig(pack(&manager))) },
                ],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn equal_messages_get_equal_bytes_even_inside_any() {
        let encode = || {
            let mut any = pack(&listener());
            canonicalize(&mut any);
            any
        };
        let first = encode();
        assert!((0..20).all(|_| encode() == first));
        assert_ne!(
            (0..20).map(|_| pack(&listener())).collect::<Vec<_>>(),
            vec![first.clone(); 20],
            "the encoder has become deterministic: this module can go"
        );
        // Equality of messages does not look into the bytes of an Any; the names are still all there, in order.
        let back: Listener = unpack(&first, "").unwrap();
        assert_eq!(back.metadata, listener().metadata);
        let names: Vec<_> = back.filter_chains[0].filters.iter().map(|f| &f.name).collect();
        assert_eq!(names, ["b", "a"], "repeated fields keep their order");
    }

    #[test]
    fn bytes_that_do_not_decode_are_left_alone() {
        let mut any = Any { value: vec![0x0a, 0xff], ..pack(&Listener::default()) };
        let before = any.clone();
        canonicalize(&mut any);
        assert_eq!(any, before);
    }
}
