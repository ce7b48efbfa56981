//! Mutual TLS between sidecars.

use weft_xds::names;

use super::values::{ads, any, core, sockets, truth};
use crate::model::Protocol;

/// What a sidecar offers and accepts for a protocol: the ALPN name says what is inside.
pub(super) fn alpn(protocol: Protocol) -> Vec<&'static str> {
    match protocol {
        Protocol::Http => vec![names::ALPN_HTTP1, names::ALPN_H2],
        Protocol::Http2 | Protocol::Grpc => vec![names::ALPN_H2],
        Protocol::Opaque => vec![names::ALPN_TCP],
        Protocol::Detect => vec![names::ALPN_HTTP1, names::ALPN_H2, names::ALPN_TCP],
    }
}

pub(super) fn downstream(alpn: &[&str]) -> core::TransportSocket {
    socket(
        "envoy.transport_sockets.tls",
        &sockets::DownstreamTlsContext {
            common_tls_context: Some(common(alpn)),
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

pub(super) fn upstream(alpn: &[&str], sni: String) -> core::TransportSocket {
    socket(
        "envoy.transport_sockets.tls",
        &sockets::UpstreamTlsContext {
            common_tls_context: Some(common(alpn)),
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

fn common(alpn: &[&str]) -> sockets::CommonTlsContext {
    use sockets::tls_parameters::TlsProtocol::TlSv13;
    sockets::CommonTlsContext {
        tls_params: Some(sockets::TlsParameters {
            tls_minimum_protocol_version: TlSv13.into(),
            tls_maximum_protocol_version: TlSv13.into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(names::SECRET_IDENTITY)],
        validation_context_type: Some(
            sockets::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret(
                names::SECRET_BUNDLE,
            )),
        ),
        alpn_protocols: alpn.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    }
}

fn secret(name: &str) -> sockets::SdsSecretConfig {
    sockets::SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}

fn socket<M: prost::Message + prost::Name>(name: &str, context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: any(context).map(core::transport_socket::ConfigType::TypedConfig),
    }
}
