//! A simulated sidecar: one mutual-TLS connection, one delta ADS stream, everything acknowledged at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use weft_control_plane::ResourceType;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds::names;

/// A resource that arrived.
pub(crate) struct Arrival {
    pub(crate) subscriber: usize,
    pub(crate) resource: String,
    pub(crate) at: Instant,
}

/// How to reach the control plane.
pub(crate) struct Target {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Target {
    /// A control plane at `address`, trusted by these roots.
    pub(crate) fn new(address: SocketAddr, roots_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<Channel> {
        let (address, connector) = (self.address, self.connector.clone());
        let name = ServerName::try_from(names::CONTROL_PLANE_DNS)?;
        Endpoint::from_static("http://control-plane")
            .connect_with_connector(tower::service_fn(move |_| {
                let (connector, name) = (connector.clone(), name.clone());
                async move {
                    let stream = TcpStream::connect(address).await?;
                    Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
                }
            }))
            .await
            .with_context(|| format!("connecting to the control plane at {address}"))
    }
}

/// The names a subscriber asks for, by type.
pub(crate) type Wanted = Vec<(ResourceType, Vec<String>)>;

/// Connects, subscribes, waits until everything is there, and returns; from then on every resource that arrives is told.
pub(crate) async fn subscribe(
    target: &Target,
    index: usize,
    token: &str,
    wanted: Wanted,
    arrivals: mpsc::UnboundedSender<Arrival>,
) -> Result<()> {
    let channel = target.connect().await?;
    let (requests, receiver) = mpsc::channel(64);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let mut node = Some(Node { id: format!("bench/{index}"), user_agent_name: "weft-bench".into(), ..Node::default() });
    let mut missing: usize = wanted.iter().map(|(_, names)| names.len()).sum();
    for (kind, resource_names_subscribe) in wanted {
        let request = DeltaDiscoveryRequest {
            node: node.take(),
            type_url: kind.url().into(),
            resource_names_subscribe,
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(request).await?;
    }
    let mut responses =
        AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(request).await?.into_inner();
    while missing > 0 {
        let response = next(&mut responses, &requests).await?;
        anyhow::ensure!(
            response.removed_resources.is_empty(),
            "the control plane does not know {:?}",
            response.removed_resources
        );
        missing = missing.saturating_sub(response.resources.len());
    }
    tokio::spawn(async move {
        while let Ok(response) = next(&mut responses, &requests).await {
            let at = Instant::now();
            for resource in response.resources {
                // Nobody listens at the very end.
                let _ = arrivals.send(Arrival { subscriber: index, resource: resource.name, at });
            }
        }
    });
    Ok(())
}

async fn next(
    responses: &mut Streaming<DeltaDiscoveryResponse>,
    requests: &mpsc::Sender<DeltaDiscoveryRequest>,
) -> Result<DeltaDiscoveryResponse> {
    let response = responses.next().await.context("the control plane ended the stream")??;
    let acknowledgement = DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(acknowledgement).await?;
    Ok(response)
}
