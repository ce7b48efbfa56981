//! A certificate authority for tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

use super::{Leaf, LocalIdentity, TrustBundle};

/// Whom a certificate is for.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// A workload, valid for an hour on either side of now.
pub(crate) fn workload(account: &str, workload: &str, pod: &str) -> Who {
    let hour = Duration::from_secs(3600);
    Who {
        uris: vec![format!("spiffe://weft.local/ns/shop/sa/{account}")],
        dns: vec![format!("{pod}.{workload}.shop.pod.weft.mesh")],
        not_before: SystemTime::now() - hour,
        not_after: SystemTime::now() + hour,
    }
}

pub(crate) fn alice() -> Who {
    workload("alice", "alice-v1", "alice-v1-0")
}

pub(crate) fn bob() -> Who {
    workload("bob", "bob-v1", "bob-v1-0")
}

pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(vec![self.root()]).unwrap()
    }

    pub(crate) fn issue(&self, who: &Who) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(who).signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    }

    /// Signs as the control plane does: the names are `who`'s, whatever the request says.
    pub(crate) fn sign(&self, csr: &[u8], who: &Who) -> CertificateDer<'static> {
        let csr = CertificateSigningRequestDer::from(csr);
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        request.params = params(who);
        request.signed_by(&self.issuer).unwrap().der().clone()
    }

    pub(crate) fn leaf(&self, who: &Who) -> Leaf {
        let (chain, key) = self.issue(who);
        Leaf::new(chain, key).unwrap()
    }

    /// An identity that trusts this authority.
    pub(crate) fn identity(&self, who: &Who) -> Arc<LocalIdentity> {
        let identity = LocalIdentity::new();
        identity.install(self.leaf(who), Some(self.bundle()));
        identity
    }
}

fn params(who: &Who) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = who.not_before.into();
    params.not_after = who.not_after.into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let uris = who.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
    let dns = who.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
    params.subject_alt_names = uris.chain(dns).collect();
    params
}
