//! Who a workload is, and the certificates that say so.
//!
//! | module | job |
//! |---|---|
//! | `store` | secrets in files: created once, replaced atomically, readable by the owner only |
//! | [`authority`] | the roots: which are trusted, which one signs, and when that changes; the policy for what is signed |
//! | `secret` | the authority's keys in a Secret, which replicas share |
//! | [`token`] | join tokens: how a workload outside Kubernetes proves who it is before it has a certificate |
//! | `review` | service-account tokens: how a pod does, by asking the API server |
//! | `principal` | who a caller is, from its certificate or token, and what that lets it see |
//! | `serving` | the control plane's own TLS, renewed without a restart |
//! | `service` | the gRPC service that signs |
//!
//! Invariant: names in a certificate come from the model, never from the request. Workloads' keys never exist here.

pub mod authority;
mod principal;
mod review;
mod secret;
mod service;
mod serving;
mod store;
pub mod token;

pub use authority::{Authority, AuthorityError};
pub(crate) use principal::{Authenticator, Caller, Peer, Principal, Tokens};
pub(crate) use review::Reviewer;
pub(crate) use secret::AuthoritySecret;
pub use secret::SecretError;
pub(crate) use service::IdentityService;
pub(crate) use serving::Serving;
pub use serving::ServingError;
pub use store::StoreError;
pub use token::{JoinKey, TokenError};

use weft_xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use weft_xds::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, Secret, secret::Type};
use weft_xds::google::protobuf::Any;
use weft_xds::names::SECRET_BUNDLE;

/// The secret that carries the trusted roots.
pub(crate) fn bundle_secret(trust: &authority::Trust) -> Any {
    weft_xds::pack(&Secret {
        name: SECRET_BUNDLE.into(),
        r#type: Some(Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(DataSource {
                specifier: Some(Specifier::InlineString(trust.pem())),
                ..Default::default()
            }),
            ..Default::default()
        })),
    })
}
