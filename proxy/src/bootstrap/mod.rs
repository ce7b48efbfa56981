//! How a process starts: flags and Envoy's bootstrap file.
//!
//! - `flags`: the command line.
//! - `sidecar`: what makes a bootstrap a sidecar's: `node.metadata["weft.mesh"]`.
//! - `control_plane`: the cluster that leads to it, as an address and TLS.
//!
//! What is refused names its path in the file; the process then exits 1.

mod control_plane;
mod flags;
mod sidecar;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_plane::Found;
use weft_xds::envoy::config::bootstrap::v3::Bootstrap as Message;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_xds::envoy::config::core::v3::node::UserAgentVersionType;
use weft_xds::{FieldError, names, support, yaml};

use crate::ads::{ControlPlane, Kind, Source};
use crate::snapshot::compile::compile_listener;
use crate::snapshot::compile::fields::{join, socket_address, unsupported};
use crate::snapshot::{Listener, Store};
use crate::upstream::{Cluster, ClusterConfig, Discovery};

pub use flags::{Command, Config, Flags, USAGE, UsageError};
pub use sidecar::SidecarConfig;

/// Where the admin server listens unless the file says otherwise.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

/// Why a bootstrap is refused.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's contents are refused.
    #[error("{file}: {source}", file = file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The field and why.
        source: FieldError,
    },
}

/// A bootstrap, checked and compiled.
#[derive(Debug)]
pub struct Bootstrap {
    /// Who we are toward the control plane.
    pub node: Node,
    /// Where the admin server listens.
    pub admin: SocketAddr,
    /// Sidecar or not.
    pub mode: Mode,
    /// Listeners of the file; those with an address bind it.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters of the file, without the one that leads to the control plane.
    pub clusters: Vec<ClusterConfig>,
    /// Fields that are set and change no traffic, so that they can be reported.
    pub ignored: Vec<String>,
    /// The message as it was, for the dump.
    pub message: Box<Message>,
}

/// What kind of proxy the file asks for.
#[derive(Debug)]
pub enum Mode {
    /// Beside one workload, with redirected traffic.
    Sidecar(Box<SidecarConfig>),
    /// Listeners bind their own addresses.
    Static(Option<Subscriptions>),
}

/// What a proxy that is no sidecar takes from a control plane.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The kinds of which everything is taken (`lds_config`, `cds_config`).
    pub kinds: Vec<Kind>,
    /// Where resources may say that what they need comes from.
    pub source: Source,
}

impl Bootstrap {
    /// Reads and compiles a file in YAML or JSON.
    ///
    /// # Errors
    /// When the file cannot be read, or names the first field that is refused.
    pub fn read(file: &Path) -> Result<Self, BootstrapError> {
        let text = fs::read_to_string(file).map_err(|source| BootstrapError::Read { file: file.to_owned(), source })?;
        Self::parse(&text).map_err(|source| BootstrapError::Refused { file: file.to_owned(), source })
    }

    /// Compiles a text in YAML or JSON.
    ///
    /// # Errors
    /// Names the first field that is refused.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let message: Message = yaml::from_str(text)?;
        refuse_unsupported(&message)?;
        let ignored = support::check_message(&message)?;
        let mut node = message.node.clone().unwrap_or_default();
        names::USER_AGENT.clone_into(&mut node.user_agent_name);
        node.user_agent_version_type =
            Some(UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned()));
        let admin = match &message.admin {
            Some(admin) if admin.address.is_some() => socket_address(admin.address.as_ref(), "admin.address")?,
            _ => DEFAULT_ADMIN,
        };
        let found = control_plane::find(&message)?;
        let mode = mode(&message, &mut node, found.as_ref())?;
        let reserved = found.as_ref().map(|found| found.cluster.as_str());
        let clusters = clusters(&message, reserved)?;
        let listeners = listeners(&message)?;
        Ok(Self { node, admin, mode, listeners, clusters, ignored, message: Box::new(message) })
    }

    /// Publishes the file's own listeners and clusters.
    pub fn publish(&self, store: &Store) {
        store.update(|next| {
            for config in &self.clusters {
                next.clusters.insert(config.name.clone(), Arc::new(Cluster::new(config.clone())));
            }
            for listener in &self.listeners {
                next.insert_listener(listener.clone());
            }
        });
    }
}

fn mode(message: &Message, node: &mut Node, found: Option<&Found>) -> Result<Mode, FieldError> {
    if let Some(sidecar) = sidecar::find(node, found.map(|found| &found.control_plane))? {
        return Ok(Mode::Sidecar(Box::new(sidecar)));
    }
    let Some(dynamic) = &message.dynamic_resources else { return Ok(Mode::Static(None)) };
    let mut kinds = Vec::new();
    for (source, field, kind) in
        [(&dynamic.lds_config, "lds_config", Kind::Listener), (&dynamic.cds_config, "cds_config", Kind::Cluster)]
    {
        match source.as_ref().map(|source| &source.config_source_specifier) {
            None => {}
            Some(Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::ApiConfigSource(_))) => kinds.push(kind),
            Some(_) => {
                return Err(FieldError::new(
                    join("dynamic_resources", field),
                    "only a control plane is supported; write `ads: {}` or an api_config_source",
                ));
            }
        }
    }
    match (kinds.is_empty(), found) {
        (true, _) => Ok(Mode::Static(None)),
        (false, Some(Found { control_plane, source, .. })) => {
            let (control_plane, source) = (control_plane.clone(), source.clone());
            Ok(Mode::Static(Some(Subscriptions { control_plane, kinds, source })))
        }
        (false, None) => Err(FieldError::missing("dynamic_resources.ads_config", "say where the control plane is")),
    }
}

fn clusters(message: &Message, reserved: Option<&str>) -> Result<Vec<ClusterConfig>, FieldError> {
    let mut seen = HashMap::new();
    let mut clusters = Vec::new();
    let messages = message.static_resources.iter().flat_map(|resources| &resources.clusters);
    for (i, message) in messages.enumerate() {
        let path = format!("static_resources.clusters[{i}]");
        if let Some(other) = seen.insert(message.name.as_str(), i) {
            let problem = format!("is the name of clusters[{other}] too");
            return Err(FieldError::invalid(
                join(&path, "name"),
                &message.name,
                problem,
                "give each a name of its own",
            ));
        }
        // The stream's own connection, which `control_plane` has read.
        if Some(message.name.as_str()) == reserved {
            continue;
        }
        let config = ClusterConfig::compile(message, &path)?;
        if matches!(config.discovery, Discovery::Eds(_)) && reserved.is_none() {
            return Err(FieldError::new(join(&path, "type"), "EDS needs dynamic_resources.ads_config"));
        }
        clusters.push(config);
    }
    Ok(clusters)
}

fn listeners(message: &Message) -> Result<Vec<Arc<Listener>>, FieldError> {
    let mut seen = HashMap::new();
    let mut listeners = Vec::new();
    let messages = message.static_resources.iter().flat_map(|resources| &resources.listeners);
    for (i, message) in messages.enumerate() {
        let path = format!("static_resources.listeners[{i}]");
        let mut compiled = compile_listener(message).map_err(|error| error.within(&path))?;
        if message.name.is_empty() {
            // Envoy gives a nameless listener a random name; its place in the file says more.
            compiled.listener.name = path.as_str().into();
        }
        if let Some(other) = seen.insert(compiled.listener.name.clone(), i) {
            let problem = format!("is the name of listeners[{other}] too");
            return Err(FieldError::invalid(
                join(&path, "name"),
                &message.name,
                problem,
                "give each a name of its own",
            ));
        }
        listeners.push(Arc::new(compiled.listener));
    }
    Ok(listeners)
}

/// Refuses what would change behaviour and is not implemented. Statistics, logs and watchdogs only report, and are skipped.
fn refuse_unsupported(message: &Message) -> Result<(), FieldError> {
    #[allow(deprecated)] // Envoy still acts on it.
    let dns_resolution_config = message.dns_resolution_config.is_some();
    for (set, field) in [
        (!message.node_context_params.is_empty(), "node_context_params"),
        (message.hds_config.is_some(), "hds_config"),
        (message.layered_runtime.as_ref().is_some_and(|runtime| !runtime.layers.is_empty()), "layered_runtime"),
        (message.overload_manager.is_some(), "overload_manager"),
        (!message.header_prefix.is_empty(), "header_prefix"),
        (dns_resolution_config, "dns_resolution_config"),
        (message.typed_dns_resolver_config.is_some(), "typed_dns_resolver_config"),
        (!message.bootstrap_extensions.is_empty(), "bootstrap_extensions"),
        (!message.fatal_actions.is_empty(), "fatal_actions"),
        (!message.config_sources.is_empty(), "config_sources"),
        (message.default_config_source.is_some(), "default_config_source"),
        (!message.default_socket_interface.is_empty(), "default_socket_interface"),
        (!message.certificate_provider_instances.is_empty(), "certificate_provider_instances"),
        (message.xds_delegate_extension.is_some(), "xds_delegate_extension"),
        (message.xds_config_tracker_extension.is_some(), "xds_config_tracker_extension"),
        (message.listener_manager.is_some(), "listener_manager"),
    ] {
        unsupported(set, "", field)?;
    }
    if let Some(admin) = &message.admin {
        unsupported(!admin.socket_options.is_empty(), "admin", "socket_options")?;
        unsupported(!admin.allow_paths.is_empty(), "admin", "allow_paths")?;
    }
    if let Some(dynamic) = &message.dynamic_resources {
        unsupported(!dynamic.lds_resources_locator.is_empty(), "dynamic_resources", "lds_resources_locator")?;
        unsupported(!dynamic.cds_resources_locator.is_empty(), "dynamic_resources", "cds_resources_locator")?;
    }
    let secrets = message.static_resources.iter().any(|resources| !resources.secrets.is_empty());
    unsupported(secrets, "static_resources", "secrets")
}
