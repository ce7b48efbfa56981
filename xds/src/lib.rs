//! What Weft's programs say to each other. No IO.
//!
//! | module | holds |
//! |---|---|
//! | [`envoy`], [`google`] | Envoy's v3 messages and the well-known types, as the crate `envoy-types` generates them |
//! | [`names`] | every resource name, ALPN name and metadata key; [`names::SpiffeId`] and [`names::PodName`] |
//! | [`identity`] | the certificate signing service |
//! | [`any`] | type URLs; messages in and out of `google.protobuf.Any` |
//! | [`metadata`] | reading and writing `google.protobuf.Struct` |
//! | [`field`] | errors that name a field by its path |
//! | [`support`] | which fields of Envoy's messages are enforced, ignored or refused, and the check |
//! | [`yaml`] | Envoy's file format to messages, and messages to JSON |
//!
//! Invariant: a descriptor pool (megabytes) lives only while [`yaml`] converts something.

pub mod any;
pub mod field;
pub mod metadata;
pub mod names;
pub mod support;
pub mod yaml;

pub use any::{pack, type_url, unpack};
pub use envoy_types::pb::{envoy, google};
pub use field::{FieldError, FieldPath};

/// The service that signs workloads' certificates (`weft.identity.v1`).
pub mod identity {
    #![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]
    tonic::include_proto!("weft.identity.v1");
}
