//! Bootstraps as they are written, and what is said of those that are refused.

use std::path::Path;

use super::*;
use crate::admin::Probes;
use crate::ads::{Dialect, Service, Source, Streams};

/// A sidecar's bootstrap as the demo and the injector write it.
const SIDECAR: &str = r#"
node:
  metadata:
    weft.mesh: {namespace: shop, workload: reviews-v1, pod: reviews-v1-0, token_file: /run/weft/token, state_dir: /run/weft/state}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  clusters:
  - name: control-plane
    type: STATIC
    load_assignment:
      cluster_name: control-plane
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 198.18.0.2, port_value: 15012}}}}]}]
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: weft-control-plane
        common_tls_context: {validation_context: {trusted_ca: {filename: /etc/weft/roots.pem}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}
"#;

const STATIC: &str = r#"
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: app}
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]
"#;

fn refusal(text: &str) -> String {
    Bootstrap::parse(text).unwrap_err().to_string()
}

#[test]
fn a_sidecars_bootstrap_says_who_it_is_and_where_its_control_plane_is() {
    let bootstrap = Bootstrap::parse(SIDECAR).unwrap();
    assert_eq!((bootstrap.node.id.as_str(), bootstrap.node.cluster.as_str()), ("shop/reviews-v1-0", "shop/reviews-v1"));
    assert_eq!(bootstrap.node.user_agent_name, "weft-proxy");
    assert_eq!(bootstrap.admin, DEFAULT_ADMIN);
    assert!(bootstrap.clusters.is_empty(), "the control plane is not for traffic");
    let Mode::Sidecar(sidecar) = bootstrap.mode else { panic!("it is a sidecar") };
    assert_eq!(sidecar.inbound_listener(), "inbound/shop/reviews-v1");
    assert_eq!(sidecar.trust_domain, "weft.local");
    let addresses: Vec<SocketAddr> = sidecar.control_plane.endpoints.addresses().collect();
    assert_eq!(addresses, ["198.18.0.2:15012".parse().unwrap()]);
    let tls = sidecar.control_plane.tls.unwrap();
    assert_eq!(tls.roots, Path::new("/etc/weft/roots.pem"));
    assert_eq!(tls.server_name.to_str(), "weft-control-plane");
}

#[test]
fn a_control_plane_can_have_a_name() {
    let named = SIDECAR.replace("address: 198.18.0.2", "address: weft-control-plane.weft-system.svc");
    let refusal = refusal(&named);
    let path =
        "static_resources.clusters[0].load_assignment: `weft-control-plane.weft-system.svc` is not an IP address";
    assert!(refusal.starts_with(path), "{refusal}");
    let Mode::Sidecar(sidecar) = Bootstrap::parse(&named.replace("STATIC", "STRICT_DNS")).unwrap().mode else {
        panic!("it is a sidecar")
    };
    let names: Vec<&str> = sidecar.control_plane.endpoints.names().collect();
    assert_eq!(names, ["weft-control-plane.weft-system.svc"]);
}

#[test]
fn what_injection_writes_is_what_the_proxy_takes() {
    let pod = serde_json::json!({
        "metadata": { "name": "reviews-1", "ownerReferences": [{ "kind": "StatefulSet", "name": "reviews", "controller": true }] },
        "spec": { "serviceAccountName": "reviews", "containers": [{
            "name": "app", "image": "a", "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8443, "scheme": "HTTPS" } },
        }] },
    });
    let place = weft_inject::Place { namespace: "shop", enabled: true };
    let Ok(weft_inject::Outcome::Injected(pod)) = weft_inject::inject(&pod, &place, &weft_inject::Settings::default())
    else {
        panic!("the pod is for the mesh")
    };
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    let proxy = containers.iter().find(|container| container["name"] == "weft-proxy").unwrap();
    let arguments = proxy["args"].as_array().unwrap().iter().map(|argument| {
        let argument = argument.as_str().unwrap();
        // What the kubelet does.
        argument.replace("$(WEFT_NAMESPACE)", "shop").replace("$(WEFT_POD)", "reviews-1").into()
    });
    let Ok(Command::Run(Flags { config: Config::Inline(text), drain_seconds: 30, probes, .. })) =
        Command::parse(arguments)
    else {
        panic!("{proxy}")
    };
    assert_ne!(probes, Probes::default());
    let asked = r#"{"/probe/app/readiness": {"port": 8443, "httpGet": {"path": "/healthz", "scheme": "HTTPS"}}}"#;
    assert_eq!(probes, Probes::parse(asked).unwrap());
    let Mode::Sidecar(sidecar) = Bootstrap::parse(&text).unwrap().mode else { panic!("it is a sidecar") };
    assert_eq!((sidecar.pod.as_str(), sidecar.inbound_listener().as_str()), ("reviews-1", "inbound/shop/reviews"));
    let names: Vec<&str> = sidecar.control_plane.endpoints.names().collect();
    assert_eq!(names, ["weft-control-plane.weft-system.svc"]);
    let mounts: Vec<&str> =
        proxy["volumeMounts"].as_array().unwrap().iter().filter_map(|m| m["mountPath"].as_str()).collect();
    for file in [&sidecar.token_file, &sidecar.state_dir, &sidecar.control_plane.tls.unwrap().roots] {
        assert!(mounts.iter().any(|mount| file.starts_with(mount)), "{} is on no volume", file.display());
    }
}

#[test]
fn the_same_in_json_is_the_same() {
    let message: Message = yaml::from_str(SIDECAR).unwrap();
    let json = yaml::to_json(&message).unwrap().to_string();
    assert_eq!(*Bootstrap::parse(&json).unwrap().message, message);
}

#[test]
fn a_static_bootstraps_listeners_and_clusters_are_published() {
    let bootstrap = Bootstrap::parse(STATIC).unwrap();
    assert!(matches!(bootstrap.mode, Mode::Static(None)));
    let store = Store::new();
    bootstrap.publish(&store);
    let listener = store.listener("static_resources.listeners[0]").unwrap();
    assert_eq!(listener.bind, Some("127.0.0.1:10000".parse().unwrap()));
    assert_eq!(store.cluster("app").unwrap().members().len(), 1);
}

#[test]
fn everything_can_come_from_another_control_plane() {
    let wildcard = SIDECAR
        .replace("dynamic_resources:", "dynamic_resources:\n  lds_config: {ads: {}}\n  cds_config: {ads: {}}")
        .replace("weft.mesh:", "other:");
    let Mode::Static(Some(subscriptions)) = Bootstrap::parse(&wildcard).unwrap().mode else { panic!("no sidecar") };
    assert_eq!(subscriptions.kinds, [Kind::Listener, Kind::Cluster]);
    assert_eq!(subscriptions.control_plane.dialect, Dialect::Delta);
    let older = Bootstrap::parse(&wildcard.replace("DELTA_GRPC", "GRPC")).unwrap().mode;
    let Mode::Static(Some(subscriptions)) = older else { panic!("no sidecar") };
    assert_eq!(subscriptions.control_plane.dialect, Dialect::StateOfTheWorld);
    assert_eq!((subscriptions.control_plane.streams, subscriptions.source), (Streams::Aggregated, Source::Aggregated));
}

/// Everything from a control plane that has a service for each kind.
const SEPARATE: &str = r#"
node: {id: edge, cluster: c}
static_resources:
  clusters:
  - name: control-plane
    load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 18000}}}}]}]}
  - name: other
    load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 18001}}}}]}]}
dynamic_resources:
  lds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}}
  cds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}}
"#;

#[test]
fn each_kind_can_have_a_stream_of_its_own() {
    let Mode::Static(Some(subscriptions)) = Bootstrap::parse(SEPARATE).unwrap().mode else { panic!("no sidecar") };
    assert_eq!(subscriptions.kinds, [Kind::Listener, Kind::Cluster]);
    assert_eq!(subscriptions.control_plane.streams, Streams::Separate);
    assert_eq!(subscriptions.control_plane.dialect, Dialect::StateOfTheWorld);
    let service = Service { cluster: "control-plane".to_owned(), dialect: Dialect::StateOfTheWorld };
    assert_eq!(subscriptions.source, Source::Separate(service));
}

#[test]
fn everything_comes_from_one_control_plane_in_one_way() {
    let cds = |other: &str| {
        let (before, after) = SEPARATE.split_once("  cds_config:").unwrap();
        let text = format!("{before}  cds_config:{}", after.replace("api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}", other));
        Bootstrap::parse(&text).unwrap_err().to_string()
    };
    let api = |api: &str, cluster: &str| {
        cds(&format!(
            "api_config_source: {{api_type: {api}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: {cluster}}}}}]}}"
        ))
    };
    let at = "dynamic_resources.cds_config";
    assert!(cds("ads: {}").starts_with(&format!("{at}.ads: the bootstrap has no stream for everything")));
    assert!(api("DELTA_GRPC", "control-plane").starts_with(&format!("{at}.api_config_source.api_type: differs")));
    let other = api("GRPC", "other");
    assert!(
        other.starts_with(&format!("{at}.api_config_source.grpc_services[0].envoy_grpc.cluster_name: `other` is not")),
        "{other}"
    );
    let rest = api("REST", "control-plane");
    assert!(rest.starts_with(&format!("{at}.api_config_source.api_type: is not supported")), "{rest}");

    let both = SEPARATE.to_owned()
        + "  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}\n";
    let both = Bootstrap::parse(&both).unwrap_err().to_string();
    assert!(both.starts_with("dynamic_resources.lds_config.api_config_source: the bootstrap has a stream"), "{both}");
}

#[test]
fn the_example_in_the_documentation_is_accepted() {
    let page = include_str!("../../../docs/proxy.md");
    let example = page.split("```").find_map(|block| block.strip_prefix("yaml\n")).unwrap();
    let bootstrap = Bootstrap::parse(example).unwrap();
    assert_eq!((bootstrap.listeners.len(), bootstrap.clusters.len()), (1, 1));
    assert!(bootstrap.ignored.iter().all(|field| field.ends_with("stat_prefix")), "{:?}", bootstrap.ignored);
}

#[test]
fn what_is_refused_is_named_by_its_path() {
    let sidecar = |from: &str, to: &str| {
        assert!(SIDECAR.contains(from), "{from}");
        SIDECAR.replace(from, to)
    };
    let fixed = |from: &str, to: &str| {
        assert!(STATIC.contains(from), "{from}");
        STATIC.replace(from, to)
    };
    for (text, path) in [
        (sidecar("namespace: shop, ", ""), r#"node.metadata["weft.mesh"].namespace"#),
        (sidecar("token_file: /run/weft/token, ", ""), r#"node.metadata["weft.mesh"].token_file"#),
        (sidecar("node:", "node:\n  id: shop/other"), "node.id"),
        (sidecar("DELTA_GRPC", "GRPC"), "dynamic_resources.ads_config.api_type"),
        (
            sidecar("cluster_name: control-plane}}]", "cluster_name: other}}]"),
            "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name",
        ),
        (
            sidecar("        sni: weft-control-plane\n", ""),
            "static_resources.clusters[0].transport_socket.typed_config.sni",
        ),
        (
            sidecar("filename: /etc/weft/roots.pem", ""),
            "static_resources.clusters[0].transport_socket.typed_config.common_tls_context.validation_context.trusted_ca.filename",
        ),
        (sidecar("port_value: 15000", "port_value: 99999"), "admin.address.socket_address.port_value"),
        (sidecar("admin:", "overload_manager: {}\nadmin:"), "overload_manager"),
        (fixed("cluster: app", ""), "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.cluster"),
        (
            fixed("port_value: 10000", "port_value: 100000"),
            "static_resources.listeners[0].address.socket_address.port_value",
        ),
        (
            fixed("- name: app", "- name: app\n    type: EDS\n    eds_cluster_config: {eds_config: {ads: {}}}"),
            "static_resources.clusters[0]",
        ),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.starts_with(path), "{path} is not what is named in: {refusal}");
    }
}

#[test]
fn plaintext_to_a_control_plane_elsewhere_is_refused() {
    let start = SIDECAR.find("    transport_socket:").unwrap();
    let end = SIDECAR.find("dynamic_resources:").unwrap();
    let plain = format!("{}{}", &SIDECAR[..start], &SIDECAR[end..]);
    assert!(refusal(&plain).starts_with("static_resources.clusters[0].transport_socket: "));
    assert!(Bootstrap::parse(&plain.replace("198.18.0.2", "127.0.0.1")).is_ok());
}

#[test]
fn a_file_that_is_no_yaml_is_refused_with_its_name_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.yaml");
    fs::write(&file, "node: {id: [").unwrap();
    let error = Bootstrap::read(&file).unwrap_err().to_string();
    assert!(error.contains("bootstrap.yaml") && error.contains("line"), "{error}");
    let missing = Bootstrap::read(&folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read "), "{missing}");
}
