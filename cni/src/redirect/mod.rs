//! Redirects a network namespace's TCP connections into the sidecar, by nftables rules installed over netlink.
//!
//! No `nft` or `iptables` binary is needed. The rules live in a table of their own, `inet weft`, which [`install`] replaces as a whole in
//! one transaction: at no moment is there half a rule set, and nobody else's rules are touched. They act on the first packet of a
//! connection: one that exists goes on undisturbed when they are installed or replaced. Only [`remove`] ends connections, those that had
//! been redirected.
//!
//! ```text
//! chain output      what the namespace's processes connect to
//!   not a new TCP connection, a family not redirected  untouched
//!   the sidecar's own (by mark or uid) ............. untouched
//!   to an address of the namespace itself .......... untouched
//!   excluded ports and networks .................... untouched
//!   the rest, or only the included networks ........ to port 15001 on loopback
//! chain prerouting  what others connect to
//!   not a new TCP connection, a family not redirected  untouched
//!   from loopback .................................. untouched
//!   not to an address of this namespace ............ untouched
//!   excluded ports ................................. untouched
//!   the rest, or only the included ports ........... to port 15006
//! ```
//! The sidecar asks for the original destination with SO_ORIGINAL_DST (IPv4) or IP6T_SO_ORIGINAL_DST (IPv6).
//!
//! ```no_run
//! use weft_cni::redirect::{self, Redirect};
//!
//! let rules = Redirect { exclude_uid: Some(1337), ..Redirect::default() };
//! redirect::install(&rules)?;
//! assert!(redirect::installed()?.is_some_and(|installed| installed.matches(&rules)));
//! redirect::remove()?;
//! # Ok::<(), redirect::Error>(())
//! ```

mod cidr;
mod error;
mod expression;
mod netlink;
mod rules;

pub use cidr::{Cidr, ParseCidrError};
pub use error::Error;

/// Where the sidecar listens for outbound connections.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where the sidecar listens for inbound connections.
pub const INBOUND_PORT: u16 = 15006;
/// Where the sidecar answers probes and scrapes, on all addresses.
pub const PROBE_PORT: u16 = 15020;

/// What is redirected, and what is not. Fields are named as in the sidecar injector's configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redirect {
    /// Where outbound connections go; the sidecar listens there on loopback only (127.0.0.1 and ::1).
    pub outbound_port: u16,
    /// Where inbound connections go; the sidecar listens there on all addresses.
    pub inbound_port: u16,
    /// Connections whose socket has this mark (SO_MARK) are the sidecar's own. Setting a mark needs CAP_NET_ADMIN or CAP_NET_RAW.
    pub exclude_mark: Option<u32>,
    /// Connections of this user are the sidecar's own. In a rootless namespace there is one user, so only the mark tells.
    pub exclude_uid: Option<u32>,
    /// Destination ports others may connect to directly: the sidecar's own health and metrics port, and the user's choice.
    pub exclude_inbound_ports: Vec<u16>,
    /// Only these destination ports are redirected to the sidecar when others connect; none means all.
    pub include_inbound_ports: Option<Vec<u16>>,
    /// Destination ports the application connects to directly.
    pub exclude_outbound_ports: Vec<u16>,
    /// Networks the application connects to directly.
    pub exclude_outbound_cidrs: Vec<Cidr>,
    /// Only connections to these networks are redirected; none means all.
    pub include_outbound_cidrs: Option<Vec<Cidr>>,
    /// Redirect IPv4 connections.
    pub ipv4: bool,
    /// Redirect IPv6 connections.
    pub ipv6: bool,
}

impl Default for Redirect {
    /// Everything but the port for health and metrics, 15020. Without a mark or a uid, the sidecar's own connections would come back to
    /// it: [`install`] refuses that.
    fn default() -> Self {
        Self {
            outbound_port: OUTBOUND_PORT,
            inbound_port: INBOUND_PORT,
            exclude_mark: None,
            exclude_uid: None,
            exclude_inbound_ports: vec![PROBE_PORT],
            include_inbound_ports: None,
            exclude_outbound_ports: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
            include_outbound_cidrs: None,
            ipv4: true,
            ipv6: true,
        }
    }
}

/// The rules as the kernel has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// In the order in which they are looked at, those for outbound connections first.
    pub rules: Vec<InstalledRule>,
}

/// One rule, and how often it applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRule {
    /// `output` or `prerouting`.
    pub chain: String,
    /// The rule as `nft` would write it.
    pub text: String,
    /// Connections it applied to.
    pub connections: u64,
}

impl Installed {
    /// Whether these are the rules [`install`] makes from `redirect`.
    pub fn matches(&self, redirect: &Redirect) -> bool {
        let wanted = rules::compile(redirect);
        self.rules.len() == wanted.len()
            && self
                .rules
                .iter()
                .zip(&wanted)
                .all(|(have, want)| have.chain == want.chain.name() && have.text == want.text)
    }
}

/// Installs the rules in the calling thread's network namespace, in place of rules installed before.
///
/// # Errors
/// [`Error::Invalid`] names a field that makes no sense. The others say what the process or the kernel lacks. After an error nothing has
/// changed.
pub fn install(redirect: &Redirect) -> Result<(), Error> {
    check(redirect)?;
    netlink::replace_table(&rules::compile(redirect))
}

/// Removes the rules from the calling thread's network namespace, if there are any.
///
/// # Errors
/// What the process or the kernel lacks.
pub fn remove() -> Result<(), Error> {
    netlink::delete_table()
}

/// The rules in the calling thread's network namespace; none if there are none.
///
/// # Errors
/// What the process or the kernel lacks.
pub fn installed() -> Result<Option<Installed>, Error> {
    let rules = netlink::list_rules()?;
    Ok(if rules.is_empty() { None } else { Some(Installed { rules }) })
}

/// Whether the redirection makes sense, without installing it.
///
/// # Errors
/// [`Error::Invalid`] names the field that does not.
pub fn check(redirect: &Redirect) -> Result<(), Error> {
    let invalid = |field, value: String, reason| Err(Error::Invalid { field, value, reason });
    if redirect.exclude_mark.is_none() && redirect.exclude_uid.is_none() {
        let reason = "the sidecar's own connections would be redirected to itself without end: set one of them";
        return invalid("exclude_mark, exclude_uid", "none".into(), reason);
    }
    if redirect.exclude_mark == Some(0) {
        return invalid("exclude_mark", "0".into(), "every socket without a mark has mark 0: choose another");
    }
    if !redirect.ipv4 && !redirect.ipv6 {
        return invalid("ipv4, ipv6", "false".into(), "nothing would be redirected: use `remove` for that");
    }
    if redirect.outbound_port == redirect.inbound_port {
        let reason = "outbound_port is the same: the sidecar could not tell outbound from inbound";
        return invalid("inbound_port", redirect.inbound_port.to_string(), reason);
    }
    let ports: [(&'static str, &[u16]); 5] = [
        ("outbound_port", &[redirect.outbound_port]),
        ("inbound_port", &[redirect.inbound_port]),
        ("exclude_inbound_ports", &redirect.exclude_inbound_ports),
        ("include_inbound_ports", redirect.include_inbound_ports.as_deref().unwrap_or_default()),
        ("exclude_outbound_ports", &redirect.exclude_outbound_ports),
    ];
    for (field, ports) in ports {
        if ports.contains(&0) {
            return invalid(field, "0".into(), "ports are 1 to 65535");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_rules_that_would_redirect_the_sidecar_to_itself() {
        let error = check(&Redirect::default()).unwrap_err();
        assert!(error.to_string().contains("exclude_mark, exclude_uid"), "{error}");
    }

    #[test]
    fn refuses_one_port_for_both_directions() {
        let same = Redirect { exclude_uid: Some(1337), inbound_port: 15001, ..Redirect::default() };
        assert!(matches!(check(&same), Err(Error::Invalid { field: "inbound_port", .. })));
    }

    #[test]
    fn reads_its_own_json_and_fills_in_defaults() {
        let rules = Redirect {
            exclude_uid: Some(1337),
            exclude_outbound_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
            ..Redirect::default()
        };
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<Redirect>(&text).unwrap(), rules);
        let short = r#"{"exclude_uid": 1337, "exclude_outbound_cidrs": ["10.0.0.0/8"]}"#;
        assert_eq!(serde_json::from_str::<Redirect>(short).unwrap(), rules);
    }
}
