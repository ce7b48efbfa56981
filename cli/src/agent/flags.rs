//! The flags of `weft agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand, ValueEnum};
use weft_proxy::ads::{ControlPlane, ControlPlaneTls, Dialect, Streams};
use weft_proxy::upstream::Assignment;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::names::{self, PodName};

/// What is to be done: run, which needs no word, or print a start-up file.
pub(crate) enum AgentArgs {
    Run(Run),
    Bootstrap(Bootstrap),
}

#[derive(Subcommand)]
enum Command {
    /// Print a start-up file for a program that uses the agent's folder, or for weft-proxy
    Bootstrap(Bootstrap),
}

/// By hand: derived, the flags of either would be optional in both.
impl FromArgMatches for AgentArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        if matches.subcommand_name().is_none() {
            return Run::from_arg_matches(matches).map(Self::Run);
        }
        Command::from_arg_matches(matches).map(|Command::Bootstrap(args)| Self::Bootstrap(args))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(|args| *self = args)
    }
}

impl Args for AgentArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        Command::augment_subcommands(Run::augment_args(command))
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
            .subcommand_required(false)
            .arg_required_else_help(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(super) common: Common,
    /// File with the mesh's roots, by which the control plane is known: weft-control-plane ca, or ConfigMap weft-trust
    #[arg(long, value_name = "FILE")]
    pub(super) roots: PathBuf,
    /// File with the token that proves which pod this is: weft-control-plane token, or a projected service-account token of audience weft
    #[arg(long, value_name = "FILE")]
    pub(super) token: PathBuf,
}

/// What both need.
#[derive(Args)]
pub(super) struct Common {
    /// The control plane: HOST:PORT
    #[arg(long, value_name = "ADDRESS", env = "WEFT_CONTROL_PLANE_ADDRESS", hide_env_values = true)]
    pub(super) control_plane: HostPort,
    /// The name in the control plane's certificate
    #[arg(long, value_name = "NAME", default_value = names::CONTROL_PLANE_DNS)]
    pub(super) server_name: String,
    /// The pod's namespace
    #[arg(long, env = "WEFT_NAMESPACE", hide_env_values = true)]
    pub(super) namespace: String,
    /// The pod's name
    #[arg(long, env = "WEFT_POD", hide_env_values = true)]
    pub(super) pod: String,
    /// The pod's workload (its owner); by default the pod
    #[arg(long, env = "WEFT_WORKLOAD", hide_env_values = true)]
    pub(super) workload: Option<String>,
    /// The folder for key.pem, chain.pem, bundle.pem, and for identity.json and bundle.json, by which Envoy finds them; made with mode 0700
    #[arg(long, value_name = "FOLDER", default_value = names::AGENT_FOLDER)]
    pub(super) folder: PathBuf,
    /// Mark of the packets that the redirect shall leave alone; without it, it goes by the user
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) mark: Option<u32>,
}

#[derive(Args)]
pub(crate) struct Bootstrap {
    /// Which program the file is for
    #[arg(long = "for", value_enum)]
    pub(super) program: Program,
    #[command(flatten)]
    pub(super) common: Common,
    /// File with the mesh's roots (weft)
    #[arg(long, value_name = "FILE", required_if_eq("program", "weft"))]
    pub(super) roots: Option<PathBuf>,
    /// File with the token that proves which pod this is (weft)
    #[arg(long, value_name = "FILE", required_if_eq("program", "weft"))]
    pub(super) token: Option<PathBuf>,
    /// Variant of the xDS protocol (envoy)
    #[arg(long, value_enum, default_value_t = Variant::Delta)]
    pub(super) dialect: Variant,
    /// Where the program's own admin server listens (envoy, weft)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15000")]
    pub(super) admin: SocketAddr,
}

/// A program that takes a start-up file.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Program {
    /// An Envoy as a sidecar
    Envoy,
    /// A gRPC application (GRPC_XDS_BOOTSTRAP)
    Grpc,
    /// Our own proxy, which needs no agent
    Weft,
}

/// A variant of the xDS protocol.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Variant {
    /// Only what changed is sent
    Delta,
    /// Every answer repeats everything
    Sotw,
}

/// An address or a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: String,
    pub(super) port: u16,
}

impl HostPort {
    /// Whether it is an address, and not a name to be resolved.
    pub(super) fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parsed {
            Some((host, port)) if !host.is_empty() && !host.contains(':') => Ok(Self { host: host.to_owned(), port }),
            _ => Err(format!(
                "is no HOST:PORT, such as weft-control-plane.weft-system.svc:15012 or 198.18.0.2:15012: `{text}`"
            )),
        }
    }
}

impl Common {
    pub(super) fn workload(&self) -> &str {
        self.workload.as_deref().unwrap_or(&self.pod)
    }

    /// What the agent says of itself.
    pub(super) fn node(&self) -> anyhow::Result<Node> {
        PodName::new(&*self.pod, self.workload(), &*self.namespace)?;
        Ok(Node {
            id: names::node_id(&self.namespace, &self.pod),
            cluster: names::node_cluster(&self.namespace, self.workload()),
            user_agent_name: "weft-agent".to_owned(),
            ..Default::default()
        })
    }
}

impl Run {
    /// How to connect.
    pub(super) fn control_plane(&self) -> anyhow::Result<ControlPlane> {
        let Common { control_plane: HostPort { host, port }, server_name, mark, .. } = &self.common;
        let endpoint = serde_json::json!({ "cluster_name": "control-plane", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": host, "port_value": port } },
        } }] }] });
        let message: ClusterLoadAssignment = weft_xds::yaml::from_str(&endpoint.to_string())?;
        Ok(ControlPlane {
            endpoints: Assignment::compile(&message, "--control-plane")?,
            tls: Some(ControlPlaneTls {
                server_name: server_name
                    .clone()
                    .try_into()
                    .with_context(|| format!("--server-name: `{server_name}` is no DNS name"))?,
                roots: self.roots.clone(),
            }),
            mark: *mark,
            token_file: Some(self.token.clone()),
            dialect: Dialect::Delta,
            streams: Streams::Aggregated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_from_a_name() {
        let parse = |text: &str| text.parse::<HostPort>();
        assert_eq!(parse("[fd00::1]:15012"), Ok(HostPort { host: "fd00::1".into(), port: 15012 }));
        assert!(parse("198.18.0.1:15012").unwrap().is_address());
        assert!(!parse("control-plane:15012").unwrap().is_address());
        for text in ["control-plane", ":1", "fd00::1:15012", "a:70000"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
