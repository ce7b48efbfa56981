//! A control plane in this process, and clients that talk to it as sidecars do.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use weft_control_plane::identity::JoinKey;
use weft_control_plane::identity::token::Claim;
use weft_control_plane::{Config, ControlPlane, ResourceType};
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds::google::rpc;
use weft_xds::identity::identity_client::IdentityClient;
use weft_xds::identity::{SignRequest, SignResponse};
use weft_xds::names;

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a test waits for something that must not happen.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// Two workloads and a service, `web` in front of two versions of `reviews`.
pub(crate) const SHOP: &str = "
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {addresses: [198.18.0.10], serviceAccount: web, workload: web}
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: reviews-0, namespace: shop, labels: {app: reviews}}
spec: {addresses: [198.18.0.11], serviceAccount: reviews, workload: reviews-v1}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  clusterIP: 198.19.0.80
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

/// The original destination of calls to `reviews`.
pub(crate) const REVIEWS: &str = "198.19.0.80:80";
/// The cluster of `reviews`, and its load assignment.
pub(crate) const REVIEWS_CLUSTER: &str = "service/shop/reviews/80";

/// A control plane and its folders.
pub(crate) struct Mesh {
    pub(crate) folder: TempDir,
    pub(crate) state: TempDir,
    pub(crate) control_plane: Option<ControlPlane>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) root: String,
}

impl Mesh {
    pub(crate) async fn start(yaml: &str) -> Self {
        Self::start_with(yaml, |_| {}).await
    }

    pub(crate) async fn start_with(yaml: &str, change: impl FnOnce(&mut Config)) -> Self {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("shop.yaml"), yaml).unwrap();
        let mut config = config(folder.path(), state.path());
        change(&mut config);
        let control_plane = ControlPlane::start(config).await.unwrap();
        Self {
            folder,
            state,
            address: control_plane.xds_addr,
            admin: control_plane.admin_addr,
            root: control_plane.bundle_pem(),
            control_plane: Some(control_plane),
        }
    }

    /// Stops it and starts another with the same folders.
    pub(crate) async fn restart(&mut self) {
        self.control_plane.take().unwrap().stop().await;
        let control_plane = ControlPlane::start(config(self.folder.path(), self.state.path())).await.unwrap();
        self.address = control_plane.xds_addr;
        self.admin = control_plane.admin_addr;
        self.control_plane = Some(control_plane);
    }

    /// Replaces the folder's file as editors do.
    pub(crate) fn edit(&self, yaml: &str) {
        let new = self.folder.path().join(".shop.yaml.new");
        std::fs::write(&new, yaml).unwrap();
        std::fs::rename(new, self.folder.path().join("shop.yaml")).unwrap();
    }

    pub(crate) fn token(&self, pod: &str) -> String {
        self.token_made_at(pod, SystemTime::now())
    }

    pub(crate) fn token_made_at(&self, pod: &str, when: SystemTime) -> String {
        let claim = Claim { namespace: "shop".into(), pod: pod.into() };
        JoinKey::open(self.state.path()).unwrap().issue(&claim, Duration::from_secs(3600), when).unwrap()
    }

    pub(crate) async fn proxy(&self, pod: &str) -> Proxy {
        let channel = connect(self.address, &self.root, None).await.unwrap();
        Proxy::open(channel, Some(self.token(pod))).await.unwrap()
    }

    /// A GET of the admin server: status code and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        request(self.admin, http::Request::get(path)).await
    }

    pub(crate) async fn status(&self) -> weft_control_plane::Status {
        serde_json::from_str(&self.get("/status").await.1).unwrap()
    }

    /// Asks for `/status` until it is as expected.
    pub(crate) async fn status_when(
        &self,
        expected: impl Fn(&weft_control_plane::Status) -> bool,
    ) -> weft_control_plane::Status {
        let wait = async {
            loop {
                let status = self.status().await;
                if expected(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(status) => status,
            Err(_) => panic!("the status never got there: {:#?}", self.status().await),
        }
    }
}

pub(crate) fn config(folder: &Path, state: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin: "127.0.0.1:0".parse().unwrap(),
        ..Config::new(folder.into(), state.into())
    }
}

/// One request over a new connection, without TLS.
pub(crate) async fn request(address: SocketAddr, request: http::request::Builder) -> (u16, String) {
    use http_body_util::{BodyExt, Empty};
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = request.header("host", "localhost").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A key and certificate.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

/// A channel over TLS, as `weft-control-plane`, with a client certificate if there is one.
pub(crate) async fn connect(
    address: SocketAddr,
    roots_pem: &str,
    identity: Option<&Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                identity.chain.clone(),
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone())),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(names::CONTROL_PLANE_DNS).unwrap();
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(tower::service_fn(move |_| {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        }))
        .await
}

pub(crate) fn authorized<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Makes a key and asks for its certificate.
pub(crate) async fn sign(channel: Channel, token: Option<&str>) -> Result<(Identity, SignResponse), Status> {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let request = SignRequest { csr_der: csr.der().to_vec() };
    let response = IdentityClient::new(channel).sign(authorized(request, token)).await?.into_inner();
    let identity = Identity {
        chain: response.chain_der.iter().map(|der| CertificateDer::from(der.clone())).collect(),
        key: key.serialize_der(),
    };
    Ok((identity, response))
}

/// A delta ADS stream.
pub(crate) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    introduced: bool,
}

impl Proxy {
    pub(crate) async fn open(channel: Channel, token: Option<String>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let responses = AggregatedDiscoveryServiceClient::new(channel)
            .delta_aggregated_resources(authorized(stream, token.as_deref()))
            .await?
            .into_inner();
        Ok(Self { requests, responses, introduced: false })
    }

    pub(crate) async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        if !std::mem::replace(&mut self.introduced, true) {
            request.node = Some(Node {
                // Deliberately someone else: it must not matter.
                id: "shop/impostor".into(),
                user_agent_name: "test".into(),
                ..Default::default()
            });
        }
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        })
        .await;
    }

    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        tokio::time::timeout(PATIENCE, self.responses.next())
            .await
            .expect("a response within the time of patience")
            .unwrap_or_else(|| Err(Status::cancelled("the stream ended")))
    }

    pub(crate) async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None).await;
    }

    pub(crate) async fn nack(&mut self, response: &DeltaDiscoveryResponse, error: &str) {
        let error = rpc::Status { code: 3, message: error.into(), details: Vec::new() };
        self.answer(response, Some(error)).await;
    }

    async fn answer(&mut self, response: &DeltaDiscoveryResponse, error: Option<rpc::Status>) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error,
            ..Default::default()
        })
        .await;
    }

    /// The next response, acknowledged.
    pub(crate) async fn take(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next().await.unwrap();
        self.ack(&response).await;
        response
    }

    pub(crate) async fn expect_silence(&mut self) {
        if let Ok(response) = tokio::time::timeout(SILENCE, self.responses.next()).await {
            panic!("unexpected: {response:?}");
        }
    }
}

/// `name@version` of each resource.
pub(crate) fn names_of(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let mut names: Vec<_> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    names.sort_unstable();
    names
}
