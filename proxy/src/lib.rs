//! Weft's data plane: the sidecar, and gateways by configuration.
//!
//! The modules in the order in which a byte meets them:
//!
//! | module | job |
//! |---|---|
//! | [`bootstrap`], [`run`] | flags, Envoy's start-up file, threads and signals |
//! | [`ads`], [`snapshot`] | what the control plane says, and what it compiles to |
//! | [`dns`] | names to addresses |
//! | [`accept`] | listening, original destinations, detection, filter chains |
//! | [`tls`] | who we are, who the peer must be, the encrypted stream |
//! | [`http`], [`http1`], [`stream`] | heads, the HTTP/1.1 codec, bodies in motion |
//! | [`request`], [`tcp`] | a request's life; opaque relays |
//! | [`upstream`] | clusters, balancing, outliers, breakers, pools |
//! | [`observe`], [`admin`] | what is counted, logged and shown; readiness and drain |
//! | [`worker`], `memory` | what one worker thread has of its own; memory given back |

pub mod accept;
pub mod admin;
pub mod ads;
#[cfg(test)]
mod allocations;
pub mod bootstrap;
pub mod dns;
pub mod http;
pub mod http1;
mod memory;
pub mod observe;
pub mod request;
pub mod run;
pub mod snapshot;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod upstream;
pub mod worker;
