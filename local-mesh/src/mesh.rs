//! The whole: a sandbox with a control plane, and pods that are added to it.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use weft_sandbox::{HostEntry, Pod, PodSpec, Sandbox};

use crate::control_plane::problems;
use crate::{ControlPlane, Endpoint, Error, MeshPod, Programs, Proxyless, Settings, Spec, wait};

/// How long an edit may take to be in force everywhere, on a machine that is busy.
const EDIT: Duration = Duration::from_secs(60);

/// A running mesh. Dropping it ends everything.
#[derive(Debug)]
pub struct Mesh {
    namespace: String,
    sandbox: Sandbox,
    control_plane: ControlPlane,
    programs: Programs,
    /// Those that keep applications running.
    supervisors: TaskTracker,
    /// Cancelled when they shall not any more.
    ending: CancellationToken,
    _end: DropGuard,
}

impl Mesh {
    /// Starts the control plane on these files, by name; everything is in this namespace.
    ///
    /// # Errors
    /// If a program is missing, or the control plane does not become ready.
    pub async fn start(
        sandbox: Sandbox,
        namespace: &str,
        settings: &Settings,
        files: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let programs = Programs::find()?;
        let pod = sandbox.add_pod(PodSpec::named("control-plane")).await?;
        let control_plane = ControlPlane::new(pod, programs.control_plane.clone())?;
        for (file, text) in files {
            control_plane.folder().write(file, text)?;
        }
        control_plane.run(settings).await?;
        let ending = CancellationToken::new();
        let _end = ending.clone().drop_guard();
        let (namespace, supervisors) = (namespace.to_owned(), TaskTracker::new());
        Ok(Self { namespace, sandbox, control_plane, programs, supervisors, ending, _end })
    }

    /// The namespace of everything.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Makes a pod with a sidecar; when both it and its application are ready, it is declared to be ready. Its service account must be
    /// in the folder.
    ///
    /// # Errors
    /// If one of them does not become ready.
    pub async fn add(&self, spec: Spec) -> Result<MeshPod, Error> {
        let pod = self.make_known(&spec).await?;
        let mesh_pod = MeshPod::start(spec, &self.namespace, pod, self.programs.clone(), &self.control_plane).await?;
        self.declare(&mesh_pod, Endpoint::Ready)?;
        Ok(mesh_pod)
    }

    /// Makes a pod whose application has a certificate and no sidecar. It is declared not to be ready: see [`Mesh::declare_proxyless`].
    ///
    /// # Errors
    /// If it gets no certificate.
    pub async fn add_proxyless(&self, spec: Spec) -> Result<Proxyless, Error> {
        let pod = self.make_known(&spec).await?;
        Proxyless::start(spec, &self.namespace, pod, &self.programs, &self.control_plane).await
    }

    /// Says anew whether Services send requests to such a pod.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn declare_proxyless(&self, pod: &Proxyless, endpoint: Endpoint) -> Result<(), Error> {
        self.write_declaration(pod.spec(), pod.pod(), endpoint)
    }

    /// Makes a pod without a sidecar.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn add_outsider(&self, name: &str) -> Result<Pod, Error> {
        Ok(self.sandbox.add_pod(PodSpec::named(name)).await?)
    }

    /// Starts a pod's application again whenever it ends by itself, as a kubelet does.
    ///
    /// # Errors
    /// If it has none.
    pub fn keep_running(&self, pod: &MeshPod) -> Result<(), Error> {
        self.supervisors.spawn(pod.app()?.clone().keep_running(self.ending.clone()));
        Ok(())
    }

    /// Says anew whether Services send requests to the pod; [`Mesh::in_force`] waits for the effect.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn declare(&self, pod: &MeshPod, endpoint: Endpoint) -> Result<(), Error> {
        self.write_declaration(pod.spec(), pod.pod(), endpoint)
    }

    /// Takes a pod whose processes have ended out of the folder, and disconnects it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove(&self, pod: &MeshPod) -> Result<(), Error> {
        self.control_plane.folder().remove(&pod.spec().file())?;
        Ok(self.sandbox.remove_pod(pod.pod()).await?)
    }

    /// Replaces a file of the folder; waits as [`Mesh::in_force`] does.
    ///
    /// # Errors
    /// As [`Mesh::in_force`].
    pub async fn apply(&self, file: &str, text: &str) -> Result<(), Error> {
        self.control_plane.folder().write(file, text)?;
        self.in_force().await
    }

    /// Removes a file of the folder, if it is there; waits as [`Mesh::in_force`] does.
    ///
    /// # Errors
    /// As [`Mesh::in_force`].
    pub async fn withdraw(&self, file: &str) -> Result<(), Error> {
        self.control_plane.folder().remove(file)?;
        self.in_force().await
    }

    /// Waits until the control plane has taken over the folder as it is now, and every sidecar has what it was sent. That a sidecar is
    /// yet to be sent something cannot be excluded: wait for what shall follow from the edit.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the control plane finds wrong with it.
    pub async fn in_force(&self) -> Result<(), Error> {
        wait::until(EDIT, "the folder is in force in every sidecar", async || {
            let status = self.control_plane.status().await?;
            let proxies = status["proxies"].as_array().map(Vec::as_slice).unwrap_or_default();
            let synced = proxies.iter().all(|proxy| proxy["state"] == "SYNCED");
            Ok((self.is_taken_over(&status)? && synced).then_some(()))
        })
        .await
    }

    /// Lets every pod know the Services' names.
    ///
    /// # Errors
    /// If one of them has no address in time.
    pub async fn publish_names(&self) -> Result<(), Error> {
        let entries = wait::until(EDIT, "every service has an address", async || {
            let status = self.control_plane.status().await?;
            let entries = host_entries(&status);
            let complete = entries.iter().all(|entry| !entry.addresses.is_empty());
            Ok((self.is_taken_over(&status)? && complete).then_some(entries))
        })
        .await?;
        Ok(self.sandbox.set_hosts(&entries)?)
    }

    /// The addresses of a Service, IPv4 first.
    ///
    /// # Errors
    /// If it has none.
    pub async fn service_addresses(&self, service: &str) -> Result<Vec<IpAddr>, Error> {
        let entries = host_entries(&self.control_plane.status().await?);
        let entry = entries.into_iter().find(|entry| entry.names.iter().any(|name| name == service));
        let mut addresses = entry.map(|entry| entry.addresses).unwrap_or_default();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() {
            return Err(Error::unexpected(format!("service {service}"), "has no address"));
        }
        Ok(addresses)
    }

    /// Targets of calls with each address of the Service `service` in place of its name: `http://web:8080/` becomes one by IPv4 and one
    /// by IPv6.
    ///
    /// # Errors
    /// If it has no address.
    pub async fn by_address(&self, service: &str, targets: &[&str]) -> Result<Vec<String>, Error> {
        let addresses = self.service_addresses(service).await?;
        let host = |address: &IpAddr| match address {
            IpAddr::V4(address) => format!("://{address}"),
            IpAddr::V6(address) => format!("://[{address}]"),
        };
        let name = format!("://{service}");
        let by_each =
            |target: &&str| addresses.iter().map(|at| target.replacen(&name, &host(at), 1)).collect::<Vec<_>>();
        Ok(targets.iter().flat_map(by_each).collect())
    }

    /// Ends everything and leaves nothing behind.
    pub async fn stop(self) {
        let Self { sandbox, supervisors, ending, .. } = self;
        // First those who would start again what ends.
        ending.cancel();
        supervisors.close();
        supervisors.wait().await;
        sandbox.stop().await;
    }

    /// Makes a pod of which the control plane knows: it signs for no other.
    async fn make_known(&self, spec: &Spec) -> Result<Pod, Error> {
        let pod = self.sandbox.add_pod(PodSpec::named(&spec.name)).await?;
        self.write_declaration(spec, &pod, Endpoint::NotReady)?;
        wait::until(EDIT, &format!("the control plane knows {}", spec.name), async || {
            let status = self.control_plane.status().await?;
            Ok(self.is_taken_over(&status)?.then_some(()))
        })
        .await?;
        Ok(pod)
    }

    fn write_declaration(&self, spec: &Spec, pod: &Pod, endpoint: Endpoint) -> Result<(), Error> {
        let text = spec.declaration(&self.namespace, pod, endpoint);
        self.control_plane.folder().write(&spec.file(), &text)
    }

    /// Whether `status` is about the folder as it is now.
    fn is_taken_over(&self, status: &Value) -> Result<bool, Error> {
        let source = &status["source"];
        if source["digest"] != self.control_plane.folder().digest()?.as_str() {
            return Ok(false);
        }
        if source["refused"] == true {
            return Err(Error::Refused { problems: problems(status) });
        }
        Ok(true)
    }
}

/// The services' names and virtual addresses, as the control plane shows them.
fn host_entries(status: &Value) -> Vec<HostEntry> {
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |service: &Value| {
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let (name, namespace) = (text("name"), text("namespace"));
        let addresses = service["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        HostEntry {
            addresses: addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect(),
            names: vec![
                format!("{name}.{namespace}.svc.cluster.local"),
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}"),
                name.to_owned(),
            ],
        }
    };
    services.iter().map(entry).collect()
}
