//! Weft's control plane: what the user wrote becomes what the proxies do.
//!
//! Configuration flows one way through these modules, in this order:
//!
//! | module | job |
//! |---|---|
//! | `sources` | a folder of YAML (all or nothing) or a Kubernetes API server (object by object) → the objects of `weft-api` |
//! | `model` | domain types; no Kubernetes type past here |
//! | `render` | (model, [`ResourceKey`], [`View`]) → one Envoy message; a pure function |
//! | [`xds`] | subscriptions and streams: who gets which resource, and when |
//! | `webhook` | what the Kubernetes API server asks before it stores a pod |
//! | [`identity`] | certificate authority, CSR policy, tokens, who a caller is |
//! | `kubernetes` | what it writes into its cluster, by an elected replica |
//!
//! Invariant: nothing a proxy sends selects what it may see; only its credentials do.

mod accept;
mod admin;
mod configuration;
mod control_plane;
pub mod identity;
mod kubernetes;
mod metrics;
pub mod model;
pub mod render;
mod resource;
mod server;
pub mod sources;
mod status;
mod webhook;
pub mod xds;

pub use admin::{OWN_TOKEN, REQUEST_HEADER, Rotation, TokenRequest};
pub use configuration::ServiceStatus;
pub use control_plane::{Config, ControlPlane, SourceConfig, StartError};
pub use kubernetes::{ConnectError, Installation};
pub use resource::{ClientKind, ResourceKey, ResourceType, View};
pub use status::{ProblemStatus, RenderedResource, RootStatus, SourceStatus, Status, WatchStatus};
pub use webhook::{SettingsError, WebhookConfig};
