//! Admission: what the Kubernetes API server asks before it stores a pod, a route or a policy.
//!
//! | module | job |
//! |---|---|
//! | `review` | AdmissionReview in, AdmissionReview out; about pods: a pure function |
//! | `validate` | the same about routes and policies |
//! | `settings` | what the installation says about sidecars, read anew when its file changes |
//! | `server` | HTTPS, with a certificate of our own authority |
//! | `registration` | the roots in the webhook's configuration, so that the API server trusts that certificate |
//!
//! Invariant: the API server decides by the configuration's selectors what comes here; what comes here is answered, whatever state the
//! rest of the control plane is in.

mod registration;
mod review;
mod server;
mod settings;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use settings::SettingsError;

use self::server::Webhooks;
use self::settings::SettingsFile;
use crate::control_plane::StartError;
use crate::identity::{Authority, Serving};

/// What there is to decide about the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where the API server connects. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The file of [`weft_inject::Settings`], in YAML; `None` for the defaults.
    pub settings: Option<PathBuf>,
    /// The namespace of the webhook's Service, which is part of the certificate's name.
    pub namespace: String,
}

/// Starts to serve, and, with a client, to keep the API server told whom to trust.
pub(crate) fn start(
    config: &WebhookConfig,
    listener: TcpListener,
    authority: Arc<Authority>,
    client: Option<kube::Client>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let settings = Arc::new(SettingsFile::open(config.settings.as_deref())?);
    let name = format!("{}.{}.svc", weft_inject::names::CONTROL_PLANE, config.namespace);
    let serving = Arc::new(Serving::for_api_server(authority.clone(), vec![name])?);
    {
        let (serving, stop) = (serving.clone(), stop.clone());
        tasks.spawn(async move { serving.maintain(stop).await });
    }
    tasks.spawn(server::serve(listener, serving, Webhooks { settings }, stop.clone()));
    if let Some(client) = client {
        for kind in registration::KINDS {
            tasks.spawn(registration::keep_registered(client.clone(), kind, authority.clone(), stop.clone()));
        }
    }
    Ok(())
}
