//! What Envoy's upstream and downstream TLS contexts share (`CommonTlsContext`), compiled.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use weft_xds::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsCertificate, TlsParameters,
    common_tls_context::ValidationContextType,
};
use weft_xds::{FieldError, names};

use super::files::FromFiles;
use super::identity::{Leaf, LocalIdentity, TrustBundle};
use super::provider::provider;
use super::san::SanMatcher;
use super::verifier::Trust;

/// A compiled `CommonTlsContext`.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) sans: Vec<SanMatcher>,
    certificate: Source<CertifiedKey>,
    trust: Source<TrustBundle>,
}

#[derive(Debug)]
enum Source<T> {
    None,
    Fixed(Arc<FromFiles<T>>),
    /// The SDS secrets `identity` and `bundle`: this proxy's own.
    Local,
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Fixed(fixed) => Self::Fixed(Arc::clone(fixed)),
            Self::Local => Self::Local,
        }
    }
}

impl Common {
    /// The mesh's own context: TLS 1.3, our identity, our bundle.
    pub(super) fn mesh(alpn: &[&str]) -> Self {
        Self {
            provider: Arc::clone(provider()),
            versions: vec![&rustls::version::TLS13],
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            sans: Vec::new(),
            certificate: Source::Local,
            trust: Source::Local,
        }
    }

    pub(super) fn from_proto(message: &CommonTlsContext, path: &str) -> Result<Self, FieldError> {
        let default = TlsParameters::default();
        let params = message.tls_params.as_ref().unwrap_or(&default);
        let (sans, trust) = validation(message, path)?;
        Ok(Self {
            provider: crypto(params, &format!("{path}.tls_params"))?,
            versions: versions(params, &format!("{path}.tls_params"))?,
            alpn: alpn(&message.alpn_protocols, &format!("{path}.alpn_protocols"))?,
            sans,
            certificate: certificate(message, path)?,
            trust,
        })
    }

    pub(super) fn has_certificate(&self) -> bool {
        !matches!(self.certificate, Source::None)
    }

    pub(super) fn verifies_peers(&self) -> bool {
        !matches!(self.trust, Source::None)
    }

    pub(super) fn uses_local_identity(&self) -> bool {
        matches!(self.certificate, Source::Local) || matches!(self.trust, Source::Local)
    }

    pub(super) fn presenter(&self, local: &Arc<LocalIdentity>) -> Arc<Presenter> {
        Arc::new(match &self.certificate {
            Source::None => Presenter::Nobody,
            Source::Fixed(certified) => Presenter::Fixed(Arc::clone(certified)),
            Source::Local => Presenter::Local(Arc::clone(local)),
        })
    }

    pub(super) fn trust(&self, local: &Arc<LocalIdentity>) -> Trust {
        match &self.trust {
            Source::None => Trust::Anyone,
            Source::Fixed(bundle) => Trust::Bundle(Arc::clone(bundle)),
            Source::Local => Trust::Mesh(Arc::clone(local)),
        }
    }
}

/// Which certificate we show.
pub(super) enum Presenter {
    Nobody,
    Fixed(Arc<FromFiles<CertifiedKey>>),
    /// The one in force at the time of the handshake.
    Local(Arc<LocalIdentity>),
}

impl Presenter {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Nobody => None,
            Self::Fixed(certified) => Some(certified.current()),
            Self::Local(local) => Some(Arc::clone(&local.current().leaf.as_ref()?.certified)),
        }
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Fixed(_) => "Fixed",
            Self::Local(_) => "Local",
        })
    }
}

impl ResolvesServerCert for Presenter {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

fn certificate(message: &CommonTlsContext, path: &str) -> Result<Source<CertifiedKey>, FieldError> {
    let sds = &message.tls_certificate_sds_secret_configs;
    match (message.tls_certificates.as_slice(), sds.as_slice()) {
        ([], []) => Ok(Source::None),
        ([fixed], []) => {
            let path = format!("{path}.tls_certificates[0]");
            let sources = [fixed.certificate_chain.as_ref(), fixed.private_key.as_ref()];
            let message = fixed.clone();
            let certificate = FromFiles::new(&sources, move || fixed_certificate(&message, &path))?;
            Ok(Source::Fixed(Arc::new(certificate)))
        }
        ([], [secret]) => {
            let path = format!("{path}.tls_certificate_sds_secret_configs[0]");
            local_secret(secret, names::SECRET_IDENTITY, &path)?;
            Ok(Source::Local)
        }
        _ => Err(FieldError::new(
            format!("{path}.tls_certificates"),
            "more than one certificate for one context is not supported; keep one, and give others their own filter chain by server_names",
        )),
    }
}

fn fixed_certificate(message: &TlsCertificate, path: &str) -> Result<Arc<CertifiedKey>, FieldError> {
    let chain_path = format!("{path}.certificate_chain");
    let chain = certificates(message.certificate_chain.as_ref(), &chain_path)?;
    let key_path = format!("{path}.private_key");
    let pem = read(message.private_key.as_ref(), &key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        FieldError::new(
            &key_path,
            format!(
                "holds no usable private key: {error}; PEM of PKCS #8, SEC1 or PKCS #1 without a password is expected"
            ),
        )
    })?;
    let leaf = Leaf::new(chain, key).map_err(|error| FieldError::new(path, error.to_string()))?;
    Ok(leaf.certified)
}

fn validation(message: &CommonTlsContext, path: &str) -> Result<(Vec<SanMatcher>, Source<TrustBundle>), FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    match &message.validation_context_type {
        None => Ok((Vec::new(), Source::None)),
        Some(ValidationContextType::ValidationContext(context)) => {
            let path = at("validation_context");
            let sans = sans(context, &path)?;
            let Some(ca) = &context.trusted_ca else {
                if sans.is_empty() {
                    return Ok((sans, Source::None));
                }
                return Err(FieldError::missing(
                    format!("{path}.trusted_ca"),
                    "without it names prove nothing; set it, or remove match_typed_subject_alt_names",
                ));
            };
            let (path, source) = (format!("{path}.trusted_ca"), ca.clone());
            let bundle = FromFiles::new(&[Some(ca)], move || bundle(&source, &path))?;
            Ok((sans, Source::Fixed(Arc::new(bundle))))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            local_secret(secret, names::SECRET_BUNDLE, &at("validation_context_sds_secret_config"))?;
            Ok((Vec::new(), Source::Local))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let path = at("combined_validation_context");
            let secret_path = format!("{path}.validation_context_sds_secret_config");
            let secret = combined
                .validation_context_sds_secret_config
                .as_ref()
                .ok_or_else(|| FieldError::missing(&secret_path, "name the secret, or use validation_context"))?;
            local_secret(secret, names::SECRET_BUNDLE, &secret_path)?;
            let sans = match &combined.default_validation_context {
                Some(context) => sans(context, &format!("{path}.default_validation_context"))?,
                None => Vec::new(),
            };
            Ok((sans, Source::Local))
        }
        Some(_) => Err(FieldError::new(
            at("validation_context_type"),
            "certificate providers are not supported; use validation_context, or the SDS secret `bundle`",
        )),
    }
}

fn sans(context: &CertificateValidationContext, path: &str) -> Result<Vec<SanMatcher>, FieldError> {
    context
        .match_typed_subject_alt_names
        .iter()
        .enumerate()
        .map(|(index, message)| {
            SanMatcher::from_proto(message, &format!("{path}.match_typed_subject_alt_names[{index}]"))
        })
        .collect()
}

fn local_secret(secret: &SdsSecretConfig, known: &str, path: &str) -> Result<(), FieldError> {
    if secret.name == known {
        return Ok(());
    }
    Err(FieldError::invalid(
        format!("{path}.name"),
        &secret.name,
        "is no secret that is known here",
        format_args!("use `{known}` for the proxy's own, or give files instead of SDS"),
    ))
}

fn bundle(source: &DataSource, path: &str) -> Result<Arc<TrustBundle>, FieldError> {
    TrustBundle::new(certificates(Some(source), path)?)
        .map(Arc::new)
        .map_err(|error| FieldError::new(path, error.to_string()))
}

fn certificates(source: Option<&DataSource>, path: &str) -> Result<Vec<CertificateDer<'static>>, FieldError> {
    let pem = read(source, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(FieldError::new(path, "holds no certificate; PEM is expected")),
        Err(error) => Err(FieldError::new(path, format!("is not valid PEM: {error}"))),
    }
}

/// Reads a `DataSource`.
pub(super) fn read(source: Option<&DataSource>, path: &str) -> Result<Vec<u8>, FieldError> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::Filename(name)) => std::fs::read(name).map_err(|error| {
            FieldError::invalid(
                format!("{path}.filename"),
                name,
                format_args!("cannot be read: {error}"),
                "check that it exists and that the proxy's user may read it",
            )
        }),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::EnvironmentVariable(name)) => std::env::var(name).map(String::into_bytes).map_err(|error| {
            FieldError::invalid(
                format!("{path}.environment_variable"),
                name,
                format_args!("cannot be read: {error}"),
                "set it, or use filename",
            )
        }),
        None => Err(FieldError::missing(path, "set filename, inline_bytes or inline_string")),
    }
}

fn alpn(protocols: &[String], path: &str) -> Result<Vec<Vec<u8>>, FieldError> {
    protocols
        .iter()
        .enumerate()
        .map(|(index, name)| {
            // RFC 7301 §3.1: one byte holds the length.
            if name.is_empty() || name.len() > 255 {
                let path = format!("{path}[{index}]");
                return Err(FieldError::invalid(path, name, "has no 1 to 255 bytes", "correct it"));
            }
            Ok(name.as_bytes().to_vec())
        })
        .collect()
}

fn versions(params: &TlsParameters, path: &str) -> Result<Vec<&'static SupportedProtocolVersion>, FieldError> {
    // Envoy's defaults: 1.2 at least, 1.3 at most.
    let minimum = match version(params.tls_minimum_protocol_version) {
        Ok(version) => version.unwrap_or(2),
        Err(error) => return Err(error.within(&format!("{path}.tls_minimum_protocol_version"))),
    };
    let maximum = match version(params.tls_maximum_protocol_version) {
        Ok(version) => version.unwrap_or(3),
        Err(error) => return Err(error.within(&format!("{path}.tls_maximum_protocol_version"))),
    };
    let versions: Vec<_> = [(3, &rustls::version::TLS13), (2, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(minor, _)| (minimum..=maximum).contains(minor))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        return Err(FieldError::new(
            format!("{path}.tls_minimum_protocol_version"),
            "is above tls_maximum_protocol_version; swap them",
        ));
    }
    Ok(versions)
}

/// The minor version; `None` for the default.
fn version(protocol: i32) -> Result<Option<u8>, FieldError> {
    match TlsProtocol::try_from(protocol) {
        Ok(TlsProtocol::TlsAuto) => Ok(None),
        Ok(TlsProtocol::TlSv12) => Ok(Some(2)),
        Ok(TlsProtocol::TlSv13) => Ok(Some(3)),
        Ok(old) => Err(FieldError::invalid("", old.as_str_name(), "is not supported", "use TLSv1_2 or TLSv1_3")),
        Err(_) => Err(FieldError::invalid("", protocol, "is no version", "use TLSv1_2 or TLSv1_3")),
    }
}

/// Envoy's names of the TLS 1.2 suites we have. Like BoringSSL, we let no configuration choose among TLS 1.3's.
const SUITES: &[(&str, &str)] = &[
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

const CURVES: &[(&str, NamedGroup)] = &[
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("P-256", NamedGroup::secp256r1),
    ("P-384", NamedGroup::secp384r1),
];

fn crypto(params: &TlsParameters, path: &str) -> Result<Arc<CryptoProvider>, FieldError> {
    if params.cipher_suites.is_empty() && params.ecdh_curves.is_empty() {
        return Ok(Arc::clone(provider()));
    }
    let mut chosen = CryptoProvider::clone(provider());
    if !params.cipher_suites.is_empty() {
        let mut suites: Vec<SupportedCipherSuite> =
            chosen.cipher_suites.iter().filter(|suite| suite.tls13().is_some()).copied().collect();
        for (index, group) in params.cipher_suites.iter().enumerate() {
            // `[a|b]` is a group of equal preference.
            for name in group.trim_matches(['[', ']']).split('|') {
                let suite =
                    SUITES.iter().find(|(envoy, iana)| name == *envoy || name == *iana).and_then(|(_, iana)| {
                        let all = &chosen.cipher_suites;
                        all.iter().find(|suite| format!("{:?}", suite.suite()) == *iana)
                    });
                suites.push(*suite.ok_or_else(|| {
                    let known: Vec<_> = SUITES.iter().map(|(envoy, _)| *envoy).collect();
                    unsupported(&format!("{path}.cipher_suites[{index}]"), name, &known)
                })?);
            }
        }
        chosen.cipher_suites = suites;
    }
    if !params.ecdh_curves.is_empty() {
        let groups: Result<Vec<&'static dyn SupportedKxGroup>, FieldError> = params
            .ecdh_curves
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let group = CURVES
                    .iter()
                    .find(|(envoy, _)| name == envoy)
                    .and_then(|(_, group)| chosen.kx_groups.iter().find(|known| known.name() == *group));
                group.copied().ok_or_else(|| {
                    let known: Vec<_> = CURVES.iter().map(|(envoy, _)| *envoy).collect();
                    unsupported(&format!("{path}.ecdh_curves[{index}]"), name, &known)
                })
            })
            .collect();
        chosen.kx_groups = groups?;
    }
    Ok(Arc::new(chosen))
}

fn unsupported(path: &str, name: &str, known: &[&str]) -> FieldError {
    FieldError::invalid(path, name, "is not supported", format_args!("use {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(yaml: &str) -> String {
        let message: CommonTlsContext = weft_xds::yaml::from_str(yaml).unwrap();
        Common::from_proto(&message, "tls").unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_path() {
        for (yaml, expected) in [
            (
                "tls_params: {tls_minimum_protocol_version: TLSv1_0}",
                "tls.tls_params.tls_minimum_protocol_version: `TLSv1_0` is not supported",
            ),
            (
                "tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2}",
                "tls.tls_params.tls_minimum_protocol_version: is above",
            ),
            (
                "tls_params: {cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA]}",
                "tls.tls_params.cipher_suites[1]: `AES128-SHA` is not supported",
            ),
            ("tls_params: {ecdh_curves: [P-521]}", "tls.tls_params.ecdh_curves[0]: `P-521` is not supported"),
            (
                "tls_certificates: [{certificate_chain: {filename: /nonexistent}}]",
                "tls.tls_certificates[0].certificate_chain.filename: `/nonexistent` cannot be read",
            ),
            (
                "tls_certificates: [{certificate_chain: {inline_string: nothing}}]",
                "tls.tls_certificates[0].certificate_chain: holds no certificate",
            ),
            (
                "tls_certificates: [{certificate_chain: {environment_variable: PATH}}]",
                "tls.tls_certificates[0].certificate_chain: holds no certificate",
            ),
            (
                "tls_certificates: [{certificate_chain: {environment_variable: 'NO=NAME'}}]",
                "tls.tls_certificates[0].certificate_chain.environment_variable: `NO=NAME` cannot be read",
            ),
            (
                "validation_context: {}\ntls_certificate_sds_secret_configs: [{name: other}]",
                "tls.tls_certificate_sds_secret_configs[0].name: `other` is no secret",
            ),
            (
                "validation_context_sds_secret_config: {name: other}",
                "tls.validation_context_sds_secret_config.name: `other`",
            ),
            (
                "validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]}",
                "tls.validation_context.trusted_ca: is required",
            ),
            ("alpn_protocols: ['']", "tls.alpn_protocols[0]: "),
        ] {
            let error = error(yaml);
            assert!(error.starts_with(expected), "{yaml}\n  {error}");
        }
    }

    #[test]
    fn versions_suites_and_curves_are_chosen() {
        let message = weft_xds::yaml::from_str(
            "tls_params: {tls_maximum_protocol_version: TLSv1_2, cipher_suites: ['[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]'], ecdh_curves: [P-256]}",
        )
        .unwrap();
        let common = Common::from_proto(&message, "tls").unwrap();
        assert_eq!(common.versions, [&rustls::version::TLS12]);
        assert_eq!(common.provider.kx_groups.len(), 1);
        let suites = common.provider.cipher_suites.iter();
        assert_eq!(suites.filter(|suite| suite.tls13().is_none()).count(), 2);
    }
}
