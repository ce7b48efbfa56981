//! TLS contexts and secrets.
//!
//! Sessions are never resumed and never renegotiated: every limit on that is kept.

use super::Decision;

pub(super) static TABLE: &[Decision] = &[
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        enforced: &["common_tls_context", "sni"],
        ignored: &["enforce_rsa_key_usage", "max_session_keys"],
        refused: &["auto_host_sni", "auto_sni_san_validation", "allow_renegotiation"],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        enforced: &["common_tls_context", "require_client_certificate", "require_sni"],
        ignored: &[
            "session_ticket_keys",
            "session_ticket_keys_sds_secret_config",
            "session_timeout",
            "full_scan_certs_on_sni_mismatch",
            "prefer_client_ciphers",
            "disable_stateless_session_resumption",
            "disable_stateful_session_resumption",
        ],
        refused: &["ocsp_staple_policy"],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        enforced: &[
            "tls_params",
            "tls_certificates",
            "tls_certificate_sds_secret_configs",
            "validation_context",
            "validation_context_sds_secret_config",
            "combined_validation_context",
            "alpn_protocols",
        ],
        ignored: &["key_log"],
        refused: &[
            "tls_certificate_provider_instance",
            "custom_tls_certificate_selector",
            "tls_certificate_certificate_provider",
            "tls_certificate_certificate_provider_instance",
            "validation_context_certificate_provider",
            "validation_context_certificate_provider_instance",
            "custom_handshaker",
        ],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        enforced: &["default_validation_context", "validation_context_sds_secret_config"],
        ignored: &[],
        refused: &["validation_context_certificate_provider", "validation_context_certificate_provider_instance"],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        enforced: &["trusted_ca", "match_typed_subject_alt_names"],
        ignored: &["only_verify_leaf_cert_crl", "suppress_client_ca_list"],
        refused: &[
            "ca_certificate_provider_instance",
            "system_root_certs",
            "watched_directory",
            "verify_certificate_spki",
            "verify_certificate_hash",
            "match_subject_alt_names",
            "require_signed_certificate_timestamp",
            "crl",
            "allow_expired_certificate",
            "trust_chain_verification",
            "custom_validator_config",
            "max_verify_depth",
        ],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        enforced: &["san_type", "matcher"],
        ignored: &[],
        refused: &["oid"],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        enforced: &["certificate_chain", "private_key"],
        ignored: &[],
        refused: &[
            "pkcs12",
            "watched_directory",
            "private_key_provider",
            "password",
            "ocsp_staple",
            "signed_certificate_timestamp",
            "tls_params",
        ],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        enforced: &["tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves"],
        ignored: &[],
        refused: &["signature_algorithms", "compliance_policies"],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        enforced: &["name", "sds_config"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.tls.v3.Secret",
        enforced: &["name", "validation_context"],
        ignored: &[],
        refused: &["tls_certificate", "session_ticket_keys", "generic_secret"],
    },
    Decision {
        message: "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        enforced: &[],
        ignored: &[],
        refused: &[],
    },
];
