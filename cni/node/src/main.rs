//! `weft-cni-node`: runs the node's agent, or takes the plugin off the node.

mod run;

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use weft_cni_node::{config_dir, files};

#[derive(Debug, Parser)]
#[command(
    name = "weft-cni-node",
    version,
    about = "Installs the CNI plugin weft-cni on a node and looks after its pods"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs the plugin and keeps it installed, answers its questions, repairs pods that started without it
    Run(Box<run::Options>),
    /// Takes the plugin off the node
    Uninstall(Folders),
}

/// Where things are on the node, as the agent sees them.
#[derive(Debug, Clone, clap::Args)]
struct Folders {
    /// The node's folder of CNI plugins
    #[arg(long, env = "WEFT_CNI_BIN_DIR", value_name = "FOLDER", default_value = "/host/opt/cni/bin")]
    bin_dir: PathBuf,
    /// The node's folder of CNI configurations
    #[arg(long, env = "WEFT_CNI_CONF_DIR", value_name = "FOLDER", default_value = "/host/etc/cni/net.d")]
    conf_dir: PathBuf,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,kube_client=warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    match arguments.command {
        Command::Run(options) => runtime.block_on(run::run(&options)),
        Command::Uninstall(folders) => uninstall(&folders),
    }
}

/// Takes the plugin out of the configuration first, so that no pod needs a program that is not there.
fn uninstall(folders: &Folders) -> anyhow::Result<()> {
    if config_dir::remove(&folders.conf_dir)? {
        tracing::info!(folder = %folders.conf_dir.display(), "took the plugin out of the CNI configuration");
    }
    if files::remove(&folders.bin_dir.join(weft_cni::PLUGIN))? {
        tracing::info!(folder = %folders.bin_dir.display(), "removed the plugin's program");
    }
    Ok(())
}
