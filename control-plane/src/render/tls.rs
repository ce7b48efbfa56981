//! Mutual TLS between sidecars.

use weft_xds::names;

use super::values::{ads, any, core, matcher, sockets, string, truth};
use crate::model::Protocol;
use crate::{ClientKind, View};

/// What a sidecar offers and accepts for a protocol: the ALPN name says what is inside.
pub(super) fn alpn(protocol: Protocol) -> Vec<&'static str> {
    match protocol {
        Protocol::Http => vec![names::ALPN_HTTP1, names::ALPN_H2],
        Protocol::Http2 | Protocol::Grpc => vec![names::ALPN_H2],
        Protocol::Opaque => vec![names::ALPN_TCP],
        Protocol::Detect => vec![names::ALPN_HTTP1, names::ALPN_H2, names::ALPN_TCP],
    }
}

pub(super) fn downstream(alpn: &[&str], view: &View) -> core::TransportSocket {
    socket(
        "envoy.transport_sockets.tls",
        &sockets::DownstreamTlsContext {
            common_tls_context: Some(common(alpn, view)),
            require_client_certificate: truth(true),
            // A resumed session would skip the check of the peer's certificate against a new bundle.
            disable_stateful_session_resumption: true,
            session_ticket_keys_type: Some(
                sockets::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(true),
            ),
            ..Default::default()
        },
    )
}

/// Toward endpoints whose identity is in their metadata, where our own sidecars look for it.
pub(super) fn upstream(alpn: &[&str], sni: String, view: &View) -> core::TransportSocket {
    client(common(alpn, view), sni)
}

/// Toward endpoints that must have this identity.
pub(super) fn upstream_to(identity: &str, alpn: &[&str], sni: String, view: &View) -> core::TransportSocket {
    use matcher::string_matcher::MatchPattern;
    use sockets::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let san = sockets::SubjectAltNameMatcher {
        san_type: sockets::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(string(MatchPattern::Exact(identity.to_owned()))),
        ..Default::default()
    };
    let both = CombinedCertificateValidationContext {
        default_validation_context: Some(sockets::CertificateValidationContext {
            match_typed_subject_alt_names: vec![san],
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(secret(names::SECRET_BUNDLE, ads())),
        ..Default::default()
    };
    let context = sockets::CommonTlsContext {
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(both)),
        ..common(alpn, view)
    };
    client(context, sni)
}

fn client(context: sockets::CommonTlsContext, sni: String) -> core::TransportSocket {
    socket(
        "envoy.transport_sockets.tls",
        &sockets::UpstreamTlsContext {
            common_tls_context: Some(context),
            sni,
            // As above: no sessions to resume.
            max_session_keys: super::values::number(0_u32),
            ..Default::default()
        },
    )
}

pub(super) fn plaintext() -> core::TransportSocket {
    socket(
        "envoy.transport_sockets.raw_buffer",
        &weft_xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer {},
    )
}

fn common(alpn: &[&str], view: &View) -> sockets::CommonTlsContext {
    use sockets::tls_parameters::TlsProtocol::TlSv13;
    sockets::CommonTlsContext {
        tls_params: Some(sockets::TlsParameters {
            tls_minimum_protocol_version: TlSv13.into(),
            tls_maximum_protocol_version: TlSv13.into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(names::SECRET_IDENTITY, identity(view))],
        validation_context_type: Some(
            sockets::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret(
                names::SECRET_BUNDLE,
                ads(),
            )),
        ),
        alpn_protocols: alpn.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    }
}

fn secret(name: &str, source: core::ConfigSource) -> sockets::SdsSecretConfig {
    sockets::SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

/// Where the workload's own key and certificate come from. Our own sidecars never ask for them: they have them.
fn identity(view: &View) -> core::ConfigSource {
    let (ClientKind::Envoy, Some(folder)) = (view.client, &view.agent_folder) else { return ads() };
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::PathConfigSource(
            core::PathConfigSource { path: format!("{folder}/{}", names::AGENT_IDENTITY), ..Default::default() },
        )),
        ..Default::default()
    }
}

pub(super) fn socket<M: prost::Message + prost::Name>(name: &str, context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: any(context).map(core::transport_socket::ConfigType::TypedConfig),
    }
}
