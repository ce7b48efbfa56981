//! The task under paused time, with a control plane made of channels.

use std::sync::Mutex;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use weft_xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener as ListenerMessage;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::envoy::service::discovery::v3::Resource as Wrapped;
use weft_xds::google::protobuf::Any;
use weft_xds::{pack, yaml};

use super::*;
use crate::admin::Readiness;
use crate::ads::IDLE_LIMIT;

const INBOUND: &str = "inbound/shop/web";
const DESTINATION: &str = "198.18.10.5:80";

/// One stream as the server sees it.
struct Stream {
    requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    responses: mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Stream {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(Duration::from_secs(60), self.requests.recv())
            .await
            .expect("a request is due")
            .expect("the stream is open")
    }

    /// The next request that subscribes or unsubscribes, as `+name` and `-name`.
    async fn subscription(&mut self) -> Vec<String> {
        loop {
            let request = self.request().await;
            let plus = request.resource_names_subscribe.iter().map(|name| format!("+{name}"));
            let minus = request.resource_names_unsubscribe.iter().map(|name| format!("-{name}"));
            let names: Vec<String> = plus.chain(minus).collect();
            if !names.is_empty() {
                return names;
            }
        }
    }

    fn send(&self, kind: Kind, resources: Vec<(&str, Any)>, removed: &[&str]) {
        let resources = resources.into_iter().map(|(name, message)| Wrapped {
            name: name.to_owned(),
            version: "1".to_owned(),
            resource: Some(message),
            ..Default::default()
        });
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            resources: resources.collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            nonce: "n".to_owned(),
            ..Default::default()
        };
        self.responses.send(Ok(response)).unwrap();
    }
}

/// Opens streams into the hands of the test, or refuses.
#[derive(Clone)]
struct Server {
    streams: mpsc::UnboundedSender<Stream>,
    down: Arc<Mutex<bool>>,
}

impl Connect for Server {
    fn open(
        &mut self,
        requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    ) -> BoxFuture<'static, Result<Responses, Status>> {
        if *self.down.lock().unwrap() {
            return async { Err(Status::unavailable("down")) }.boxed();
        }
        let (responses, sent) = mpsc::unbounded_channel();
        self.streams.send(Stream { requests, responses }).unwrap();
        async { Ok(UnboundedReceiverStream::new(sent).boxed()) }.boxed()
    }
}

struct World {
    on_demand: OnDemand,
    handle: Handle,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    streams: mpsc::UnboundedReceiver<Stream>,
    down: Arc<Mutex<bool>>,
    task: JoinHandle<std::convert::Infallible>,
}

impl World {
    fn start(state_dir: Option<&Path>) -> Self {
        let (streams, opened) = mpsc::unbounded_channel();
        let down = Arc::new(Mutex::new(false));
        let store = Arc::new(Store::new());
        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::new();
        let parts = Parts {
            node: Node { id: "shop/web-0".into(), cluster: "shop/web".into(), ..Default::default() },
            wants: Wants::Sidecar { inbound_listener: INBOUND.into() },
            store: store.clone(),
            identity: LocalIdentity::new(),
            metrics: metrics.clone(),
            ready: Some(readiness.wait_for("configuration")),
        };
        let server = Server { streams, down: down.clone() };
        let (client, on_demand, handle) = Client::new(parts, server, state_dir);
        let task = tokio::spawn(client.run());
        Self { on_demand, handle, store, metrics, readiness, streams: opened, down, task }
    }

    async fn stream(&mut self) -> Stream {
        timeout(Duration::from_secs(60), self.streams.recv()).await.expect("a stream is due").expect("the client lives")
    }

    /// Lets the task work until it has nothing left to do.
    async fn settle(&self) {
        self.handle.dump().await.unwrap();
        self.handle.dump().await.unwrap();
    }

    fn lookup(&self, destination: &str) -> JoinHandle<Lookup> {
        let (on_demand, destination) = (self.on_demand.clone(), destination.parse().unwrap());
        tokio::spawn(async move { on_demand.outbound(destination).await })
    }
}

fn listener(name: &str) -> Any {
    let message: ListenerMessage = yaml::from_str(&format!(
        r#"
name: "{name}"
bind_to_port: false
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    ))
    .unwrap();
    pack(&message)
}

fn opaque_listener(name: &str) -> Any {
    let message: ListenerMessage = yaml::from_str(&format!(
        r#"
name: "{name}"
bind_to_port: false
filter_chains:
- filters:
  - name: envoy.filters.network.tcp_proxy
    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: c}}
"#
    ))
    .unwrap();
    pack(&message)
}

fn route() -> Any {
    let text = r#"{name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}"#;
    pack(&yaml::from_str::<RouteConfiguration>(text).unwrap())
}

fn cluster() -> Any {
    let text = "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, connect_timeout: 1s}";
    pack(&yaml::from_str::<ClusterMessage>(text).unwrap())
}

fn endpoints(address: &str) -> Any {
    let text = format!(
        "{{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: 8080}}}}}}}}]}}]}}"
    );
    pack(&yaml::from_str::<ClusterLoadAssignment>(&text).unwrap())
}

/// Sends what the listener of [`DESTINATION`] needs.
fn send_rest(stream: &Stream) {
    stream.send(Kind::Route, vec![("r", route())], &[]);
    stream.send(Kind::Cluster, vec![("c", cluster())], &[]);
    stream.send(Kind::Endpoints, vec![("c", endpoints("198.18.0.7"))], &[]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_is_found_once_all_it_needs_has_arrived_and_then_at_once() {
    let mut world = World::start(None);
    let mut stream = world.stream().await;
    assert_eq!(stream.subscription().await, [format!("+{INBOUND}")]);
    assert_eq!(stream.subscription().await, ["+bundle"]);
    let lookup = world.lookup(DESTINATION);
    assert_eq!(stream.subscription().await, [format!("+{DESTINATION}")]);
    stream.send(Kind::Listener, vec![(DESTINATION, listener(DESTINATION))], &[]);
    assert_eq!(stream.subscription().await, ["+r"]);
    assert!(!lookup.is_finished());
    send_rest(&stream);
    assert!(matches!(lookup.await.unwrap(), Lookup::Found(_)));
    let members = world.store.cluster("c").unwrap().members();
    assert_eq!(members[0].endpoint.address(), "198.18.0.7:8080".parse().unwrap());
    let again = world.on_demand.outbound("[::ffff:198.18.10.5]:80".parse().unwrap()).now_or_never();
    assert!(matches!(again, Some(Lookup::Found(_))), "known, also by its mapped address");
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_share_one_question() {
    let mut world = World::start(None);
    let mut stream = world.stream().await;
    let lookups = [world.lookup(DESTINATION), world.lookup(DESTINATION), world.lookup(DESTINATION)];
    stream.subscription().await;
    stream.subscription().await;
    assert_eq!(stream.subscription().await, [format!("+{DESTINATION}")]);
    world.settle().await;
    stream.send(Kind::Listener, vec![], &[DESTINATION]);
    for lookup in lookups {
        assert!(matches!(lookup.await.unwrap(), Lookup::Absent));
    }
    assert!(stream.subscription().now_or_never().is_none(), "asked once");
    let again = world.on_demand.outbound(DESTINATION.parse().unwrap()).now_or_never();
    assert!(matches!(again, Some(Lookup::Absent)), "known to be absent");
}

#[tokio::test(start_paused = true)]
async fn a_destination_known_to_be_absent_is_found_as_soon_as_it_appears() {
    let mut world = World::start(None);
    let stream = world.stream().await;
    let lookup = world.lookup(DESTINATION);
    world.settle().await;
    stream.send(Kind::Listener, vec![], &[DESTINATION]);
    assert!(matches!(lookup.await.unwrap(), Lookup::Absent));
    stream.send(Kind::Listener, vec![(DESTINATION, opaque_listener(DESTINATION))], &[]);
    send_rest(&stream);
    world.settle().await;
    assert!(matches!(world.lookup(DESTINATION).await.unwrap(), Lookup::Found(_)));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_a_lookup_ends_after_two_seconds_and_a_late_answer_still_counts() {
    let mut world = World::start(None);
    let stream = world.stream().await;
    let began = Instant::now();
    assert!(matches!(world.lookup(DESTINATION).await.unwrap(), Lookup::NoAnswer));
    assert_eq!(began.elapsed(), ANSWER_LIMIT);
    stream.send(Kind::Listener, vec![(DESTINATION, opaque_listener(DESTINATION))], &[]);
    send_rest(&stream);
    world.settle().await;
    assert!(matches!(world.lookup(DESTINATION).await.unwrap(), Lookup::Found(_)));
    assert!(world.metrics.encode().contains("weft_destination_lookups_total{outcome=\"no_answer\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_answer_only_the_first_who_asks_for_a_destination_waits() {
    let mut world = World::start(None);
    let stream = world.stream().await;
    *world.down.lock().unwrap() = true;
    drop(stream);
    world.settle().await;
    let began = Instant::now();
    assert!(matches!(world.lookup(DESTINATION).await.unwrap(), Lookup::NoAnswer));
    assert_eq!(began.elapsed(), ANSWER_LIMIT);
    assert!(matches!(world.lookup(DESTINATION).await.unwrap(), Lookup::NoAnswer));
    assert_eq!(began.elapsed(), ANSWER_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn known_destinations_outlive_the_control_plane_and_changes_arrive_when_it_is_back() {
    let mut world = World::start(None);
    let stream = world.stream().await;
    let lookup = world.lookup(DESTINATION);
    world.settle().await;
    stream.send(Kind::Listener, vec![(DESTINATION, opaque_listener(DESTINATION))], &[]);
    send_rest(&stream);
    assert!(matches!(lookup.await.unwrap(), Lookup::Found(_)));
    *world.down.lock().unwrap() = true;
    drop(stream);
    advance(Duration::from_secs(30)).await;
    assert!(matches!(world.lookup(DESTINATION).await.unwrap(), Lookup::Found(_)));
    assert!(!world.handle.dump().await.unwrap().connected);
    *world.down.lock().unwrap() = false;
    let mut stream = world.stream().await;
    let request = stream.request().await;
    assert!(request.node.is_some());
    assert_eq!(request.initial_resource_versions.get(DESTINATION).map(String::as_str), Some("1"));
    stream.send(Kind::Endpoints, vec![("c", endpoints("198.18.0.8"))], &[]);
    world.settle().await;
    let members = world.store.cluster("c").unwrap().members();
    assert_eq!(members[0].endpoint.address(), "198.18.0.8:8080".parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_nobody_uses_is_forgotten_but_not_while_a_connection_holds_it() {
    let mut world = World::start(None);
    let mut stream = world.stream().await;
    let lookup = world.lookup(DESTINATION);
    for _ in 0..3 {
        stream.subscription().await;
    }
    stream.send(Kind::Listener, vec![(DESTINATION, opaque_listener(DESTINATION))], &[]);
    send_rest(&stream);
    let Lookup::Found(held) = lookup.await.unwrap() else { panic!("it is there") };
    while stream.subscription().await != ["+c"] {}
    assert_eq!(stream.subscription().await, ["+c"], "the cluster, then its endpoints");
    // A new version does not hide that the old one is in use.
    let mut changed: ListenerMessage = weft_xds::unpack(&opaque_listener(DESTINATION), "").unwrap();
    changed.stat_prefix = "changed".into();
    stream.send(Kind::Listener, vec![(DESTINATION, pack(&changed))], &[]);
    world.settle().await;
    tokio::time::sleep(IDLE_LIMIT * 2).await;
    assert!(world.store.listener(DESTINATION).is_some());
    drop(held);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(world.store.listener(DESTINATION).is_none());
    assert_eq!(stream.subscription().await, [format!("-{DESTINATION}")]);
    assert_eq!(stream.subscription().await, ["-c"]);
    assert!(world.store.cluster("c").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_restart_works_from_what_was_kept_while_the_control_plane_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(Some(folder.path()));
    let stream = world.stream().await;
    let lookup = world.lookup(DESTINATION);
    world.settle().await;
    stream.send(
        Kind::Listener,
        vec![(DESTINATION, opaque_listener(DESTINATION)), (INBOUND, opaque_listener(INBOUND))],
        &[],
    );
    send_rest(&stream);
    lookup.await.unwrap();
    // Saving happens on a thread of its own, which paused time does not wait for.
    while !folder.path().join("configuration").exists() {
        tokio::time::sleep(HOUSEKEEPING).await;
    }
    world.task.abort();

    let world = World::start(Some(folder.path()));
    *world.down.lock().unwrap() = true;
    assert!(world.readiness.is_ready());
    let known = world.on_demand.outbound(DESTINATION.parse().unwrap()).now_or_never();
    assert!(matches!(known, Some(Lookup::Found(_))));
    assert_eq!(world.store.cluster("c").unwrap().members().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_right_after_readiness_starts_from_what_was_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(Some(folder.path()));
    let stream = world.stream().await;
    stream.send(Kind::Listener, vec![(INBOUND, opaque_listener(INBOUND))], &[]);
    send_rest(&stream);
    while !world.readiness.is_ready() {
        tokio::task::yield_now().await;
    }
    world.task.abort();

    let world = World::start(Some(folder.path()));
    *world.down.lock().unwrap() = true;
    assert!(world.readiness.is_ready());
    assert!(world.store.listener(INBOUND).is_some());
}

#[tokio::test(start_paused = true)]
async fn is_ready_when_the_inbound_listener_is_in_force() {
    let mut world = World::start(None);
    let stream = world.stream().await;
    world.settle().await;
    assert_eq!(world.readiness.pending(), ["configuration"]);
    stream.send(Kind::Listener, vec![(INBOUND, opaque_listener(INBOUND))], &[]);
    send_rest(&stream);
    world.settle().await;
    assert!(world.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn too_many_destinations_drop_the_one_unused_for_longest() {
    let (on_demand, mut questions, clock) = OnDemand::new(Arc::default(), Arc::default());
    let mut demand = Demand::new(clock, 2);
    let snapshot = crate::snapshot::Snapshot::default();
    let ask = |demand: &mut Demand, questions: &mut mpsc::UnboundedReceiver<Question>, port: u16| {
        let mut lookup = Box::pin(on_demand.outbound(SocketAddr::from(([198, 18, 0, 1], port))));
        assert!(lookup.as_mut().now_or_never().is_none());
        demand.ask(questions.try_recv().unwrap(), &snapshot, Instant::now()).map(|victim| victim.port())
    };
    assert_eq!(ask(&mut demand, &mut questions, 1), None);
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&mut demand, &mut questions, 2), None);
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&mut demand, &mut questions, 1), None, "known, and used again");
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&mut demand, &mut questions, 3), Some(2));
}

#[test]
fn pauses_grow_and_differ_between_proxies() {
    for failures in 0..40 {
        let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
        for _ in 0..20 {
            let pause = pause(failures);
            assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
        }
    }
    assert!((0..20).map(|_| pause(9)).collect::<std::collections::HashSet<_>>().len() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_resource_is_counted() {
    let mut world = World::start(None);
    let stream = world.stream().await;
    let text = format!("{{name: {INBOUND}, bind_to_port: false, tcp_fast_open_queue_length: 5}}");
    let bad = pack(&yaml::from_str::<ListenerMessage>(&text).unwrap());
    stream.send(Kind::Listener, vec![(INBOUND, bad)], &[]);
    world.settle().await;
    let counted = world.metrics.encode();
    assert!(counted.contains("weft_config_rejections_total{kind=\"listener\"} 1\n"), "{counted}");
}
