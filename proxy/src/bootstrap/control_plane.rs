//! The control plane's address and TLS, from `dynamic_resources` and the cluster that it names.

use prost::Message as _;
use rustls_pki_types::ServerName;
use weft_xds::envoy::config::bootstrap::v3::Bootstrap as Message;
use weft_xds::envoy::config::cluster::v3::Cluster;
use weft_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use weft_xds::envoy::config::core::v3::ApiConfigSource;
use weft_xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_xds::envoy::config::core::v3::data_source::Specifier;
use weft_xds::envoy::config::core::v3::transport_socket::ConfigType;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use weft_xds::{FieldError, type_url, unpack};

use crate::ads::{ControlPlane, ControlPlaneTls, Dialect, Service, Source, Streams};
use crate::snapshot::compile::fields::{join, unsupported};
use crate::upstream::Assignment;

/// A control plane, and what the file says of the way to it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) control_plane: ControlPlane,
    /// The cluster that leads to it.
    pub(super) cluster: String,
    /// What every `ConfigSource` has to agree with.
    pub(super) source: Source,
}

/// The control plane that `ads_config` names, or else `lds_config` or `cds_config`; `None` where the file names none.
pub(super) fn find(message: &Message) -> Result<Option<Found>, FieldError> {
    let Some((streams, api, path)) = named(message) else { return Ok(None) };
    unsupported(!api.config_validators.is_empty(), &path, "config_validators")?;
    let service = Service::compile(api, &path)?;
    let clusters = message.static_resources.iter().flat_map(|resources| &resources.clusters);
    let Some((i, cluster)) = clusters.enumerate().find(|(_, cluster)| cluster.name == service.cluster) else {
        return Err(FieldError::invalid(
            join(&path, "grpc_services[0].envoy_grpc.cluster_name"),
            &service.cluster,
            "is no cluster of static_resources",
            "add it, or name another",
        ));
    };
    let compiled = compile(cluster, &format!("static_resources.clusters[{i}]"))?;
    let control_plane = ControlPlane { dialect: service.dialect, streams, ..compiled };
    let cluster = service.cluster.clone();
    let source = match streams {
        Streams::Aggregated => Source::Aggregated,
        Streams::Separate => Source::Separate(service),
    };
    source.check(type_url::BOOTSTRAP, &message.encode_to_vec())?;
    Ok(Some(Found { control_plane, cluster, source }))
}

fn named(message: &Message) -> Option<(Streams, &ApiConfigSource, String)> {
    const PATH: &str = "dynamic_resources";
    let dynamic = message.dynamic_resources.as_ref()?;
    if let Some(ads) = &dynamic.ads_config {
        return Some((Streams::Aggregated, ads, join(PATH, "ads_config")));
    }
    let separate = [(&dynamic.lds_config, "lds_config"), (&dynamic.cds_config, "cds_config")];
    separate.into_iter().find_map(|(source, field)| match source.as_ref()?.config_source_specifier.as_ref()? {
        ConfigSourceSpecifier::ApiConfigSource(api) => {
            Some((Streams::Separate, api, format!("{PATH}.{field}.api_config_source")))
        }
        _ => None,
    })
}

fn compile(cluster: &Cluster, path: &str) -> Result<ControlPlane, FieldError> {
    let endpoints = endpoints(cluster, path)?;
    let tls = tls(cluster, path)?;
    let is_here = endpoints.names().next().is_none() && endpoints.addresses().all(|address| address.ip().is_loopback());
    if tls.is_none() && !is_here {
        let path = join(path, "transport_socket");
        return Err(FieldError::missing(
            path,
            "plaintext is for loopback only; give an UpstreamTlsContext with trusted_ca and sni",
        ));
    }
    let (dialect, streams) = (Dialect::Delta, Streams::Aggregated);
    Ok(ControlPlane { endpoints, tls, mark: None, token_file: None, dialect, streams })
}

/// Addresses, or names where the cluster's type says that it has some.
fn endpoints(cluster: &Cluster, path: &str) -> Result<Assignment, FieldError> {
    let kind = match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).ok(),
        Some(ClusterDiscoveryType::ClusterType(_)) => None,
        None => Some(DiscoveryType::Static),
    };
    let may_have_names = match kind {
        Some(DiscoveryType::Static) => false,
        Some(DiscoveryType::StrictDns | DiscoveryType::LogicalDns) => true,
        _ => {
            let problem = "the control plane itself tells no endpoints; use STATIC, or STRICT_DNS for a name";
            return Err(FieldError::new(join(path, "type"), problem));
        }
    };
    let path = join(path, "load_assignment");
    let endpoints = match &cluster.load_assignment {
        Some(message) => Assignment::compile(message, &path)?,
        None => Assignment::default(),
    };
    if endpoints.names().chain(endpoints.addresses().map(|_| "")).next().is_none() {
        return Err(FieldError::missing(join(&path, "endpoints"), "give the control plane's address"));
    }
    if let (false, Some(name)) = (may_have_names, endpoints.names().next()) {
        let why = "is not an IP address, which a STATIC cluster needs";
        return Err(FieldError::invalid(path, name, why, "give an address, or use type STRICT_DNS"));
    }
    Ok(endpoints)
}

fn tls(cluster: &Cluster, path: &str) -> Result<Option<ControlPlaneTls>, FieldError> {
    let Some(socket) = &cluster.transport_socket else { return Ok(None) };
    let path = join(path, "transport_socket.typed_config");
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(FieldError::missing(path, "give an UpstreamTlsContext"));
    };
    let context: UpstreamTlsContext = unpack(config, &path)?;
    let sni = join(&path, "sni");
    if context.sni.is_empty() {
        return Err(FieldError::missing(
            sni,
            "give the name in the control plane's certificate, such as weft-control-plane",
        ));
    }
    let server_name = ServerName::try_from(context.sni.clone()).map_err(|_| {
        FieldError::invalid(sni, &context.sni, "is not a DNS name", "give the name in the control plane's certificate")
    })?;
    let common = context.common_tls_context.unwrap_or_default();
    let trusted_ca = join(&path, "common_tls_context.validation_context.trusted_ca.filename");
    let file = match &common.validation_context_type {
        Some(ValidationContextType::ValidationContext(validation)) => {
            validation.trusted_ca.as_ref().and_then(|source| source.specifier.as_ref())
        }
        _ => None,
    };
    match file {
        Some(Specifier::Filename(file)) if !file.is_empty() => {
            Ok(Some(ControlPlaneTls { server_name, roots: file.into() }))
        }
        _ => Err(FieldError::missing(trusted_ca, "name the file with the mesh's roots")),
    }
}
