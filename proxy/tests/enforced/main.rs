//! Every field that `docs/reference/xds.md` calls enforced makes a difference.
//!
//! The documents beside this file are written so that each enforced field is set in at least one of them. Each is compiled as it is,
//! and then again without each of its enforced fields in turn: a field whose absence is noticed by no document is ignored, whatever
//! the table says. Values that are not implemented are in documents named `-refused`. What a compiled value does to traffic is tested where it does it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use weft_proxy::ads::{Compile, Compiler, Kind};
use weft_proxy::bootstrap::Bootstrap;
use weft_xds::envoy::config::bootstrap::v3::Bootstrap as BootstrapMessage;
use weft_xds::envoy::config::cluster::v3::Cluster;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use weft_xds::google::protobuf::Any;
use weft_xds::support::{self, Support};
use weft_xds::{FieldError, any, yaml};

/// Enforced fields without an effect that can be seen here, and why.
const EXEMPT: &[(&str, &str)] = &[
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.eds_config",
        "which control plane it means is checked by `ads::Source`, beside the compiler",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.sds_config",
        "which control plane it means is checked by `ads::Source`, beside the compiler",
    ),
    ("envoy.config.cluster.v3.Cluster.TransportSocketMatch.name", "a label"),
    ("envoy.config.core.v3.TypedExtensionConfig.name", "a label"),
    ("envoy.config.listener.v3.Filter.name", "a label"),
    ("envoy.config.route.v3.VirtualHost.name", "a label"),
    ("envoy.config.cluster.v3.Cluster.round_robin_lb_config", "holds only what is refused"),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment.policy", "holds only what is refused or ignored"),
    ("envoy.config.core.v3.ApiConfigSource.transport_api_version", "there is no version but V3"),
    ("envoy.config.core.v3.ConfigSource.resource_api_version", "there is no version but V3"),
    ("envoy.config.core.v3.SelfConfigSource.transport_api_version", "there is no version but V3"),
    (
        "envoy.config.core.v3.DataSource.environment_variable",
        "tested beside the code: an environment holds no certificate",
    ),
];

/// A compiled document, as `Debug` shows it.
type Compiled = Result<String, FieldError>;

#[test]
fn every_enforced_field_makes_a_difference() {
    let certificates = certificates();
    let mut proven = BTreeSet::new();
    let mut idle = BTreeSet::new();
    for (name, text) in documents() {
        let pem = std::fs::read_to_string(certificates.path().join("ca.pem")).unwrap().replace('\n', "\\n");
        let text = text.replace("$TLS", &certificates.path().display().to_string()).replace("$PEM", &pem);
        let (kind, message) = read(&name, &text);
        let base = compile(kind, &message);
        let is_refusal = name.contains("-refused");
        assert_eq!(base.is_err(), is_refusal, "{name}: {base:?}");
        assert_eq!(base, compile(kind, &message), "{name}: compiled twice, it is not the same");
        for without in support::without_each(&message.type_url, &message.value) {
            let field = format!("{}.{}", without.message, without.field);
            let other = compile(kind, &Any { value: without.bytes, ..message.clone() });
            // Of a value that is refused, the refusal is the effect.
            if other == base || (is_refusal && other.is_err()) {
                idle.insert((field, format!("{name}: {}", without.path)));
            } else {
                proven.insert(field);
            }
        }
    }
    let enforced = support::rows().filter(|row| row.support == Support::Enforced);
    let enforced: BTreeSet<String> = enforced.map(|row| format!("{}.{}", row.message, row.field)).collect();
    let exempt: BTreeSet<String> = EXEMPT.iter().map(|(field, _)| (*field).to_owned()).collect();
    let needless: Vec<_> =
        exempt.iter().filter(|field| proven.contains(*field) || !enforced.contains(*field)).collect();
    assert!(needless.is_empty(), "exempt without need: {needless:#?}");
    let unproven: Vec<String> = enforced
        .iter()
        .filter(|field| !proven.contains(*field) && !exempt.contains(*field))
        .map(|field| {
            let set: Vec<&str> = idle.iter().filter(|(idle, _)| idle == field).map(|(_, at)| at.as_str()).collect();
            match set.as_slice() {
                [] => format!("{field}: set in no document"),
                set => format!("{field}: ignored at {}", set.join(", ")),
            }
        })
        .collect();
    assert!(unproven.is_empty(), "{} of {}: {unproven:#?}", unproven.len(), enforced.len());
}

fn documents() -> Vec<(String, String)> {
    let mut documents = Vec::new();
    for file in std::fs::read_dir("tests/enforced").unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            documents
                .extend(text.split("\n---\n").enumerate().map(|(i, text)| (format!("{name}[{i}]"), text.to_owned())));
        }
    }
    documents.sort();
    documents
}

/// A document's kind is its file's name up to the first hyphen; `None` is a bootstrap.
fn read(name: &str, text: &str) -> (Option<Kind>, Any) {
    fn message<M: prost::Message + prost::Name + Default>(name: &str, text: &str) -> Any {
        any::pack(&yaml::from_str::<M>(text).unwrap_or_else(|error| panic!("{name}: {error}")))
    }
    match name.split(['-', '[']).next() {
        Some("bootstrap") => (None, message::<BootstrapMessage>(name, text)),
        Some("listener") => (Some(Kind::Listener), message::<Listener>(name, text)),
        Some("route") => (Some(Kind::Route), message::<RouteConfiguration>(name, text)),
        Some("cluster") => (Some(Kind::Cluster), message::<Cluster>(name, text)),
        Some("endpoints") => (Some(Kind::Endpoints), message::<ClusterLoadAssignment>(name, text)),
        Some("secret") => (Some(Kind::Secret), message::<Secret>(name, text)),
        other => panic!("{other:?} is no kind of document"),
    }
}

fn compile(kind: Option<Kind>, message: &Any) -> Compiled {
    match kind {
        // Every resource here has this name.
        Some(kind) => Compiler::default().compile(kind, "it", message).map(|compiled| format!("{compiled:?}")),
        None => {
            let message: BootstrapMessage = any::unpack(message, "")?;
            let bootstrap = Bootstrap::parse(&yaml::to_json(&message)?.to_string())?;
            let Bootstrap { node, admin, mode, listeners, clusters, .. } = bootstrap;
            Ok(format!("{node:?} {admin:?} {mode:?} {listeners:?} {clusters:?}"))
        }
    }
}

/// A folder with `chain.pem`, `key.pem` and `ca.pem`.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["it.test".to_owned()]).unwrap();
    for (name, pem) in
        [("chain", signed.cert.pem()), ("ca", signed.cert.pem()), ("key", signed.signing_key.serialize_pem())]
    {
        std::fs::write(folder.path().join(format!("{name}.pem")), pem).unwrap();
    }
    folder
}
