//! Serving resources: aggregated xDS, in both dialects.
//!
//! | module | job |
//! |---|---|
//! | `cache` | every resource in use, encoded once per view |
//! | `subscriptions` | pure: what a client asked for, holds, and must be told next |
//! | `wire` | requests and responses as they travel |
//! | `stream` | one stream's life: requests and changes in, responses out |
//! | `registry` | who is connected, and how far each has got |
//! | `service` | the gRPC service |

mod cache;
mod registry;
mod service;
mod stream;
mod subscriptions;
mod wire;

pub(crate) use cache::Cache;
pub use cache::Version;
pub(crate) use registry::Registry;
pub use registry::{ProxyState, ProxyStatus, TypeStatus};
pub(crate) use service::{AdsService, PATHS};
pub(crate) use stream::Shared;
