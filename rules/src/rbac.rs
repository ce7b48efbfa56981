//! Access decisions (`envoy.config.rbac.v3.RBAC`, in the HTTP and the network filter).

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use weft_xds::FieldError;

use crate::header::HeaderMatcher;
use crate::proto::{core, http_rbac, matcher, network_rbac, rbac, refuse, unsupported};
use crate::string::StringMatcher;
use crate::view::RequestView;

/// A compiled RBAC filter: rules that are enforced, and shadow rules that are only told about.
#[derive(Debug, Clone, Default)]
pub struct Rbac {
    enforced: Option<Rules>,
    shadow: Option<Rules>,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The verified URI SAN, a SPIFFE ID in the mesh; `None` for plaintext or an unverified peer.
    pub identity: Option<&'a str>,
    /// The address the connection comes from.
    pub source_ip: IpAddr,
    /// The address and port the connection was made to, before any redirection.
    pub destination: SocketAddr,
    /// The server name of the ClientHello.
    pub server_name: Option<&'a str>,
}

/// The answer for one request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether the enforced rules let it pass.
    pub allowed: bool,
    /// The enforced policy that matched, the first by name. With `allowed` false and no policy, no ALLOW policy matched.
    pub policy: Option<&'a str>,
    /// What the shadow rules would have said, if there are any.
    pub shadow: Option<ShadowVerdict<'a>>,
}

/// What shadow rules would have said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowVerdict<'a> {
    /// Whether they would let it pass.
    pub allowed: bool,
    /// The shadow policy that matched.
    pub policy: Option<&'a str>,
}

impl Rbac {
    /// Compiles the HTTP filter's message.
    pub fn compile(message: &http_rbac::Rbac, path: &str) -> Result<Self, FieldError> {
        unsupported(message.matcher.is_some(), path, "matcher")?;
        unsupported(message.shadow_matcher.is_some(), path, "shadow_matcher")?;
        Self::of_rules(message.rules.as_ref(), message.shadow_rules.as_ref(), path)
    }

    /// Compiles the network filter's message. Ask it with [`crate::view::NoRequest`].
    pub fn compile_network(message: &network_rbac::Rbac, path: &str) -> Result<Self, FieldError> {
        unsupported(message.matcher.is_some(), path, "matcher")?;
        unsupported(message.shadow_matcher.is_some(), path, "shadow_matcher")?;
        unsupported(message.delay_deny.is_some(), path, "delay_deny")?;
        unsupported(message.enforcement_type != 0, path, "enforcement_type CONTINUOUS")?;
        Self::of_rules(message.rules.as_ref(), message.shadow_rules.as_ref(), path)
    }

    fn of_rules(rules: Option<&rbac::Rbac>, shadow: Option<&rbac::Rbac>, path: &str) -> Result<Self, FieldError> {
        Ok(Self {
            enforced: rules.map(|rules| Rules::compile(rules, &format!("{path}.rules"))).transpose()?,
            shadow: shadow.map(|rules| Rules::compile(rules, &format!("{path}.shadow_rules"))).transpose()?,
        })
    }

    /// Decides. Without rules everything is allowed.
    pub fn decide<V: RequestView + ?Sized>(&self, view: &V, peer: &Peer<'_>) -> Verdict<'_> {
        let (allowed, policy) = self.enforced.as_ref().map_or((true, None), |rules| rules.decide(view, peer));
        let shadow = self.shadow.as_ref().map(|rules| {
            let (allowed, policy) = rules.decide(view, peer);
            ShadowVerdict { allowed, policy }
        });
        Verdict { allowed, policy, shadow }
    }
}

/// One RBAC message: an action and the policies that call for it, ordered by name.
#[derive(Debug, Clone)]
struct Rules {
    action: rbac::rbac::Action,
    policies: Vec<Policy>,
}

#[derive(Debug, Clone)]
struct Policy {
    name: String,
    permissions: Vec<Permission>,
    principals: Vec<Principal>,
}

#[derive(Debug, Clone)]
enum Permission {
    Any,
    All(Vec<Permission>),
    AnyOf(Vec<Permission>),
    Not(Box<Permission>),
    Header(HeaderMatcher),
    Path(StringMatcher),
    DestinationIp(IpRange),
    DestinationPort(Range<u32>),
    ServerName(StringMatcher),
}

#[derive(Debug, Clone)]
enum Principal {
    Any,
    All(Vec<Principal>),
    AnyOf(Vec<Principal>),
    Not(Box<Principal>),
    /// Any verified peer, or one whose identity matches.
    Authenticated(Option<StringMatcher>),
    SourceIp(IpRange),
    Header(HeaderMatcher),
    Path(StringMatcher),
}

impl Rules {
    fn compile(message: &rbac::Rbac, path: &str) -> Result<Self, FieldError> {
        let action = rbac::rbac::Action::try_from(message.action)
            .map_err(|_| refuse(&format!("{path}.action"), format!("unknown value {}", message.action)))?;
        unsupported(message.audit_logging_options.is_some(), path, "audit_logging_options")?;
        let mut policies = message
            .policies
            .iter()
            .map(|(name, policy)| Policy::compile(name, policy, &format!("{path}.policies[{name:?}]")))
            .collect::<Result<Vec<_>, _>>()?;
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { action, policies })
    }

    fn decide<V: RequestView + ?Sized>(&self, view: &V, peer: &Peer<'_>) -> (bool, Option<&str>) {
        let matched = self.policies.iter().find(|policy| policy.matches(view, peer)).map(|policy| policy.name.as_str());
        let allowed = match self.action {
            rbac::rbac::Action::Allow => matched.is_some(),
            rbac::rbac::Action::Deny => matched.is_none(),
            rbac::rbac::Action::Log => true,
        };
        (allowed, matched)
    }
}

impl Policy {
    fn compile(name: &str, message: &rbac::Policy, path: &str) -> Result<Self, FieldError> {
        unsupported(message.condition.is_some(), path, "condition")?;
        unsupported(message.checked_condition.is_some(), path, "checked_condition")?;
        unsupported(message.cel_config.is_some(), path, "cel_config")?;
        Ok(Self {
            name: name.to_owned(),
            permissions: list(&message.permissions, &format!("{path}.permissions"), Permission::compile)?,
            principals: list(&message.principals, &format!("{path}.principals"), Principal::compile)?,
        })
    }

    fn matches<V: RequestView + ?Sized>(&self, view: &V, peer: &Peer<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.matches(view, peer))
            && self.principals.iter().any(|principal| principal.matches(view, peer))
    }
}

/// Compiles the elements of a list that must not be empty: an empty OR matches nothing and an empty AND everything, neither of which
/// anyone means (Envoy's validation refuses both).
fn list<M, T>(
    messages: &[M],
    path: &str,
    compile: impl Fn(&M, &str) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    if messages.is_empty() {
        return Err(refuse(path, "empty; give at least one, `any: true` for everything"));
    }
    messages.iter().enumerate().map(|(i, message)| compile(message, &format!("{path}[{i}]"))).collect()
}

impl Permission {
    fn compile(message: &rbac::Permission, path: &str) -> Result<Self, FieldError> {
        use rbac::permission::Rule;
        let sub = |field: &str| format!("{path}.{field}");
        #[allow(deprecated)]
        Ok(match message.rule.as_ref() {
            Some(Rule::Any(true)) => Self::Any,
            Some(Rule::Any(false)) => {
                return Err(refuse(&sub("any"), "false means nothing; set it to true or leave the permission out"));
            }
            Some(Rule::AndRules(set)) => Self::All(list(&set.rules, &sub("and_rules.rules"), Self::compile)?),
            Some(Rule::OrRules(set)) => Self::AnyOf(list(&set.rules, &sub("or_rules.rules"), Self::compile)?),
            Some(Rule::NotRule(rule)) => Self::Not(Box::new(Self::compile(rule, &sub("not_rule"))?)),
            Some(Rule::Header(header)) => Self::Header(HeaderMatcher::compile(header, &sub("header"))?),
            Some(Rule::UrlPath(url)) => Self::Path(url_path(url, &sub("url_path"))?),
            Some(Rule::DestinationIp(range)) => Self::DestinationIp(IpRange::compile(range, &sub("destination_ip"))?),
            Some(Rule::DestinationPort(port)) if *port <= 65_535 => Self::DestinationPort(*port..*port + 1),
            Some(Rule::DestinationPort(port)) => {
                return Err(refuse(&sub("destination_port"), format!("{port} is not a port")));
            }
            Some(Rule::DestinationPortRange(range)) => {
                let bound = |bound: i32| u32::try_from(bound).ok().filter(|&bound| bound <= 65_536);
                match (bound(range.start), bound(range.end)) {
                    (Some(start), Some(end)) if start < end => Self::DestinationPort(start..end),
                    _ => {
                        let problem = format!(
                            "[{}, {}) is not a range of ports; end is exclusive and above start",
                            range.start, range.end
                        );
                        return Err(refuse(&sub("destination_port_range"), problem));
                    }
                }
            }
            Some(Rule::RequestedServerName(name)) => {
                Self::ServerName(StringMatcher::compile(name, &sub("requested_server_name"))?)
            }
            Some(Rule::Metadata(_)) => return Err(refuse(&sub("metadata"), NOT_HERE)),
            Some(Rule::SourcedMetadata(_)) => {
                return Err(refuse(&sub("sourced_metadata"), NOT_HERE));
            }
            Some(Rule::Matcher(_)) => return Err(refuse(&sub("matcher"), NOT_HERE)),
            Some(Rule::UriTemplate(_)) => return Err(refuse(&sub("uri_template"), NOT_HERE)),
            None => return Err(refuse(path, "no rule; use `any: true` for everything")),
        })
    }

    fn matches<V: RequestView + ?Sized>(&self, view: &V, peer: &Peer<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::All(rules) => rules.iter().all(|rule| rule.matches(view, peer)),
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.matches(view, peer)),
            Self::Not(rule) => !rule.matches(view, peer),
            Self::Header(header) => header.matches(view),
            Self::Path(path) => path.matches(view.path()),
            Self::DestinationIp(range) => range.contains(peer.destination.ip()),
            Self::DestinationPort(range) => range.contains(&u32::from(peer.destination.port())),
            Self::ServerName(name) => name.matches(peer.server_name.unwrap_or_default().as_bytes()),
        }
    }
}

impl Principal {
    fn compile(message: &rbac::Principal, path: &str) -> Result<Self, FieldError> {
        use rbac::principal::Identifier;
        let sub = |field: &str| format!("{path}.{field}");
        #[allow(deprecated)]
        Ok(match message.identifier.as_ref() {
            Some(Identifier::Any(true)) => Self::Any,
            Some(Identifier::Any(false)) => {
                return Err(refuse(&sub("any"), "false means nothing; set it to true or leave the principal out"));
            }
            Some(Identifier::AndIds(set)) => Self::All(list(&set.ids, &sub("and_ids.ids"), Self::compile)?),
            Some(Identifier::OrIds(set)) => Self::AnyOf(list(&set.ids, &sub("or_ids.ids"), Self::compile)?),
            Some(Identifier::NotId(id)) => Self::Not(Box::new(Self::compile(id, &sub("not_id"))?)),
            Some(Identifier::Authenticated(authenticated)) => {
                let name = authenticated.principal_name.as_ref();
                Self::Authenticated(
                    name.map(|name| StringMatcher::compile(name, &sub("authenticated.principal_name"))).transpose()?,
                )
            }
            Some(Identifier::DirectRemoteIp(range)) => {
                Self::SourceIp(IpRange::compile(range, &sub("direct_remote_ip"))?)
            }
            Some(Identifier::Header(header)) => Self::Header(HeaderMatcher::compile(header, &sub("header"))?),
            Some(Identifier::UrlPath(url)) => Self::Path(url_path(url, &sub("url_path"))?),
            // Both take what x-forwarded-for says, which any client may write.
            Some(Identifier::SourceIp(_)) => {
                return Err(refuse(&sub("source_ip"), "not supported; use direct_remote_ip"));
            }
            Some(Identifier::RemoteIp(_)) => {
                return Err(refuse(&sub("remote_ip"), "not supported; use direct_remote_ip"));
            }
            Some(Identifier::Metadata(_)) => return Err(refuse(&sub("metadata"), NOT_HERE)),
            Some(Identifier::SourcedMetadata(_)) => {
                return Err(refuse(&sub("sourced_metadata"), NOT_HERE));
            }
            Some(Identifier::FilterState(_)) => return Err(refuse(&sub("filter_state"), NOT_HERE)),
            Some(Identifier::Custom(_)) => return Err(refuse(&sub("custom"), NOT_HERE)),
            None => return Err(refuse(path, "no identifier; use `any: true` for everyone")),
        })
    }

    fn matches<V: RequestView + ?Sized>(&self, view: &V, peer: &Peer<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::All(ids) => ids.iter().all(|id| id.matches(view, peer)),
            Self::AnyOf(ids) => ids.iter().any(|id| id.matches(view, peer)),
            Self::Not(id) => !id.matches(view, peer),
            Self::Authenticated(name) => {
                peer.identity.is_some_and(|identity| name.as_ref().is_none_or(|name| name.matches(identity.as_bytes())))
            }
            Self::SourceIp(range) => range.contains(peer.source_ip),
            Self::Header(header) => header.matches(view),
            Self::Path(path) => path.matches(view.path()),
        }
    }
}

const NOT_HERE: &str = "not supported; decide by header, url_path, destination, or authenticated principal";

fn url_path(message: &matcher::PathMatcher, path: &str) -> Result<StringMatcher, FieldError> {
    match message.rule.as_ref() {
        Some(matcher::path_matcher::Rule::Path(text)) => StringMatcher::compile(text, &format!("{path}.path")),
        None => Err(refuse(&format!("{path}.path"), "missing; give a string matcher")),
    }
}

/// An address range. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Debug, Clone, Copy)]
struct IpRange {
    address: IpAddr,
    bits: u32,
}

impl IpRange {
    fn compile(message: &core::CidrRange, path: &str) -> Result<Self, FieldError> {
        let address: IpAddr = message.address_prefix.parse().map_err(|_| {
            refuse(&format!("{path}.address_prefix"), format!("{:?} is not an IP address", message.address_prefix))
        })?;
        // Envoy: unset is 0, that is, every address of the family.
        let bits = message.prefix_len.as_ref().map_or(0, |bits| bits.value);
        let width = if address.is_ipv4() { 32 } else { 128 };
        if bits > width {
            return Err(refuse(&format!("{path}.prefix_len"), format!("{bits} is above {width}")));
        }
        Ok(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                (u32::from(range) ^ u32::from(address)).leading_zeros() >= self.bits
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                (u128::from(range) ^ u128::from(address)).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}
