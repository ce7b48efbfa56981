//! A stream for each kind, whose other ends the test holds.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

/// A stream's other end.
struct End {
    kind: Kind,
    requests: Requests,
    responses: mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>,
}

impl End {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests.recv().await.expect("the client asks")
    }

    fn respond(&self, kind: Kind, nonce: &str) {
        let response =
            DeltaDiscoveryResponse { type_url: kind.type_url().into(), nonce: nonce.into(), ..Default::default() };
        self.responses.send(Ok(response)).expect("the client listens");
    }
}

struct World {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    ends: mpsc::UnboundedReceiver<End>,
    opening: BoxFuture<'static, Result<Responses, Status>>,
}

/// Streams of kinds in `silent` never open.
fn world(silent: &'static [Kind]) -> World {
    let (ended, ends) = mpsc::unbounded_channel();
    let (requests, outgoing) = mpsc::unbounded_channel();
    let opening = separate(outgoing, move |kind, requests| {
        let (responses, sent) = mpsc::unbounded_channel();
        // Tests that look at no end of it drop them all.
        let _ = ended.send(End { kind, requests, responses });
        if silent.contains(&kind) {
            return std::future::pending().boxed();
        }
        std::future::ready(Ok(UnboundedReceiverStream::new(sent).boxed())).boxed()
    });
    World { requests, ends, opening: opening.boxed() }
}

fn request(kind: Kind, node: Option<&str>) -> DeltaDiscoveryRequest {
    let node = node.map(|id| Node { id: id.into(), ..Default::default() });
    DeltaDiscoveryRequest { type_url: kind.type_url().into(), node, ..Default::default() }
}

fn id(request: &DeltaDiscoveryRequest) -> Option<&str> {
    request.node.as_ref().map(|node| node.id.as_str())
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_a_stream_of_its_own_that_is_told_once_who_asks() {
    let mut world = world(&[]);
    for (kind, node) in [(Kind::Listener, Some("n")), (Kind::Cluster, None), (Kind::Cluster, None)] {
        world.requests.send(request(kind, node)).unwrap();
    }
    let mut responses = world.opening.await.unwrap();
    let reading = tokio::spawn(async move {
        let both = [responses.next().await, responses.next().await];
        (both.map(|response| response.unwrap().unwrap().nonce), responses)
    });
    let (mut listeners, mut clusters) = (world.ends.recv().await.unwrap(), world.ends.recv().await.unwrap());
    assert_eq!((listeners.kind, clusters.kind), (Kind::Listener, Kind::Cluster));
    assert_eq!(id(&listeners.request().await), Some("n"));
    assert_eq!(id(&clusters.request().await), Some("n"));
    assert_eq!(id(&clusters.request().await), None);
    listeners.respond(Kind::Listener, "l");
    clusters.respond(Kind::Cluster, "c");
    let (mut nonces, _responses) = reading.await.unwrap();
    nonces.sort_unstable();
    assert_eq!(nonces, ["c", "l"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_holds_up_no_other() {
    let mut world = world(&[Kind::Listener]);
    world.requests.send(request(Kind::Listener, Some("n"))).unwrap();
    let early = tokio::time::timeout(Duration::from_secs(5), &mut world.opening).await;
    assert!(early.is_err(), "there was no sign of life");
    world.requests.send(request(Kind::Cluster, None)).unwrap();
    let mut responses = world.opening.await.unwrap();
    let _listeners = world.ends.recv().await.unwrap();
    world.ends.recv().await.unwrap().respond(Kind::Cluster, "c");
    assert_eq!(responses.next().await.unwrap().unwrap().nonce, "c");
}

#[tokio::test(start_paused = true)]
async fn with_one_stream_all_are_lost() {
    let mut world = world(&[]);
    world.requests.send(request(Kind::Listener, None)).unwrap();
    world.requests.send(request(Kind::Cluster, None)).unwrap();
    let mut responses = world.opening.await.unwrap();
    let _listeners = world.ends.recv().await.unwrap();
    let next = tokio::spawn(async move { (responses.next().await, responses.next().await.is_none()) });
    drop(world.ends.recv().await.unwrap());
    let (lost, ended) = next.await.unwrap();
    assert_eq!(lost.unwrap().unwrap_err().message(), "the control plane ended the cluster stream");
    assert!(ended);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_brings_another_kind_is_an_error() {
    let mut world = world(&[]);
    world.requests.send(request(Kind::Listener, None)).unwrap();
    let mut responses = world.opening.await.unwrap();
    world.ends.recv().await.unwrap().respond(Kind::Cluster, "c");
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!(error.message(), format!("the listener stream brought {}", Kind::Cluster.type_url()));
}
