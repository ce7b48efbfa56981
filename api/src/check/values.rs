//! Checks of single values, shared by all kinds.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Check;

impl Check {
    /// Name (RFC 1123 subdomain; a Service's is a label) and namespace.
    pub(super) fn metadata(&mut self, metadata: &ObjectMeta, names_are_labels: bool) {
        self.field("metadata", |c| {
            match &metadata.name {
                None => c.field("name", |c| c.error("", "is missing", "every object needs a name")),
                Some(name) if names_are_labels => c.field("name", |c| c.label_name(name)),
                Some(name) => c.field("name", |c| c.subdomain(name)),
            }
            if let Some(namespace) = &metadata.namespace {
                c.field("namespace", |c| c.label_name(namespace));
            }
        });
    }

    /// A DNS label: at most 63 of `a-z`, `0-9` and `-`, starting and ending with a letter or digit.
    pub(super) fn label_name(&mut self, name: &str) {
        if !is_label(name) || name.len() > 63 {
            self.error(
                name,
                "is not a name (RFC 1123 label)",
                "use at most 63 lower-case letters, digits and '-', with a letter or digit at both ends",
            );
        }
    }

    /// DNS labels joined by dots, at most 253 characters.
    pub(super) fn subdomain(&mut self, name: &str) {
        if !name.split('.').all(is_label) || name.len() > 253 {
            self.error(
                name,
                "is not a name (RFC 1123 subdomain)",
                "use at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
            );
        }
    }

    pub(super) fn port(&mut self, port: i64) {
        if !(1..=65535).contains(&port) {
            self.error(port, "is not a port", "ports are 1 to 65535");
        }
    }

    pub(super) fn address(&mut self, address: &str) -> Option<IpAddr> {
        match address.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                self.error(address, "is no address of one host", "write the workload's own address");
                None
            }
            Ok(ip) => Some(ip),
            Err(_) => {
                self.error(address, "is not an IP address", "write an IPv4 or IPv6 address, not a name");
                None
            }
        }
    }

    pub(super) fn percent(&mut self, percent: f64) {
        if !(0.0..=100.0).contains(&percent) {
            self.error(percent, "is not a percentage", "write 0 to 100");
        }
    }

    pub(super) fn range(&mut self, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.error(value, format!("is out of range: {least} to {most}"), "");
        }
    }

    /// A header name (RFC 9110 token).
    pub(super) fn header_name(&mut self, name: &str) {
        if name.is_empty() || !name.bytes().all(is_token) {
            self.error(name, "is not a header name", "use letters, digits and - _ . (RFC 9110 §5.1)");
        }
    }

    /// A header value: no control characters.
    pub(super) fn header_value(&mut self, value: &str) {
        if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            self.error(value, "holds a control character", "header values are one line of text (RFC 9110 §5.5)");
        }
    }

    /// The second of two equal elements of a list.
    pub(super) fn unique<T, K: Hash + Eq>(
        &mut self,
        list: &'static str,
        items: &[T],
        what: &str,
        key: impl Fn(&T) -> (K, String),
    ) {
        let mut seen = HashMap::new();
        let mut index = 0;
        self.each(list, items, |c, item| {
            let (key, shown) = key(item);
            if let Some(first) = seen.get(&key) {
                c.error(shown, format!("{what} is already in {list}[{first}]"), "keep one of the two");
            } else {
                seen.insert(key, index);
            }
            index += 1;
        });
    }
}

fn is_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
