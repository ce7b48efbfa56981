//! Writes `xds/descriptors/envoy.bin`, the descriptors behind `weft_xds::yaml`, and `xds/src/support/fields.rs`.
//!
//! ```sh
//! cargo run -p weft-xds --example prune_descriptors
//! ```
//!
//! The crate `envoy-types` ships a descriptor set of everything Envoy has (3.4 MB) but does not export it. This keeps
//! what is reachable from the messages that Weft reads or dumps, without comments, options and services. Run it after
//! an update of `envoy-types`; the result is committed, so that a build depends on no file outside this repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions};

/// Everything these messages hold is kept. `Any` hides its contents, so each type that may be inside one is a root.
const ROOTS: &[&str] = &[
    "envoy.admin.v3.BootstrapConfigDump",
    "envoy.admin.v3.ClustersConfigDump",
    "envoy.admin.v3.ConfigDump",
    "envoy.admin.v3.EndpointsConfigDump",
    "envoy.admin.v3.ListenersConfigDump",
    "envoy.admin.v3.RoutesConfigDump",
    "envoy.admin.v3.SecretsConfigDump",
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.matching.common_inputs.network.v3.ServerNameInput",
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.Struct",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = envoy_types_dir()?.join("src/generated/types.bin");
    let all = FileDescriptorSet::decode(std::fs::read(&source)?.as_slice())?;
    let pruned = prune(&all, ROOTS)?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptors/envoy.bin");
    let bytes = pruned.encode_to_vec();
    std::fs::write(&target, &bytes)?;
    println!(
        "{}: {} files, {} messages, {} bytes",
        target.display(),
        pruned.file.len(),
        pruned
            .file
            .iter()
            .map(|file| file.message_type.len())
            .sum::<usize>(),
        bytes.len()
    );
    Ok(())
}

/// Where cargo unpacked the version of `envoy-types` that Cargo.lock names.
fn envoy_types_dir() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        // Other platforms' dependencies need not be there.
        .args(["--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("envoy-types is not a dependency")?;
    Ok(Path::new(manifest).parent().ok_or("no folder")?.to_owned())
}

/// Keeps the top-level messages and enums that `roots` reach, in their files.
fn prune(all: &FileDescriptorSet, roots: &[&str]) -> Result<FileDescriptorSet, String> {
    // Top-level type → (file, what it refers to).
    let mut types: BTreeMap<String, (&str, BTreeSet<String>)> = BTreeMap::new();
    for file in &all.file {
        for message in &file.message_type {
            let mut uses = BTreeSet::new();
            collect_uses(message, &mut uses);
            types.insert(full_name(file, message.name()), (file.name(), uses));
        }
        for enumeration in &file.enum_type {
            types.insert(
                full_name(file, enumeration.name()),
                (file.name(), BTreeSet::new()),
            );
        }
    }
    // `.a.b.Outer.Inner` → `a.b.Outer`.
    let top_level = |name: &str| -> Result<String, String> {
        let mut name = name.trim_start_matches('.');
        while !types.contains_key(name) {
            name = name
                .rsplit_once('.')
                .ok_or_else(|| format!("unknown type {name}"))?
                .0;
        }
        Ok(name.to_owned())
    };
    let mut kept = BTreeSet::new();
    let mut queue: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    while let Some(name) = queue.pop() {
        let name = top_level(&name)?;
        let uses = &types[&name].1;
        if kept.insert(name) {
            queue.extend(uses.iter().cloned());
        }
    }
    let mut file_needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in &kept {
        let (file, uses) = &types[name];
        let needs = file_needs.entry(file).or_default();
        for used in uses {
            needs.insert(types[&top_level(used)?].0);
        }
    }
    Ok(FileDescriptorSet {
        file: all
            .file
            .iter()
            .filter(|file| file_needs.contains_key(file.name()))
            .map(|file| FileDescriptorProto {
                name: file.name.clone(),
                package: file.package.clone(),
                syntax: file.syntax.clone(),
                dependency: file_needs[file.name()]
                    .iter()
                    .filter(|needed| **needed != file.name())
                    .map(|needed| (*needed).to_owned())
                    .collect(),
                message_type: file
                    .message_type
                    .iter()
                    .filter(|message| kept.contains(&full_name(file, message.name())))
                    .map(without_options)
                    .collect(),
                enum_type: file
                    .enum_type
                    .iter()
                    .filter(|kind| kept.contains(&full_name(file, kind.name())))
                    .cloned()
                    .map(|mut kind| {
                        kind.options = None;
                        kind.value.iter_mut().for_each(|value| value.options = None);
                        kind
                    })
                    .collect(),
                ..Default::default()
            })
            .collect(),
    })
}

fn full_name(file: &FileDescriptorProto, name: &str) -> String {
    format!("{}.{name}", file.package())
}

fn collect_uses(message: &DescriptorProto, uses: &mut BTreeSet<String>) {
    uses.extend(
        message
            .field
            .iter()
            .filter_map(|field| field.type_name.clone()),
    );
    for nested in &message.nested_type {
        collect_uses(nested, uses);
    }
}

fn without_options(message: &DescriptorProto) -> DescriptorProto {
    let mut message = message.clone();
    // What makes a nested message a map's entry is an option.
    message.options = message
        .options
        .and_then(|options| options.map_entry)
        .map(|map_entry| MessageOptions {
            map_entry: Some(map_entry),
            ..Default::default()
        });
    for field in &mut message.field {
        field.options = None;
    }
    for oneof in &mut message.oneof_decl {
        oneof.options = None;
    }
    for kind in &mut message.enum_type {
        kind.options = None;
        kind.value.iter_mut().for_each(|value| value.options = None);
    }
    message.reserved_name.clear();
    message.reserved_range.clear();
    message.nested_type = message.nested_type.iter().map(without_options).collect();
    message
}
