//! The flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ask::Address;
use crate::demo::DemoArgs;

/// Exit codes; 2 is clap's, for wrong usage.
pub(crate) mod exit {
    /// The question was answered, and the answer is bad news.
    pub(crate) const BAD_NEWS: u8 = 1;
    /// The question could not be answered.
    pub(crate) const UNKNOWN: u8 = 3;
}

/// Shown by `--help` and in the reference.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done, and all is well
  1    the answer is bad news: a file is not valid, a proxy rejects its configuration,
       the configuration folder is refused, a step of the demo was not observed
  2    wrong usage
  3    no answer: not reachable, not readable, or something this machine lacks
  130  ended by Ctrl-C";

/// Weft, a service mesh: see what it does, and what it would do.
#[derive(Parser)]
#[command(name = "weft", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a whole mesh with a sample shop on this machine
    Demo(DemoArgs),
    /// Show the control plane's state, and each proxy's
    ///
    /// A proxy is SYNCED when it acknowledged everything, STALE while it has something to acknowledge, and NACK when it
    /// rejected something and uses what it had before. Exit code 1 if any proxy says NACK or the configuration folder is
    /// refused.
    Status(StatusArgs),
    /// Show what one proxy knows
    Config(ConfigArgs),
    /// Check configuration files as the control plane would, without one
    ///
    /// Prints what is wrong, one problem a line, with file, line, field and what to write instead. Exit code 1 if any of
    /// it is an error. Give all files that belong together: what one refers to may be in another.
    Validate(ValidateArgs),
    /// Print the manifests of an installation on Kubernetes
    ///
    /// Nothing is asked of or changed in a cluster: weft install | kubectl apply -f -
    /// The settings are in docs/reference/install.md.
    Install(InstallArgs),
    /// Print what an installation on Kubernetes has brought
    ///
    /// weft uninstall | kubectl delete --ignore-not-found -f -
    Uninstall(UninstallArgs),
    /// Give the pods in files a sidecar, as the webhook does
    ///
    /// Prints the files with every Pod, Deployment, StatefulSet, DaemonSet, Job and CronJob injected. What cannot be injected is printed as it
    /// is and told on standard error, with exit code 1.
    Inject(InjectArgs),
    /// Take the sidecar out of the pods in files
    Uninject(UninjectArgs),
    /// Print the completion script of a shell
    ///
    /// For bash: weft completion bash > ~/.local/share/bash-completion/completions/weft
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Print a page of docs/reference
    #[command(hide = true)]
    Reference {
        /// Which page.
        #[arg(value_enum, default_value_t = Page::Cli)]
        page: Page,
    },
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The control plane's admin address: host:port, or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "WEFT_CONTROL_PLANE",
        hide_env_values = true,
        default_value = "127.0.0.1:15014"
    )]
    pub(crate) control_plane: Address,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// What to show
    #[arg(value_enum, default_value_t = Part::All)]
    pub(crate) part: Part,
    /// The proxy's admin address: host:port, or unix:PATH
    #[arg(long, value_name = "ADDRESS", env = "WEFT_PROXY", hide_env_values = true, default_value = "127.0.0.1:15000")]
    pub(crate) proxy: Address,
    /// Format; json and yaml are Envoy's own, as in its /config_dump
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct ValidateArgs {
    /// Files, folders of files, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct InstallArgs {
    /// Three control planes on different nodes, with a disruption budget and a priority
    #[arg(long)]
    pub(crate) ha: bool,
    /// Redirect by a CNI plugin on the nodes: pods need no privileges
    #[arg(long)]
    pub(crate) cni: bool,
    /// Change a setting; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
pub(crate) struct UninstallArgs {
    /// Leave the definitions of Weft's kinds, and with them all policies, in the cluster
    #[arg(long)]
    pub(crate) keep_crds: bool,
    /// What `weft install` was called with, as far as names depend on it (namespace); repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
pub(crate) struct InjectArgs {
    /// Files, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// For pods on nodes with the CNI plugin
    #[arg(long)]
    pub(crate) cni: bool,
    /// Change a setting of `weft install`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
pub(crate) struct UninjectArgs {
    /// Files, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// A page of docs/reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Page {
    /// This command line
    Cli,
    /// What `weft install --set` takes
    Install,
    /// What pods say by annotations
    Annotations,
    /// The files of manifests/crds
    Crds,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// A part of what a proxy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What it listens for
    Listeners,
    /// Where requests go
    Routes,
    /// Groups of endpoints, and how they are called
    Clusters,
    /// Addresses, with health and identity
    Endpoints,
    /// Its own certificate and the roots it trusts
    Certificates,
    /// All of these
    All,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_proxy_can_be_named_by_its_socket() {
        let cli = Cli::try_parse_from(["weft", "config", "routes", "--proxy", "unix:/run/p.sock"]).unwrap();
        let Command::Config(args) = cli.command else { panic!() };
        assert_eq!((args.part, args.proxy), (Part::Routes, Address::Unix("/run/p.sock".into())));
    }
}
