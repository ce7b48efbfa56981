//! The cryptography behind every handshake: aws-lc-rs.

use std::sync::{Arc, LazyLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

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
