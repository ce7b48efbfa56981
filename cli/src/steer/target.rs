//! Where the objects are: a folder of files, or a cluster. What differs between the two is here and in the modules that this one names.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use weft_control_plane::Status;

use super::Wrong;
use super::args::Steering;
use super::cluster::Apply;
use super::folder::{Edit, Folder};
use super::follow::Proxies;
use super::plan::Plan;
use super::world::{Kind, World};
use crate::ask::{self, Address};
use crate::cluster::Cluster;

/// The control plane's admin port, on its loopback.
const ADMIN_PORT: u16 = 15014;

/// What a control plane says of its source if that is its cluster's API server.
const KUBERNETES: &str = "kubernetes";

/// Where the objects are.
pub(crate) enum Target {
    Folder(Folder),
    Cluster(Cluster),
}

/// A change that can be made.
pub(super) enum Change {
    InFolder(Edit),
    InCluster(Box<Apply>),
}

impl Target {
    /// What the flags name, or what the control plane on this machine reads, or the cluster that kubectl knows.
    pub(crate) async fn find(args: &Steering) -> anyhow::Result<Self> {
        if let Some(folder) = &args.folder {
            return Ok(Self::Folder(Folder::read(folder)?));
        }
        if args.cluster.is_named() {
            return Ok(Self::Cluster(args.cluster.clone()));
        }
        let environment = std::env::var("WEFT_CONTROL_PLANE").ok().filter(|address| !address.is_empty());
        let named = match (&args.control_plane, environment) {
            (Some(address), _) => Some(address.clone()),
            (None, Some(text)) => match text.parse() {
                Ok(address) => Some(address),
                Err(problem) => bail!("WEFT_CONTROL_PLANE: {text:?} {problem}"),
            },
            (None, None) => None,
        };
        let address = named.clone().unwrap_or(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT))));
        match ask::json::<Status>(&address, "/status", "control plane", "--control-plane").await {
            Ok(status) if status.source.folder == KUBERNETES => Ok(Self::Cluster(args.cluster.clone())),
            Ok(status) => Self::folder_of(&address, Path::new(&status.source.folder)),
            Err(error) if named.is_some() => Err(error),
            Err(_) => {
                args.cluster.current_namespace().await.context(
                    "no control plane answers at 127.0.0.1:15014, and no cluster can be asked; name the folder with --folder, or a cluster with --context",
                )?;
                Ok(Self::Cluster(args.cluster.clone()))
            }
        }
    }

    fn folder_of(control_plane: &Address, folder: &Path) -> anyhow::Result<Self> {
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(Wrong::because(format!(
                "the control plane at {control_plane} reads the folder {folder}, which is not here by that name; name it with --folder"
            )));
        }
        Ok(Self::Folder(Folder::read(folder)?))
    }

    /// Whether namespaces have to be asked one by one.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The objects of these kinds; of a cluster those of one namespace.
    pub(crate) async fn read(&self, kinds: &[Kind], namespace: Option<&str>) -> anyhow::Result<World> {
        match self {
            Self::Folder(folder) => Ok(folder.world(kinds)),
            Self::Cluster(cluster) => super::cluster::read(cluster, kinds, namespace).await,
        }
    }

    /// Works out how to make a change, without making it.
    pub(super) fn prepare(&self, plan: &Plan, force: bool) -> anyhow::Result<Change> {
        match self {
            Self::Folder(folder) => Ok(Change::InFolder(folder.edit(plan)?)),
            Self::Cluster(cluster) => Ok(Change::InCluster(Box::new(Apply::new(cluster, plan, force)?))),
        }
    }

    /// The proxies whose statistics tell of the change's effect.
    pub(super) async fn proxies(&self) -> anyhow::Result<Proxies> {
        match self {
            Self::Folder(folder) => Ok(Proxies::of_folder(&folder.world(&[super::world::WORKLOAD]))),
            Self::Cluster(cluster) => Proxies::of_cluster(cluster).await,
        }
    }
}

impl Change {
    /// Where it is made.
    pub(super) fn place(&self) -> String {
        match self {
            Self::InFolder(edit) => edit.file.display().to_string(),
            Self::InCluster(apply) => apply.name.clone(),
        }
    }

    /// The text there now.
    pub(super) fn before(&self) -> String {
        match self {
            Self::InFolder(edit) => edit.before.clone().unwrap_or_default(),
            Self::InCluster(apply) => apply.before.clone(),
        }
    }

    /// The text there then.
    pub(super) fn after(&self) -> String {
        match self {
            Self::InFolder(edit) => edit.after.clone().unwrap_or_default(),
            Self::InCluster(apply) => apply.after.clone(),
        }
    }

    /// What its author should know.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::InFolder(edit) => &edit.notes,
            Self::InCluster(apply) => &apply.notes,
        }
    }

    /// Makes it, whole or not at all.
    pub(super) async fn make(&self) -> anyhow::Result<()> {
        match self {
            Self::InFolder(edit) => edit.make(),
            Self::InCluster(apply) => apply.make().await,
        }
    }

    /// What was done, in words.
    pub(super) fn done(&self) -> String {
        match self {
            Self::InFolder(edit) => edit.done(),
            Self::InCluster(apply) => apply.done(),
        }
    }
}

/// A file's name as people know it.
pub(super) fn below<'p>(folder: &Path, file: &'p Path) -> &'p Path {
    file.strip_prefix(folder).unwrap_or(file)
}
