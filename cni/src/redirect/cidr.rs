//! A network in CIDR notation.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network: an address whose bits after the prefix are zero, and the prefix's length. Written `10.0.0.0/8`; an address alone means the
/// network that holds only it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no network: {reason}")]
pub struct ParseCidrError {
    text: String,
    reason: &'static str,
}

impl Cidr {
    /// The network's first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the network holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |own: &[u8], other: &[u8]| {
            own.iter().zip(other).zip(self.mask()).all(|((own, other), mask)| own & mask == other & mask)
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(&own.octets(), &other.octets()),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(&own.octets(), &other.octets()),
            _ => false,
        }
    }

    /// The network's last address.
    pub fn last_address(&self) -> IpAddr {
        match self.address {
            // A shift by the whole width is one bit too many for the type, hence `checked_shr`.
            IpAddr::V4(address) => {
                let hosts = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                (address.to_bits() | hosts).to_be_bytes().into()
            }
            IpAddr::V6(address) => {
                let hosts = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                (address.to_bits() | hosts).to_be_bytes().into()
            }
        }
    }

    /// The address's bytes in network order: 4 or 16.
    pub(crate) fn octets(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().into(),
            IpAddr::V6(address) => address.octets().into(),
        }
    }

    /// As many bytes, with the prefix's bits set.
    pub(crate) fn mask(&self) -> Vec<u8> {
        let byte = |index: usize| {
            let set = usize::from(self.prefix).saturating_sub(index * 8).min(8);
            // `set` is at most 8, so the shift is within u16, and the high byte of it is the mask.
            (0xff00_u16 >> set) as u8
        };
        (0..self.octets().len()).map(byte).collect()
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| ParseCidrError { text: text.to_owned(), reason };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr =
            address.parse().map_err(|_| refuse("expected an IPv4 or IPv6 address, like 10.0.0.0/8 or fd00::/8"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) => digits.parse().ok().filter(|&prefix| prefix <= longest).ok_or_else(|| {
                refuse(if address.is_ipv4() { "the prefix length is 0 to 32" } else { "the prefix length is 0 to 128" })
            })?,
        };
        let cidr = Self { address, prefix };
        if cidr.octets().iter().zip(cidr.mask()).any(|(byte, mask)| byte & !mask != 0) {
            return Err(refuse(
                "the address has bits set after the prefix: write the network's first address, or a longer prefix",
            ));
        }
        Ok(cidr)
    }
}

impl TryFrom<String> for Cidr {
    type Error = ParseCidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_ends_inside_a_byte_masks_its_high_bits() {
        let mask = |text: &str| text.parse::<Cidr>().unwrap().mask();
        assert_eq!(mask("10.128.0.0/9"), [0xff, 0x80, 0, 0]);
        assert_eq!(mask("0.0.0.0/0"), [0, 0, 0, 0]);
        assert_eq!(mask("10.1.2.3"), [0xff; 4]);
        assert_eq!(mask("fc00::/7")[..2], [0xfe, 0]);
    }

    #[test]
    fn a_network_holds_its_first_to_its_last_address() {
        for (text, last, beyond) in [
            ("10.128.0.0/9", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("fd00:198:18::/48", "fd00:198:18:ffff:ffff:ffff:ffff:ffff", "fd00:198:19::"),
            ("fd00::1", "fd00::1", "fd00::2"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "1.2.3.4"),
        ] {
            let network: Cidr = text.parse().unwrap();
            assert_eq!(network.last_address(), last.parse::<IpAddr>().unwrap());
            assert!(network.contains(network.address()) && network.contains(network.last_address()));
            assert!(!network.contains(beyond.parse().unwrap()), "{text} {beyond}");
        }
    }

    #[test]
    fn an_address_with_bits_after_the_prefix_is_refused_with_the_way_out() {
        let error = "10.0.0.1/8".parse::<Cidr>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""10.0.0.1/8" is no network: the address has bits set after the prefix: write the network's first address, or a longer prefix"#
        );
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_refused() {
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("fd00::/129".parse::<Cidr>().is_err());
        assert!("fd00::/-1".parse::<Cidr>().is_err());
        assert!("ten/8".parse::<Cidr>().is_err());
    }
}
