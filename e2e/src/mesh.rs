//! The whole: a sandbox with a control plane, and pods that are added to it.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use weft_sandbox::{Capture, HostEntry, Pod, PodSpec, Sandbox};

use crate::programs::Programs;
use crate::{ControlPlane, Endpoint, Error, MeshPod, NAMESPACE, Spec, wait};

/// How long an edit may take to be in force everywhere, on a machine that is busy.
const EDIT: Duration = Duration::from_secs(10);

/// Lines of each log that are shown at the end: the test harness drops them unless the test fails.
const SHOWN: usize = 25;

/// What may be chosen about a mesh.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long certificates are valid.
    pub certificate_lifetime: Duration,
    /// How long a new root is trusted before it signs.
    pub root_overlap: Duration,
}

impl Default for Settings {
    /// Certificates that no test outlives.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { certificate_lifetime: day, root_overlap: day }
    }
}

/// A running mesh. Dropping it ends everything.
#[derive(Debug)]
pub struct Mesh {
    sandbox: Sandbox,
    control_plane: ControlPlane,
    programs: Programs,
    /// One edit after the other, so that each can be waited for.
    editing: tokio::sync::Mutex<()>,
}

impl Mesh {
    /// Starts the control plane, with an empty folder.
    ///
    /// # Errors
    /// If a program is missing, or the control plane does not become ready.
    pub async fn start(sandbox: Sandbox) -> Result<Self, Error> {
        Self::start_with(sandbox, Settings::default()).await
    }

    /// The same with settings.
    ///
    /// # Errors
    /// As [`Mesh::start`].
    pub async fn start_with(sandbox: Sandbox, settings: Settings) -> Result<Self, Error> {
        let programs = Programs::find()?;
        let pod = sandbox.add_pod(PodSpec::named("control-plane")).await?;
        let arguments =
            [("--certificate-lifetime", settings.certificate_lifetime), ("--root-overlap", settings.root_overlap)];
        let arguments = arguments.iter().flat_map(|(flag, time)| [(*flag).to_owned(), format!("{}s", time.as_secs())]);
        let control_plane = ControlPlane::start(pod, programs.control_plane.clone(), arguments.collect()).await?;
        Ok(Self { sandbox, control_plane, programs, editing: tokio::sync::Mutex::default() })
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Makes a pod with a sidecar; when both it and its application are ready, Services send requests to it.
    ///
    /// # Errors
    /// If one of them does not become ready.
    pub async fn add(&self, spec: Spec) -> Result<MeshPod, Error> {
        let pod = self.sandbox.add_pod(PodSpec::named(&spec.name)).await?;
        let (file, account) = spec.account();
        self.apply(&file, &account).await?;
        // Before the sidecar asks for its certificate: the control plane signs only for pods it knows.
        self.apply(&spec.file(), &spec.declaration(&pod, Endpoint::NotReady)).await?;
        let mesh_pod = MeshPod::start(spec, pod, self.programs.clone(), &self.control_plane).await?;
        self.declare(&mesh_pod, Endpoint::Ready).await?;
        Ok(mesh_pod)
    }

    /// Makes a pod without a sidecar.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn add_outsider(&self, name: &str) -> Result<Pod, Error> {
        Ok(self.sandbox.add_pod(PodSpec::named(name)).await?)
    }

    /// Says anew whether Services send requests to the pod.
    ///
    /// # Errors
    /// As [`Mesh::apply`].
    pub async fn declare(&self, pod: &MeshPod, endpoint: Endpoint) -> Result<(), Error> {
        self.apply(&pod.spec().file(), &pod.spec().declaration(pod.pod(), endpoint)).await
    }

    /// Replaces a file of the folder; waits until the control plane has taken it over and every sidecar has what it was sent. That a
    /// sidecar is yet to be sent something cannot be excluded: wait for what shall follow from the edit.
    ///
    /// # Errors
    /// What the control plane finds wrong with it.
    pub async fn apply(&self, file: &str, text: &str) -> Result<(), Error> {
        let _editing = self.editing.lock().await;
        let before = Source::of(&self.control_plane.status().await?);
        if !self.control_plane.folder().write(file, text)? {
            return Ok(());
        }
        self.taken_over(&before).await
    }

    /// Removes a file of the folder, if it is there; waits as [`Mesh::apply`] does.
    ///
    /// # Errors
    /// As [`Mesh::apply`].
    pub async fn withdraw(&self, file: &str) -> Result<(), Error> {
        let _editing = self.editing.lock().await;
        let before = Source::of(&self.control_plane.status().await?);
        if !self.control_plane.folder().remove(file)? {
            return Ok(());
        }
        self.taken_over(&before).await
    }

    /// Replaces the Services; waits until they have addresses, and every pod knows their names.
    ///
    /// # Errors
    /// As [`Mesh::apply`].
    pub async fn serve(&self, services: &[String]) -> Result<(), Error> {
        self.apply("services.yaml", &services.concat()).await?;
        let entries = wait::until(EDIT, "every service has an address", async || {
            let entries = host_entries(&self.control_plane.status().await?);
            let complete = entries.len() == services.len() && entries.iter().all(|entry| !entry.addresses.is_empty());
            Ok(complete.then_some(entries))
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

    /// Captures what passes the bridge between the pods.
    ///
    /// # Errors
    /// If the packet socket cannot be opened.
    pub async fn capture(&self) -> Result<Capture, Error> {
        Ok(self.sandbox.capture().await?)
    }

    async fn taken_over(&self, before: &Source) -> Result<(), Error> {
        let refused = wait::until(EDIT, "the control plane takes over the edit", async || {
            let now = Source::of(&self.control_plane.status().await?);
            // What was wrong before says nothing about this edit.
            if !now.problems.is_empty() && now.problems != before.problems {
                return Ok(Some(now.problems.join("\n")));
            }
            Ok((now.generation > before.generation).then(String::new))
        })
        .await?;
        if !refused.is_empty() {
            return Err(Error::unexpected("the control plane refuses the edit", refused));
        }
        wait::until(EDIT, "every sidecar has what it was sent", async || {
            let status = self.control_plane.status().await?;
            let proxies = status["proxies"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(proxies.iter().all(|proxy| proxy["state"] == "SYNCED").then_some(()))
        })
        .await
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let Ok(logs) = std::fs::read_dir(self.sandbox.log_directory()) else { return };
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

/// What is wrong in the folder, one line each.
pub fn problems(status: &Value) -> Vec<String> {
    let problems = status["source"]["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    problems.iter().map(|problem| problem["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What the control plane makes of the folder.
struct Source {
    generation: u64,
    /// Empty unless it refuses the folder.
    problems: Vec<String>,
}

impl Source {
    fn of(status: &Value) -> Self {
        let generation = status["source"]["generation"].as_u64().unwrap_or_default();
        let refused = status["source"]["refused"] == true;
        Self { generation, problems: if refused { problems(status) } else { Vec::new() } }
    }
}

/// The services' names and virtual addresses, as the control plane shows them.
fn host_entries(status: &Value) -> Vec<HostEntry> {
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |service: &Value| {
        let name = service["name"].as_str().unwrap_or_default();
        let addresses = service["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        HostEntry {
            addresses: addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect(),
            names: vec![
                format!("{name}.{NAMESPACE}.svc.cluster.local"),
                format!("{name}.{NAMESPACE}"),
                name.to_owned(),
            ],
        }
    };
    services.iter().map(entry).collect()
}
