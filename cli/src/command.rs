//! The flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weft_api::Duration;

use crate::agent::AgentArgs;
use crate::ask::Address;
use crate::cluster::{Cluster, PodName};
use crate::completion;
use crate::demo::DemoArgs;
use crate::explain::ExplainArgs;
use crate::steer::args::{FaultArgs, RetryArgs, SplitArgs, TimeoutArgs};

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
       the configuration folder is refused, a check failed, a step of the demo was not observed,
       a change cannot be made as it was asked for
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
    ///
    /// Of a proxy on this machine, or of a pod's in a cluster: weft config routes pod/web-0.shop
    Config(ConfigArgs),
    /// Show the certificate of a pod's proxy, and the roots it trusts
    Identity(IdentityArgs),
    /// Print the log of a pod's proxy, or of the control plane
    Logs(LogsArgs),
    /// Check whether a cluster is ready for Weft, and whether Weft is well in it
    ///
    /// Everything is asked through kubectl, with your rights, and nothing is changed. The checks are explained in docs/reference/checks.md, each on a page of its own.
    /// Exit code 1 if a check fails; one that only wants a look does not count.
    Check(CheckArgs),
    /// Send shares of a Service's requests to its versions
    ///
    /// weft split reviews.shop v1=90 v2=10
    ///
    /// Prints the route that says so, and what would change; changes it only with --apply.
    Split(SplitArgs),
    /// Retry failed calls to a Service
    ///
    /// weft retry reviews.shop 2 --on 5xx,reset --budget 20
    ///
    /// Prints the TrafficPolicy that says so, and what would change; changes it only with --apply.
    Retry(RetryArgs),
    /// Limit the time of calls to a Service
    ///
    /// weft timeout reviews.shop 3s --try 1s
    ///
    /// Prints the TrafficPolicy that says so, and what would change; changes it only with --apply.
    Timeout(TimeoutArgs),
    /// Delay calls to a Service, or answer them with an error
    ///
    /// weft fault reviews.shop --delay 2s --percent 20
    ///
    /// Prints the FaultPolicy that says so, and what would change; changes it only with --apply. It stays until `weft fault SERVICE --off --apply`.
    Fault(FaultArgs),
    /// Tell what becomes of a request, and which object says so
    ///
    /// `weft explain GET http://reviews.shop/ratings -H 'x-user: ann' --from front-end.shop`
    ///
    /// By the proxy's own matchers, on the configuration that the caller's proxy holds; says so where the control plane has another, or the proxy
    /// holds none. Exit code 1 if the request would be refused, or goes nowhere.
    Explain(ExplainArgs),
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
    /// Keep key, certificate and trust bundle in files, for an Envoy or a gRPC application
    ///
    /// Makes a key, has the control plane sign for it, and writes both with the roots into a folder, replaced in one step; renews the certificate at
    /// half of its life, and follows the roots. Runs until SIGTERM. What uses the files is told of them by `weft agent bootstrap`, and may start when
    /// the folder holds identity.json.
    Agent(Box<AgentArgs>),
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
    ///
    /// It completes the names of contexts, namespaces and pods too, which it asks kubectl for.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version(VersionArgs),
    /// Print a page of docs/reference
    #[command(hide = true)]
    Reference {
        /// Which page.
        #[arg(value_enum, default_value_t = Page::Cli)]
        page: Page,
        /// Write one page for each check into this folder, beside their list.
        #[arg(long, value_name = "FOLDER")]
        into: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The control plane's admin address: host:port, or unix:PATH. Without it and without a flag that names a cluster: $WEFT_CONTROL_PLANE, then
    /// 127.0.0.1:15014, or where nothing answers there, the cluster that kubectl knows
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["context", "kubeconfig", "weft_namespace"])]
    pub(crate) control_plane: Option<Address>,
    /// Show only proxies of this namespace
    #[arg(short, long, conflicts_with = "all_namespaces", add = completion::namespaces())]
    pub(crate) namespace: Option<String>,
    /// Show proxies of all namespaces, which is the default
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Show only proxies of pods with these labels, such as app=web
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "control_plane")]
    pub(crate) selector: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// listeners, routes, clusters, endpoints, certificates or all; and pod/NAME.NAMESPACE for a pod's proxy
    #[arg(value_name = "PART|POD", num_args = 0..=2, add = completion::parts_and_pods())]
    pub(crate) what: Vec<What>,
    /// The proxy's admin address: host:port, or unix:PATH
    #[arg(long, value_name = "ADDRESS", env = "WEFT_PROXY", hide_env_values = true, default_value = "127.0.0.1:15000")]
    pub(crate) proxy: Address,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Format; json and yaml are Envoy's own, as in its /config_dump
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct IdentityArgs {
    /// The pod: pod/NAME.NAMESPACE
    #[arg(add = completion::pods())]
    pub(crate) pod: PodName,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The pod: pod/NAME.NAMESPACE; without it the control plane
    #[arg(add = completion::pods())]
    pub(crate) pod: Option<PodName>,
    /// Go on printing
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with this many last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Check a cluster in which Weft is not installed yet
    #[arg(long)]
    pub(crate) pre: bool,
    /// Repeat the checks while one fails, for this long, such as 2m
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Format
    #[arg(short, long, value_enum, default_value_t = CheckFormat::Table)]
    pub(crate) output: CheckFormat,
}

#[derive(Args)]
pub(crate) struct VersionArgs {
    /// Print those of the control planes and proxies in the cluster too
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

/// How checks are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// Only what is wrong
    Short,
}

/// A part of what a proxy knows, or whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Part(Part),
    Pod(PodName),
}

impl Format {
    /// Whether it is for people.
    pub(crate) fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

impl std::str::FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("pod/") || text.contains('.') {
            return text.parse().map(Self::Pod);
        }
        let parts = || Part::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        <Part as ValueEnum>::from_str(text, false).map(Self::Part).map_err(|_| {
            let names: Vec<_> = parts().map(|part| part.get_name().to_owned()).collect();
            format!("is neither a part ({}) nor a pod (pod/NAME.NAMESPACE)", names.join(", "))
        })
    }
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
    /// What `weft check` looks at
    Checks,
    /// The files of manifests/crds
    Crds,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For people, with more columns where there is more to say
    Wide,
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
        assert_eq!(args.what, [What::Part(Part::Routes)]);
        assert_eq!(args.proxy, Address::Unix("/run/p.sock".into()));
    }

    #[test]
    fn a_proxy_can_be_named_by_its_pod() {
        let cli = Cli::try_parse_from(["weft", "config", "routes", "pod/web-0.shop"]).unwrap();
        let Command::Config(args) = cli.command else { panic!() };
        assert_eq!(args.what, [What::Part(Part::Routes), What::Pod("web-0.shop".parse().unwrap())]);
    }
}
