use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn open(folder: &Path, now: SystemTime) -> Authority {
    let settings = Settings { trust_domain: "weft.local".into(), certificate_lifetime: HOUR, root_overlap: HOUR };
    Authority::open(folder, settings, now).unwrap()
}

fn subject() -> Subject {
    Subject {
        id: SpiffeId::new("weft.local", "shop", "reviews").unwrap(),
        pod: PodName::new("reviews-0", "reviews-v1", "shop").unwrap(),
    }
}

fn csr(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

fn plain_csr() -> Vec<u8> {
    csr(&CertificateParams::default(), &KeyPair::generate().unwrap())
}

/// Whether a peer with this bundle accepts this leaf at this time.
fn accepts(trust: &Trust, leaf: &CertificateDer<'_>, at: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    for root in &trust.bundle {
        roots.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap()
        .verify_client_cert(leaf, &[], UnixTime::since_unix_epoch(since))
        .is_ok()
}

#[test]
fn a_csr_gets_the_names_and_usages_of_policy_whatever_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(folder.path(), now);
    let mut greedy = CertificateParams::new(vec!["weft-control-plane".to_owned()]).unwrap();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = csr(&greedy, &KeyPair::generate().unwrap());
    let signed = authority.sign(&csr, &subject(), now).unwrap();

    let (_, leaf) = x509_parser::parse_x509_certificate(&signed.leaf).unwrap();
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(
        names.general_names,
        [
            GeneralName::URI("spiffe://weft.local/ns/shop/sa/reviews"),
            GeneralName::DNSName("reviews-0.reviews-v1.shop.pod.weft.mesh"),
        ]
    );
    let usages = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.client_auth && usages.server_auth && !usages.any);
    assert!(signed.not_before < unix(now));
    assert_eq!(signed.not_after, unix(now + HOUR));
    assert!(accepts(&authority.trust().borrow(), &signed.leaf, now));
    assert!(!accepts(&authority.trust().borrow(), &signed.leaf, now + HOUR * 2));
}

#[test]
fn two_certificates_of_one_key_have_different_serial_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(folder.path(), now);
    let csr = plain_csr();
    let serial = |leaf: &CertificateDer<'_>| {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).unwrap();
        leaf.raw_serial().to_vec()
    };
    let sign = || serial(&authority.sign(&csr, &subject(), now).unwrap().leaf);
    assert_ne!(sign(), sign());
}

#[test]
fn csrs_that_are_malformed_or_of_another_kind_of_key_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(folder.path(), now);
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut forged = plain_csr();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for csr in [b"not a csr".to_vec(), csr(&CertificateParams::default(), &p384), forged, vec![0x30; MAX_CSR + 1]] {
        let error = authority.sign(&csr, &subject(), now).unwrap_err();
        assert!(matches!(error, AuthorityError::Request(_)), "{error}");
    }
}

#[test]
fn the_authority_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let before = open(folder.path(), now);
    let signed = before.sign(&plain_csr(), &subject(), now).unwrap();
    let after = open(folder.path(), now);
    assert_eq!(*before.trust().borrow(), *after.trust().borrow());
    let renewed = after.sign(&plain_csr(), &subject(), now).unwrap();
    assert!(accepts(&after.trust().borrow(), &signed.leaf, now));
    assert!(accepts(&before.trust().borrow(), &renewed.leaf, now));
}

#[tokio::test]
async fn during_a_rotation_every_peer_accepts_every_unexpired_leaf() {
    let folder = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let authority = open(folder.path(), start);
    authority.rotate(start).await.unwrap();
    // Leafs are signed and peers learn the bundle every ten minutes; each leaf must be accepted by each bundle that was
    // current at some time since (overlap: one hour) the leaf's own.
    let step = HOUR / 6;
    let mut history: Vec<(SystemTime, Arc<Trust>, CertificateDer<'static>)> = Vec::new();
    for tick in 0..24 {
        let now = start + step * tick;
        authority.advance(now).await.unwrap();
        let leaf = authority.sign(&plain_csr(), &subject(), now).unwrap().leaf;
        history.push((now, authority.trust().borrow().clone(), leaf));
        let recent = history.iter().rev().take_while(|(at, ..)| *at + HOUR > now);
        for (learned, trust, _) in recent.clone() {
            for (signed, _, leaf) in recent.clone() {
                let stale_bundle = now.duration_since(*learned).unwrap() >= HOUR;
                assert!(stale_bundle || accepts(trust, leaf, now), "{tick} {learned:?} {signed:?}");
            }
        }
    }
    let sizes: Vec<_> = history.iter().map(|(_, trust, _)| trust.bundle.len()).collect();
    assert_eq!((sizes[0], sizes[23]), (2, 1), "the old root leaves in the end");
    let (first, last) = (&history[0].1, &history[23].1);
    assert_eq!(first.bundle[1], last.bundle[0]);
}

#[tokio::test]
async fn a_rotation_goes_on_after_a_restart_and_cannot_start_twice() {
    let folder = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let authority = open(folder.path(), start);
    authority.rotate(start).await.unwrap();
    let error = authority.rotate(start).await.unwrap_err();
    assert!(matches!(error, AuthorityError::Rotating { .. }), "{error}");
    let later = start + HOUR + Duration::from_secs(1);
    let authority = open(folder.path(), later);
    assert_eq!(authority.trust().borrow().signer, 1);
    authority.advance(start + HOUR * 3).await.unwrap();
    assert_eq!(authority.trust().borrow().bundle.len(), 1);
    assert_eq!(open(folder.path(), start).trust().borrow().bundle.len(), 1);
    authority.rotate(start + HOUR * 3).await.unwrap();
}

#[test]
fn the_serving_certificate_is_for_servers_only() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let names = ["weft-control-plane".to_owned(), "198.18.0.1".to_owned()];
    let (signed, _) = open(folder.path(), now).issue_serving(&names, now).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&signed.leaf).unwrap();
    let usages = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.server_auth && !usages.client_auth);
    let names = leaf.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    assert_eq!(
        *names.unwrap(),
        [GeneralName::DNSName("weft-control-plane"), GeneralName::IPAddress(&[198, 18, 0, 1]),]
    );
}
