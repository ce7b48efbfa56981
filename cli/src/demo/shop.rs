//! The whole of it: sandbox, control plane, the shop's pods, the load generators and the intruder.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use tokio_util::task::TaskTracker;
use weft_sandbox::{Config, HostEntry, Pod, PodSpec, Sandbox};

use super::control_plane::{Binaries, ControlPlane};
use super::load::Load;
use super::pod::{Maker, MeshPod, Workload};
use super::wait;

/// What runs in the shop.
const WORKLOADS: [Workload; 9] = [
    Workload { name: "web", role: "web", version: "v1", replicas: 2 },
    Workload { name: "catalog", role: "catalog", version: "v1", replicas: 3 },
    Workload { name: "cart", role: "cart", version: "v1", replicas: 1 },
    Workload { name: "payments", role: "payments", version: "v1", replicas: 1 },
    Workload { name: "reviews-v1", role: "reviews", version: "v1", replicas: 2 },
    Workload { name: "reviews-v2", role: "reviews", version: "v2", replicas: 1 },
    Workload { name: "notifications", role: "notifications", version: "v1", replicas: 1 },
    Workload { name: "queue", role: "queue", version: "v1", replicas: 1 },
    LOADGEN,
];

const LOADGEN: Workload = Workload { name: "loadgen", role: "loadgen", version: "v1", replicas: 1 };

/// What the load of all services calls: every protocol, and through the front end every service.
const EVERYTHING: [&str; 7] = [
    "http://web:8080/api/home",
    "POST http://web:8080/api/checkout?sku=tea",
    "tcp://queue:4222",
    "ws://notifications/ws",
    "grpc://cart:50051/cart",
    "grpc://cart:50051/watch",
    "http://web:8080/api/orders",
];

pub(crate) struct Shop {
    pub(crate) maker: Maker,
    pods: Mutex<BTreeMap<String, Arc<MeshPod>>>,
    /// The next pod's number per workload: names are not used twice.
    next: Mutex<BTreeMap<&'static str, usize>>,
    pub(crate) intruder: Pod,
    /// Every service by every protocol.
    pub(crate) everything: Load,
    /// `GET` to reviews, whose route splits by version.
    pub(crate) reviews: Load,
    /// HTTP/2 to catalog, which has three replicas; `POST`, so that nobody repeats a request who was not told to.
    pub(crate) catalog: Load,
}

impl Shop {
    /// Brings everything up, without load. `certificates` is how long they live.
    pub(crate) async fn start(logs: Option<PathBuf>, certificates: Duration) -> anyhow::Result<Self> {
        let binaries = Binaries::find()?;
        let sandbox = Arc::new(Sandbox::start(Config { log_directory: logs }).await?);
        let pod = sandbox.add_pod(PodSpec::named("control-plane")).await?;
        let control_plane = ControlPlane::start(pod, binaries.control_plane.clone(), certificates).await?;
        sandbox.set_hosts(&host_entries(&control_plane).await?)?;
        let (control_plane, supervisors) = (Arc::new(control_plane), TaskTracker::new());
        let maker = Maker { sandbox, control_plane, binaries, supervisors };

        let wanted = WORKLOADS.iter().flat_map(|workload| {
            (0..workload.replicas).map(|number| maker.make(*workload, format!("{}-{number}", workload.name)))
        });
        let pods = try_join_all(wanted).await?;
        let intruder = maker.sandbox.add_pod(PodSpec::named("intruder")).await?;

        let loadgen = pods
            .iter()
            .find(|pod| pod.workload.name == LOADGEN.name)
            .map(|pod| pod.pod.clone())
            .context("the load generator's pod is missing")?;
        let binary = &maker.binaries.shop;
        let (everything, reviews, catalog) = tokio::try_join!(
            Load::start(&loadgen, binary, "everything", &EVERYTHING),
            Load::start(&loadgen, binary, "reviews", &["http://reviews/reviews"]),
            Load::start(&loadgen, binary, "catalog", &["POST h2c://catalog/search"]),
        )?;
        Ok(Self {
            pods: Mutex::new(pods.into_iter().map(|pod| (pod.name().to_owned(), Arc::new(pod))).collect()),
            next: Mutex::new(WORKLOADS.iter().map(|workload| (workload.name, workload.replicas)).collect()),
            maker,
            intruder,
            everything,
            reviews,
            catalog,
        })
    }

    pub(crate) fn control_plane(&self) -> &ControlPlane {
        &self.maker.control_plane
    }

    /// All meshed pods, by name.
    pub(crate) fn pods(&self) -> Vec<Arc<MeshPod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The pods of a workload, by name.
    pub(crate) fn replicas(&self, workload: &str) -> Vec<Arc<MeshPod>> {
        self.pods().into_iter().filter(|pod| pod.workload.name == workload).collect()
    }

    /// The first pod of a workload.
    pub(crate) fn replica(&self, workload: &str) -> anyhow::Result<Arc<MeshPod>> {
        self.replicas(workload).into_iter().next().with_context(|| format!("{workload} has no pod"))
    }

    /// The pod in which the load generators run.
    pub(crate) fn loadgen(&self) -> anyhow::Result<Arc<MeshPod>> {
        self.replica(LOADGEN.name)
    }

    /// Adds a replica to a workload.
    pub(crate) async fn add(&self, workload: Workload) -> anyhow::Result<Arc<MeshPod>> {
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let next = next.entry(workload.name).or_default();
            *next += 1;
            *next - 1
        };
        let pod = Arc::new(self.maker.make(workload, format!("{}-{number}", workload.name)).await?);
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.name().to_owned(), pod.clone());
        Ok(pod)
    }

    /// Forgets a pod whose processes have ended, and disconnects it.
    pub(crate) async fn remove(&self, pod: &MeshPod) -> anyhow::Result<()> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(pod.name());
        Ok(self.maker.sandbox.remove_pod(&pod.pod).await?)
    }

    /// Makes one call from the load generators' pod; whether it succeeded.
    pub(crate) async fn probe(&self, target: &str) -> anyhow::Result<bool> {
        let mut command = std::process::Command::new(&self.maker.binaries.shop);
        command.args(["probe", target]);
        Ok(self.loadgen()?.pod.spawn("probe", command).await?.wait().await.success())
    }

    /// The virtual address of a service.
    pub(crate) async fn service_address(&self, service: &str) -> anyhow::Result<IpAddr> {
        let entries = host_entries(self.control_plane()).await?;
        let entry = entries.iter().find(|entry| entry.names.iter().any(|name| name == service));
        entry
            .and_then(|entry| entry.addresses.first().copied())
            .with_context(|| format!("service {service} has no address"))
    }

    /// Ends everything and leaves nothing behind.
    pub(crate) async fn stop(self) {
        let Self { maker: Maker { sandbox, control_plane, supervisors, .. }, intruder, .. } = self;
        // First those who would start again what ends.
        for pod in self.pods.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            pod.forget_app();
        }
        supervisors.close();
        supervisors.wait().await;
        drop((control_plane, intruder));
        match Arc::try_unwrap(sandbox) {
            Ok(sandbox) => sandbox.stop().await,
            // Another handle is left; dropping the last one does the same.
            Err(shared) => drop(shared),
        }
    }
}

/// The services' names and virtual addresses, as the control plane shows them.
async fn host_entries(control_plane: &ControlPlane) -> anyhow::Result<Vec<HostEntry>> {
    wait::until(Duration::from_secs(5), "the services' virtual addresses", || async {
        let status = control_plane.status().await?;
        let Some(services) = status["services"].as_array().filter(|services| !services.is_empty()) else {
            return Ok(None);
        };
        let entries = services.iter().map(|service| {
            let (Some(name), Some(namespace)) = (service["name"].as_str(), service["namespace"].as_str()) else {
                bail!("the status names a service without name or namespace: {service}");
            };
            let addresses = service["addresses"].as_array().into_iter().flatten();
            Ok(HostEntry {
                addresses: addresses.filter_map(|address| address.as_str()?.parse().ok()).collect(),
                names: vec![
                    format!("{name}.{namespace}.svc.cluster.local"),
                    format!("{name}.{namespace}.svc"),
                    format!("{name}.{namespace}"),
                    name.to_owned(),
                ],
            })
        });
        entries.collect::<anyhow::Result<Vec<_>>>().map(Some)
    })
    .await
}
