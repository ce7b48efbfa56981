//! Start-up files: of an Envoy or a gRPC application that uses the agent's folder, and of our own proxy.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use weft_xds::names::{self, PodName, key};

use super::flags::{Bootstrap, Common, HostPort, Program, Variant};

/// `SOL_SOCKET` and `SO_MARK` on Linux, as numbers: Envoy takes socket options so.
const SOL_SOCKET: u32 = 1;
const SO_MARK: u32 = 36;

/// The file.
pub(super) fn file(args: &Bootstrap) -> anyhow::Result<String> {
    let common = &args.common;
    PodName::new(&*common.pod, common.workload(), &*common.namespace)?;
    let value = match args.program {
        Program::Envoy => envoy(args)?,
        Program::Grpc => grpc(common)?,
        Program::Weft => weft(args),
    };
    Ok(format!("{value:#}\n"))
}

/// Everything but where to ask comes from the control plane, the listeners for redirected connections too.
fn envoy(args: &Bootstrap) -> anyhow::Result<Value> {
    let common = &args.common;
    let folder = folder(common)?;
    let sds = |name: &str, file: &str| {
        json!({ "name": name, "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": { "path": format!("{folder}/{file}") },
        } })
    };
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": common.server_name,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "tls_certificate_sds_secret_configs": [sds(names::SECRET_IDENTITY, names::AGENT_IDENTITY)],
            "combined_validation_context": {
                "default_validation_context": { "match_typed_subject_alt_names": [
                    { "san_type": "DNS", "matcher": { "exact": common.server_name } },
                ] },
                "validation_context_sds_secret_config": sds(names::SECRET_BUNDLE, names::AGENT_BUNDLE),
            },
        },
    });
    let http2 = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {
            "connection_keepalive": { "interval": "10s", "timeout": "5s" },
        } },
    } });
    let mut cluster = control_plane(common, tls);
    cluster["typed_extension_protocol_options"] = http2;
    let mut bootstrap = json!({
        "node": {
            "id": names::node_id(&common.namespace, &common.pod),
            "cluster": names::node_cluster(&common.namespace, common.workload()),
            "metadata": { names::METADATA: { key::AGENT_FOLDER: folder } },
        },
        "admin": admin(args),
        "dynamic_resources": {
            "ads_config": {
                "api_type": if args.dialect == Variant::Delta { "DELTA_GRPC" } else { "GRPC" },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": names::CLUSTER_CONTROL_PLANE } }],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": { "clusters": [cluster] },
    });
    if let Some(mark) = common.mark {
        bootstrap["cluster_manager"] = json!({ "upstream_bind_config": { "socket_options": [{
            "description": "the redirect leaves packets with this mark alone",
            "level": SOL_SOCKET, "name": SO_MARK, "int_value": mark, "state": "STATE_PREBIND",
        }] } });
    }
    Ok(bootstrap)
}

/// As gRPC's documents A27 (xDS), A29 (TLS), A36 (servers) and A65 (TLS toward the control plane) have it.
fn grpc(common: &Common) -> anyhow::Result<Value> {
    let folder = folder(common)?;
    let files = json!({
        "certificate_file": format!("{folder}/chain.pem"),
        "private_key_file": format!("{folder}/key.pem"),
        "ca_certificate_file": format!("{folder}/bundle.pem"),
        "refresh_interval": "1s",
    });
    let HostPort { host, port } = &common.control_plane;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    Ok(json!({
        "xds_servers": [{
            "server_uri": format!("{host}:{port}"),
            "channel_creds": [{ "type": "tls", "config": files }],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": names::node_id(&common.namespace, &common.pod),
            "cluster": names::node_cluster(&common.namespace, common.workload()),
        },
        "certificate_providers": { names::CERTIFICATE_PROVIDER: { "plugin_name": "file_watcher", "config": files } },
        "server_listener_resource_name_template": names::GRPC_SERVER_TEMPLATE,
    }))
}

fn weft(args: &Bootstrap) -> Value {
    let common = &args.common;
    let mut mesh = json!({
        key::NAMESPACE: common.namespace,
        key::WORKLOAD: common.workload(),
        "pod": common.pod,
        key::TOKEN_FILE: args.token,
        key::STATE_DIR: common.folder,
    });
    if let Some(mark) = common.mark {
        mesh[key::MARK] = mark.into();
    }
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": common.server_name,
        "common_tls_context": { "validation_context": { "trusted_ca": { "filename": args.roots } } },
    });
    json!({
        "node": { "metadata": { names::METADATA: mesh } },
        "admin": admin(args),
        "dynamic_resources": { "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": names::CLUSTER_CONTROL_PLANE } }],
        } },
        "static_resources": { "clusters": [control_plane(common, tls)] },
    })
}

fn admin(args: &Bootstrap) -> Value {
    json!({ "address": { "socket_address": {
        "address": args.admin.ip().to_string(), "port_value": args.admin.port(),
    } } })
}

fn control_plane(common: &Common, tls: Value) -> Value {
    let name = names::CLUSTER_CONTROL_PLANE;
    let HostPort { host, port } = &common.control_plane;
    json!({
        "name": name,
        "type": if common.control_plane.is_address() { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": "2s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": host, "port_value": port } },
        } }] }] },
        "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": tls },
    })
}

/// As the program has to find it, whatever folder it is started in.
fn folder(common: &Common) -> anyhow::Result<String> {
    let path = std::path::absolute(&common.folder).context("--folder")?;
    let text = |path: &Path| path.to_str().map(str::to_owned);
    text(&path).with_context(|| format!("--folder: {} is no UTF-8, and the file is JSON", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use weft_xds::envoy::config::bootstrap::v3::Bootstrap as Message;

    use super::*;
    use crate::agent::AgentArgs;
    use crate::command::{Cli, Command};

    /// The commands of docs/interop.md, each in one line.
    fn commands_of_the_page() -> Vec<String> {
        let page = include_str!("../../../docs/interop.md").replace("\\\n", " ");
        page.lines().filter(|line| line.starts_with("weft agent")).map(str::to_owned).collect()
    }

    fn parse(command: &str) -> AgentArgs {
        let command = command.split('>').next().unwrap_or_default();
        match Cli::try_parse_from(command.split_whitespace())
            .unwrap_or_else(|error| panic!("{command}: {error}"))
            .command
        {
            Command::Agent(args) => *args,
            _ => panic!("{command}"),
        }
    }

    #[test]
    fn the_pages_commands_are_understood_and_their_files_are_envoys() {
        let commands = commands_of_the_page();
        assert!(commands.len() >= 3, "{commands:?}");
        for command in &commands {
            let AgentArgs::Bootstrap(args) = parse(command) else { continue };
            let text = file(&args).unwrap();
            if matches!(args.program, Program::Grpc) {
                continue;
            }
            let message: Message = weft_xds::yaml::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}"));
            assert_eq!(message.static_resources.unwrap().clusters[0].name, "control-plane");
        }
    }

    #[test]
    fn our_own_proxy_takes_its_file() {
        let command = commands_of_the_page().into_iter().find(|command| command.contains("--for weft")).unwrap();
        let AgentArgs::Bootstrap(args) = parse(&command) else { panic!("{command}") };
        let bootstrap = weft_proxy::bootstrap::Bootstrap::parse(&file(&args).unwrap()).unwrap();
        assert!(matches!(bootstrap.mode, weft_proxy::bootstrap::Mode::Sidecar(_)));
    }

    #[test]
    fn what_is_missing_is_said() {
        for (command, missing) in [
            ("weft agent --namespace a --pod b --roots r --token t", "--control-plane"),
            ("weft agent --namespace a --pod b --control-plane c:1 --token t", "--roots"),
            ("weft agent bootstrap --namespace a --pod b --control-plane c:1", "--for"),
            ("weft agent bootstrap --for weft --namespace a --pod b --control-plane c:1 --token t", "--roots"),
        ] {
            let error = Cli::try_parse_from(command.split_whitespace()).err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains(missing)), "{command}: {error:?}");
        }
    }
}
