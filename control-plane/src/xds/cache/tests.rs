use super::*;
use crate::identity::authority::Trust;
use crate::model::{MeshConfig, Model};
use crate::sources::build;

const MESH: &str = "
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: a-0, namespace: shop, labels: {app: a}}
spec: {addresses: [198.18.0.10], serviceAccount: a, workload: a}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 198.19.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec: {clusterIP: 198.19.0.2, selector: {app: b}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// A cache that is given one configuration after the other.
struct World {
    cache: Cache,
    view: View,
}

impl World {
    fn new() -> Self {
        let cache = Cache::new(configuration(MESH, None));
        Self { cache, view: View::weft("shop") }
    }

    fn edit(&self, from: &str, to: &str) {
        let previous = self.cache.configuration().model;
        self.cache.update(configuration(&MESH.replace(from, to), Some(&previous)), Instant::now());
    }

    fn endpoints(&self, name: &Arc<str>) -> Version {
        self.cache.get(ResourceType::Endpoint, name, &self.view).unwrap().version
    }

    /// The names of load assignments in the last change.
    fn told(&self) -> Vec<String> {
        let (generation, _) = self.cache.missed(0);
        let (_, Missed::Changes(changes)) = self.cache.missed(generation - 1) else { panic!("the last is remembered") };
        changes[0].names(ResourceType::Endpoint).iter().map(|name| name.to_string()).collect()
    }
}

fn configuration(yaml: &str, previous: Option<&Model>) -> Configuration {
    let objects = weft_api::parse("f.yaml", yaml).objects;
    let built = build(&objects, &Arc::new(MeshConfig::default()), previous).unwrap();
    Configuration { model: Arc::new(built.model), trust: Arc::new(Trust { bundle: Vec::new(), signer: 0 }) }
}

fn name(service: &str) -> Arc<str> {
    weft_xds::names::service_cluster("shop", service, 80).into()
}

#[tokio::test(start_paused = true)]
async fn a_change_names_what_is_another_now_and_nothing_else() {
    let world = World::new();
    let (a, b) = (name("a"), name("b"));
    let before = (world.endpoints(&a), world.endpoints(&b));
    world.edit("198.18.0.10", "198.18.0.11");
    assert_eq!(world.told(), [&*a]);
    assert_ne!(world.endpoints(&a), before.0);
    assert_eq!(world.endpoints(&b), before.1);

    world.edit("198.18.0.10", "198.18.0.11");
    assert_eq!(world.told(), [""; 0], "the same again is no change");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_holds_is_told_of_however_long_nobody_looked_at_it() {
    let world = World::new();
    let held = name("a");
    world.endpoints(&held);
    for _ in 0..10 {
        world.edit("", "");
        assert_eq!(world.told(), [""; 0]);
    }
    world.edit("198.18.0.10", "198.18.0.11");
    assert_eq!(world.told(), [&*held]);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_with_who_asked_first_is_told_to_the_others() {
    let world = World::new();
    let (first, second) = (name("a"), name("a"));
    world.endpoints(&first);
    world.endpoints(&second);
    drop(first);
    let told_after = (0..).find(|_| {
        world.edit("", "");
        world.told() == [&*second]
    });
    assert_eq!(told_after, Some(FORGET_AFTER));

    // It looked again, as it was told to: from then on it is told of changes.
    world.endpoints(&second);
    world.edit("", "");
    world.edit("", "");
    world.edit("", "");
    world.edit("198.18.0.10", "198.18.0.11");
    assert_eq!(world.told(), [&*second]);
}

#[tokio::test(start_paused = true)]
async fn who_misses_more_than_is_remembered_learns_that_and_since_when() {
    let world = World::new();
    for _ in 0..HISTORY {
        world.edit("", "");
    }
    let seen = |generation| match world.cache.missed(generation) {
        (now, Missed::Changes(changes)) => (now, Some(changes.len())),
        (now, Missed::TooMany(_)) => (now, None),
    };
    let now = HISTORY as u64;
    assert_eq!(seen(now), (now, Some(0)));
    assert_eq!(seen(now - 1), (now, Some(1)));
    assert_eq!(seen(0), (now, Some(HISTORY)));
    world.edit("", "");
    assert_eq!(seen(0), (now + 1, None));
    assert_eq!(seen(1), (now + 1, Some(HISTORY)));
}

#[tokio::test(start_paused = true)]
async fn a_change_says_whether_pods_changed() {
    let world = World::new();
    let pods = |edit: (&str, &str)| {
        world.edit(edit.0, edit.1);
        let (generation, _) = world.cache.missed(0);
        matches!(world.cache.missed(generation - 1), (_, Missed::Changes(changes)) if changes[0].pods)
    };
    assert!(!pods(("port: 80", "port: 81")));
    assert!(pods(("serviceAccount: a", "serviceAccount: b")));
    assert!(pods(("name: a-0", "name: a-1")));
}
