//! From what shall be redirected to the rules that do it.

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{Expressions, MetaKey, Operator};

use super::Redirect;
use super::expression::{
    counter, destination_is_local, destination_network, destination_port, leave, meta, not_a_first_packet, redirect,
};

/// A chain, named after the hook it is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    Output,
    Prerouting,
}

impl Chain {
    pub(super) const ALL: [Chain; 2] = [Chain::Output, Chain::Prerouting];

    pub(super) fn name(self) -> &'static str {
        match self {
            Chain::Output => "output",
            Chain::Prerouting => "prerouting",
        }
    }
}

/// One rule: `text` says in nft's words what `expressions` say in the kernel's, and travels with the rule as its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: Chain,
    pub(super) text: String,
    pub(super) expressions: Vec<Expressions>,
}

/// All rules, in the order in which the kernel looks at them.
pub(super) fn compile(config: &Redirect) -> Vec<Rule> {
    let mut rules = common(Chain::Output, config);
    rules.extend(output(config));
    rules.extend(common(Chain::Prerouting, config));
    rules.extend(prerouting(config));
    rules
}

/// What leaves both chains at once: everything that is not a new TCP connection of a family that is redirected.
///
/// A namespace without rules does not track connections. The first packet it sees of one that exists looks new to it, and would be sent
/// to the sidecar in the middle of a conversation; only a SYN begins one.
fn common(chain: Chain, config: &Redirect) -> Vec<Rule> {
    let tcp = [nix::libc::IPPROTO_TCP as u8];
    let mut rules = vec![untouched(chain, "meta l4proto != tcp", meta(MetaKey::L4Proto, Operator::NotEqual, &tcp))];
    rules.push(untouched(chain, "tcp flags & (fin | syn | rst | ack) != syn", not_a_first_packet()));
    let families = [("ipv4", config.ipv4, nix::libc::NFPROTO_IPV4), ("ipv6", config.ipv6, nix::libc::NFPROTO_IPV6)];
    for (name, redirected, number) in families {
        if !redirected {
            let family = meta(MetaKey::Nfproto, Operator::Equal, &[number as u8]);
            rules.push(untouched(chain, &format!("meta nfproto {name}"), family));
        }
    }
    rules
}

fn output(config: &Redirect) -> Vec<Rule> {
    const CHAIN: Chain = Chain::Output;
    let mut rules = Vec::new();
    if let Some(mark) = config.exclude_mark {
        let own = meta(MetaKey::Mark, Operator::Equal, &mark.to_ne_bytes());
        rules.push(untouched(CHAIN, &format!("meta mark {mark:#010x}"), own));
    }
    if let Some(uid) = config.exclude_uid {
        let own = meta(MetaKey::SocketUserId, Operator::Equal, &uid.to_ne_bytes());
        rules.push(untouched(CHAIN, &format!("meta skuid {uid}"), own));
    }
    // A pod that calls one of its own addresses, loopback among them, calls itself.
    rules.push(untouched(CHAIN, "fib daddr type local", destination_is_local(Operator::Equal)));
    for &port in &config.exclude_outbound_ports {
        rules.push(untouched(CHAIN, &format!("tcp dport {port}"), destination_port(port)));
    }
    for cidr in &config.exclude_outbound_cidrs {
        rules.push(untouched(CHAIN, &network_text(cidr), destination_network(cidr)));
    }
    match &config.include_outbound_cidrs {
        None => rules.push(redirected(CHAIN, "", Vec::new(), config.outbound_port)),
        Some(cidrs) => {
            let only = |cidr| redirected(CHAIN, &network_text(cidr), destination_network(cidr), config.outbound_port);
            rules.extend(cidrs.iter().map(only));
        }
    }
    rules
}

fn prerouting(config: &Redirect) -> Vec<Rule> {
    const CHAIN: Chain = Chain::Prerouting;
    // The loopback interface is the first of every network namespace.
    let loopback = meta(MetaKey::Iif, Operator::Equal, &1_u32.to_ne_bytes());
    let mut rules = vec![
        // What the namespace's processes send to themselves has been through the output chain; the sidecar's delivery to the application
        // among it must not come back.
        untouched(CHAIN, "iif lo", loopback),
        untouched(CHAIN, "fib daddr type != local", destination_is_local(Operator::NotEqual)),
    ];
    for &port in &config.exclude_inbound_ports {
        rules.push(untouched(CHAIN, &format!("tcp dport {port}"), destination_port(port)));
    }
    match &config.include_inbound_ports {
        None => rules.push(redirected(CHAIN, "", Vec::new(), config.inbound_port)),
        Some(ports) => {
            let only = |&port: &u16| {
                redirected(CHAIN, &format!("tcp dport {port}"), destination_port(port), config.inbound_port)
            };
            rules.extend(ports.iter().map(only));
        }
    }
    rules
}

fn untouched(chain: Chain, condition: &str, matching: impl Into<Vec<Expressions>>) -> Rule {
    rule(chain, condition, matching, "return", leave())
}

fn redirected(chain: Chain, condition: &str, matching: impl Into<Vec<Expressions>>, port: u16) -> Rule {
    rule(chain, condition, matching, &format!("redirect to :{port}"), redirect(port))
}

fn rule(
    chain: Chain,
    condition: &str,
    matching: impl Into<Vec<Expressions>>,
    action: &str,
    acting: impl IntoIterator<Item = Expressions>,
) -> Rule {
    let mut expressions = matching.into();
    expressions.push(counter());
    expressions.extend(acting);
    let text = if condition.is_empty() { action.to_owned() } else { format!("{condition} {action}") };
    Rule { chain, text, expressions }
}

fn network_text(cidr: &super::Cidr) -> String {
    match cidr.address() {
        IpAddr::V4(_) => format!("ip daddr {cidr}"),
        IpAddr::V6(_) => format!("ip6 daddr {cidr}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(config: &Redirect) -> String {
        compile(config).iter().map(|rule| format!("{}: {}\n", rule.chain.name(), rule.text)).collect()
    }

    #[test]
    fn everything_is_redirected_but_what_is_the_sidecars_or_the_pods_own() {
        let config = Redirect { exclude_mark: Some(0x5745), exclude_uid: Some(1337), ..Redirect::default() };
        assert_eq!(
            text(&config),
            "output: meta l4proto != tcp return\n\
             output: tcp flags & (fin | syn | rst | ack) != syn return\n\
             output: meta mark 0x00005745 return\n\
             output: meta skuid 1337 return\n\
             output: fib daddr type local return\n\
             output: redirect to :15001\n\
             prerouting: meta l4proto != tcp return\n\
             prerouting: tcp flags & (fin | syn | rst | ack) != syn return\n\
             prerouting: iif lo return\n\
             prerouting: fib daddr type != local return\n\
             prerouting: tcp dport 15020 return\n\
             prerouting: redirect to :15006\n"
        );
    }

    #[test]
    fn exclusions_come_before_inclusions() {
        let config = Redirect {
            exclude_uid: Some(1),
            exclude_outbound_ports: vec![22],
            exclude_outbound_cidrs: vec!["198.18.9.0/24".parse().unwrap(), "fd00:198:18:9::/64".parse().unwrap()],
            include_outbound_cidrs: Some(vec!["198.18.0.0/15".parse().unwrap()]),
            include_inbound_ports: Some(vec![80, 443]),
            ipv6: false,
            ..Redirect::default()
        };
        assert_eq!(
            text(&config),
            "output: meta l4proto != tcp return\n\
             output: tcp flags & (fin | syn | rst | ack) != syn return\n\
             output: meta nfproto ipv6 return\n\
             output: meta skuid 1 return\n\
             output: fib daddr type local return\n\
             output: tcp dport 22 return\n\
             output: ip daddr 198.18.9.0/24 return\n\
             output: ip6 daddr fd00:198:18:9::/64 return\n\
             output: ip daddr 198.18.0.0/15 redirect to :15001\n\
             prerouting: meta l4proto != tcp return\n\
             prerouting: tcp flags & (fin | syn | rst | ack) != syn return\n\
             prerouting: meta nfproto ipv6 return\n\
             prerouting: iif lo return\n\
             prerouting: fib daddr type != local return\n\
             prerouting: tcp dport 15020 return\n\
             prerouting: tcp dport 80 redirect to :15006\n\
             prerouting: tcp dport 443 redirect to :15006\n"
        );
    }
}
