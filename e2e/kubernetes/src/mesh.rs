//! The mesh under test: installed with the command line that users have.

use std::path::PathBuf;

use anyhow::Context;
use kube::ResourceExt;
use weft_local_mesh::Samples;

use crate::cluster::{Cluster, run};

/// Environment variable that names the scripts of a cluster of our own.
const NODE: &str = "WEFT_E2E_CLUSTER";

/// Where the control plane is.
pub(crate) const SYSTEM: &str = "weft-system";
/// Its Deployment.
pub(crate) const CONTROL_PLANE: &str = "weft-control-plane";

/// A cluster with a mesh in it, once it is installed.
pub(crate) struct Mesh {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// The program `weft`.
    weft: PathBuf,
    node: Option<Node>,
}

/// A node whose processes we may stop: by the scripts of `e2e/cluster`.
pub(crate) struct Node {
    scripts: PathBuf,
}

impl Mesh {
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("tell where this program is")?;
        let node = std::env::var_os(NODE).map(|scripts| Node { scripts: scripts.into() });
        Ok(Self { cluster: Cluster::connect().await?, weft: own.with_file_name("weft"), node })
    }

    /// Whether the cluster is one of our own, whose node's processes we may stop.
    pub(crate) fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// The node of a cluster of our own.
    pub(crate) fn node(&self) -> anyhow::Result<&Node> {
        self.node.as_ref().with_context(|| format!("{NODE} does not name the scripts of the cluster"))
    }

    /// Runs `weft`; its output.
    pub(crate) async fn weft(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(&self.weft.to_string_lossy(), arguments, "").await
    }

    /// `weft install | kubectl apply -f -`, and waits for the control plane.
    pub(crate) async fn install(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let manifests = self.weft(&[&["install"], arguments].concat()).await?;
        self.cluster.apply(&manifests).await?;
        self.cluster.rolled_out(SYSTEM, CONTROL_PLANE).await
    }

    /// `weft uninstall | kubectl delete -f -`, which waits until all has gone.
    pub(crate) async fn uninstall(&self) -> anyhow::Result<()> {
        let manifests = self.weft(&["uninstall"]).await?;
        self.cluster.delete(&manifests).await
    }

    /// `weft inject`: manifests with sidecars, for namespaces without the label.
    pub(crate) async fn inject(&self, manifests: &str) -> anyhow::Result<String> {
        run(&self.weft.to_string_lossy(), &["inject", "-"], manifests).await
    }

    /// What the control plane's replicas count.
    pub(crate) async fn control_plane_metrics(&self) -> anyhow::Result<Vec<Samples>> {
        let mut all = Vec::new();
        for pod in self.cluster.pods(SYSTEM, "app.kubernetes.io/name=weft-control-plane").await? {
            all.push(self.cluster.scrape(SYSTEM, &pod.name_any(), 15021, "/metrics").await?);
        }
        Ok(all)
    }
}

impl Node {
    /// Ends a process of the node, such as `kube-proxy`.
    pub(crate) async fn stop(&self, process: &str) -> anyhow::Result<()> {
        self.script("daemon.sh", &["stop", "1", process]).await
    }

    /// Starts it again.
    pub(crate) async fn start(&self, process: &str) -> anyhow::Result<()> {
        self.script("daemon.sh", &["start", "1", process]).await
    }

    /// Runs a command inside the node.
    pub(crate) async fn run(&self, command: &[&str]) -> anyhow::Result<()> {
        self.script("enter.sh", &[&["--node", "1"], command].concat()).await
    }

    async fn script(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        run(&self.scripts.join(name).to_string_lossy(), arguments, "").await.map(drop)
    }
}
