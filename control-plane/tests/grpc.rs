//! What gRPC applications without a sidecar are told.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

mod support;

use support::{model, service};
use weft_control_plane::ResourceType::{Cluster, Endpoint, Listener, Route};
use weft_control_plane::model::Model;
use weft_control_plane::render::render;
use weft_control_plane::{ResourceKey, ResourceType, View};
use weft_xds::envoy::config::cluster::v3::{Cluster as ClusterMessage, cluster::LbPolicy};
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener as ListenerMessage;
use weft_xds::envoy::config::route::v3::{RouteConfiguration, route, route_match::PathSpecifier};

const PORT: &str = "{port: 80, targetPort: 50051, appProtocol: grpc}";

fn echo(more: &str) -> Model {
    model(&(service("echo", "198.18.10.5", PORT, "198.18.0.7") + more))
}

fn rendered<M: prost::Message + prost::Name + Default>(model: &Model, kind: ResourceType, name: &str) -> Option<M> {
    let any = render(model, &ResourceKey::new(kind, name), &View::grpc("shop", "echo"))?;
    Some(weft_xds::unpack(&any, name).unwrap())
}

#[test]
fn a_service_is_found_by_every_form_of_its_name() {
    let model = echo("");
    for name in ["echo:80", "echo.shop:80", "echo.shop.svc:80", "echo.shop.svc.cluster.local:80"] {
        let listener: ListenerMessage = rendered(&model, Listener, name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(listener.name, name);
        assert!(listener.api_listener.is_some());
    }
    for name in ["echo:81", "echo.other:80", "echo.shop.example:80", "nobody:80"] {
        assert!(rendered::<ListenerMessage>(&model, Listener, name).is_none(), "{name}");
    }
    let sidecar = View::weft("shop");
    assert!(render(&model, &ResourceKey::new(Listener, "echo:80"), &sidecar).is_none(), "sidecars ask by address");
}

#[test]
fn routes_are_of_what_grpc_takes() {
    let routes = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: echo, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: echo, port: 80}]
  rules:
    - matches: [{method: {service: a.B}}]
      backendRefs: [{name: echo, port: 80}]
";
    let table: RouteConfiguration = rendered(&echo(routes), Route, "outbound/shop/echo/80").unwrap();
    let all = &table.virtual_hosts[0].routes;
    assert!(!all.is_empty());
    for found in all {
        let path = found.r#match.as_ref().unwrap().path_specifier.as_ref().unwrap();
        assert!(
            matches!(path, PathSpecifier::Prefix(_) | PathSpecifier::Path(_) | PathSpecifier::SafeRegex(_)),
            "{path:?}"
        );
        if let Some(route::Action::Route(action)) = &found.action {
            assert_eq!(action.retry_policy, None, "gRPC knows none of the conditions that are there without a policy");
        }
    }
    let table: RouteConfiguration = rendered(&echo(""), Route, "outbound/shop/echo/80").unwrap();
    assert_eq!(table.virtual_hosts[0].routes.len(), 1, "no CONNECT");
}

#[test]
fn mutual_tls_is_for_a_whole_cluster_and_what_has_none_is_left_out() {
    let outsider = "---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: echo-1, namespace: shop, labels: {app: echo}}
spec: {addresses: [198.18.0.8], serviceAccount: echo, workload: echo, meshed: false}
";
    let name = "service/shop/echo/80";
    let addresses = |model: &Model| {
        let assignment: ClusterLoadAssignment = rendered(model, Endpoint, name).unwrap();
        assert!(assignment.endpoints.iter().all(|group| group.locality.is_some()), "gRPC refuses a group without");
        assignment.endpoints.iter().map(|group| group.lb_endpoints.len()).sum::<usize>()
    };
    let cluster = |model: &Model| rendered::<ClusterMessage>(model, Cluster, name).unwrap();
    let mixed = echo(outsider);
    assert!(cluster(&mixed).transport_socket.is_some());
    assert_eq!(cluster(&mixed).lb_policy(), LbPolicy::RoundRobin);
    assert_eq!(addresses(&mixed), 1);
    let plaintext = model(
        &service("echo", "198.18.10.5", PORT, "198.18.0.7")
            .replace("workload: echo}", "workload: echo, meshed: false}"),
    );
    assert!(cluster(&plaintext).transport_socket.is_none());
    assert_eq!(addresses(&plaintext), 1);
}

#[test]
fn a_server_gets_the_listener_of_its_own_workload() {
    let name = "grpc/server?xds.resource.listening_address=0.0.0.0:50051";
    let listener: ListenerMessage = rendered(&echo(""), Listener, name).unwrap();
    assert!(listener.filter_chains[0].transport_socket.is_some(), "its callers are told of mutual TLS");
    let other = render(&echo(""), &ResourceKey::new(Listener, name), &View::grpc("shop", "nobody"));
    assert!(other.is_none());
}
