//! The pieces rules are made of, as nf_tables wants them (include/uapi/linux/netfilter/nf_tables.h).
//!
//! A rule is a list of expressions that load values into registers and compare them; the first comparison that fails ends the rule.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};

use super::Cidr;

/// Continues if the packet's property `key` is (not) `value`.
pub(super) fn meta(key: MetaKey, operator: Operator, value: &[u8]) -> [Expressions; 2] {
    [Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)]), compare(operator, value)]
}

/// Continues if the TCP destination port is `port`.
pub(super) fn destination_port(port: u16) -> [Expressions; 2] {
    [load(TRANSPORT_HEADER, 2, 2), compare(Operator::Equal, &port.to_be_bytes())]
}

/// Continues if the TCP packet is not one that begins a connection: a SYN without FIN, RST or ACK.
pub(super) fn not_a_first_packet() -> [Expressions; 3] {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    const FLAGS_OFFSET: u32 = 13;
    let flags = load(TRANSPORT_HEADER, FLAGS_OFFSET, 1);
    [flags, mask(vec![FIN | SYN | RST | ACK]), compare(Operator::NotEqual, &[SYN])]
}

/// Continues if the packet is of the network's family and its destination is inside.
pub(super) fn destination_network(cidr: &Cidr) -> Vec<Expressions> {
    // The destination's offset in the IPv4 and IPv6 header.
    let (family, offset) = match cidr.address() {
        IpAddr::V4(_) => (nix::libc::NFPROTO_IPV4, 16),
        IpAddr::V6(_) => (nix::libc::NFPROTO_IPV6, 24),
    };
    let address = cidr.octets();
    let length = address.len() as u32;
    let mut expressions = Vec::from(meta(MetaKey::Nfproto, Operator::Equal, &[family as u8]));
    expressions.push(load(NETWORK_HEADER, offset, length));
    expressions.push(mask(cidr.mask()));
    expressions.push(compare(Operator::Equal, &address));
    expressions
}

/// Continues if the destination is (not) an address of this network namespace, by its routing table.
pub(super) fn destination_is_local(operator: Operator) -> [Expressions; 2] {
    const FIB_DREG: u16 = 1;
    const FIB_RESULT: u16 = 2;
    const FIB_FLAGS: u16 = 3;
    const RESULT_ADDRESS_TYPE: u32 = 3;
    const FLAG_DADDR: u32 = 2;
    // The kernel's own number, in its own byte order.
    const RTN_LOCAL: u32 = 2;
    let fib =
        other("fib", [(FIB_DREG, Register::Reg1.into()), (FIB_RESULT, RESULT_ADDRESS_TYPE), (FIB_FLAGS, FLAG_DADDR)]);
    [fib, compare(operator, &RTN_LOCAL.to_ne_bytes())]
}

/// Counts what came this far. nat chains see a connection's first packet only, so these are connections.
pub(super) fn counter() -> Expressions {
    Expressions::Other {
        expression_type: COUNTER.into(),
        attributes: vec![DefaultNla::new(COUNTER_BYTES, vec![0; 8]), DefaultNla::new(COUNTER_PACKETS, vec![0; 8])],
    }
}

/// What a counter read back from the kernel has counted; none for another expression.
pub(super) fn counted(expression: &Expressions) -> Option<u64> {
    use netlink_packet_core::Nla;
    let Expressions::Other { expression_type, attributes } = expression else {
        return None;
    };
    let packets = attributes.iter().find(|attribute| attribute.kind() & !NLA_F_NESTED == COUNTER_PACKETS)?;
    let mut bytes = [0; 8];
    if expression_type != COUNTER || packets.value_len() != bytes.len() {
        return None;
    }
    packets.emit_value(&mut bytes);
    Some(u64::from_be_bytes(bytes))
}

/// Ends the chain: the connection goes where it wanted.
pub(super) fn leave() -> [Expressions; 1] {
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Return)]);
    [Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(verdict)])]
}

/// Sends the connection to `port` of this network namespace: on loopback from the output chain, on the address of the interface it came
/// in by from prerouting.
pub(super) fn redirect(port: u16) -> [Expressions; 2] {
    const REDIR_PORT_MIN: u16 = 1;
    let port = DataAttribute::Value(port.to_be_bytes().into());
    [
        Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Reg1), Immediate::Data(port)]),
        other("redir", [(REDIR_PORT_MIN, Register::Reg1.into())]),
    ]
}

const COUNTER: &str = "counter";
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn load(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// Clears the bits of the register that `mask` does not have.
fn mask(mask: Vec<u8>) -> Expressions {
    let length = mask.len();
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(length as u32),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(vec![0; length])),
    ])
}

fn compare(operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.into())),
    ])
}

/// An expression the crate has no type for, whose attributes are numbers.
fn other<const N: usize>(name: &str, attributes: [(u16, u32); N]) -> Expressions {
    Expressions::Other {
        expression_type: name.into(),
        attributes: attributes.map(|(kind, value)| DefaultNla::new(kind, value.to_be_bytes().into())).into(),
    }
}
