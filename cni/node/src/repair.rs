//! Pods that started before the plugin was there: found by what the kernel has, and repaired or deleted.
//!
//! A validator in the pod keeps the application from starting in the meantime, so nothing has bypassed the sidecar when the repair comes.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, Error as ApiError};
use weft_cni::redirect::{self, Redirect};

use crate::Metrics;
use crate::pods::Injected;
use crate::sandboxes::Sandboxes;

/// What to do with a pod that is not redirected as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Install the redirection into the pod
    Install,
    /// Delete the pod, so that its owner makes a new one
    Delete,
    /// Only say so
    Off,
}

/// Looks after the node's injected pods.
pub struct Repairs {
    mode: Mode,
    proc: PathBuf,
    client: Client,
    metrics: Arc<Metrics>,
    /// UIDs of pods that were seen redirected.
    redirected: HashSet<String>,
    /// UIDs of pods that were complained about: once is enough.
    complained: HashSet<String>,
}

/// What a pod was like.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Nothing of it runs yet, or any more.
    NotRunning,
    /// As it should be.
    Redirected,
    /// Without its redirection, which it has now.
    Installed,
    /// Without its redirection.
    Missing,
    /// It could not be seen or repaired.
    Failed(String),
}

impl Repairs {
    /// Repairs pods whose processes are seen in `proc`.
    pub fn new(mode: Mode, proc: PathBuf, client: Client, metrics: Arc<Metrics>) -> Self {
        Self { mode, proc, client, metrics, redirected: HashSet::new(), complained: HashSet::new() }
    }

    /// Looks at those of the node's injected `pods` that were not seen redirected before or whose validator complains, or at all of them,
    /// and repairs those that need it. Returns how many are still to be looked at.
    pub async fn look(&mut self, pods: Vec<Injected>, all: bool) -> usize {
        let count = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
        for known in [&mut self.redirected, &mut self.complained] {
            known.retain(|uid| pods.iter().any(|pod| pod.uid == *uid));
        }
        self.metrics.pods_injected.set(count(pods.len()));
        let suspects: Vec<_> =
            pods.iter().filter(|pod| all || pod.is_invalid || !self.redirected.contains(&pod.uid)).cloned().collect();
        if !suspects.is_empty() {
            let (proc, install) = (self.proc.clone(), self.mode == Mode::Install);
            let inspect = move || {
                let sandboxes = Sandboxes::find(&proc);
                suspects.into_iter().map(|pod| (inspect(&sandboxes, &pod, install), pod)).collect::<Vec<_>>()
            };
            // Netlink and /proc are asked without waiting, but by blocking calls.
            let found = tokio::task::spawn_blocking(inspect).await.unwrap_or_default();
            for (found, pod) in found {
                self.settle(found, &pod).await;
            }
        }
        self.metrics.pods_redirected.set(count(self.redirected.len()));
        pods.len() - self.redirected.len()
    }

    async fn settle(&mut self, found: Found, pod: &Injected) {
        let (namespace, name) = (&pod.namespace, &pod.name);
        let problem = match found {
            Found::NotRunning => {
                self.redirected.remove(&pod.uid);
                return;
            }
            Found::Redirected => {
                self.redirected.insert(pod.uid.clone());
                self.complained.remove(&pod.uid);
                return;
            }
            Found::Installed => {
                tracing::warn!(namespace, name, "a pod was without its redirection: it has been installed");
                self.metrics.repaired("installed");
                self.redirected.insert(pod.uid.clone());
                self.complained.remove(&pod.uid);
                return;
            }
            Found::Missing if self.mode == Mode::Delete => match self.delete(pod).await {
                Ok(()) => {
                    tracing::warn!(namespace, name, "a pod was without its redirection: it has been deleted");
                    self.metrics.repaired("deleted");
                    self.redirected.remove(&pod.uid);
                    return;
                }
                Err(error) => ("failed", format!("a pod without its redirection cannot be deleted: {error}")),
            },
            Found::Missing => (
                "left",
                "a pod is without its redirection: delete it, or run the agent with --repair=install".to_owned(),
            ),
            Found::Failed(error) => ("failed", format!("a pod cannot be looked at or repaired: {error}")),
        };
        self.redirected.remove(&pod.uid);
        if self.complained.insert(pod.uid.clone()) {
            tracing::error!(namespace, name, "{}", problem.1);
            self.metrics.repaired(problem.0);
        }
    }

    /// Deletes the pod, and no later one of the same name.
    async fn delete(&self, pod: &Injected) -> Result<(), ApiError> {
        let uid = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(uid);
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        match api.delete(&pod.name, &parameters).await {
            // Gone, or another by now.
            Err(ApiError::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            result => result.map(|_| ()),
        }
    }
}

/// Compares what a pod's namespace has with what it should have, and installs that if asked to.
fn inspect(sandboxes: &Sandboxes, pod: &Injected, install: bool) -> Found {
    let wanted: &Redirect = match &pod.redirect {
        Ok(redirect) => redirect,
        Err(error) => return Found::Failed(error.clone()),
    };
    let look = || -> Result<Found, String> {
        let Some(namespace) = sandboxes.open(&pod.uid).map_err(|error| error.to_string())? else {
            return Ok(Found::NotRunning);
        };
        let inside = || -> Result<Found, redirect::Error> {
            let is_redirected = || Ok(redirect::installed()?.is_some_and(|installed| installed.matches(wanted)));
            if is_redirected()? {
                return Ok(Found::Redirected);
            }
            if !install {
                return Ok(Found::Missing);
            }
            redirect::install(wanted)?;
            Ok(if is_redirected()? { Found::Installed } else { Found::Missing })
        };
        namespace.run(inside).map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    };
    look().unwrap_or_else(Found::Failed)
}
