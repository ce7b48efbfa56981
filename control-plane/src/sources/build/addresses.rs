//! Addresses for services that have none: stable, because they are derived from the name.

use std::collections::HashSet;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::model::{Cidr, ObjectName};

/// A free address of the range for a service, or `None` if the range is full. The same service gets the same address in every
/// run, unless another service happens to be given it first: then the next in a sequence of its own.
pub(super) fn choose(range: &Cidr, service: &ObjectName, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    // Ample: with half of the range taken, each attempt fails with probability 1/2.
    const ATTEMPTS: u32 = 128;
    (0..ATTEMPTS)
        .map(|attempt| candidate(range, service, attempt))
        .find(|ip| !taken.contains(ip))
        .or_else(|| first_free(range, taken))
}

fn candidate(range: &Cidr, service: &ObjectName, attempt: u32) -> IpAddr {
    let mut hash = Sha256::new();
    hash.update(service.to_string());
    hash.update(attempt.to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    usable(range, u128::from_be_bytes(bytes))
}

/// Never the first or last address of a range, which mean the network itself and everyone in it.
fn usable(range: &Cidr, number: u128) -> IpAddr {
    let hosts = range.host_mask();
    if hosts < 2 {
        return range.nth(number);
    }
    range.nth(1 + number % (hosts - 1))
}

fn first_free(range: &Cidr, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    // One more than are taken cannot all be taken.
    let tries = (taken.len() as u128 + 1).min(range.host_mask().max(1));
    (0..tries).map(|n| usable(range, n)).find(|ip| !taken.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_depends_on_the_name_alone() {
        let four = range("198.19.0.0/16");
        let reviews = ObjectName::new("shop", "reviews");
        let none = HashSet::new();
        let address = choose(&four, &reviews, &none).unwrap();
        assert_eq!(choose(&four, &reviews, &none), Some(address));
        assert_ne!(choose(&four, &ObjectName::new("shop", "cart"), &none), Some(address));
        assert!(four.contains(address));
        assert!(range("fd00:198:18:1::/64").contains(choose(&range("fd00:198:18:1::/64"), &reviews, &none).unwrap()));
    }

    #[test]
    fn a_taken_address_leads_to_another_until_the_range_is_full() {
        let small = range("198.19.0.0/29");
        let mut taken = HashSet::new();
        for n in 0..6 {
            let address = choose(&small, &ObjectName::new("shop", format!("s{n}")), &taken).unwrap();
            assert!(taken.insert(address), "{address} twice");
        }
        assert!(!taken.contains(&"198.19.0.0".parse().unwrap()));
        assert!(!taken.contains(&"198.19.0.7".parse().unwrap()));
        assert_eq!(choose(&small, &ObjectName::new("shop", "one-too-many"), &taken), None);
    }
}
