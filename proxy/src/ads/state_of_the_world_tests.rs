//! The dialect by itself, and over a real stream to a server that speaks no other.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Streaming};
use weft_xds::envoy::config::core::v3::Node;
use weft_xds::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_xds::{pack, yaml};

use super::*;
use crate::ads::{Client, ControlPlane, ControlPlaneChannel, Dialect, Parts, Source, Streams, Wants};
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::tls::LocalIdentity;
use crate::upstream::Assignment;

fn cluster(name: &str, timeout: &str) -> Any {
    pack(&yaml::from_str::<Cluster>(&format!("{{name: {name}, connect_timeout: {timeout}}}")).unwrap())
}

fn response(version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        type_url: type_url::CLUSTER.to_owned(),
        resources,
        ..Default::default()
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url::CLUSTER.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn answer(nonce: &str, problem: Option<&str>) -> DeltaDiscoveryRequest {
    let error_detail = problem.map(|message| Status { code: 3, message: message.to_owned(), details: Vec::new() });
    DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), error_detail, ..subscribe(&[]) }
}

#[test]
fn a_request_repeats_all_names_and_the_version_in_force() {
    let mut dialect = StateOfTheWorld::default();
    let first = dialect.request(subscribe(&["b"]));
    assert_eq!(
        (first.resource_names, first.version_info.as_str(), first.response_nonce.as_str()),
        (vec!["b".to_owned()], "", "")
    );
    dialect.response(response("1", "n1", vec![cluster("b", "1s")])).unwrap();
    let accepted = dialect.request(answer("n1", None));
    assert_eq!((accepted.version_info.as_str(), accepted.response_nonce.as_str()), ("1", "n1"));
    let more = dialect.request(subscribe(&["a"]));
    assert_eq!(more.resource_names, ["a", "b"]);
    assert_eq!((more.version_info.as_str(), more.response_nonce.as_str()), ("1", "n1"));
    dialect.response(response("2", "n2", vec![cluster("b", "1s")])).unwrap();
    let refused = dialect.request(answer("n2", Some("no")));
    assert_eq!((refused.version_info.as_str(), refused.response_nonce.as_str()), ("1", "n2"));
    assert_eq!(refused.error_detail.unwrap().message, "no");
}

#[test]
fn everything_is_asked_for_without_a_name_until_a_name_was_given() {
    let mut dialect = StateOfTheWorld::default();
    assert_eq!(dialect.request(subscribe(&["*"])).resource_names, [""; 0]);
    assert_eq!(dialect.request(answer("n1", None)).resource_names, [""; 0]);
    assert_eq!(dialect.request(subscribe(&["a"])).resource_names, ["*", "a"]);
    let mut less = subscribe(&[]);
    less.resource_names_unsubscribe.push("a".to_owned());
    assert_eq!(dialect.request(less).resource_names, ["*"], "without a name, nothing would be asked for now");
}

#[test]
fn what_a_whole_response_leaves_out_is_removed() {
    let mut dialect = StateOfTheWorld::default();
    let mut first = subscribe(&["*"]);
    first.initial_resource_versions.insert("kept".to_owned(), "0".to_owned());
    dialect.request(first);
    let told = dialect.response(response("1", "n1", vec![cluster("a", "1s"), cluster("b", "1s")])).unwrap();
    assert_eq!(told.removed_resources, ["kept"]);
    let told = dialect.response(response("2", "n2", vec![cluster("a", "1s")])).unwrap();
    assert_eq!(told.removed_resources, ["b"]);
    let mut by_name = StateOfTheWorld::default();
    by_name.request(subscribe(&["absent"]));
    assert_eq!(by_name.response(response("1", "n1", Vec::new())).unwrap().removed_resources, ["absent"]);
}

#[test]
fn what_does_not_decode_is_refused_at_once() {
    let mut dialect = StateOfTheWorld::default();
    dialect.request(subscribe(&["*"]));
    let broken = Any { type_url: type_url::CLUSTER.to_owned(), value: vec![0xff] };
    let refusal = dialect.response(response("1", "n1", vec![broken])).unwrap_err();
    assert_eq!((refusal.version_info.as_str(), refusal.response_nonce.as_str()), ("", "n1"));
    assert!(refusal.error_detail.unwrap().message.starts_with("resources[0]: does not decode"));
}

/// A control plane without delta: hands each stream to the test.
struct OnlyStateOfTheWorld(mpsc::UnboundedSender<Served>);

type Sending = mpsc::UnboundedSender<Result<DiscoveryResponse, tonic::Status>>;

struct Served {
    requests: Streaming<DiscoveryRequest>,
    responses: Sending,
}

impl Served {
    /// The next request about clusters.
    async fn request(&mut self) -> DiscoveryRequest {
        loop {
            let request = self.requests.next().await.expect("the stream is open").unwrap();
            if request.type_url == type_url::CLUSTER {
                return request;
            }
        }
    }

    fn send(&self, version: &str, nonce: &str, resources: Vec<Any>) {
        self.responses.send(Ok(response(version, nonce, resources))).unwrap();
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

#[async_trait::async_trait]
impl AggregatedDiscoveryService for OnlyStateOfTheWorld {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, tonic::Status> {
        let (responses, sent) = mpsc::unbounded_channel();
        self.0.send(Served { requests: requests.into_inner(), responses }).unwrap();
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(sent))))
    }

    async fn delta_aggregated_resources(
        &self,
        _requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("state of the world only"))
    }
}

#[tokio::test]
async fn a_client_of_everything_follows_a_server_without_delta() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (streams, mut served) = mpsc::unbounded_channel();
    let service = AggregatedDiscoveryServiceServer::new(OnlyStateOfTheWorld(streams));
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let server = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(io), TowerToHyperService::new(service.clone())));
        }
    });

    let text = format!(
        "{{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}",
        address.ip(),
        address.port()
    );
    let endpoints = Assignment::compile(&yaml::from_str(&text).unwrap(), "").unwrap();
    let (dialect, streams) = (Dialect::StateOfTheWorld, Streams::Aggregated);
    let control_plane = ControlPlane { endpoints, tls: None, mark: None, token_file: None, dialect, streams };
    let store = Arc::new(Store::new());
    let identity = LocalIdentity::new();
    let parts = Parts {
        node: Node { id: "n".to_owned(), ..Default::default() },
        wants: Wants::All { kinds: vec![Kind::Cluster], source: Source::Aggregated },
        store: store.clone(),
        identity: identity.clone(),
        metrics: Arc::new(Metrics::new()),
        ready: None,
    };
    let mut published = store.subscribe();
    let (client, _on_demand, _handle) = Client::new(parts, ControlPlaneChannel::new(control_plane, identity), None);
    let client = tokio::spawn(client.run());

    let mut stream = served.recv().await.unwrap();
    let first = stream.request().await;
    assert_eq!((first.resource_names, first.node.unwrap().id.as_str()), (Vec::<String>::new(), "n"));
    stream.send("1", "n1", vec![cluster("a", "1s"), cluster("b", "1s")]);
    let accepted = stream.request().await;
    assert_eq!((accepted.version_info.as_str(), accepted.response_nonce.as_str()), ("1", "n1"));
    assert!(accepted.error_detail.is_none());
    published.wait_for(|()| store.cluster("a").is_some() && store.cluster("b").is_some()).await.unwrap();

    // A refusal says why and leaves what worked; what the response left out goes all the same.
    stream.send("2", "n2", vec![cluster("a", "0s")]);
    let refused = stream.request().await;
    assert_eq!((refused.version_info.as_str(), refused.response_nonce.as_str()), ("1", "n2"));
    let problem = refused.error_detail.unwrap().message;
    assert!(problem.contains("cluster `a`: connect_timeout: "), "{problem}");
    published.wait_for(|()| store.cluster("b").is_none()).await.unwrap();
    assert_eq!(store.cluster("a").unwrap().connect_timeout(), Duration::from_secs(1));

    // After a loss everything is asked for again, and what vanished meanwhile goes.
    drop(stream);
    let mut stream = served.recv().await.unwrap();
    assert_eq!(stream.request().await.version_info, "");
    stream.send("3", "m1", vec![cluster("c", "1s")]);
    published.wait_for(|()| store.cluster("c").is_some() && store.cluster("a").is_none()).await.unwrap();
    client.abort();
}
