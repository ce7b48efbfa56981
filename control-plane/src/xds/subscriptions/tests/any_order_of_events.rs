//! Whatever happens in whatever order, the client ends up knowing what there is.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Event {
    Subscribe(usize),
    Unsubscribe(usize),
    Wildcard(bool),
    Set(usize, u8),
    Remove(usize),
    /// The server sends what it can.
    Send,
    /// The client takes in the oldest response and acknowledges it.
    Receive,
    /// The stream breaks; responses under way are lost.
    Reconnect,
}

fn event() -> impl Strategy<Value = Event> {
    let name = 0..NAMES.len();
    prop_oneof![
        name.clone().prop_map(Event::Subscribe),
        name.clone().prop_map(Event::Unsubscribe),
        any::<bool>().prop_map(Event::Wildcard),
        (name.clone(), 0..3u8).prop_map(|(name, content)| Event::Set(name, content)),
        name.prop_map(Event::Remove),
        Just(Event::Send),
        Just(Event::Receive),
        Just(Event::Reconnect),
    ]
}

/// A client as the protocol describes it.
#[derive(Default)]
struct Client {
    session: Delta,
    subscribed: BTreeSet<&'static str>,
    wildcard: bool,
    /// What it knows of each name: a version, or that there is none.
    known: BTreeMap<Arc<str>, Option<Version>>,
    under_way: VecDeque<Response>,
}

impl Client {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.subscribed.contains(name)
    }

    fn send(&mut self, subscribe: &[&str], unsubscribe: &[&str], nonce: Option<u64>) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request =
            DeltaRequest { subscribe: owned(subscribe), unsubscribe: owned(unsubscribe), nonce, ..Default::default() };
        self.session.receive(Endpoint, request).unwrap();
    }

    fn receive(&mut self) -> bool {
        let Some(response) = self.under_way.pop_front() else { return false };
        for (name, rendered) in &response.resources {
            if self.wants(name) {
                self.known.insert(name.clone(), Some(rendered.version));
            }
        }
        for name in &response.removed {
            if self.wants(name) {
                self.known.insert(name.clone(), None);
            }
        }
        self.send(&[], &[], Some(response.nonce));
        true
    }

    fn reconnect(&mut self) {
        self.under_way.clear();
        self.session = Delta::default();
        let held = self.known.iter().filter_map(|(name, version)| Some((name.to_string(), (*version)?.to_string())));
        let mut subscribe: Vec<_> = self.subscribed.iter().map(|name| (*name).to_owned()).collect();
        subscribe.extend(self.wildcard.then(|| "*".to_owned()));
        let request = DeltaRequest { subscribe, initial_versions: held.collect(), ..Default::default() };
        // What it knew to be absent it asks for again.
        self.known.retain(|_, version| version.is_some());
        self.session.receive(Endpoint, request).unwrap();
    }

    fn apply(&mut self, event: &Event, world: &World) {
        match event {
            Event::Subscribe(name) => {
                self.subscribed.insert(NAMES[*name]);
                self.send(&[NAMES[*name]], &[], None);
            }
            Event::Unsubscribe(name) => {
                self.subscribed.remove(NAMES[*name]);
                if !self.wildcard {
                    self.known.remove(NAMES[*name]);
                }
                self.send(&[], &[NAMES[*name]], None);
            }
            Event::Wildcard(true) => {
                self.wildcard = true;
                self.send(&["*"], &[], None);
            }
            Event::Wildcard(false) => {
                self.wildcard = false;
                let subscribed = &self.subscribed;
                self.known.retain(|name, _| subscribed.contains(&**name));
                self.send(&[], &["*"], None);
            }
            Event::Set(name, content) => {
                world.set(Endpoint, NAMES[*name], &content.to_string());
                self.session.names_changed(Endpoint, &[NAMES[*name].into()]);
            }
            Event::Remove(name) => {
                world.remove(Endpoint, NAMES[*name]);
                self.session.names_changed(Endpoint, &[NAMES[*name].into()]);
            }
            Event::Send => self.under_way.extend(self.session.next(world)),
            Event::Receive => {
                self.receive();
            }
            Event::Reconnect => self.reconnect(),
        }
    }
}

proptest! {
    #[test]
    fn ends_with_the_client_knowing_exactly_what_there_is(events in prop::collection::vec(event(), 0..60)) {
        let world = World::default();
        let mut client = Client::default();
        for event in &events {
            client.apply(event, &world);
        }
        loop {
            client.under_way.extend(client.session.next(&world));
            if !client.receive() {
                break;
            }
        }
        for name in NAMES {
            let name: Arc<str> = name.into();
            let there = world.get(Endpoint, &name).map(|rendered| rendered.version);
            if client.subscribed.contains(&*name) {
                prop_assert_eq!(client.known.get(&name), Some(&there), "subscribed to {}", name);
            } else if client.wildcard {
                prop_assert_eq!(client.known.get(&name).copied().flatten(), there, "wildcard covers {}", name);
            }
        }
        prop_assert!(client.session.watches().is_settled());
    }
}
