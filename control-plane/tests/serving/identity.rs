//! Certificates, asked for and used by a real gRPC client over TLS.

use std::time::Duration;

use crate::support::*;
use tonic::Code;
use weft_control_plane::ResourceType::{Listener, Secret};
use weft_control_plane::{Config, ControlPlane, REQUEST_HEADER, StartError};
use weft_xds::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use weft_xds::names;
use x509_parser::extensions::GeneralName;

#[tokio::test]
async fn a_token_gets_its_pods_certificate_which_then_opens_the_stream_and_renews_itself() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let (identity, response) = sign(channel, Some(&mesh.token("web-0"))).await.unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&response.chain_der[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(
        names.general_names,
        [GeneralName::URI("spiffe://weft.local/ns/shop/sa/web"), GeneralName::DNSName("web-0.web.shop.pod.weft.mesh"),]
    );
    assert_eq!(response.bundle_der.len(), 1);

    let channel = connect(mesh.address, &mesh.root, Some(&identity)).await.unwrap();
    let mut proxy = Proxy::open(channel.clone(), None).await.unwrap();
    proxy.subscribe(Listener, &["inbound/shop/web"]).await;
    assert_eq!(names_of(&proxy.take().await), ["inbound/shop/web"]);
    sign(channel, None).await.unwrap();
    let metrics = mesh.get("/metrics").await.1;
    assert!(metrics.contains(r#"weft_control_plane_certificates_total{result="issued"} 2"#), "{metrics}");
}

#[tokio::test]
async fn a_certificate_says_who_calls_even_if_a_token_of_another_is_sent_along() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let (identity, _) = sign(channel, Some(&mesh.token("web-0"))).await.unwrap();
    let channel = connect(mesh.address, &mesh.root, Some(&identity)).await.unwrap();
    let (_, response) = sign(channel, Some(&mesh.token("reviews-0"))).await.unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&response.chain_der[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names[0], GeneralName::URI("spiffe://weft.local/ns/shop/sa/web"));
}

#[tokio::test]
async fn a_pod_made_again_under_the_same_name_has_nothing_of_the_old_ones_certificate() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let (identity, _) = sign(channel.clone(), Some(&mesh.token("web-0"))).await.unwrap();
    let with_certificate = connect(mesh.address, &mesh.root, Some(&identity)).await.unwrap();
    let mut proxy = Proxy::open(with_certificate.clone(), None).await.unwrap();
    proxy.subscribe(Listener, &["inbound/shop/web"]).await;
    proxy.take().await;

    let again = "name: web-0, uid: '2', creationTimestamp: '2999-01-01T00:00:00Z'";
    mesh.edit(&SHOP.replace("name: web-0", again));
    mesh.status_when(|status| status.source.generation == 2).await;
    proxy.next().await.unwrap_err();
    let status = sign(with_certificate, None).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("of the same name before it"), "{status}");
    sign(channel, Some(&mesh.token("web-0"))).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_is_gone_or_became_another_workload_cannot_renew() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let (identity, _) = sign(channel, Some(&mesh.token("web-0"))).await.unwrap();
    let channel = connect(mesh.address, &mesh.root, Some(&identity)).await.unwrap();

    mesh.edit(&SHOP.replace("serviceAccount: web", "serviceAccount: other"));
    mesh.status_when(|status| status.source.generation == 2).await;
    let status = sign(channel.clone(), None).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("other"), "{status}");

    mesh.edit(&SHOP.replace("web-0", "web-1"));
    mesh.status_when(|status| status.source.generation == 3).await;
    let status = sign(channel, None).await.err().unwrap();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test]
async fn nobody_signs_without_valid_credentials() {
    let mesh = Mesh::start(SHOP).await;
    let channel = connect(mesh.address, &mesh.root, None).await.unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    let expired = mesh.token_made_at("web-0", long_ago);
    let elsewhere = Mesh::start(SHOP).await.token("web-0");
    for (token, says) in [
        (None, "neither a client certificate nor a join token"),
        (Some(expired.as_str()), "expired"),
        (Some(elsewhere.as_str()), "not one of this control plane"),
    ] {
        let status = sign(channel.clone(), token).await.err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_no_client_certificate() {
    let (mesh, elsewhere) = (Mesh::start(SHOP).await, Mesh::start(SHOP).await);
    let channel = connect(elsewhere.address, &elsewhere.root, None).await.unwrap();
    let (identity, _) = sign(channel, Some(&elsewhere.token("web-0"))).await.unwrap();
    let refused = match connect(mesh.address, &mesh.root, Some(&identity)).await {
        Err(_) => true,
        // In TLS 1.3 the client has finished before the server verifies: the first call fails.
        Ok(channel) => Proxy::open(channel, None).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn a_root_rotation_overlaps_and_restarts_nothing() {
    let mesh = Mesh::start_with(SHOP, |config| {
        config.certificate_lifetime = Duration::from_secs(2);
        config.root_overlap = Duration::from_secs(1);
    })
    .await;
    let mut proxy = mesh.proxy("web-0").await;
    proxy.subscribe(Secret, &[names::SECRET_BUNDLE]).await;
    proxy.take().await;
    let old = mesh.status().await.roots;
    assert_eq!((old.len(), old[0].signs), (1, true));

    assert_eq!(request(mesh.admin, http::Request::post("/rotate-root")).await.0, 403);
    let rotate = || http::Request::post("/rotate-root").header(REQUEST_HEADER, "x");
    let (code, body) = request(mesh.admin, rotate()).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(request(mesh.admin, rotate()).await.0, 409, "one at a time");

    // First both are trusted, and everybody is told; the old one signs on.
    proxy.take().await;
    let both = mesh.status().await.roots;
    assert_eq!((both.len(), both[0].signs), (2, true));
    // Then the new one signs, and serves; who knows the bundle of the overlap does not notice.
    let bundle = mesh.get("/ca").await.1;
    mesh.status_when(|status| status.roots.iter().any(|root| root.signs && *root != old[0])).await;
    let channel = connect(mesh.address, &bundle, None).await.unwrap();
    let (identity, _) = sign(channel, Some(&mesh.token("web-0"))).await.unwrap();
    // Last the old one goes; the stream, opened before all this, is told and lives on.
    mesh.status_when(|status| status.roots.len() == 1 && status.roots[0].fingerprint != old[0].fingerprint).await;
    proxy.take().await;
    let bundle = mesh.get("/ca").await.1;
    connect(mesh.address, &bundle, Some(&identity)).await.unwrap();
    assert!(connect(mesh.address, &mesh.root, None).await.is_err(), "the old root is not enough any more");
}

#[tokio::test]
async fn plaintext_and_admin_stay_on_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let base = config(folder.path(), folder.path());
    for wrong in [
        Config { insecure_loopback: true, listen: "198.18.0.1:0".parse().unwrap(), ..base.clone() },
        Config { admin: "0.0.0.0:0".parse().unwrap(), ..base },
    ] {
        let Err(error) = ControlPlane::start(wrong).await else {
            panic!("started");
        };
        assert!(matches!(error, StartError::NotLoopback { .. }), "{error}");
    }
}

#[tokio::test]
async fn plaintext_on_loopback_still_wants_a_token() {
    let mesh = Mesh::start_with(SHOP, |config| config.insecure_loopback = true).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", mesh.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let status = sign(channel.clone(), None).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    sign(channel, Some(&mesh.token("web-0"))).await.unwrap();
}

#[tokio::test]
async fn a_root_rotates_without_tls_too() {
    let mesh = Mesh::start_with(SHOP, |config| {
        config.insecure_loopback = true;
        config.root_overlap = Duration::ZERO;
        config.certificate_lifetime = Duration::from_secs(2);
    })
    .await;
    let old = mesh.status().await.roots[0].fingerprint.clone();
    let rotate = http::Request::post("/rotate-root").header(REQUEST_HEADER, "x");
    assert_eq!(request(mesh.admin, rotate).await.0, 200);
    mesh.status_when(|status| status.roots.len() == 2).await;
    mesh.status_when(|status| status.roots.len() == 1 && status.roots[0].fingerprint != old).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_certificate_and_a_reconnect_with_a_new_one_is_sent_nothing_again() {
    let mesh = Mesh::start_with(SHOP, |config| config.certificate_lifetime = Duration::from_secs(3)).await;
    let token = mesh.token("web-0");
    let (old, response) = sign(connect(mesh.address, &mesh.root, None).await.unwrap(), Some(&token)).await.unwrap();
    let channel = connect(mesh.address, &mesh.root, Some(&old)).await.unwrap();
    let mut proxy = Proxy::open(channel, None).await.unwrap();
    proxy.subscribe(Listener, &["inbound/shop/web"]).await;
    let held = proxy.take().await;

    let status = proxy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs() >= u64::try_from(response.not_after).unwrap(), "no sooner than the certificate");

    let (new, _) = sign(connect(mesh.address, &mesh.root, None).await.unwrap(), Some(&token)).await.unwrap();
    let channel = connect(mesh.address, &mesh.root, Some(&new)).await.unwrap();
    let mut proxy = Proxy::open(channel, None).await.unwrap();
    proxy
        .send(DeltaDiscoveryRequest {
            type_url: Listener.url().into(),
            resource_names_subscribe: vec!["inbound/shop/web".into()],
            initial_resource_versions: [("inbound/shop/web".to_owned(), held.resources[0].version.clone())].into(),
            ..Default::default()
        })
        .await;
    proxy.expect_silence().await;
}
