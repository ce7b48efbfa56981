//! Encoding that is the same in every run.
//!
//! prost writes a map's entries in the order of its `HashMap`, which differs from run to run; a version that is the content's
//! hash would differ with it. So the entries are sorted after encoding, in the few maps that have more than one.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost::{Message, Name};
use weft_xds::google::protobuf::Any;

/// Where in a message the maps are.
pub(super) enum Shape {
    /// A message with these fields; others are copied.
    Message(&'static [(u32, Shape)]),
    /// A map whose values have this shape.
    Map(&'static Shape),
    /// Nothing to sort.
    Flat,
}

/// `google.protobuf.Struct`, one level deep: our metadata has no deeper ones.
const STRUCT: Shape = Shape::Message(&[(1, Shape::Map(&Shape::Flat))]);
/// `envoy.config.core.v3.Metadata`.
const METADATA: Shape = Shape::Message(&[(1, Shape::Map(&STRUCT))]);
/// `envoy.config.listener.v3.Listener`.
pub(super) const LISTENER: Shape = Shape::Message(&[(6, METADATA)]);
/// `envoy.config.cluster.v3.Cluster`: the criteria of its socket matches, and metadata.
pub(super) const CLUSTER: Shape = Shape::Message(&[(43, Shape::Message(&[(2, STRUCT)])), (25, METADATA)]);
/// `envoy.config.endpoint.v3.ClusterLoadAssignment`: endpoints, lb_endpoints, metadata.
pub(super) const ENDPOINTS: Shape = Shape::Message(&[(2, Shape::Message(&[(2, Shape::Message(&[(3, METADATA)]))]))]);
/// `envoy.config.route.v3.RouteConfiguration`: the filters' settings of its virtual hosts.
pub(super) const ROUTES: Shape = Shape::Message(&[(2, Shape::Message(&[(15, Shape::Map(&Shape::Flat))]))]);
/// `envoy.extensions.filters.http.rbac.v3.RBACPerRoute`.
pub(super) const RBAC_PER_ROUTE: Shape = Shape::Message(&[(2, RBAC)]);
/// The RBAC filters: rules, policies.
pub(super) const RBAC: Shape = Shape::Message(&[(1, Shape::Message(&[(2, Shape::Map(&Shape::Flat))]))]);

/// Wraps a message with its type URL, maps sorted.
pub(super) fn pack<M: Message + Name>(message: &M, shape: &Shape) -> Any {
    let bytes = message.encode_to_vec();
    // Our own encoding is well formed; were it not, the unsorted bytes would still be right.
    let value = sorted(&bytes, shape).unwrap_or(bytes);
    Any { type_url: M::type_url(), value }
}

fn sorted(bytes: &[u8], shape: &Shape) -> Option<Vec<u8>> {
    let Shape::Message(fields) = shape else { return Some(bytes.to_vec()) };
    let mut out = Vec::with_capacity(bytes.len());
    let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire) = decode_key(&mut rest).ok()?;
        let shape = fields.iter().find(|(field, _)| *field == tag).map(|(_, shape)| shape);
        let (Some(shape), WireType::LengthDelimited) = (shape, wire) else {
            skip(&mut rest, wire)?;
            out.extend_from_slice(&start[..start.len() - rest.len()]);
            continue;
        };
        let content = take(&mut rest)?;
        match shape {
            Shape::Map(value) => entries.push((tag, entry(content, value)?)),
            shape => put(&mut out, tag, &sorted(content, shape)?),
        }
    }
    // Within one map the encoded entries begin with the length of the key, then the key: any fixed order will do.
    entries.sort();
    for (tag, content) in entries {
        put(&mut out, tag, &content);
    }
    Some(out)
}

/// A map's entry is a message of key (1) and value (2).
fn entry(bytes: &[u8], value: &Shape) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire) = decode_key(&mut rest).ok()?;
        if tag == 2 && wire == WireType::LengthDelimited {
            put(&mut out, tag, &sorted(take(&mut rest)?, value)?);
        } else {
            skip(&mut rest, wire)?;
            out.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    Some(out)
}

fn take<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (content, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(content)
}

fn skip(rest: &mut &[u8], wire: WireType) -> Option<()> {
    match wire {
        WireType::Varint => decode_varint(rest).ok().map(drop),
        WireType::ThirtyTwoBit => rest.split_off(..4).map(drop),
        WireType::SixtyFourBit => rest.split_off(..8).map(drop),
        WireType::LengthDelimited => take(rest).map(drop),
        // Groups: not in proto3.
        WireType::StartGroup | WireType::EndGroup => None,
    }
}

fn put(out: &mut Vec<u8>, tag: u32, content: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use weft_xds::envoy::config::listener::v3::Listener;
    use weft_xds::metadata;

    use super::*;

    fn listener() -> Listener {
        let fields = (0..20).map(|n| (format!("key{n}"), f64::from(n).into()));
        Listener {
            name: "a".into(),
            metadata: Some(metadata::single("weft.mesh", metadata::object(fields))),
            continue_on_listener_filters_timeout: true,
            ..Default::default()
        }
    }

    #[test]
    fn equal_messages_have_equal_bytes_whatever_their_maps_order() {
        let first = pack(&listener(), &LISTENER);
        for _ in 0..50 {
            assert_eq!(pack(&listener(), &LISTENER), first);
        }
        assert_eq!(Listener::decode(first.value.as_slice()).unwrap(), listener());
    }
}
