//! The whole of it: mesh, the shop's pods, the load generators and the intruder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use futures_util::future::try_join_all;
use weft_local_mesh::{ControlPlane, Load, Mesh, MeshPod, Settings, Spec};
use weft_sandbox::{Config, Pod, Sandbox};

use super::folder::SAMPLES;

/// The namespace of everything in the shop.
const NAMESPACE: &str = "shop";

/// A set of replicas: what a Deployment is in Kubernetes.
#[derive(Debug, Clone, Copy)]
struct Workload {
    /// `reviews-v1`; pods are named after it.
    name: &'static str,
    /// The shop's role and the service account; `loadgen` has no application of its own.
    role: &'static str,
    version: &'static str,
    replicas: usize,
}

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
    Workload { name: LOADGEN, role: LOADGEN, version: "v1", replicas: 1 },
];

const LOADGEN: &str = "loadgen";

/// What the load of all services calls, by service: every protocol, and through the front end every service.
const EVERYTHING: [(&str, &[&str]); 4] = [
    ("web", &["http://web:8080/api/home", "POST http://web:8080/api/checkout?sku=tea", "http://web:8080/api/orders"]),
    ("queue", &["tcp://queue:4222"]),
    ("notifications", &["ws://notifications/ws"]),
    ("cart", &["grpc://cart:50051/cart", "grpc://cart:50051/watch"]),
];

pub(crate) struct Shop {
    pub(crate) mesh: Mesh,
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
    /// Brings everything up, without load.
    pub(crate) async fn start(logs: Option<PathBuf>, settings: Settings) -> anyhow::Result<Self> {
        let sandbox = Sandbox::start(Config { log_directory: logs }).await?;
        let mesh = Mesh::start(sandbox, NAMESPACE, &settings, &SAMPLES).await?;
        mesh.publish_names().await?;
        let wanted = WORKLOADS
            .iter()
            .flat_map(|workload| (0..workload.replicas).map(|number| make(&mesh, workload.spec(number))));
        let pods = try_join_all(wanted).await?;
        let intruder = mesh.add_outsider("intruder").await?;
        mesh.in_force().await?;

        let loadgen =
            pods.iter().find(|pod| pod.spec().workload == LOADGEN).context("the load generator's pod is missing")?;
        let mut everything = Vec::new();
        for (service, targets) in EVERYTHING {
            everything.extend(mesh.by_address(service, targets).await?);
        }
        let reviews = mesh.by_address("reviews", &["http://reviews/reviews"]).await?;
        let catalog = mesh.by_address("catalog", &["POST h2c://catalog/search"]).await?;
        let (everything, reviews, catalog) =
            tokio::try_join!(loadgen.load(&everything, 0.0), loadgen.load(&reviews, 0.0), loadgen.load(&catalog, 0.0))?;
        Ok(Self {
            pods: Mutex::new(pods.into_iter().map(|pod| (pod.name().to_owned(), pod)).collect()),
            next: Mutex::new(WORKLOADS.iter().map(|workload| (workload.name, workload.replicas)).collect()),
            mesh,
            intruder,
            everything,
            reviews,
            catalog,
        })
    }

    pub(crate) fn control_plane(&self) -> &ControlPlane {
        self.mesh.control_plane()
    }

    /// All meshed pods, by name.
    pub(crate) fn pods(&self) -> Vec<Arc<MeshPod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The pods of a workload, by name.
    pub(crate) fn replicas(&self, workload: &str) -> Vec<Arc<MeshPod>> {
        self.pods().into_iter().filter(|pod| pod.spec().workload == workload).collect()
    }

    /// The first pod of a workload.
    pub(crate) fn replica(&self, workload: &str) -> anyhow::Result<Arc<MeshPod>> {
        self.replicas(workload).into_iter().next().with_context(|| format!("{workload} has no pod"))
    }

    /// The pod in which the load generators run.
    pub(crate) fn loadgen(&self) -> anyhow::Result<Arc<MeshPod>> {
        self.replica(LOADGEN)
    }

    /// Adds a replica to a workload.
    pub(crate) async fn add(&self, workload: &str) -> anyhow::Result<Arc<MeshPod>> {
        let workload = WORKLOADS
            .iter()
            .find(|known| known.name == workload)
            .with_context(|| format!("{workload} is no workload of the shop"))?;
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let next = next.entry(workload.name).or_default();
            *next += 1;
            *next - 1
        };
        let pod = make(&self.mesh, workload.spec(number)).await?;
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.name().to_owned(), pod.clone());
        Ok(pod)
    }

    /// Forgets a pod whose processes have ended, and disconnects it.
    pub(crate) async fn remove(&self, pod: &MeshPod) -> anyhow::Result<()> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(pod.name());
        Ok(self.mesh.remove(pod).await?)
    }

    /// Ends everything and leaves nothing behind.
    pub(crate) async fn stop(self) {
        self.mesh.stop().await;
    }
}

impl Workload {
    fn spec(&self, number: usize) -> Spec {
        Spec {
            workload: self.name.to_owned(),
            role: (self.role != LOADGEN).then(|| self.role.to_owned()),
            version: self.version.to_owned(),
            service_account: self.role.to_owned(),
            ..Spec::client(&format!("{}-{number}", self.name))
        }
    }
}

/// Makes a pod that serves, and whose application is started again when it crashes.
async fn make(mesh: &Mesh, spec: Spec) -> anyhow::Result<Arc<MeshPod>> {
    let serves = spec.role.is_some();
    let pod = Arc::new(mesh.add(spec).await?);
    if serves {
        mesh.keep_running(&pod)?;
    }
    Ok(pod)
}

/// The SPIFFE identity of a service account of the shop.
pub(crate) fn identity(service_account: &str) -> String {
    weft_local_mesh::identity(NAMESPACE, service_account)
}
