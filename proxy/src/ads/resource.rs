//! xDS resources compiled for the data path, and how they get into its snapshot.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use weft_rules::RouteTable;
use weft_xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use weft_xds::envoy::config::core::v3::data_source::Specifier;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener as ListenerMessage;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::secret;
use weft_xds::google::protobuf::Any;
use weft_xds::{FieldError, names, support, unpack};

use super::kind::{Key, Kind};
use super::source::Source;
use super::state::{Change, Compile, Compiled};
use crate::accept::socket;
use crate::snapshot::compile::{clusters_of, compile_listener};
use crate::snapshot::{Listener, Snapshot, Store};
use crate::tls::{LocalIdentity, TrustBundle};
use crate::upstream::{Assignment, Cluster, ClusterConfig, Discovery};

/// A compiled resource.
#[derive(Clone, Debug)]
pub enum Resource {
    /// LDS.
    Listener(Arc<Listener>),
    /// RDS.
    Route(Arc<RouteTable>),
    /// CDS: settings; the cluster itself lives on across versions.
    Cluster(Arc<ClusterConfig>),
    /// EDS.
    Endpoints(Arc<Assignment>),
    /// SDS: the trust bundle.
    Bundle(Arc<[CertificateDer<'static>]>),
}

/// Compiles what the stream brings.
#[derive(Debug, Default)]
pub struct Compiler {
    /// Fields that were skipped, each reported once.
    reported: Mutex<HashSet<String>>,
    /// Whether listeners bind their own addresses.
    binds: bool,
    /// Where resources may say that what they need comes from.
    source: Source,
}

impl Compiler {
    /// Refuses listeners whose addresses cannot be bound, as Envoy does.
    pub fn binding(source: Source) -> Self {
        Self { binds: true, source, ..Self::default() }
    }

    fn report(&self, kind: Kind, ignored: Vec<String>) {
        // The set is whole even if a holder of the lock panicked: inserts are single calls.
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for field in ignored {
            if reported.insert(format!("{kind} {field}")) {
                tracing::info!(%kind, field, "set, and ignored: it changes no traffic");
            }
        }
    }
}

impl Compile for Compiler {
    type Out = Resource;

    fn compile(&self, kind: Kind, name: &str, message: &Any) -> Result<Compiled<Resource>, FieldError> {
        // The bytes as they came: decoding drops fields that are not known.
        self.report(kind, support::check(kind.type_url(), &message.value)?);
        self.source.check(kind.type_url(), &message.value)?;
        match kind {
            Kind::Listener => {
                let message: ListenerMessage = unpack(message, "")?;
                same_name(&message.name, name, "name")?;
                let compiled = compile_listener(&message)?;
                if self.binds {
                    can_bind(&compiled.listener)?;
                }
                let routes = compiled.needs.routes.into_iter().map(|name| (Kind::Route, name));
                let clusters = compiled.needs.clusters.into_iter().map(|name| (Kind::Cluster, name));
                Ok(Compiled {
                    value: Resource::Listener(Arc::new(compiled.listener)),
                    needs: routes.chain(clusters).collect(),
                })
            }
            Kind::Route => {
                let message: RouteConfiguration = unpack(message, "")?;
                same_name(&message.name, name, "name")?;
                let table = RouteTable::compile(&message, "")?;
                let mut needs: Vec<Key> = clusters_of(&table).map(|name| (Kind::Cluster, name)).collect();
                needs.sort_unstable();
                needs.dedup();
                Ok(Compiled { value: Resource::Route(Arc::new(table)), needs })
            }
            Kind::Cluster => {
                let message: ClusterMessage = unpack(message, "")?;
                same_name(&message.name, name, "name")?;
                let config = ClusterConfig::compile(&message, "")?;
                let needs = match &config.discovery {
                    Discovery::Eds(name) => vec![(Kind::Endpoints, name.clone())],
                    _ => Vec::new(),
                };
                Ok(Compiled { value: Resource::Cluster(Arc::new(config)), needs })
            }
            Kind::Endpoints => {
                let message: ClusterLoadAssignment = unpack(message, "")?;
                same_name(&message.cluster_name, name, "cluster_name")?;
                let assignment = Assignment::compile(&message, "")?;
                if let Some(name) = assignment.names().next() {
                    return Err(FieldError::invalid(
                        "endpoints",
                        name,
                        "is not an IP address",
                        "give addresses over EDS",
                    ));
                }
                Ok(Compiled { value: Resource::Endpoints(Arc::new(assignment)), needs: Vec::new() })
            }
            Kind::Secret => {
                let message: Secret = unpack(message, "")?;
                same_name(&message.name, name, "name")?;
                Ok(Compiled { value: Resource::Bundle(bundle(&message)?), needs: Vec::new() })
            }
        }
    }
}

fn can_bind(listener: &Listener) -> Result<(), FieldError> {
    let more = listener
        .also_bind
        .iter()
        .enumerate()
        .map(|(i, address)| (format!("additional_addresses[{i}].address"), address));
    for (path, address) in listener.bind.iter().map(|address| ("address".to_owned(), address)).chain(more) {
        socket::bind(*address).map_err(|error| {
            FieldError::invalid(path, address, format_args!("cannot be bound: {error}"), "free it, or choose another")
        })?;
    }
    Ok(())
}

fn same_name(found: &str, asked: &str, field: &str) -> Result<(), FieldError> {
    if found == asked {
        return Ok(());
    }
    Err(FieldError::invalid(field, found, format_args!("is not the resource's name `{asked}`"), "make both the same"))
}

fn bundle(message: &Secret) -> Result<Arc<[CertificateDer<'static>]>, FieldError> {
    Ok(trust_bundle(message)?.certificates().into())
}

/// The trust bundle in a secret.
///
/// # Errors
/// If it is another kind of secret, or its certificates cannot be used.
pub fn trust_bundle(message: &Secret) -> Result<TrustBundle, FieldError> {
    const PATH: &str = "validation_context.trusted_ca";
    let Some(secret::Type::ValidationContext(context)) = &message.r#type else {
        return Err(FieldError::missing("validation_context", "only trust bundles are taken from the control plane"));
    };
    let pem = match context.trusted_ca.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice(),
        Some(Specifier::InlineString(text)) => text.as_bytes(),
        _ => return Err(FieldError::missing(PATH, "give inline_bytes or inline_string with PEM certificates")),
    };
    let unusable = |problem: &dyn std::fmt::Display| {
        FieldError::new(PATH, format!("cannot be used: {problem}; give PEM certificates"))
    };
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    TrustBundle::new(certificates).map_err(|error| unusable(&error))
}

/// Puts changes into the snapshot: all of a batch at once.
#[derive(Debug)]
pub struct Applier {
    store: Arc<Store>,
    identity: Arc<LocalIdentity>,
    /// Endpoints by EDS name; a cluster that comes later takes them from here.
    endpoints: HashMap<Arc<str>, Arc<Assignment>>,
}

impl Applier {
    /// Nothing applied yet.
    pub fn new(store: Arc<Store>, identity: Arc<LocalIdentity>) -> Self {
        Self { store, identity, endpoints: HashMap::new() }
    }

    /// Where the changes go.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Applies a batch. Says `replaced(destination, old, new)` of each outbound listener that gets a new version.
    pub fn apply(
        &mut self,
        changes: Vec<Change<Resource>>,
        mut replaced: impl FnMut(SocketAddr, &Arc<Listener>, &Listener),
    ) {
        if changes.is_empty() {
            return;
        }
        let Self { store, identity, endpoints } = self;
        store.update(|next| {
            for change in changes {
                match change {
                    Change::Set(_, Resource::Bundle(certificates)) => install_bundle(identity, &certificates),
                    Change::Set((_, name), Resource::Endpoints(assignment)) => {
                        set_endpoints(next, &name, &assignment);
                        endpoints.insert(name, assignment);
                    }
                    Change::Set((_, name), Resource::Cluster(config)) => set_cluster(next, name, &config, endpoints),
                    Change::Set((_, name), Resource::Route(table)) => {
                        next.routes.insert(name, table);
                    }
                    Change::Set((_, name), Resource::Listener(listener)) => {
                        if let (Ok(destination), Some(old)) = (name.parse(), next.listener(&name)) {
                            replaced(destination, old, &listener);
                        }
                        next.insert_listener(listener);
                    }
                    Change::Removed((Kind::Listener, name)) => next.remove_listener(&name),
                    Change::Removed((Kind::Route, name)) => {
                        next.routes.remove(&name);
                    }
                    Change::Removed((Kind::Cluster, name)) => {
                        next.clusters.remove(&name);
                    }
                    Change::Removed((Kind::Endpoints, name)) => {
                        endpoints.remove(&name);
                        // Whoever still uses them has none now.
                        set_endpoints(next, &name, &Assignment::default());
                    }
                    // Trust is replaced, never withdrawn: without a bundle nothing could be verified.
                    Change::Removed((Kind::Secret, _)) => {}
                }
            }
        });
    }
}

fn install_bundle(identity: &LocalIdentity, certificates: &[CertificateDer<'static>]) {
    match TrustBundle::new(certificates.to_vec()) {
        Ok(bundle) => identity.set_bundle(bundle),
        // Compiling has made the same bundle.
        Err(error) => tracing::error!(%error, secret = names::SECRET_BUNDLE, "trust bundle not taken"),
    }
}

fn set_endpoints(snapshot: &Snapshot, name: &Arc<str>, assignment: &Assignment) {
    for cluster in snapshot.clusters.values() {
        if eds_name(&cluster.config()) == Some(name) {
            cluster.set_assignment(assignment.clone());
        }
    }
}

fn set_cluster(
    snapshot: &mut Snapshot,
    name: Arc<str>,
    config: &Arc<ClusterConfig>,
    endpoints: &HashMap<Arc<str>, Arc<Assignment>>,
) {
    let cluster = match snapshot.clusters.get(&name) {
        // Its breakers, estimates and connections stay.
        Some(cluster) => {
            cluster.update(ClusterConfig::clone(config));
            cluster.clone()
        }
        None => {
            let cluster = Arc::new(Cluster::new(ClusterConfig::clone(config)));
            snapshot.clusters.insert(name, cluster.clone());
            cluster
        }
    };
    if let Some(assignment) = eds_name(config).and_then(|name| endpoints.get(name)) {
        cluster.set_assignment(Assignment::clone(assignment));
    }
}

fn eds_name(config: &ClusterConfig) -> Option<&Arc<str>> {
    match &config.discovery {
        Discovery::Eds(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_xds::{pack, yaml};

    #[test]
    fn an_address_that_is_taken_is_refused_where_listeners_bind_their_own() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = format!(
            "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, filter_chains: [{{filters: \
             [{{name: tcp, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             stat_prefix: t, cluster: c}}}}]}}]}}"
        );
        let message = pack(&yaml::from_str::<ListenerMessage>(&text).unwrap());
        let error =
            Compiler::binding(Source::Aggregated).compile(Kind::Listener, "l", &message).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("address: `127.0.0.1:{port}` cannot be bound: Address already in use")),
            "{error}"
        );
        assert!(Compiler::default().compile(Kind::Listener, "l", &message).is_ok());
        drop(taken);
        assert!(Compiler::binding(Source::Aggregated).compile(Kind::Listener, "l", &message).is_ok());
    }
}
