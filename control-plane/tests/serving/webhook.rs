//! The webhook as the Kubernetes API server calls it: over TLS, by its Service's name, trusting our roots.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_control_plane::WebhookConfig;

use crate::support::{Mesh, PATIENCE, SHOP};

async fn mesh() -> (Mesh, SocketAddr) {
    let mesh = Mesh::start_with(SHOP, |config| {
        config.webhook = Some(WebhookConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            settings: None,
            namespace: "weft-system".to_owned(),
        });
    })
    .await;
    let address = mesh.control_plane.as_ref().unwrap().webhook_addr.unwrap();
    (mesh, address)
}

async fn connect(address: SocketAddr, roots: &str, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(store).with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await
}

const NAME: &str = "weft-control-plane.weft-system.svc";

async fn ask(address: SocketAddr, roots: &str, path: &str, body: &Value) -> (u16, Value) {
    let io = TokioIo::new(connect(address, roots, NAME).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(path)
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": { "uid": "u", "namespace": "shop", "operation": "CREATE", "object": {
            "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "app" }] },
        } },
    })
}

#[tokio::test]
async fn pods_of_a_namespace_that_asks_are_injected_and_others_are_not() {
    let (mesh, address) = mesh().await;
    let (status, answer) = ask(address, &mesh.root, "/inject/namespace", &review()).await;
    assert_eq!((status, &answer["response"]["patchType"]), (200, &json!("JSONPatch")));
    let (status, answer) = ask(address, &mesh.root, "/inject/pod", &review()).await;
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)));
    assert!(answer["response"].get("patch").is_none(), "{answer}");
    assert_eq!(ask(address, &mesh.root, "/inject/everything", &review()).await.0, 404);
    assert_eq!(ask(address, &mesh.root, "/inject/pod", &json!({})).await.0, 422);
}

#[tokio::test]
async fn the_certificate_is_for_the_webhooks_service_and_for_no_other_name() {
    let (mesh, address) = mesh().await;
    assert!(connect(address, &mesh.root, NAME).await.is_ok());
    assert!(connect(address, &mesh.root, "weft-control-plane.default.svc").await.is_err());
}

#[tokio::test]
async fn a_rotation_of_the_root_renews_the_certificate_while_it_serves() {
    let (mesh, address) = mesh().await;
    let leaf = async || {
        let stream = connect(address, &mesh.root, NAME).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let before = leaf().await;
    mesh.control_plane.as_ref().unwrap().authority().rotate(SystemTime::now()).await.unwrap();
    let renewed = async {
        while leaf().await == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("the same certificate after the roots have changed");
}
