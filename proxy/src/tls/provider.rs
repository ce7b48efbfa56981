//! The cryptography behind every handshake: aws-lc-rs.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, DigitallySignedStruct, SignatureScheme};

/// X25519MLKEM768 first, as rustls has it with `prefer-post-quantum`; AES-128-GCM first, because it costs less per byte
/// than AES-256 and the key exchange is the weaker part either way.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        suite if format!("{suite:?}").starts_with("TLS13") => 1,
        _ => 2,
    });
    Arc::new(provider)
});

/// The one provider of this process.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Whether who handshakes has the certificate's key, by TLS 1.2: a half of what every verifier of certificates does.
pub(crate) fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
}

/// The same by TLS 1.3.
pub(crate) fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
}

/// The signatures that the two can verify.
pub(crate) fn verify_schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    #[test]
    fn the_post_quantum_group_and_the_cheapest_cipher_come_first() {
        let provider = provider();
        assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
        assert_eq!(provider.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}
