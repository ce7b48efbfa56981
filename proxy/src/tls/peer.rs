//! What a certificate says about its owner.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use weft_xds::names::{PodName, SpiffeId};
use x509_parser::extensions::GeneralName;

/// Who a peer proved to be. Texts are empty where the certificate does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The SPIFFE id as in the certificate: its only URI SAN, if that is one of the mesh's.
    pub spiffe: Arc<str>,
    /// From the SPIFFE id.
    pub trust_domain: String,
    /// From the SPIFFE id.
    pub namespace: String,
    /// From the SPIFFE id.
    pub service_account: String,
    /// From the pod's DNS SAN.
    pub workload: String,
    /// From the pod's DNS SAN.
    pub pod: String,
    /// All URI SANs.
    pub uris: Vec<String>,
    /// All DNS SANs.
    pub dns_names: Vec<String>,
    /// All IP address SANs.
    pub addresses: Vec<IpAddr>,
    /// All e-mail SANs.
    pub emails: Vec<String>,
    /// The subject's distinguished name.
    pub subject: String,
}

impl PeerIdentity {
    /// Reads a certificate. Nothing is verified here.
    ///
    /// # Errors
    /// What does not parse.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
        let mut peer = Self { subject: parsed.subject().to_string(), ..Self::default() };
        let names =
            parsed.subject_alternative_name().map_err(|error| format!("its subject alternative names: {error}"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => peer.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => peer.dns_names.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => peer.emails.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => peer.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        if let [uri] = peer.uris.as_slice()
            && let Ok(id) = uri.parse::<SpiffeId>()
        {
            peer.spiffe = uri.as_str().into();
            peer.trust_domain = id.trust_domain;
            peer.namespace = id.namespace;
            peer.service_account = id.service_account;
        }
        let mut pods = peer.dns_names.iter().filter_map(|name| name.parse::<PodName>().ok());
        if let (Some(pod), None) = (pods.next(), pods.next()) {
            peer.workload = pod.workload;
            peer.pod = pod.pod;
        }
        Ok(peer)
    }

    /// What access rules call the principal's name: the only URI, which for the mesh's own is the SPIFFE identity, else the first DNS name,
    /// else the subject. (Envoy compares every one of several.)
    pub fn principal(&self) -> &str {
        match (self.uris.as_slice(), self.dns_names.as_slice()) {
            ([uri], _) => uri,
            ([], [name, ..]) => name,
            ([], []) => &self.subject,
            // Which of them is meant nobody can say.
            _ => "",
        }
    }
}

/// The best name there is: the URI SANs, else the DNS SANs, else the subject.
impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.uris.is_empty() {
            f.write_str(&self.uris.join(", "))
        } else if !self.dns_names.is_empty() {
            f.write_str(&self.dns_names.join(", "))
        } else if !self.subject.is_empty() {
            f.write_str(&self.subject)
        } else {
            f.write_str("a certificate without names")
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{TestCa, Who, alice};

    fn read(who: &Who) -> PeerIdentity {
        PeerIdentity::from_certificate(&TestCa::new().issue(who).0[0]).unwrap()
    }

    #[test]
    fn a_meshed_peer_is_known_by_account_workload_and_pod() {
        let peer = read(&alice());
        assert_eq!(&*peer.spiffe, "spiffe://weft.local/ns/shop/sa/alice");
        assert_eq!((peer.namespace.as_str(), peer.service_account.as_str()), ("shop", "alice"));
        assert_eq!((peer.workload.as_str(), peer.pod.as_str()), ("alice-v1", "alice-v1-0"));
    }

    #[test]
    fn two_uris_name_nobody() {
        let mut who = alice();
        who.uris.push("spiffe://weft.local/ns/shop/sa/bob".into());
        let peer = read(&who);
        assert_eq!(&*peer.spiffe, "");
        assert_eq!(peer.uris.len(), 2);
        assert_eq!(peer.principal(), "");
    }

    #[test]
    fn the_principal_of_others_certificates_is_the_first_name_there_is() {
        let mut peer = PeerIdentity { subject: "CN=c".into(), ..PeerIdentity::default() };
        assert_eq!(peer.principal(), "CN=c");
        peer.dns_names = vec!["a.test".into(), "b.test".into()];
        assert_eq!(peer.principal(), "a.test");
        peer.uris = vec!["spiffe://test/client".into()];
        assert_eq!(peer.principal(), "spiffe://test/client", "no name of the mesh's, but the only one");
    }

    #[test]
    fn two_pod_names_name_no_pod() {
        let mut who = alice();
        who.dns.push("b.b.shop.pod.weft.mesh".into());
        assert_eq!(read(&who).pod, "");
    }
}
