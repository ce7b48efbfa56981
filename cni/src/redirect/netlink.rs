//! The conversation with the kernel: one batch of nf_tables messages, or one dump.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Hook, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::expression::counted;
use super::rules::{Chain, Rule};
use super::{Error, InstalledRule};

const TABLE: &str = "weft";

/// Puts the table with `rules` in the place of the one there may be.
pub(super) fn replace_table(rules: &[Rule]) -> Result<(), Error> {
    let mut batch = drop_table();
    batch.push(step("add the table", NfTablesMessage::NewTable(table()), NLM_F_CREATE));
    for chain in Chain::ALL {
        batch.push(step(format!("add the chain {}", chain.name()), new_chain(chain), NLM_F_CREATE));
    }
    for rule in rules {
        let action = format!("add to the chain {} the rule `{}`", rule.chain.name(), rule.text);
        batch.push(step(action, new_rule(rule), NLM_F_CREATE | NLM_F_APPEND));
    }
    transact("install the redirection", batch)
}

/// Deletes the table, if there is one.
pub(super) fn delete_table() -> Result<(), Error> {
    transact("remove the redirection", drop_table())
}

/// The rules in the table, in order; empty if there is no table.
pub(super) fn list_rules() -> Result<Vec<InstalledRule>, Error> {
    let action = "read the redirection";
    let attributes = vec![RuleAttribute::Table(TABLE.into())];
    let request = message(NfTablesMessage::GetRule(RuleMessage { attributes }), NLM_F_DUMP, 0);
    let mut rules = Vec::new();
    let answers = ask(action, &request)?;
    for answer in answers {
        match answer.payload {
            NetlinkPayload::Error(error) => {
                return Err(Error::from_kernel(action.into(), error.to_io()));
            }
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)),
                ..
            }) => rules.push(installed_rule(&rule)),
            _ => {}
        }
    }
    // The kernel lists chain by chain, in an order of its own.
    rules.sort_by_key(|rule| Chain::ALL.iter().position(|chain| chain.name() == rule.chain));
    Ok(rules)
}

/// One message of a batch, and what to say if the kernel refuses it.
struct Step {
    action: String,
    message: NfTablesMessage,
    flags: u16,
}

fn step(action: impl Into<String>, message: NfTablesMessage, flags: u16) -> Step {
    Step { action: action.into(), message, flags }
}

/// Deleting what is not there fails, making what is there does not: so make it, then delete it.
fn drop_table() -> Vec<Step> {
    vec![
        step("add the table", NfTablesMessage::NewTable(table()), NLM_F_CREATE),
        step("delete the table", NfTablesMessage::DeleteTable(table()), 0),
    ]
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.into())] }
}

fn new_chain(chain: Chain) -> NfTablesMessage {
    // Where destination NAT belongs, before routing decides (NF_IP_PRI_NAT_DST).
    const PRIORITY: i32 = -100;
    const ACCEPT: u32 = 1;
    let hook = match chain {
        Chain::Output => InetHookNumber::LocalOut,
        Chain::Prerouting => InetHookNumber::PreRouting,
    };
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.into()),
            ChainAttribute::Name(chain.name().into()),
            ChainAttribute::Hook(vec![Hook::Number(HookNumber::Inet(hook)), Hook::Priority(PRIORITY.cast_unsigned())]),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type("nat".into()),
        ],
    })
}

fn new_rule(rule: &Rule) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.into()),
            RuleAttribute::Chain(rule.chain.name().into()),
            RuleAttribute::Expressions(rule.expressions.iter().cloned().map(ListAttribute::from).collect()),
            RuleAttribute::UserData(comment(&rule.text)),
        ],
    })
}

/// A rule's comment as `nft` writes and shows it (libnftnl's udata: type 0, length, text with a NUL).
fn comment(text: &str) -> Vec<u8> {
    // nft's limit. The longest rule, an IPv6 network, has half of it.
    const LONGEST: usize = 127;
    let text = &text.as_bytes()[..text.len().min(LONGEST)];
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend_from_slice(text);
    data.push(0);
    data
}

fn installed_rule(rule: &RuleMessage) -> InstalledRule {
    let mut installed = InstalledRule { chain: String::new(), text: String::new(), connections: 0 };
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Chain(name) => installed.chain.clone_from(name),
            RuleAttribute::UserData(data) => {
                if let [0, _, text @ .., 0] = data.as_slice() {
                    installed.text = String::from_utf8_lossy(text).into_owned();
                }
            }
            RuleAttribute::Expressions(list) => {
                let elements = list
                    .iter()
                    .filter_map(|item| if let ListAttribute::Element(parts) = item { Some(parts) } else { None });
                let data = elements
                    .flatten()
                    .filter_map(|part| if let ExpressionAttribute::Data(data) = part { Some(data) } else { None });
                installed.connections = data.filter_map(counted).sum();
            }
            _ => {}
        }
    }
    installed
}

/// Has the kernel do all steps, or none.
fn transact(what: &str, steps: Vec<Step>) -> Result<(), Error> {
    let last = steps.len();
    let mut actions = vec![what.to_owned()];
    let mut bytes = message(Control(ControlMessage::BatchBegin), 0, 0);
    for (index, step) in steps.into_iter().enumerate() {
        // The kernel answers a refused message in any case, an accepted one only if asked; one such answer tells that all were accepted.
        let acknowledge = if index + 1 == last { NLM_F_ACK } else { 0 };
        bytes.extend(message(step.message, step.flags | acknowledge, index as u32 + 1));
        actions.push(format!("{what}: {}", step.action));
    }
    bytes.extend(message(Control(ControlMessage::BatchEnd), 0, last as u32 + 1));
    let answers = ask(what, &bytes)?;
    let mut acknowledged = false;
    for answer in answers {
        let NetlinkPayload::Error(error) = answer.payload else {
            continue;
        };
        if error.code.is_some() {
            let action =
                actions.get(answer.header.sequence_number as usize).cloned().unwrap_or_else(|| what.to_owned());
            return Err(Error::from_kernel(action, error.to_io()));
        }
        acknowledged |= answer.header.sequence_number == last as u32;
    }
    if acknowledged {
        Ok(())
    } else {
        Err(Error::Answer { action: what.into(), reason: "it acknowledged nothing".into() })
    }
}

/// Sends `request` and reads what the kernel answers. It does so before the call that sends (or, for a dump, the call that reads) returns,
/// so nothing is waited for.
fn ask(action: &str, request: &[u8]) -> Result<Vec<NetlinkMessage<NetfilterMessage>>, Error> {
    let fail = |source: io::Error| Error::from_kernel(action.into(), source);
    let garbled = |reason: String| Error::Answer { action: action.into(), reason };
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(fail)?;
    socket.bind_auto().map_err(fail)?;
    socket.set_non_blocking(true).map_err(fail)?;
    make_room(&socket, request.len());
    socket.send_to(request, &SocketAddr::new(0, 0), 0).map_err(fail)?;
    let mut answers = Vec::new();
    loop {
        let datagram = match socket.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
            Err(error) => return Err(fail(error)),
        };
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(|error| garbled(error.to_string()))?;
            // Messages start at multiples of four bytes.
            let length = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[length..];
            if length == 0 {
                return Err(garbled("a message of no length".into()));
            }
            if matches!(answer.payload, NetlinkPayload::Done(_)) {
                return Ok(answers);
            }
            answers.push(answer);
        }
    }
}

/// A batch is one datagram. The usual limit holds some 600 rules; beyond it, ask for more, and let sending fail if that is refused.
fn make_room(socket: &Socket, length: usize) {
    use nix::sys::socket::{setsockopt, sockopt};
    // The kernel doubles the number and wants 32 bytes of it for itself (netlink_sendmsg).
    if setsockopt(socket, sockopt::SndBufForce, &length).is_err() {
        // Up to the limit for everybody, net.core.wmem_max.
        let _ = setsockopt(socket, sockopt::SndBuf, &length);
    }
}

/// A batch's first or last message, which addresses the subsystem instead of a family.
struct Control(ControlMessage);

trait IntoMessage {
    fn into_message(self) -> NetfilterMessage;
}

impl IntoMessage for Control {
    fn into_message(self) -> NetfilterMessage {
        const NF_TABLES: u16 = 10;
        NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NF_TABLES), self.0)
    }
}

impl IntoMessage for NfTablesMessage {
    fn into_message(self) -> NetfilterMessage {
        NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), self)
    }
}

fn message(content: impl IntoMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(content.into_message()));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
