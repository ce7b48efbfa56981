//! What holds for the whole mesh.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Settings of the control plane that change what it renders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Trust domain of all identities.
    pub trust_domain: String,
    /// Addresses of services and workloads. A connection to one of them fails while its configuration is missing; others pass.
    pub ranges: Vec<Cidr>,
    /// Where services without an address of their own get one.
    pub virtual_ranges: Vec<Cidr>,
    /// What happens to destinations that the mesh does not know.
    pub unknown_destination: UnknownDestination,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let v4 = |a, b, c, d, bits| Cidr { address: Ipv4Addr::new(a, b, c, d).into(), bits };
        let v6 = |segment, bits| Cidr { address: Ipv6Addr::new(0xfd00, 0x198, 0x18, segment, 0, 0, 0, 0).into(), bits };
        Self {
            trust_domain: "weft.local".to_owned(),
            ranges: vec![v4(198, 18, 0, 0, 15), v6(0, 48)],
            // The last of the /48's subnets: the sandbox's pods have the first ones.
            virtual_ranges: vec![v4(198, 19, 0, 0, 16), v6(0xffff, 64)],
            unknown_destination: UnknownDestination::Passthrough,
        }
    }
}

/// What happens to destinations that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownDestination {
    /// Bytes are relayed as they are.
    #[default]
    Passthrough,
    /// The connection is refused.
    Refuse,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// An address inside, usually the first.
    pub address: IpAddr,
    /// Length of the common prefix in bits.
    pub bits: u8,
}

impl Cidr {
    /// Bits of an address of this family.
    #[must_use]
    pub fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && (number(self.address) ^ number(address)) & self.mask() == 0
    }

    /// The address `offset` places after the first; the offset wraps inside the range.
    #[must_use]
    pub fn nth(&self, offset: u128) -> IpAddr {
        let bits = (number(self.address) & self.mask()) | (offset & self.host_mask());
        match self.address {
            // Only the lower 32 bits are set: address and offset are both masked to them.
            IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// How many addresses the range holds, less one.
    #[must_use]
    pub fn host_mask(&self) -> u128 {
        let host_bits = self.width().saturating_sub(self.bits);
        u128::MAX.checked_shr(u32::from(128 - host_bits)).unwrap_or(0)
    }

    fn mask(&self) -> u128 {
        !self.host_mask()
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses; write one like 198.18.0.0/15 or fd00:198:18::/48")]
pub struct InvalidCidr(String);

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let cidr =
            Self { address: address.parse().map_err(|_| invalid())?, bits: bits.parse().map_err(|_| invalid())? };
        if cidr.bits > cidr.width() { Err(invalid()) } else { Ok(cidr) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses_and_no_others() {
        let range: Cidr = "198.18.0.0/15".parse().unwrap();
        assert!(range.contains("198.19.255.255".parse().unwrap()));
        assert!(!range.contains("198.20.0.0".parse().unwrap()));
        assert!(!range.contains("::c612:1".parse().unwrap()));
        let one: Cidr = "fd00::1/128".parse().unwrap();
        assert!(one.contains("fd00::1".parse().unwrap()) && !one.contains("fd00::2".parse().unwrap()));
        assert!("198.18.0.0/33".parse::<Cidr>().is_err());
    }

    #[test]
    fn offsets_stay_inside() {
        let range: Cidr = "198.19.0.0/16".parse().unwrap();
        assert_eq!(range.nth(0x1_0102), "198.19.1.2".parse::<IpAddr>().unwrap());
        let six: Cidr = "fd00:198:18:1::/64".parse().unwrap();
        assert_eq!(six.nth(u128::MAX), "fd00:198:18:1:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap());
    }
}
