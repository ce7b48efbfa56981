//! The agent's life.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use weft_cni::PluginSettings;
use weft_cni_node::conflist;
use weft_cni_node::http::{self, Pages};
use weft_cni_node::pods::Pods;
use weft_cni_node::removal::{self, Owner};
use weft_cni_node::repair::{self, Repairs};
use weft_cni_node::{Metrics, configuration, files, socket};

use crate::{Folders, uninstall};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
    /// The node's name
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,
    /// The plugin's program, to be copied to the node
    #[arg(long, env = "WEFT_CNI_PROGRAM", value_name = "FILE", default_value = "/weft-cni")]
    program: PathBuf,
    /// A folder that is the same for the agent and the node, for the plugin's socket and notes
    #[arg(long, env = "WEFT_CNI_RUN_DIR", value_name = "FOLDER", default_value = "/run/weft-cni")]
    run_dir: PathBuf,
    /// The kubelet's folder (its --root-dir) on the node; the agent need not see it
    #[arg(long, env = "WEFT_CNI_KUBELET_DIR", value_name = "FOLDER", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// The node's processes
    #[arg(long, env = "WEFT_CNI_PROC_DIR", value_name = "FOLDER", default_value = "/proc")]
    proc_dir: PathBuf,
    /// Namespaces whose pods are never the mesh's
    #[arg(
        long,
        env = "WEFT_CNI_EXCLUDE_NAMESPACES",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "kube-system,kube-public,kube-node-lease,weft-system"
    )]
    exclude_namespaces: Vec<String>,
    /// What to do with an injected pod that started before the plugin was there
    #[arg(long, env = "WEFT_CNI_REPAIR", value_enum, default_value = "install")]
    repair: repair::Mode,
    /// When to take the plugin off the node
    #[arg(long, env = "WEFT_CNI_UNINSTALL_ON_EXIT", value_enum, default_value = "auto")]
    uninstall_on_exit: removal::Mode,
    /// The namespace of the DaemonSet that runs the agent
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "weft-system")]
    namespace: String,
    /// The DaemonSet's name
    #[arg(long, env = "WEFT_CNI_DAEMONSET", value_name = "NAME", default_value = "weft-cni")]
    daemonset: String,
    /// Where /ready, /live and /metrics are served
    #[arg(long, env = "WEFT_CNI_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:15029")]
    listen: SocketAddr,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("--listen: cannot listen at {}", options.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /ready, /live and /metrics");
    let client = Client::try_default().await.context("cannot find the API server")?;
    let owner = Owner::look(client.clone(), &options.namespace, &options.daemonset).await;

    let mut work = pin!(work(options, listener, client));
    tokio::select! {
        result = &mut work => result?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let goes = match options.uninstall_on_exit {
        removal::Mode::Always => true,
        removal::Mode::Never => false,
        removal::Mode::Auto => owner.has_been_deleted().await,
    };
    if goes {
        uninstall(&options.folders)?;
    } else {
        tracing::info!("the plugin stays on the node: the DaemonSet is still there, or cannot be seen");
    }
    // After this the plugin knows that nobody answers, and waits for the next agent.
    files::remove(&socket_path(&options.run_dir))?;
    Ok(())
}

/// Everything the agent does, for ever.
async fn work(options: &Options, listener: TcpListener, client: Client) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let (status, seen) = watch::channel(Some("the node's pods are not known yet".to_owned()));
    let pages = Pages { status: seen, metrics: Arc::clone(&metrics) };

    let (pods, changes) = Pods::watch(client.clone(), &options.node_name);
    let pods_changed = Notify::new();
    let watching = async {
        let mut changes = pin!(changes);
        while let Some(change) = changes.next().await {
            if let Err(error) = change {
                metrics.watch_errors.inc();
                tracing::warn!(%error, "cannot watch the node's pods; trying again");
            }
            pods_changed.notify_one();
        }
    };
    let installing = async {
        // The plugin goes into the configuration only when everything it may need is there.
        if files::install_program(&options.program, &options.folders.bin_dir)? {
            tracing::info!(folder = %options.folders.bin_dir.display(), "installed the plugin's program");
        }
        pods.ready().await;
        let listener = socket::listen(&socket_path(&options.run_dir))?;
        let settings = PluginSettings {
            agent_socket: socket_path(&options.run_dir),
            state_dir: options.run_dir.join("attachments"),
            kubelet_dir: options.kubelet_dir.clone(),
            exclude_namespaces: options.exclude_namespaces.clone(),
            ..PluginSettings::default()
        };
        let entry = conflist::entry(&settings).context("cannot write the plugin's entry")?;
        let keeping = configuration::keep(options.folders.conf_dir.clone(), entry, status, Arc::clone(&metrics));
        let repairs = Repairs::new(options.repair, options.proc_dir.clone(), client.clone(), Arc::clone(&metrics));
        tokio::join!(
            socket::serve(listener, pods.clone(), Arc::clone(&metrics)),
            keeping,
            look_after(repairs, &pods, &pods_changed),
        );
        anyhow::Ok(())
    };
    tokio::select! {
        result = http::serve(listener, pages) => result.context("cannot serve HTTP"),
        () = watching => anyhow::bail!("the watch of the node's pods has ended"),
        result = installing => result,
    }
}

/// Looks at pods when something changes; soon again while one of them has no processes yet; and at all of them from time to time.
async fn look_after(mut repairs: Repairs, pods: &Pods, changed: &Notify) {
    const SOON: Duration = Duration::from_secs(1);
    const FULL: Duration = Duration::from_secs(60);
    let mut last_full = None::<tokio::time::Instant>;
    loop {
        let all = last_full.is_none_or(|last| last.elapsed() >= FULL);
        if all {
            last_full = Some(tokio::time::Instant::now());
        }
        let left = repairs.look(pods.injected(), all).await;
        let wait = if left > 0 { SOON } else { FULL };
        // Both ends are fine: a change, or the time.
        let _ = tokio::time::timeout(wait, changed.notified()).await;
        // A starting pod changes many times within a moment.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}
