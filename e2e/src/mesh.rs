//! A test's mesh: every edit is in force when it returns, and logs are shown when it ends.

use std::ops::Deref;

use weft_local_mesh::{Endpoint, Error, MeshPod, Proxyless, Settings, Spec};
use weft_sandbox::Sandbox;

use crate::{NAMESPACE, yaml};

/// Lines of each log that are shown at the end: the test harness drops them unless the test fails.
const SHOWN: usize = 25;

/// A running mesh. Dropping it ends everything.
#[derive(Debug)]
pub struct Mesh(weft_local_mesh::Mesh);

impl Mesh {
    /// Starts the control plane, with an empty folder.
    ///
    /// # Errors
    /// As [`weft_local_mesh::Mesh::start`].
    pub async fn start(sandbox: Sandbox) -> Result<Self, Error> {
        Self::start_with(sandbox, &Settings::default()).await
    }

    /// The same with settings.
    ///
    /// # Errors
    /// As [`weft_local_mesh::Mesh::start`].
    pub async fn start_with(sandbox: Sandbox, settings: &Settings) -> Result<Self, Error> {
        Ok(Self(weft_local_mesh::Mesh::start(sandbox, NAMESPACE, settings, &[]).await?))
    }

    /// Makes a pod with a sidecar, and its service account; when this returns, Services send requests to it.
    ///
    /// # Errors
    /// As [`weft_local_mesh::Mesh::add`].
    pub async fn add(&self, spec: Spec) -> Result<MeshPod, Error> {
        // Replicas share their account, and so the file.
        let file = format!("account-{}.yaml", spec.service_account);
        self.control_plane().folder().write(&file, &yaml::account(&spec.service_account))?;
        let pod = self.0.add(spec).await?;
        self.in_force().await?;
        Ok(pod)
    }

    /// Makes a pod whose application has a certificate and no sidecar, and its service account.
    ///
    /// # Errors
    /// As [`weft_local_mesh::Mesh::add_proxyless`].
    pub async fn add_proxyless(&self, spec: Spec) -> Result<Proxyless, Error> {
        let file = format!("account-{}.yaml", spec.service_account);
        self.control_plane().folder().write(&file, &yaml::account(&spec.service_account))?;
        self.0.add_proxyless(spec).await
    }

    /// Says anew whether Services send requests to the pod; waits until that is in force.
    ///
    /// # Errors
    /// As [`weft_local_mesh::Mesh::in_force`].
    pub async fn declare(&self, pod: &MeshPod, endpoint: Endpoint) -> Result<(), Error> {
        self.0.declare(pod, endpoint)?;
        self.in_force().await
    }

    /// Fails if a sidecar has ever rejected what it was sent.
    ///
    /// # Errors
    /// If the control plane does not answer, or counts a rejection.
    pub async fn none_rejected(&self) -> Result<(), Error> {
        let rejected = self.control_plane().metrics().await?.sum("weft_control_plane_nacks_total", &[]);
        if rejected > 0.0 {
            return Err(Error::unexpected("a sidecar rejects what it is sent", rejected.to_string()));
        }
        Ok(())
    }

    /// Replaces the Services; waits until they have addresses, and every pod knows their names.
    ///
    /// # Errors
    /// As [`weft_local_mesh::Mesh::in_force`].
    pub async fn serve(&self, services: &[String]) -> Result<(), Error> {
        self.apply("services.yaml", &services.concat()).await?;
        self.publish_names().await
    }
}

impl Deref for Mesh {
    type Target = weft_local_mesh::Mesh;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let Ok(logs) = std::fs::read_dir(self.sandbox().log_directory()) else { return };
        for path in logs.flatten().map(|entry| entry.path()) {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            if path.to_string_lossy().contains(".probe-") || lines.is_empty() {
                continue;
            }
            eprintln!("── {}", path.file_name().unwrap_or_default().display());
            lines[lines.len().saturating_sub(SHOWN)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
