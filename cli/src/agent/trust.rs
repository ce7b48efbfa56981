//! Following the trust bundle: SDS over one stream of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use weft_proxy::ads::{Connect, trust_bundle};
use weft_proxy::tls::LocalIdentity;
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use weft_xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds::google::rpc::Status;
use weft_xds::{FieldError, names, type_url, unpack};

/// Pause before a new attempt after a loss, doubled with each failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Takes every bundle over, for as long as it runs. Whatever fails, the last good one stays.
pub(super) async fn follow(mut connect: impl Connect, node: Node, identity: Arc<LocalIdentity>) -> Infallible {
    // The first certificate comes with the bundle of its time.
    identity.ready().await;
    let mut pause = FIRST_PAUSE;
    loop {
        let (requests, outgoing) = mpsc::unbounded_channel();
        // The receiver is at hand.
        let _ = requests.send(DeltaDiscoveryRequest {
            node: Some(node.clone()),
            type_url: type_url::SECRET.to_owned(),
            resource_names_subscribe: vec![names::SECRET_BUNDLE.to_owned()],
            ..Default::default()
        });
        match connect.open(outgoing).await {
            Err(status) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "no stream for the trust bundle")
            }
            Ok(mut responses) => {
                while let Some(Ok(response)) = responses.next().await {
                    pause = FIRST_PAUSE;
                    let problem = take(&response, &identity).err().map(|error| error.to_string());
                    if let Some(problem) = &problem {
                        tracing::warn!(problem, "the trust bundle cannot be used; the last good one stays in force");
                    }
                    // A stream that no longer reads ends by itself.
                    let _ = requests.send(DeltaDiscoveryRequest {
                        type_url: response.type_url,
                        response_nonce: response.nonce,
                        // INVALID_ARGUMENT.
                        error_detail: problem.map(|message| Status { code: 3, message, ..Default::default() }),
                        ..Default::default()
                    });
                }
                tracing::info!("the stream for the trust bundle ended; opening another");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn take(response: &DeltaDiscoveryResponse, identity: &LocalIdentity) -> Result<(), FieldError> {
    for resource in response.resources.iter().filter_map(|resource| resource.resource.as_ref()) {
        let secret: Secret = unpack(resource, "resource")?;
        identity.set_bundle(trust_bundle(&secret)?);
    }
    Ok(())
}
