//! A fake API server's events in, models out.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::model::{Health, ObjectName};
use crate::sources::kubernetes::kinds::{read, read_node, read_pod};

/// A world, and the model in force.
struct Cluster {
    world: World,
    model: Model,
    problems: Vec<String>,
}

impl Cluster {
    /// Every kind has been listed, and nothing was there.
    fn empty() -> Self {
        let mut cluster = Self { world: World::default(), model: Model::empty(Arc::default()), problems: Vec::new() };
        for kind in Kind::ALL {
            cluster.world.apply(kind, Event::Listing, SystemTime::UNIX_EPOCH);
            cluster.world.apply(kind, Event::ListDone, SystemTime::UNIX_EPOCH);
        }
        cluster
    }

    fn tell(&mut self, kind: Kind, event: Event) {
        self.world.apply(kind, event, SystemTime::UNIX_EPOCH);
        let (model, problems) = self.world.snapshot().build(&Arc::default(), &self.model);
        self.model = model;
        self.problems = problems.iter().filter(|p| p.is_error()).map(ToString::to_string).collect();
    }

    fn apply(&mut self, kind: Kind, object: Value) {
        let (key, read) = told(kind, object);
        self.tell(kind, Event::Changed(key, read));
    }

    /// Address, whether a sidecar is there, and health of each endpoint of port 80.
    fn endpoints(&self, service: &str) -> Vec<(String, bool, Health)> {
        let service = self.model.service("shop", service).unwrap();
        let endpoints = service.port(80).unwrap().endpoints.iter();
        endpoints.map(|e| (e.address.to_string(), e.peer.is_some(), e.health)).collect()
    }
}

fn told(kind: Kind, object: Value) -> (Key, Option<Read>) {
    let namespace = if kind == Kind::Node { "" } else { "shop" };
    let key = (namespace.to_owned(), object["metadata"]["name"].as_str().unwrap().to_owned());
    let read = match kind {
        Kind::Pod => read_pod(&serde_json::from_value(object).unwrap()),
        Kind::Node => Some(read_node(&serde_json::from_value(object["metadata"].clone()).unwrap())),
        _ => Some(read(kind, serde_json::from_value(object).unwrap())),
    };
    (key, read)
}

fn service(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "clusterIP": "198.19.0.80", "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

fn pod(name: &str, uid: &str, ip: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "uid": uid, "labels": { "app": "web" },
            "annotations": { "weft.mesh/injected": "0.1.0" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "serviceAccountName": "web", "containers": [] },
        "status": { "phase": "Running", "podIPs": [{ "ip": ip }], "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn slice(pods: &[(&str, &str, &str)]) -> Value {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|(name, uid, ip)| {
            json!({ "addresses": [ip], "conditions": { "ready": true, "serving": true, "terminating": false },
                "targetRef": { "kind": "Pod", "namespace": "shop", "name": name, "uid": uid } })
        })
        .collect();
    json!({
        "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "", "port": 8080 }],
    })
}

const A: (&str, &str, &str) = ("web-a", "1", "198.18.0.7");

fn web_with_one_pod() -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.apply(Kind::Service, service("web"));
    cluster.apply(Kind::Pod, pod(A.0, A.1, A.2));
    cluster.apply(Kind::EndpointSlice, slice(&[A]));
    assert_eq!(cluster.endpoints("web"), [("198.18.0.7:8080".to_owned(), true, Health::Healthy)]);
    cluster
}

#[test]
fn nothing_is_told_before_every_kind_is_listed_and_an_absent_kind_has_been() {
    let mut world = World::default();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::HttpRoute) {
        assert!(!world.is_synced());
        world.apply(kind, Event::Listing, SystemTime::UNIX_EPOCH);
        assert!(world.apply(kind, Event::ListDone, SystemTime::UNIX_EPOCH));
    }
    assert!(!world.is_synced());
    assert!(world.apply(Kind::HttpRoute, Event::Absent, SystemTime::UNIX_EPOCH));
    assert!(world.is_synced());
    assert!(!world.apply(Kind::HttpRoute, Event::Absent, SystemTime::UNIX_EPOCH), "no news");
}

#[test]
fn an_expired_watch_and_an_outage_leave_everything_until_the_new_list_is_complete() {
    let mut cluster = web_with_one_pod();
    let gone = json!({ "metadata": { "name": "gone", "namespace": "shop" }, "spec": { "clusterIP": "None" } });
    cluster.apply(Kind::Service, gone);
    cluster.tell(Kind::Service, Event::Failed("410".to_owned()));
    cluster.tell(Kind::Service, Event::Listing);
    let (key, read) = told(Kind::Service, service("web"));
    cluster.tell(Kind::Service, Event::Listed(key.clone(), read.clone()));
    cluster.tell(Kind::Service, Event::Failed("connection refused".to_owned()));
    assert_eq!(cluster.endpoints("web").len(), 1);
    assert!(cluster.model.service("shop", "gone").is_some());

    cluster.tell(Kind::Service, Event::Listing);
    cluster.tell(Kind::Service, Event::Listed(key, read));
    cluster.tell(Kind::Service, Event::ListDone);
    assert_eq!(cluster.endpoints("web").len(), 1);
    assert!(cluster.model.service("shop", "gone").is_none());
    let watch = cluster.world.watches().into_iter().find(|watch| watch.kind == "Service").unwrap();
    assert_eq!((watch.lists, watch.failures, watch.error), (2, 2, None));
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_concerns_no_other() {
    let mut cluster = web_with_one_pod();
    let policy =
        |mode: &str| json!({ "metadata": { "name": "strict", "namespace": "shop" }, "spec": { "mode": mode } });
    let mode = |cluster: &Cluster| cluster.model.workload("shop", "web-a").unwrap().tls;
    let before = mode(&cluster);
    cluster.apply(Kind::MeshTls, policy("Strict"));
    let strict = mode(&cluster);
    assert_ne!(before, strict);
    cluster.apply(Kind::MeshTls, policy("Sometimes"));
    assert_eq!(mode(&cluster), strict);
    assert_eq!(cluster.problems.len(), 1);
    assert!(cluster.problems[0].starts_with("kubernetes: MeshTLS shop/strict: spec.mode: "), "{:?}", cluster.problems);
    let new = json!({ "metadata": { "name": "new", "namespace": "shop" },
        "spec": { "clusterIP": "198.19.0.81", "ports": [{ "port": 80 }] } });
    cluster.apply(Kind::Service, new);
    assert!(cluster.model.service("shop", "new").is_some());
}

#[test]
fn a_change_of_status_alone_makes_no_model_and_is_told_to_who_writes_statuses() {
    let mut cluster = web_with_one_pod();
    let route = |version: &str, status: Value| {
        json!({
            "metadata": { "name": "web", "namespace": "shop", "generation": 1, "resourceVersion": version },
            "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }] },
            "status": status,
        })
    };
    let changed = |cluster: &mut Cluster, object: Value| {
        let (key, read) = told(Kind::HttpRoute, object);
        cluster.world.apply(Kind::HttpRoute, Event::Changed(key, read), SystemTime::UNIX_EPOCH)
    };
    assert!(changed(&mut cluster, route("1", Value::Null)));
    assert_eq!(cluster.world.reported().unwrap()[0].references.len(), 1);
    assert!(cluster.world.reported().is_none(), "nothing new");
    assert!(!changed(&mut cluster, route("2", json!({ "parents": [] }))));
    let reported = cluster.world.reported().unwrap();
    assert_eq!((&*reported[0].version, &reported[0].status), ("2", &json!({ "parents": [] })));

    // Most of what is told of pods concerns nobody here.
    let mut noise = pod(A.0, A.1, A.2);
    noise["metadata"]["resourceVersion"] = "9".into();
    noise["status"]["conditions"][0]["lastProbeTime"] = "2026-01-01T00:00:05Z".into();
    let (key, read) = told(Kind::Pod, noise);
    assert!(!cluster.world.apply(Kind::Pod, Event::Changed(key, read), SystemTime::UNIX_EPOCH));
}

#[test]
fn a_kind_that_stays_absent_tells_who_writes_statuses_nothing() {
    let mut cluster = Cluster::empty();
    let route = json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": {} });
    cluster.apply(Kind::HttpRoute, route);
    assert_eq!(cluster.world.reported().unwrap().len(), 1);
    // Its definition is removed, and it is asked for again and again.
    cluster.tell(Kind::HttpRoute, Event::Absent);
    assert_eq!(cluster.world.reported().unwrap(), []);
    for event in [Event::Listing, Event::Absent, Event::Absent] {
        cluster.tell(Kind::HttpRoute, event);
        assert!(cluster.world.reported().is_none());
    }
    cluster.tell(Kind::HttpRoute, Event::Listing);
    cluster.tell(Kind::HttpRoute, Event::ListDone);
    assert_eq!(cluster.world.reported().unwrap(), []);
}

#[test]
fn what_cannot_stand_beside_another_is_left_out() {
    let mut cluster = web_with_one_pod();
    let mut second = service("web");
    second["metadata"]["name"] = "zzz".into();
    cluster.apply(Kind::Service, second);
    assert!(cluster.model.service("shop", "zzz").is_none(), "it has the address and port of web");
    assert_eq!(cluster.endpoints("web").len(), 1);
    assert!(cluster.problems[0].contains("Service shop/zzz: spec.clusterIP"), "{:?}", cluster.problems);
}

#[test]
fn a_deleted_pod_drains_and_an_unready_one_leaves_before_the_slice_says_so() {
    let mut cluster = web_with_one_pod();
    let mut deleted = pod(A.0, A.1, A.2);
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
    cluster.apply(Kind::Pod, deleted);
    assert_eq!(cluster.endpoints("web"), [("198.18.0.7:8080".to_owned(), true, Health::Draining)]);

    let mut unready = pod(A.0, A.1, A.2);
    unready["status"]["conditions"][0]["status"] = "False".into();
    cluster.apply(Kind::Pod, unready);
    assert_eq!(cluster.endpoints("web"), []);
}

#[test]
fn an_endpoint_waits_for_the_very_pod_that_it_names() {
    let mut cluster = web_with_one_pod();
    cluster.apply(Kind::EndpointSlice, slice(&[A, ("web-b", "2", "198.18.0.8")]));
    assert_eq!(cluster.endpoints("web").len(), 1, "nobody knows whether web-b has a sidecar");
    cluster.apply(Kind::Pod, pod("web-b", "2", "198.18.0.8"));
    assert_eq!(cluster.endpoints("web").len(), 2);
    // A StatefulSet's next pod has the same name.
    cluster.apply(Kind::Pod, pod("web-b", "3", "198.18.0.8"));
    assert_eq!(cluster.endpoints("web").len(), 1);
}

#[test]
fn an_address_belongs_to_the_living_pod() {
    let mut cluster = web_with_one_pod();
    let mut old = pod("web-0", "9", A.2);
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
    cluster.apply(Kind::Pod, old);
    assert_eq!(cluster.problems, Vec::<String>::new());
    assert_eq!(cluster.model.pod_at(A.2.parse().unwrap()).unwrap().name, ObjectName::new("shop", A.0));
    assert_eq!(cluster.endpoints("web").len(), 1);
}

#[test]
fn a_service_without_selector_has_the_endpoints_that_somebody_wrote() {
    let mut cluster = Cluster::empty();
    let mut plain = service("web");
    plain["spec"].as_object_mut().unwrap().remove("selector");
    cluster.apply(Kind::Service, plain);
    let mut written = slice(&[A]);
    written["endpoints"][0].as_object_mut().unwrap().remove("targetRef");
    cluster.apply(Kind::EndpointSlice, written);
    assert_eq!(cluster.endpoints("web"), [("198.18.0.7:8080".to_owned(), false, Health::Healthy)]);
}

/// `cargo test -p weft-control-plane --lib how_long -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_long_a_change_takes_among_a_thousand_services() {
    for services in [250_u32, 500, 1000] {
        let mut cluster = Cluster::empty();
        for s in 0..services {
            let name = format!("s{s}");
            let mut object = service(&name);
            object["spec"]["clusterIP"] = format!("198.19.{}.{}", 1 + s / 250, 1 + s % 250).into();
            let pods: Vec<_> = (0..10_u32)
                .map(|p| {
                    let n = s * 10 + p;
                    (format!("{name}-{p}"), n.to_string(), format!("198.18.{}.{}", n / 250, 1 + n % 250))
                })
                .collect();
            let mut endpoints = slice(&pods.iter().map(|(a, b, c)| (&**a, &**b, &**c)).collect::<Vec<_>>());
            endpoints["metadata"]["name"] = format!("{name}-1").into();
            endpoints["metadata"]["labels"]["kubernetes.io/service-name"] = name.as_str().into();
            let mut objects = vec![(Kind::Service, object), (Kind::EndpointSlice, endpoints)];
            for (pod_name, uid, ip) in &pods {
                let mut object = pod(pod_name, uid, ip);
                object["metadata"]["labels"]["app"] = name.as_str().into();
                objects.push((Kind::Pod, object));
            }
            for (kind, object) in objects {
                let (key, read) = told(kind, object);
                cluster.world.apply(kind, Event::Changed(key, read), SystemTime::UNIX_EPOCH);
            }
        }
        let mut took = Vec::new();
        for round in 0..10 {
            let mut changed = pod("s7-3", "73", "198.18.0.74");
            changed["status"]["conditions"][0]["status"] = if round % 2 == 0 { "False" } else { "True" }.into();
            let start = std::time::Instant::now();
            cluster.apply(Kind::Pod, changed);
            took.push(start.elapsed());
        }
        took.sort();
        println!("{services} services, {} endpoints: {:?} (median)", services * 10, took[5]);
        assert_eq!(cluster.model.services().len(), services as usize, "{:?}", cluster.problems.first());
    }
}

#[test]
fn a_pod_is_in_the_zone_of_its_node_whichever_is_known_first() {
    let mut cluster = Cluster::empty();
    let node = |zone: &str| json!({ "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": zone } } });
    let zone = |cluster: &Cluster, pod: &str| cluster.model.pod("shop", pod).unwrap().zone.clone();
    let mut early = pod("early", "1", "198.18.0.7");
    early["spec"]["nodeName"] = "n1".into();
    cluster.apply(Kind::Pod, early);
    assert_eq!(zone(&cluster, "early"), None);
    cluster.apply(Kind::Node, node("a"));
    let mut late = pod("late", "2", "198.18.0.8");
    late["spec"]["nodeName"] = "n1".into();
    cluster.apply(Kind::Pod, late);
    let mut own = pod("own", "3", "198.18.0.9");
    own["spec"]["nodeName"] = "n1".into();
    own["metadata"]["labels"]["topology.kubernetes.io/zone"] = "its own".into();
    cluster.apply(Kind::Pod, own);
    for (pod, expected) in [("early", "a"), ("late", "a"), ("own", "its own")] {
        assert_eq!(zone(&cluster, pod).as_deref(), Some(expected), "{pod}");
    }
    let (key, read) = told(Kind::Node, node("a"));
    let same = cluster.world.apply(Kind::Node, Event::Changed(key, read), SystemTime::UNIX_EPOCH);
    assert!(!same, "a node that beats its heart makes no model");
    cluster.apply(Kind::Node, node("b"));
    assert_eq!(zone(&cluster, "early").as_deref(), Some("b"));
    cluster.tell(Kind::Node, Event::Gone((String::new(), "n1".to_owned())));
    assert_eq!(zone(&cluster, "early"), None);
    assert_eq!(zone(&cluster, "own").as_deref(), Some("its own"));
}
