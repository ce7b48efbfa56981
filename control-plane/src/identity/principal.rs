//! Who a caller is, and what that lets it see.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use weft_xds::names::{PodName, ResourceName, SpiffeId};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::time::ASN1Time;

use super::Authority;
use super::authority::{BACKDATE, Subject};
use super::review::{ReviewError, Reviewer};
use super::token::{Claim, JoinKey, TokenError, Verified, is_join_token};
use crate::configuration::Configuration;
use crate::model::Pod;
use crate::xds::Cache;
use crate::{ClientKind, ResourceType, View};

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
    /// What tells its pod from one of the same name before it or after it, where there is such a thing.
    pub(crate) uid: Option<Arc<str>>,
    /// Where it runs, where that is known.
    pub(crate) zone: Option<Arc<str>>,
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
    /// How this workload sees the configuration with such a client.
    pub(crate) fn view(&self, client: ClientKind) -> View {
        View { client, ..View::weft(self.namespace.clone()).in_zone(self.zone.clone()) }
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

    /// Inbound listeners and their routes hold a workload's access policy, so each workload sees its own only. The rest of the
    /// configuration says where services are, which every client may know.
    pub(crate) fn may_see(&self, kind: ResourceType, name: &str) -> Result<(), Foreign> {
        let foreign = matches!(kind, ResourceType::Listener | ResourceType::Route)
            && match ResourceName::parse(name) {
                Some(
                    ResourceName::InboundListener { namespace, workload }
                    | ResourceName::InboundRoute { namespace, workload, .. },
                ) => namespace != &*self.namespace || workload != &*self.workload,
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

    /// Whether the mesh still knows the pod, as the workload that it proved to be, and where it was.
    pub(crate) fn is_current(&self, configuration: &Configuration) -> bool {
        configuration.pod(&self.namespace, &self.pod).is_some_and(|pod| Self::of(pod) == *self)
    }

    fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.name.namespace.clone(),
            pod: pod.name.name.clone(),
            workload: pod.workload.as_str().into(),
            service_account: pod.identity.service_account.as_str().into(),
            uid: pod.uid.as_deref().map(Into::into),
            zone: pod.zone.clone(),
        }
    }
}

/// What a workload without a certificate proves itself with.
pub(crate) enum Tokens {
    /// A token that this control plane made.
    Join(JoinKey),
    /// A token of its pod's service account, which the API server judges; of a workload outside the cluster, one that this control plane
    /// made.
    ServiceAccount(Box<Reviewer>, Arc<Authority>),
}

/// Finds out who callers are.
pub(crate) struct Authenticator {
    trust_domain: String,
    tokens: Tokens,
}

impl Authenticator {
    pub(crate) fn new(trust_domain: String, tokens: Tokens) -> Self {
        Self { trust_domain, tokens }
    }

    /// The caller, by its client certificate or else its token.
    ///
    /// The mesh must know the pod, and as the same workload: a certificate must not outlive its pod, neither by renewing itself nor
    /// by opening streams, also where another pod of that name has come.
    pub(crate) async fn caller(
        &self,
        extensions: &Extensions,
        metadata: &MetadataMap,
        cache: &Cache,
    ) -> Result<Caller, Status> {
        let now = SystemTime::now();
        let peer = extensions.get::<Peer>().cloned().unwrap_or_default();
        let Some(certificate) = &peer.certificate else {
            let (principal, expires) = self.by_token(self.bearer(metadata)?, cache, now).await?;
            return Ok(Caller { principal, expires, close: peer.close });
        };
        let Proved { principal, issued, expires } = from_certificate(certificate, &self.trust_domain)
            .map_err(|problem| Status::unauthenticated(format!("client certificate: {problem}")))?;
        // It was valid when the connection was made, which may be long ago.
        if expires <= now {
            peer.close.cancel();
            return Err(Status::unauthenticated(
                "the client certificate has expired since the connection was made; reconnect with a new one",
            ));
        }
        let configuration = cache.configuration();
        let pod = self.known(&principal.namespace, &principal.pod, &configuration)?;
        let current = Principal::of(pod);
        if (&current.workload, &current.service_account) != (&principal.workload, &principal.service_account) {
            return Err(Status::permission_denied(format!(
                "pod {}/{} is now workload {} with service account {}, the client certificate says {} and {}; ask with a token instead",
                principal.namespace,
                principal.pod,
                current.workload,
                current.service_account,
                principal.workload,
                principal.service_account,
            )));
        }
        if pod.created.is_some_and(|created| issued + CLOCKS < created) {
            return Err(Status::permission_denied(format!(
                "pod {}/{} was made after the client certificate, which is that of a pod of the same name before it; ask with a token instead",
                principal.namespace, principal.pod,
            )));
        }
        Ok(Caller { principal: current, expires, close: peer.close })
    }

    async fn by_token(&self, token: &str, cache: &Cache, now: SystemTime) -> Result<(Principal, SystemTime), Status> {
        match &self.tokens {
            Tokens::Join(key) => self.joined(key.verify(token, now), cache),
            Tokens::ServiceAccount(_, authority) if is_join_token(token) => {
                // Of one that none of them made, the last says why.
                match authority.join_keys(now).iter().map(|key| key.verify(token, now)).reduce(Result::or) {
                    Some(verified) => self.joined(verified, cache),
                    None => Err(Status::unauthenticated("there is no root of which a join token could be made")),
                }
            }
            Tokens::ServiceAccount(reviewer, _) => {
                let reviewed = reviewer.review(token, now).await.map_err(|error| match error {
                    ReviewError::Unavailable(_) => Status::unavailable(error.to_string()),
                    ReviewError::Refused(_) | ReviewError::NoPod(_) => Status::unauthenticated(error.to_string()),
                })?;
                // After the answer: the pod may have become known while it was waited for.
                let configuration = cache.configuration();
                let pod = self.known(&reviewed.namespace, &reviewed.pod, &configuration)?;
                let same = pod.uid.as_deref() == Some(&*reviewed.uid)
                    && pod.identity.service_account == reviewed.service_account;
                if !same {
                    // The watch is behind, or the token is that of the pod before.
                    return Err(Status::not_found(format!(
                        "the token is of pod {}/{} with uid {} and service account {}, but the mesh knows one of that name with uid {} and service account {}; ask again",
                        reviewed.namespace,
                        reviewed.pod,
                        reviewed.uid,
                        reviewed.service_account,
                        pod.uid.as_deref().unwrap_or("none"),
                        pod.identity.service_account,
                    )));
                }
                Ok((Principal::of(pod), reviewed.expires))
            }
        }
    }

    fn joined(&self, verified: Result<Verified, TokenError>, cache: &Cache) -> Result<(Principal, SystemTime), Status> {
        let Verified { claim, uid, expires } = verified.map_err(|error| Status::unauthenticated(error.to_string()))?;
        let configuration = cache.configuration();
        let pod = self.known(&claim.namespace, &claim.pod, &configuration)?;
        if uid.is_some() && uid != pod.uid {
            return Err(Status::unauthenticated(format!(
                "the join token is of a pod {}/{} before this one; make a new one with `weft-control-plane token`",
                claim.namespace, claim.pod,
            )));
        }
        Ok((Principal::of(pod), expires))
    }

    /// A join token for a pod that the mesh knows, or why there is none.
    pub(crate) fn join_token(
        &self,
        claim: &Claim,
        lifetime: Duration,
        cache: &Cache,
        now: SystemTime,
    ) -> Result<String, String> {
        let configuration = cache.configuration();
        let pod =
            self.known(&claim.namespace, &claim.pod, &configuration).map_err(|status| status.message().to_owned())?;
        let issued = match &self.tokens {
            Tokens::Join(key) => key.issue(claim, lifetime, now),
            Tokens::ServiceAccount(_, authority) => {
                let keys = authority.join_keys(now);
                let key = keys.first().ok_or("there is no root to make it of")?;
                key.issue_for(claim, pod.uid.as_deref(), lifetime, now)
            }
        };
        issued.map_err(|error| error.to_string())
    }

    fn known<'c>(&self, namespace: &str, pod: &str, configuration: &'c Configuration) -> Result<&'c Pod, Status> {
        configuration.pod(namespace, pod).ok_or_else(|| {
            let hint = match &self.tokens {
                Tokens::Join(_) => "add a Workload of that name to the configuration folder",
                Tokens::ServiceAccount(..) => {
                    "it is deleted, or so new that the API server has not told of it yet; ask again"
                }
            };
            Status::not_found(format!("the mesh knows no pod {namespace}/{pod}; {hint}"))
        })
    }

    fn bearer<'m>(&self, metadata: &'m MetadataMap) -> Result<&'m str, Status> {
        let value = metadata.get("authorization").ok_or_else(|| {
            let (token, file) = match &self.tokens {
                Tokens::Join(_) => ("a join token", "a file made with `weft-control-plane token`"),
                Tokens::ServiceAccount(..) => (
                    "a service-account token",
                    "where the pod's token with audience `weft` is projected",
                ),
            };
            Status::unauthenticated(format!(
                "neither a client certificate nor {token} was sent; set node.metadata[\"weft.mesh\"].token_file to {file}"
            ))
        })?;
        value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Status::unauthenticated("the `authorization` metadata is not `Bearer <token>`"))
    }
}

/// How far the clocks of the API server and of the control plane may be apart.
const CLOCKS: Duration = Duration::from_secs(60);

/// What a certificate proves.
struct Proved {
    /// Without what a certificate does not carry: uid and zone.
    principal: Principal,
    /// At the latest: short-lived ones are backdated less.
    issued: SystemTime,
    expires: SystemTime,
}

/// Reads the two names of a workload's certificate. The chain has been verified by the TLS handshake.
fn from_certificate(certificate: &[u8], trust_domain: &str) -> Result<Proved, String> {
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
    let time = |at: ASN1Time| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0));
    let principal = Principal {
        namespace: id.namespace.into(),
        pod: pod.pod.into(),
        workload: pod.workload.into(),
        service_account: id.service_account.into(),
        uid: None,
        zone: None,
    };
    let validity = parsed.validity();
    Ok(Proved { principal, issued: time(validity.not_before) + BACKDATE, expires: time(validity.not_after) })
}

#[cfg(test)]
mod tests;
