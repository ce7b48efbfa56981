//! Who a caller is, and what that lets it see.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use weft_xds::names::{PodName, ResourceName, SpiffeId};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::JoinKey;
use super::authority::Subject;
use crate::configuration::Configuration;
use crate::model::Pod;
use crate::{ResourceType, View};

/// What the connection proved; put into every request's extensions by the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// The client's certificate; its chain has been verified.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// Ends the connection once its streams have ended. A client that reconnects then shows the certificate that it has by now;
    /// a new stream on the same connection would be proved by the old one.
    pub(crate) close: CancellationToken,
}

/// A workload that proved who it is, and until when the proof holds.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// When its certificate or token expires.
    pub(crate) expires: SystemTime,
    /// [`Peer::close`] of its connection.
    pub(crate) close: CancellationToken,
}

/// A workload that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) namespace: Arc<str>,
    pub(crate) pod: Arc<str>,
    pub(crate) workload: Arc<str>,
    pub(crate) service_account: Arc<str>,
}

/// A workload asked for what belongs to another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{namespace}/{pod} may not subscribe to {kind} `{name}`: its own is `{own}`; check `node` in the proxy's bootstrap, and whose token it uses"
)]
pub(crate) struct Foreign {
    namespace: Arc<str>,
    pod: Arc<str>,
    kind: ResourceType,
    name: String,
    own: String,
}

impl Principal {
    /// How this workload sees the configuration.
    pub(crate) fn view(&self) -> View {
        View::weft(self.namespace.clone())
    }

    /// The name of the listener for what arrives at it.
    pub(crate) fn inbound_listener(&self) -> String {
        weft_xds::names::inbound_listener(&self.namespace, &self.workload)
    }

    /// What its certificate says.
    pub(crate) fn subject(&self, trust_domain: &str) -> Result<Subject, weft_xds::names::NameError> {
        Ok(Subject {
            id: SpiffeId::new(trust_domain, &*self.namespace, &*self.service_account)?,
            pod: PodName::new(&*self.pod, &*self.workload, &*self.namespace)?,
        })
    }

    /// Inbound listeners hold a workload's access policy, so each workload sees its own only. The rest of the
    /// configuration says where services are, which every client may know.
    pub(crate) fn may_see(&self, kind: ResourceType, name: &str) -> Result<(), Foreign> {
        let foreign = kind == ResourceType::Listener
            && match ResourceName::parse(name) {
                Some(ResourceName::InboundListener { namespace, workload }) => {
                    namespace != &*self.namespace || workload != &*self.workload
                }
                Some(_) => false,
                // Not one of our names, so it does not exist, but nothing that looks like it may pass either.
                None => name.starts_with("inbound/"),
            };
        if !foreign {
            return Ok(());
        }
        Err(Foreign {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            kind,
            name: name.to_owned(),
            own: self.inbound_listener(),
        })
    }

    /// Whether the mesh still knows the pod, as the workload that it proved to be.
    pub(crate) fn is_current(&self, configuration: &Configuration) -> bool {
        configuration.pod(&self.namespace, &self.pod).is_some_and(|pod| Self::of(pod) == *self)
    }

    fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.name.namespace.clone(),
            pod: pod.name.name.clone(),
            workload: pod.workload.as_str().into(),
            service_account: pod.identity.service_account.as_str().into(),
        }
    }
}

/// Finds out who callers are.
pub(crate) struct Authenticator {
    trust_domain: String,
    join_key: JoinKey,
}

impl Authenticator {
    pub(crate) fn new(trust_domain: String, join_key: JoinKey) -> Self {
        Self { trust_domain, join_key }
    }

    /// The caller, by its client certificate or else its join token.
    ///
    /// The mesh must know the pod, and as the same workload: a certificate must not outlive its pod, neither by renewing itself nor
    /// by opening streams.
    pub(crate) fn caller(
        &self,
        extensions: &Extensions,
        metadata: &MetadataMap,
        configuration: &Configuration,
    ) -> Result<Caller, Status> {
        let now = SystemTime::now();
        let peer = extensions.get::<Peer>().cloned().unwrap_or_default();
        let Some(certificate) = &peer.certificate else {
            let token = bearer(metadata)?;
            let verified =
                self.join_key.verify(token, now).map_err(|error| Status::unauthenticated(error.to_string()))?;
            let principal = known(&verified.claim.namespace, &verified.claim.pod, configuration)?;
            return Ok(Caller { principal, expires: verified.expires, close: peer.close });
        };
        let (principal, expires) = from_certificate(certificate, &self.trust_domain)
            .map_err(|problem| Status::unauthenticated(format!("client certificate: {problem}")))?;
        // It was valid when the connection was made, which may be long ago.
        if expires <= now {
            peer.close.cancel();
            return Err(Status::unauthenticated(
                "the client certificate has expired since the connection was made; reconnect with a new one",
            ));
        }
        let current = known(&principal.namespace, &principal.pod, configuration)?;
        if current != principal {
            return Err(Status::permission_denied(format!(
                "pod {}/{} is now workload {} with service account {}, the client certificate says {} and {}; ask with a join token instead",
                principal.namespace,
                principal.pod,
                current.workload,
                current.service_account,
                principal.workload,
                principal.service_account,
            )));
        }
        Ok(Caller { principal, expires, close: peer.close })
    }
}

fn known(namespace: &str, pod: &str, configuration: &Configuration) -> Result<Principal, Status> {
    configuration.pod(namespace, pod).map(Principal::of).ok_or_else(|| {
        Status::not_found(format!(
            "the mesh knows no pod {namespace}/{pod}; add a Workload of that name to the configuration folder"
        ))
    })
}

fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let value = metadata.get("authorization").ok_or_else(|| {
        Status::unauthenticated(
            "neither a client certificate nor a join token was sent; set node.metadata[\"weft.mesh\"].token_file to a file made with `weft-control-plane token`",
        )
    })?;
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| Status::unauthenticated("the `authorization` metadata is not `Bearer <join token>`"))
}

/// Reads the two names of a workload's certificate. The chain has been verified by the TLS handshake.
fn from_certificate(certificate: &[u8], trust_domain: &str) -> Result<(Principal, SystemTime), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| format!("does not parse: {error}"))?;
    let names: Vec<_> = parsed
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    // Exactly one of each: with two, it would depend on the reader who this is.
    let [GeneralName::URI(uri), GeneralName::DNSName(dns)] = names[..] else {
        return Err(format!("must carry one SPIFFE id and one pod name, but carries {names:?}"));
    };
    let id: SpiffeId = uri.parse().map_err(|error| format!("{error}"))?;
    let pod: PodName = dns.parse().map_err(|error| format!("{error}"))?;
    if id.trust_domain != trust_domain {
        return Err(format!(
            "{id} is of trust domain `{}`; this control plane serves `{trust_domain}`",
            id.trust_domain
        ));
    }
    if id.namespace != pod.namespace {
        return Err(format!("{id} and {pod} name different namespaces"));
    }
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let principal = Principal {
        namespace: id.namespace.into(),
        pod: pod.pod.into(),
        workload: pod.workload.into(),
        service_account: id.service_account.into(),
    };
    Ok((principal, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
}
