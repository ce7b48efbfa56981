//! What the control plane does in its cluster, beside watching it ([`crate::sources`]), keeping its keys there and asking about
//! tokens ([`crate::identity`]), and answering what the API server asks ([`crate::webhook`]).
//!
//! | module | job |
//! |---|---|
//! | `backoff` | how long a watch that failed waits |
//! | `listing` | watches whose lists do not wait for ever |
//! | `lease` | which replica is elected |
//! | `trust` | the mesh's roots as a ConfigMap in every namespace, by the elected replica |
//! | `conditions` | what became of what users wrote: a pure function |
//! | `status` | writes it into the objects' status, by the elected replica |
//!
//! Every replica serves proxies; the election is only about who writes ConfigMaps and statuses.

mod backoff;
mod conditions;
#[cfg(test)]
pub(crate) mod fake;
mod lease;
mod listing;
mod status;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_inject::names::{CONTROL_PLANE, SYSTEM_NAMESPACE};

use self::backoff::backoff;
pub(crate) use self::listing::{watch_all, watch_one};
use crate::identity::authority::Trust;
use crate::metrics::Metrics;
use crate::sources::Reports;

/// Who writes, for the API server's book-keeping of fields.
pub(crate) const FIELD_MANAGER: &str = CONTROL_PLANE;

/// How soon what could not be written is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

/// Where the control plane runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Its namespace: where its Secret and its Lease are.
    pub namespace: String,
    /// The replica's own name, different from that of all others: its pod's.
    pub replica: String,
    /// How the API server is reached; where unset, as $KUBECONFIG says, or as the pod in which this runs does.
    pub kubeconfig: Option<PathBuf>,
}

impl Installation {
    /// What is not said is found out: the namespace of the service account that the process has, the name of its host.
    #[must_use]
    pub fn find(namespace: Option<String>, replica: Option<String>, kubeconfig: Option<PathBuf>) -> Self {
        let said = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let file = |path: &str| said(std::fs::read_to_string(path).ok());
        Self {
            namespace: said(namespace)
                .or_else(|| file("/var/run/secrets/kubernetes.io/serviceaccount/namespace"))
                .unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned()),
            replica: said(replica)
                .or_else(|| file("/proc/sys/kernel/hostname"))
                .unwrap_or_else(|| format!("replica-{:08x}", rand::random::<u32>())),
            kubeconfig,
        }
    }

    pub(crate) async fn connect(&self) -> Result<kube::Client, ConnectError> {
        let Some(path) = &self.kubeconfig else { return Ok(kube::Client::try_default().await?) };
        let file = Kubeconfig::read_from(path)?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }
}

/// It is not known how to reach an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// Its credentials, or those of the pod.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// What the elected replica tells others.
pub(crate) struct Elected {
    pub(crate) trust: watch::Receiver<Arc<Trust>>,
    pub(crate) reports: watch::Receiver<Reports>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Takes part in the election, and does the elected replica's work while it is that, until told to stop.
pub(crate) async fn run(client: kube::Client, installation: Installation, work: Elected, stop: CancellationToken) {
    let Elected { trust, reports, metrics } = work;
    let (elected, mut is_elected) = watch::channel(false);
    let election = lease::run(client.clone(), installation, elected, stop.clone());
    let work = async {
        loop {
            // The sender lives in `election`, which outlives this.
            if is_elected.wait_for(|elected| *elected).await.is_err() {
                return;
            }
            tracing::info!("elected to write the trust bundles and the status of what users wrote");
            metrics.elected(true);
            tokio::select! {
                () = trust::publish(client.clone(), trust.clone()) => {}
                () = status::write(client.clone(), reports.clone(), &metrics) => {}
                _ = is_elected.wait_for(|elected| !*elected) => {}
            }
            metrics.elected(false);
        }
    };
    tokio::select! {
        () = election => {}
        () = work => {}
    }
}

/// Labels of what the control plane makes.
pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "weft".to_owned())])
}

/// How long an answer of the API server is waited for. A little less than proxies wait for theirs.
const PATIENCE: Duration = Duration::from_secs(8);

/// The answer, or an error if it does not come: the library itself waits for minutes, because watches are silent for minutes.
pub(crate) async fn in_time<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(format!("the API server did not answer within {PATIENCE:?}").into())),
    }
}

/// Whether the API server said no. Otherwise nothing is known, and whatever else is asked may take as long to fail.
pub(crate) fn was_answered(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(_))
}

/// What went wrong, in one line, with its causes.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many errors name their cause themselves.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
