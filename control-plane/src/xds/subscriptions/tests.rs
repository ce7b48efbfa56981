mod any_order_of_events;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use weft_xds::google::protobuf::Any;

use super::*;
use ResourceType::{Cluster, Endpoint, Listener, Route};

type Contents = BTreeMap<(ResourceType, Arc<str>), Arc<Rendered>>;

/// Resources by type and name, whose content is a word.
#[derive(Default)]
struct World(RefCell<Contents>);

impl World {
    fn of(resources: &[(ResourceType, &str, &str)]) -> Self {
        let world = Self::default();
        for (kind, name, content) in resources {
            world.set(*kind, name, content);
        }
        world
    }

    fn set(&self, kind: ResourceType, name: &str, content: &str) {
        self.0.borrow_mut().insert((kind, name.into()), Arc::new(rendered(content)));
    }

    fn remove(&self, kind: ResourceType, name: &str) {
        self.0.borrow_mut().remove(&(kind, name.into()));
    }
}

impl Resources for World {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Rendered>> {
        self.0.borrow().get(&(kind, name.clone())).cloned()
    }

    fn names(&self, kind: ResourceType) -> Vec<Arc<str>> {
        let resources = self.0.borrow();
        let names = resources.keys().filter(|(of, _)| *of == kind);
        names.map(|(_, name)| name.clone()).collect()
    }
}

fn rendered(content: &str) -> Rendered {
    Rendered::new(&Any { type_url: content.into(), value: Vec::new() })
}

fn version(content: &str) -> String {
    rendered(content).version.to_string()
}

/// Everything that is to be said now, without any answer of the client: `LDS +a +b -c`.
fn said<S: Session>(session: &mut S, world: &World) -> Vec<String> {
    std::iter::from_fn(|| session.next(world)).map(|response| describe(&response)).collect()
}

/// The same, with every response acknowledged before the next is made.
fn acknowledged(session: &mut Delta, world: &World) -> Vec<String> {
    std::iter::from_fn(|| {
        let response = session.next(world)?;
        ack(session, &response);
        Some(describe(&response))
    })
    .collect()
}

fn describe(response: &Response) -> String {
    let mut text = response.kind.short().to_owned();
    for (name, _) in &response.resources {
        text.push_str(&format!(" +{name}"));
    }
    for name in &response.removed {
        text.push_str(&format!(" -{name}"));
    }
    text
}

fn subscribe(session: &mut Delta, kind: ResourceType, names: &[&str]) {
    let request =
        DeltaRequest { subscribe: names.iter().map(|name| (*name).to_owned()).collect(), ..Default::default() };
    session.receive(kind, request).unwrap();
}

fn unsubscribe(session: &mut Delta, kind: ResourceType, names: &[&str]) {
    let request =
        DeltaRequest { unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(), ..Default::default() };
    session.receive(kind, request).unwrap();
}

fn reconnect(session: &mut Delta, kind: ResourceType, names: &[&str], held: &[(&str, &str)]) {
    let request = DeltaRequest {
        subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        initial_versions: held.iter().map(|(name, content)| ((*name).to_owned(), version(content))).collect(),
        ..Default::default()
    };
    session.receive(kind, request).unwrap();
}

fn ack(session: &mut Delta, response: &Response) {
    let request = DeltaRequest { nonce: Some(response.nonce), ..Default::default() };
    session.receive(response.kind, request).unwrap();
}

fn nack(session: &mut Delta, response: &Response, error: &str) {
    let request = DeltaRequest { nonce: Some(response.nonce), error: Some(error.into()), ..Default::default() };
    session.receive(response.kind, request).unwrap();
}

#[test]
fn a_subscription_is_answered_with_what_exists_and_what_does_not() {
    let world = World::of(&[(Listener, "a", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &["a", "b"]);
    assert_eq!(acknowledged(&mut session, &world), ["LDS +a -b"]);
    assert!(session.watches().is_settled());
    assert_eq!(said(&mut session, &world), [""; 0]);
}

#[test]
fn what_was_absent_is_sent_when_it_appears() {
    let world = World::default();
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &["a"]);
    assert_eq!(acknowledged(&mut session, &world), ["LDS -a"]);
    world.set(Listener, "a", "1");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["LDS +a"]);
}

#[test]
fn a_change_sends_only_what_changed() {
    let world = World::of(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Cluster, "other", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Cluster, &["a", "b"]);
    acknowledged(&mut session, &world);
    world.set(Cluster, "b", "2");
    world.set(Cluster, "other", "2");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["CDS +b"]);
}

#[test]
fn a_change_makes_before_it_breaks() {
    let world = World::of(&[(Route, "r", "to a"), (Listener, "l", "1"), (Cluster, "a", "1"), (Endpoint, "a", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Route, &["r"]);
    subscribe(&mut session, Listener, &["l"]);
    subscribe(&mut session, Cluster, &["a", "b"]);
    subscribe(&mut session, Endpoint, &["a", "b"]);
    acknowledged(&mut session, &world);
    world.set(Route, "r", "to b");
    world.set(Listener, "l", "2");
    world.set(Cluster, "b", "1");
    world.set(Endpoint, "b", "1");
    world.remove(Cluster, "a");
    world.remove(Endpoint, "a");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["CDS +b", "EDS +b", "LDS +l", "RDS +r", "EDS -a", "CDS -a"]);
}

#[test]
fn a_type_that_has_not_been_acknowledged_holds_back_the_types_after_it() {
    let world = World::of(&[(Cluster, "a", "1"), (Route, "r", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Cluster, &["a"]);
    subscribe(&mut session, Route, &["r"]);
    acknowledged(&mut session, &world);
    world.set(Cluster, "a", "2");
    session.resources_changed();
    assert_eq!(said(&mut session, &world), ["CDS +a"]);
    world.set(Cluster, "a", "3");
    world.set(Route, "r", "3");
    session.resources_changed();
    assert_eq!(said(&mut session, &world), [""; 0]);
}

#[test]
fn a_client_that_does_not_answer_is_sent_the_newest_state_once() {
    let world = World::of(&[(Cluster, "a", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Cluster, &["a"]);
    let unanswered = session.next(&world).unwrap();
    for content in ["2", "3", "4"] {
        world.set(Cluster, "a", content);
        session.resources_changed();
        assert!(session.next(&world).is_none());
    }
    ack(&mut session, &unanswered);
    let response = session.next(&world).unwrap();
    assert_eq!(*response.resources[0].1, rendered("4"));
    ack(&mut session, &response);
    assert!(session.next(&world).is_none());
    assert!(session.watches().is_settled());
}

#[test]
fn a_new_subscription_is_answered_although_a_push_is_unanswered() {
    let world = World::of(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &["a"]);
    assert_eq!(said(&mut session, &world), ["LDS +a"]);
    subscribe(&mut session, Listener, &["b"]);
    assert_eq!(said(&mut session, &world), ["LDS +b"]);
}

#[test]
fn a_reconnect_with_the_same_versions_is_sent_nothing() {
    let world = World::of(&[(Listener, "a", "1"), (Cluster, "c", "1")]);
    let mut session = Delta::default();
    reconnect(&mut session, Listener, &["a"], &[("a", "1")]);
    reconnect(&mut session, Cluster, &["c"], &[("c", "1")]);
    assert_eq!(said(&mut session, &world), [""; 0]);
    assert!(session.watches().is_settled());
}

#[test]
fn a_reconnect_is_sent_only_what_differs_and_told_what_has_gone() {
    let world = World::of(&[(Listener, "same", "1"), (Listener, "changed", "2"), (Listener, "new", "1")]);
    let mut session = Delta::default();
    reconnect(
        &mut session,
        Listener,
        &["same", "changed", "gone", "new"],
        &[("same", "1"), ("changed", "1"), ("gone", "1")],
    );
    assert_eq!(acknowledged(&mut session, &world), ["LDS +new", "LDS +changed", "LDS -gone"]);
}

#[test]
fn versions_of_another_control_plane_are_replaced() {
    let world = World::of(&[(Listener, "a", "1")]);
    let mut session = Delta::default();
    let request = DeltaRequest {
        subscribe: vec!["a".into(), "b".into()],
        initial_versions: [("a".into(), "v17".into()), ("b".into(), "v17".into())].into(),
        ..Default::default()
    };
    session.receive(Listener, request).unwrap();
    assert_eq!(acknowledged(&mut session, &world), ["LDS +a", "LDS -b"]);
}

#[test]
fn a_second_subscription_to_the_same_name_is_answered_again() {
    let world = World::of(&[(Listener, "a", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &["a"]);
    acknowledged(&mut session, &world);
    subscribe(&mut session, Listener, &["a"]);
    assert_eq!(acknowledged(&mut session, &world), ["LDS +a"]);
}

#[test]
fn what_was_unsubscribed_is_not_sent_any_more() {
    let world = World::of(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &["a", "b"]);
    acknowledged(&mut session, &world);
    unsubscribe(&mut session, Listener, &["a"]);
    world.set(Listener, "a", "2");
    world.set(Listener, "b", "2");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["LDS +b"]);
}

#[test]
fn an_empty_first_request_means_everything_of_listeners_and_clusters_only() {
    let world = World::of(&[(Listener, "a", "1"), (Route, "r", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &[]);
    subscribe(&mut session, Route, &[]);
    assert_eq!(acknowledged(&mut session, &world), ["LDS +a"]);
    world.set(Listener, "b", "1");
    world.remove(Listener, "a");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["LDS +b", "LDS -a"]);
}

#[test]
fn a_wildcard_with_nothing_behind_it_is_answered_too() {
    let mut session = Delta::default();
    subscribe(&mut session, Cluster, &["*"]);
    assert_eq!(acknowledged(&mut session, &World::default()), ["CDS"]);
}

#[test]
fn a_wildcard_that_reconnects_is_sent_only_what_differs() {
    let world = World::of(&[(Cluster, "a", "1"), (Cluster, "b", "2"), (Cluster, "d", "1")]);
    let mut session = Delta::default();
    reconnect(&mut session, Cluster, &[], &[("a", "1"), ("b", "1"), ("c", "1")]);
    assert_eq!(acknowledged(&mut session, &world), ["CDS +b +d", "CDS -c"]);
}

#[test]
fn what_the_last_wildcard_sent_too_late_is_withdrawn_for_the_next() {
    let world = World::of(&[(Endpoint, "a", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Endpoint, &["*"]);
    let under_way = session.next(&world).unwrap();
    world.remove(Endpoint, "a");
    session.resources_changed();
    unsubscribe(&mut session, Endpoint, &["*"]);
    subscribe(&mut session, Endpoint, &["*"]);
    ack(&mut session, &under_way);
    assert_eq!(acknowledged(&mut session, &world), ["EDS", "EDS -a"]);
}

#[test]
fn leaving_the_wildcard_keeps_what_was_named() {
    let world = World::of(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Cluster, &["*", "a"]);
    acknowledged(&mut session, &world);
    unsubscribe(&mut session, Cluster, &["*"]);
    world.set(Cluster, "a", "2");
    world.set(Cluster, "b", "2");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["CDS +a"]);
}

#[test]
fn a_rejection_stands_until_the_rejected_resource_changes_and_is_accepted() {
    let world = World::of(&[(Listener, "a", "bad"), (Listener, "b", "1")]);
    let mut session = Delta::default();
    subscribe(&mut session, Listener, &["a"]);
    let response = session.next(&world).unwrap();
    nack(&mut session, &response, "a.name: is odd");
    let rejection = |session: &Delta| session.watches().get(Listener).rejection().map(str::to_owned);
    assert_eq!(rejection(&session).as_deref(), Some("a.name: is odd"));
    assert_eq!(said(&mut session, &world), [""; 0], "the same is not sent again");
    subscribe(&mut session, Listener, &["b"]);
    assert_eq!(acknowledged(&mut session, &world), ["LDS +b"]);
    assert!(rejection(&session).is_some(), "another one's acknowledgement does not help");
    world.set(Listener, "a", "good");
    session.resources_changed();
    assert_eq!(acknowledged(&mut session, &world), ["LDS +a"]);
    assert_eq!(rejection(&session), None);
}

#[test]
fn two_clients_that_hold_the_same_have_the_same_version_however_they_got_there() {
    let world = World::of(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    let (mut one, mut two) = (Delta::default(), Delta::default());
    subscribe(&mut one, Cluster, &["a", "b"]);
    acknowledged(&mut one, &world);
    subscribe(&mut two, Cluster, &["b"]);
    acknowledged(&mut two, &world);
    let accepted = |session: &Delta| session.watches().get(Cluster).accepted();
    assert_ne!(accepted(&one), accepted(&two));
    subscribe(&mut two, Cluster, &["a"]);
    acknowledged(&mut two, &world);
    assert_eq!(accepted(&one), accepted(&two));
}

#[test]
fn a_large_state_comes_in_pages_that_all_arrive() {
    let big = "x".repeat(MAX_RESPONSE_BYTES / 2 + 1);
    let world = World::of(&[(Cluster, "a", &big), (Cluster, "b", &big), (Cluster, "c", &big)]);
    let mut session = Delta::default();
    subscribe(&mut session, Cluster, &["a", "b", "c"]);
    assert_eq!(acknowledged(&mut session, &world), ["CDS +a", "CDS +b", "CDS +c"]);
    let mut wildcard = Delta::default();
    subscribe(&mut wildcard, Cluster, &[]);
    assert_eq!(acknowledged(&mut wildcard, &world), ["CDS +a", "CDS +b", "CDS +c"]);
}

#[test]
fn too_many_names_are_refused() {
    let mut session = Delta::default();
    let request = DeltaRequest { subscribe: (0..=MAX_NAMES).map(|n| n.to_string()).collect(), ..Default::default() };
    assert!(session.receive(Endpoint, request).is_err());
}

mod state_of_the_world {
    use super::*;

    fn ask(session: &mut StateOfTheWorld, kind: ResourceType, names: &[&str], nonce: Option<u64>) {
        let request = StateOfTheWorldRequest {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            nonce,
            ..Default::default()
        };
        session.receive(kind, request).unwrap();
    }

    /// The next response, acknowledged with the same names.
    fn exchange(session: &mut StateOfTheWorld, world: &World, names: &[&str]) -> Option<(String, Response)> {
        let response = session.next(world)?;
        ask(session, response.kind, names, Some(response.nonce));
        Some((describe(&response), response))
    }

    #[test]
    fn listeners_and_clusters_always_come_all_together() {
        let world = World::of(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
        let mut session = StateOfTheWorld::default();
        ask(&mut session, Cluster, &[], None);
        assert_eq!(exchange(&mut session, &world, &[]).unwrap().0, "CDS +a +b");
        assert!(session.next(&world).is_none());
        world.set(Cluster, "b", "2");
        session.resources_changed();
        assert_eq!(exchange(&mut session, &world, &[]).unwrap().0, "CDS +a +b");
        world.remove(Cluster, "a");
        session.resources_changed();
        assert_eq!(exchange(&mut session, &world, &[]).unwrap().0, "CDS +b");
        assert!(session.watches().is_settled());
    }

    #[test]
    fn other_types_come_only_where_they_changed() {
        let world = World::of(&[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
        let mut session = StateOfTheWorld::default();
        ask(&mut session, Endpoint, &["a", "b", "absent"], None);
        let names = ["a", "b", "absent"];
        assert_eq!(exchange(&mut session, &world, &names).unwrap().0, "EDS +a +b");
        world.set(Endpoint, "b", "2");
        session.resources_changed();
        assert_eq!(exchange(&mut session, &world, &names).unwrap().0, "EDS +b");
        world.set(Endpoint, "absent", "1");
        session.resources_changed();
        assert_eq!(exchange(&mut session, &world, &names).unwrap().0, "EDS +absent");
    }

    #[test]
    fn a_new_name_is_answered_and_a_dropped_one_forgotten() {
        let world = World::of(&[(Route, "a", "1"), (Route, "b", "1")]);
        let mut session = StateOfTheWorld::default();
        ask(&mut session, Route, &["a"], None);
        let (_, response) = exchange(&mut session, &world, &["a"]).unwrap();
        ask(&mut session, Route, &["b"], Some(response.nonce));
        assert_eq!(exchange(&mut session, &world, &["b"]).unwrap().0, "RDS +b");
        world.set(Route, "a", "2");
        session.resources_changed();
        assert!(session.next(&world).is_none());
    }

    #[test]
    fn an_out_of_date_request_changes_nothing() {
        let world = World::of(&[(Route, "a", "1"), (Route, "b", "1")]);
        let mut session = StateOfTheWorld::default();
        ask(&mut session, Route, &["a"], None);
        let (_, first) = exchange(&mut session, &world, &["a"]).unwrap();
        world.set(Route, "a", "2");
        session.resources_changed();
        let second = session.next(&world).unwrap();
        ask(&mut session, Route, &["b"], Some(first.nonce));
        assert!(session.next(&world).is_none());
        ask(&mut session, Route, &["a", "b"], Some(second.nonce));
        assert_eq!(said(&mut session, &world), ["RDS +b"]);
    }

    #[test]
    fn a_rejected_response_is_not_repeated_until_something_changes() {
        let world = World::of(&[(Cluster, "a", "bad")]);
        let mut session = StateOfTheWorld::default();
        ask(&mut session, Cluster, &[], None);
        let response = session.next(&world).unwrap();
        let request =
            StateOfTheWorldRequest { nonce: Some(response.nonce), error: Some("is odd".into()), ..Default::default() };
        session.receive(Cluster, request).unwrap();
        assert_eq!(session.watches().get(Cluster).rejection(), Some("is odd"));
        assert!(session.next(&world).is_none());
        world.set(Cluster, "a", "good");
        session.resources_changed();
        exchange(&mut session, &world, &[]).unwrap();
        assert_eq!(session.watches().get(Cluster).rejection(), None);
    }

    #[test]
    fn a_reconnect_with_the_current_version_is_sent_nothing() {
        let world = World::of(&[(Cluster, "a", "1"), (Endpoint, "a", "1")]);
        let mut before = StateOfTheWorld::default();
        ask(&mut before, Cluster, &[], None);
        let (_, clusters) = exchange(&mut before, &world, &[]).unwrap();
        ask(&mut before, Endpoint, &["a"], None);
        let (_, endpoints) = exchange(&mut before, &world, &["a"]).unwrap();

        let mut after = StateOfTheWorld::default();
        for (response, names) in [(&clusters, vec![]), (&endpoints, vec!["a".to_owned()])] {
            let request = StateOfTheWorldRequest { names, version: response.version.to_string(), ..Default::default() };
            after.receive(response.kind, request).unwrap();
        }
        assert!(after.next(&world).is_none());
        world.set(Endpoint, "a", "2");
        after.resources_changed();
        assert_eq!(said(&mut after, &world), ["EDS +a"]);
    }
}
