//! ADS, spoken by a real gRPC client over TLS.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::*;
use tonic::Code;
use weft_control_plane::ResourceType::{Cluster, Endpoint, Listener, Route, Secret};
use weft_control_plane::xds::ProxyState;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use weft_xds::{names, unpack};

const INBOUND: &str = "inbound/shop/web";
const ROUTE: &str = "outbound/shop/reviews/80";

fn shop_with_two_reviews() -> String {
    format!(
        "{SHOP}---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {{name: reviews-1, namespace: shop, labels: {{app: reviews}}}}
spec: {{addresses: [198.18.0.12], serviceAccount: reviews, workload: reviews-v1}}
"
    )
}

#[tokio::test]
async fn a_sidecar_finds_its_way_from_its_inbound_listener_to_an_endpoint() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Listener, &[INBOUND]).await;
    assert_eq!(names_of(&proxy.take().await), [INBOUND]);
    proxy.subscribe(Listener, &[REVIEWS]).await;
    assert_eq!(names_of(&proxy.take().await), [REVIEWS]);
    proxy.subscribe(Route, &[ROUTE]).await;
    assert_eq!(names_of(&proxy.take().await), [ROUTE]);
    proxy.subscribe(Cluster, &[REVIEWS_CLUSTER]).await;
    assert_eq!(names_of(&proxy.take().await), [REVIEWS_CLUSTER]);
    proxy.subscribe(Endpoint, &[REVIEWS_CLUSTER]).await;
    let response = proxy.take().await;
    let any = response.resources[0].resource.as_ref().unwrap();
    let assignment: ClusterLoadAssignment = unpack(any, "").unwrap();
    assert_eq!(assignment.endpoints[0].lb_endpoints.len(), 1);
    proxy.subscribe(Secret, &[names::SECRET_BUNDLE]).await;
    assert_eq!(names_of(&proxy.take().await), [names::SECRET_BUNDLE]);
}

#[tokio::test]
async fn unknown_names_are_known_to_be_absent() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Listener, &["198.19.9.9:80", "example.com:80"]).await;
    let response = proxy.take().await;
    assert!(response.resources.is_empty());
    assert_eq!(response.removed_resources, ["198.19.9.9:80", "example.com:80"]);
    proxy.subscribe(Secret, &["identity"]).await;
    assert_eq!(proxy.take().await.removed_resources, ["identity"]);
}

#[tokio::test]
async fn an_edit_reaches_its_subscribers_and_nobody_else() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Cluster, &[REVIEWS_CLUSTER]).await;
    proxy.take().await;
    proxy.subscribe(Endpoint, &[REVIEWS_CLUSTER]).await;
    proxy.take().await;
    let mut other = mesh.proxy("reviews-0").await;
    other.subscribe(Listener, &["inbound/shop/reviews-v1"]).await;
    other.take().await;

    mesh.edit(&shop_with_two_reviews());
    let response = proxy.take().await;
    assert_eq!(response.type_url, Endpoint.url());
    let any = response.resources[0].resource.as_ref().unwrap();
    let assignment: ClusterLoadAssignment = unpack(any, "").unwrap();
    assert_eq!(assignment.endpoints[0].lb_endpoints.len(), 2);
    proxy.expect_silence().await;
    other.expect_silence().await;
    mesh.status_when(|status| status.proxies.iter().all(|p| p.state == ProxyState::Synced)).await;
    let metrics = mesh.get("/metrics").await.1;
    assert!(metrics.contains("weft_control_plane_convergence_seconds_count 1"), "{metrics}");
    assert!(metrics.contains("weft_control_plane_connected_proxies 2"), "{metrics}");
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_is_told() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Endpoint, &[REVIEWS_CLUSTER]).await;
    proxy.take().await;
    let broken = shop_with_two_reviews().replace("targetPort: 8080", "targetPort: 808080");
    mesh.edit(&broken);
    let status = mesh.status_when(|status| status.source.refused).await;
    let problem = &status.source.problems[0];
    assert!(problem.field.contains("targetPort"), "{problem:?}");
    assert!(problem.file.ends_with("shop.yaml") && problem.line > 10, "{problem:?}");
    proxy.expect_silence().await;
    let metrics = mesh.get("/metrics").await.1;
    assert!(metrics.contains("weft_control_plane_source_errors 1"), "{metrics}");
    assert_eq!(mesh.get("/ready").await.0, 200, "the last good configuration is served");

    mesh.edit(&shop_with_two_reviews());
    assert_eq!(names_of(&proxy.take().await), [REVIEWS_CLUSTER]);
}

#[tokio::test]
async fn until_the_folder_is_good_once_proxies_are_told_nothing() {
    let mesh = Mesh::start("kind: Nonsense").await;
    let (code, body) = mesh.get("/ready").await;
    assert_eq!(code, 503, "{body}");
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let Err(status) = Proxy::open(channel.clone(), Some(mesh.token("web-0"))).await else {
        panic!("a stream although there is no configuration");
    };
    assert_eq!(status.code(), Code::Unavailable);
    mesh.edit(SHOP);
    mesh.status_when(|status| status.ready).await;
    let mut proxy = Proxy::open(channel, Some(mesh.token("web-0"))).await.unwrap();
    proxy.subscribe(Listener, &[INBOUND]).await;
    assert_eq!(names_of(&proxy.take().await), [INBOUND]);
}

#[tokio::test]
async fn every_configuration_that_comes_into_force_is_counted() {
    let mesh = Mesh::start(SHOP).await;
    // The first is what it started with.
    for generation in 2..=12 {
        mesh.edit(&if generation % 2 == 0 { shop_with_two_reviews() } else { SHOP.to_owned() });
        mesh.status_when(|status| status.source.generation == generation).await;
    }
    let metrics = mesh.get("/metrics").await.1;
    assert!(metrics.contains("weft_control_plane_configuration_changes_total 12"), "{metrics}");
}

#[tokio::test]
async fn a_rejection_is_kept_for_the_operator_and_the_same_is_not_sent_again() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Endpoint, &[REVIEWS_CLUSTER]).await;
    let response = proxy.next().await.unwrap();
    proxy.nack(&response, "endpoints[0]: is odd").await;
    let status = mesh.status_when(|status| status.proxies.iter().any(|p| p.state == ProxyState::Nack)).await;
    let proxy_status = &status.proxies[0];
    assert_eq!(proxy_status.pod, "web-0", "as the token says");
    assert_eq!(proxy_status.node, "shop/impostor", "as it calls itself");
    assert_eq!(proxy_status.types[0].error.as_deref(), Some("endpoints[0]: is odd"));
    proxy.expect_silence().await;
    let metrics = mesh.get("/metrics").await.1;
    assert!(metrics.contains(r#"weft_control_plane_nacks_total{type="EDS"} 1"#), "{metrics}");

    mesh.edit(&shop_with_two_reviews());
    proxy.take().await;
    mesh.status_when(|status| status.proxies[0].state == ProxyState::Synced).await;
}

#[tokio::test]
async fn a_reconnect_even_to_a_restarted_control_plane_is_sent_only_what_differs() {
    let mut mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    let wanted = [
        (Cluster, REVIEWS_CLUSTER),
        (Endpoint, REVIEWS_CLUSTER),
        (Listener, INBOUND),
        (Listener, REVIEWS),
        (Route, ROUTE),
        (Secret, names::SECRET_BUNDLE),
    ];
    let mut held: HashMap<_, HashMap<String, String>> = HashMap::new();
    for (kind, name) in wanted {
        proxy.subscribe(kind, &[name]).await;
        let response = proxy.take().await;
        let resource = &response.resources[0];
        held.entry(kind).or_default().insert(resource.name.clone(), resource.version.clone());
    }
    mesh.restart().await;
    assert!(proxy.next().await.is_err(), "the old stream ended");

    let mut proxy = mesh.proxy("web-0").await;
    for (kind, versions) in held {
        proxy
            .send(DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                resource_names_subscribe: versions.keys().cloned().collect(),
                initial_resource_versions: versions,
                ..Default::default()
            })
            .await;
    }
    proxy.expect_silence().await;
    mesh.edit(&shop_with_two_reviews());
    let response = proxy.take().await;
    assert_eq!((response.type_url.as_str(), names_of(&response)), (Endpoint.url(), vec![REVIEWS_CLUSTER]));
    proxy.expect_silence().await;
}

#[tokio::test]
async fn another_workloads_inbound_listener_is_refused() {
    let mesh = Mesh::start(SHOP).await;
    for name in ["inbound/shop/reviews-v1", "inbound/other/web", "inbound/shop/web/x"] {
        let mut proxy = mesh.proxy("web-0").await;
        proxy.subscribe(Listener, &[name]).await;
        let status = proxy.next().await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}");
        assert!(status.message().contains("its own is `inbound/shop/web`"), "{status}");
    }
}

#[tokio::test]
async fn a_wildcard_holds_ones_own_inbound_listener_and_no_other() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Listener, &["*"]).await;
    let response = proxy.take().await;
    let names = names_of(&response);
    assert!(names.contains(&INBOUND) && names.contains(&REVIEWS), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("inbound/")).count(), 1);
}

#[tokio::test]
async fn callers_without_valid_credentials_are_refused() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    for (token, code) in [
        (None, Code::Unauthenticated),
        (Some("nonsense".to_owned()), Code::Unauthenticated),
        (Some(mesh.token_made_at("web-0", long_ago)), Code::Unauthenticated),
        (Some(mesh.token("nobody")), Code::NotFound),
    ] {
        let Err(status) = Proxy::open(channel.clone(), token).await else {
            panic!("let in");
        };
        assert_eq!(status.code(), code, "{status}");
    }
}

#[tokio::test]
async fn a_state_of_the_world_client_gets_everything_and_its_changes() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let (requests, receiver) = tokio::sync::mpsc::channel(16);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut responses = AggregatedDiscoveryServiceClient::new(channel)
        .stream_aggregated_resources(authorized(stream, Some(&mesh.token("web-0"))))
        .await
        .unwrap()
        .into_inner();
    let mut request = DiscoveryRequest { type_url: Cluster.url().into(), ..Default::default() };
    requests.send(request.clone()).await.unwrap();
    let clusters = responses.message().await.unwrap().unwrap();
    assert!(!clusters.resources.is_empty());
    request.response_nonce = clusters.nonce;
    request.version_info = clusters.version_info;
    requests.send(request).await.unwrap();

    let mut request = DiscoveryRequest {
        type_url: Endpoint.url().into(),
        resource_names: vec![REVIEWS_CLUSTER.into()],
        ..Default::default()
    };
    requests.send(request.clone()).await.unwrap();
    for expected in [1, 2] {
        let response = tokio::time::timeout(PATIENCE, responses.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(response.type_url, Endpoint.url());
        let assignment: ClusterLoadAssignment = unpack(&response.resources[0], "").unwrap();
        assert_eq!(assignment.endpoints[0].lb_endpoints.len(), expected);
        request.response_nonce = response.nonce;
        request.version_info = response.version_info;
        requests.send(request.clone()).await.unwrap();
        mesh.edit(&shop_with_two_reviews());
    }
}

#[tokio::test]
async fn unknown_types_and_paths_are_refused_by_name() {
    let mesh = Mesh::start(SHOP).await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy
        .send(DeltaDiscoveryRequest {
            type_url: "type.googleapis.com/envoy.config.Nothing".into(),
            ..Default::default()
        })
        .await;
    let status = proxy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("envoy.config.Nothing"), "{status}");
}
