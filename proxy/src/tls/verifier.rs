//! What a peer's certificate must say, in both directions.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use weft_xds::names::SpiffeId;

use super::files::FromFiles;
use super::identity::{LocalIdentity, TrustBundle};
use super::peer::PeerIdentity;
use super::provider::{self, provider};
use super::san::SanMatcher;

/// Who an endpoint must prove to be, as EDS says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ExpectedPeer {
    /// The SPIFFE id that must be its only URI SAN.
    pub identity: Option<Arc<str>>,
    /// The pod's DNS name that must be among its DNS SANs: catches an address that another pod of the same service
    /// account has now.
    pub pod: Option<Arc<str>>,
}

/// Why a peer's certificate was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Another identity than the endpoint's.
    #[error("expected {expected}, but the peer is {presented}; its address may have been given to another pod")]
    Identity {
        /// What EDS says.
        expected: String,
        /// What the certificate says.
        presented: String,
    },
    /// The right identity, but another pod.
    #[error("expected pod {expected}, but the peer is {presented}; its address may have been given to another pod")]
    Pod {
        /// What EDS says.
        expected: String,
        /// What the certificate says.
        presented: String,
    },
    /// Not exactly one SPIFFE id (X.509-SVID §2).
    #[error("{presented} is not exactly one SPIFFE id of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    NotOneSpiffeId {
        /// What the certificate says.
        presented: String,
    },
    /// A trust domain other than ours.
    #[error("{presented} is not of our trust domain `{ours}`")]
    TrustDomain {
        /// Ours.
        ours: String,
        /// What the certificate says.
        presented: String,
    },
    /// None of the configured matchers accepts a name of the certificate.
    #[error("{presented} is accepted by no matcher of match_typed_subject_alt_names")]
    SubjectAltNames {
        /// What the certificate says.
        presented: String,
    },
    /// Signed by nobody we trust.
    #[error("the certificate of {presented} is signed by none of the {roots} trusted roots")]
    UnknownIssuer {
        /// What the certificate says.
        presented: String,
        /// How many roots there are.
        roots: usize,
    },
    /// Expired by our clock.
    #[error("the certificate of {presented} expired at {}, and our clock says {}; compare both clocks, then see why it was not renewed", utc(*not_after), utc(*now))]
    Expired {
        /// What the certificate says.
        presented: String,
        /// End of validity, Unix seconds.
        not_after: u64,
        /// Our clock, Unix seconds.
        now: u64,
    },
    /// Not yet valid by our clock.
    #[error("the certificate of {presented} is valid from {}, and our clock says {}; compare both clocks", utc(*not_before), utc(*now))]
    NotYetValid {
        /// What the certificate says.
        presented: String,
        /// Start of validity, Unix seconds.
        not_before: u64,
        /// Our clock, Unix seconds.
        now: u64,
    },
    /// Anything else that path building found.
    #[error("the certificate of {presented} is not acceptable: {problem}")]
    Chain {
        /// What the certificate says.
        presented: String,
        /// What rustls says.
        problem: String,
    },
    /// Does not parse.
    #[error("the peer's certificate does not parse: {0}")]
    Unreadable(String),
    /// The endpoint has to prove an identity, and nobody said which.
    #[error("the peer is {presented}, but neither EDS nor match_typed_subject_alt_names says who it must be")]
    NobodyExpected {
        /// What the certificate says.
        presented: String,
    },
    /// We hold no trust bundle.
    #[error("no trust bundle has arrived yet, so no peer can be verified; see /certs")]
    NoBundle,
}

impl PeerError {
    /// The error inside what rustls returned.
    pub fn find(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
            _ => None,
        }
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// Whose signature counts.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// The mesh's bundle as it is at the time of each handshake. The peer must carry exactly one SPIFFE id of our domain.
    Mesh(Arc<LocalIdentity>),
    /// A bundle of its own.
    Bundle(Arc<FromFiles<TrustBundle>>),
    /// Anybody's: Envoy's behaviour without a validation context.
    Anyone,
}

impl Trust {
    fn bundle(&self) -> Result<Option<Arc<TrustBundle>>, PeerError> {
        match self {
            Self::Mesh(local) => Ok(Some(local.current().bundle.clone().ok_or(PeerError::NoBundle)?)),
            Self::Bundle(bundle) => Ok(Some(bundle.current())),
            Self::Anyone => Ok(None),
        }
    }

    /// Checks the names of a certificate whose chain is verified.
    fn check_names(&self, peer: &PeerIdentity, sans: &[SanMatcher]) -> Result<(), PeerError> {
        let presented = || peer.to_string();
        if let Self::Mesh(local) = self {
            if peer.spiffe.is_empty() {
                return Err(PeerError::NotOneSpiffeId { presented: presented() });
            }
            // A bundle is one trust domain's (SPIFFE Trust Domain and Bundle §4): its roots say nothing about others.
            if let Some(leaf) = &local.current().leaf
                && leaf.identity.trust_domain != peer.trust_domain
            {
                return Err(PeerError::TrustDomain {
                    ours: leaf.identity.trust_domain.clone(),
                    presented: presented(),
                });
            }
        }
        if !sans.is_empty() && !sans.iter().any(|matcher| matcher.matches(peer)) {
            return Err(PeerError::SubjectAltNames { presented: presented() });
        }
        Ok(())
    }
}

impl ExpectedPeer {
    fn check(&self, peer: &PeerIdentity) -> Result<(), PeerError> {
        if let Some(expected) = &self.identity
            && peer.spiffe != *expected
        {
            return Err(PeerError::Identity { expected: expected.to_string(), presented: peer.to_string() });
        }
        if let Some(expected) = &self.pod
            && !peer.dns_names.iter().any(|name| **name == **expected)
        {
            return Err(PeerError::Pod { expected: expected.to_string(), presented: peer.dns_names.join(", ") });
        }
        Ok(())
    }
}

/// Verifies servers: chain, then names, then the endpoint's identity. The TLS server name plays no part.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) trust: Trust,
    pub(super) expected: ExpectedPeer,
    pub(super) sans: Vec<SanMatcher>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = PeerIdentity::from_certificate(end_entity).map_err(PeerError::Unreadable)?;
        if let Some(bundle) = self.trust.bundle()? {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &bundle.roots,
                intermediates,
                now,
                provider().signature_verification_algorithms.all,
            )
            .map_err(|error| explain(error, &peer, &bundle))?;
        }
        self.trust.check_names(&peer, &self.sans)?;
        // Any workload of the mesh has a certificate under its bundle: without a name it proves nothing.
        if matches!(self.trust, Trust::Mesh(_)) && self.expected.identity.is_none() && self.sans.is_empty() {
            let presented = peer.to_string();
            return Err(PeerError::NobodyExpected { presented }.into());
        }
        self.expected.check(&peer)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        provider::verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        provider::verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::verify_schemes()
    }
}

/// Verifies clients: rustls's own verifier over the bundle of the moment, then names.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) trust: Trust,
    pub(super) mandatory: bool,
    pub(super) sans: Vec<SanMatcher>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Empty: clients have one certificate, and the names of the roots are nobody's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let peer = PeerIdentity::from_certificate(end_entity).map_err(PeerError::Unreadable)?;
        if let Some(bundle) = self.trust.bundle()? {
            bundle
                .client_verifier
                .verify_client_cert(end_entity, intermediates, now)
                .map_err(|error| explain(error, &peer, &bundle))?;
        }
        self.trust.check_names(&peer, &self.sans)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        provider::verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        provider::verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::verify_schemes()
    }
}

/// Adds who the peer is to what path building found.
fn explain(error: rustls::Error, peer: &PeerIdentity, bundle: &TrustBundle) -> PeerError {
    let presented = peer.to_string();
    match error {
        // A root with the right name and another key, as after a rotation, shows as a bad signature.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            PeerError::UnknownIssuer { presented, roots: bundle.certificates().len() }
        }
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            PeerError::Expired { presented, not_after: not_after.as_secs(), now: time.as_secs() }
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            PeerError::NotYetValid { presented, not_before: not_before.as_secs(), now: time.as_secs() }
        }
        other => PeerError::Chain { presented, problem: other.to_string() },
    }
}

/// `2026-11-25T01:31:00Z`. Days to a civil date by the usual 400-year eras, from March 1.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The SPIFFE id and pod that EDS names for an endpoint, as given in its metadata.
///
/// # Errors
/// If the id is not one of the mesh's: nothing could ever match it.
pub fn expected_peer(identity: &str, pod: Option<&str>) -> Result<ExpectedPeer, weft_xds::names::NameError> {
    identity.parse::<SpiffeId>()?;
    Ok(ExpectedPeer { identity: Some(identity.into()), pod: pod.map(Into::into) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_570_260), "2026-11-25T01:31:00Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
    }

    #[test]
    fn an_identity_that_nothing_could_match_is_refused() {
        assert!(expected_peer("spiffe://weft.local/ns/a/sa/b", None).is_ok());
        assert!(expected_peer("spiffe://weft.local/b", None).is_err());
    }
}
