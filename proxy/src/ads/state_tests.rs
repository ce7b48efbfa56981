//! Scripted conversations. A message's bytes are its text: `v1 needs cluster:a`; the word `bad` makes the compiler refuse it.

use weft_xds::envoy::service::discovery::v3::Resource;

use super::*;

#[derive(Debug)]
struct Words;

impl Compile for Words {
    type Out = String;

    fn compile(&self, _: Kind, _: &str, message: &Any) -> Result<Compiled<String>, FieldError> {
        let text = String::from_utf8(message.value.clone()).unwrap();
        if text.contains("bad") {
            return Err(FieldError::new("filter_chains[0].filters", "is bad"));
        }
        let needs = text.split_whitespace().filter_map(|word| {
            let (kind, name) = word.split_once(':')?;
            let kind = Kind::ALL.into_iter().find(|of| of.as_str() == kind).unwrap();
            Some((kind, name.into()))
        });
        Ok(Compiled { value: text.split_whitespace().next().unwrap_or_default().to_owned(), needs: needs.collect() })
    }
}

/// A state and a clock that stands still unless told.
struct Script {
    state: State<Words>,
    now: Instant,
    nonce: u32,
}

impl Script {
    fn new() -> Self {
        let node = Node { id: "shop/web-0".into(), ..Default::default() };
        Self { state: State::new(node, Words), now: Instant::now(), nonce: 0 }
    }

    fn connected() -> Self {
        let mut script = Self::new();
        script.state.stream_opened(script.now);
        script
    }

    /// The server's response; gives the ACK or NACK and what follows it.
    fn receive(&mut self, kind: Kind, resources: &[(&str, &str)], removed: &[&str]) -> Vec<DeltaDiscoveryRequest> {
        self.nonce += 1;
        let resources = resources.iter().map(|(name, text)| Resource {
            name: (*name).to_owned(),
            version: text.split_whitespace().next().unwrap().to_owned(),
            resource: Some(Any { type_url: kind.type_url().into(), value: text.as_bytes().to_vec() }),
            ..Default::default()
        });
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            resources: resources.collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            nonce: self.nonce.to_string(),
            ..Default::default()
        };
        self.state.received(response, self.now);
        let requests = self.state.take_requests();
        assert_eq!(requests[0].response_nonce, self.nonce.to_string(), "a response is answered first");
        requests
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.on_time(self.now);
    }

    /// The changes since the last look, as `+kind:name=value` and `-kind:name`.
    fn changes(&mut self) -> Vec<String> {
        let text = |change| match change {
            Change::Set((kind, name), value) => format!("+{kind}:{name}={value}"),
            Change::Removed((kind, name)) => format!("-{kind}:{name}"),
        };
        self.state.take_changes().into_iter().map(text).collect()
    }

    /// A working path: listener `l` → route `r` → cluster `c1` → its endpoints.
    fn with_one_path() -> Self {
        let mut script = Self::connected();
        script.state.want(Kind::Listener, "l");
        script.receive(Kind::Listener, &[("l", "v1 route:r")], &[]);
        script.receive(Kind::Route, &[("r", "v1 cluster:c1")], &[]);
        script.receive(Kind::Cluster, &[("c1", "v1 endpoints:c1")], &[]);
        script.receive(Kind::Endpoints, &[("c1", "v1")], &[]);
        script.changes();
        script
    }
}

fn subscribed(requests: &[DeltaDiscoveryRequest]) -> Vec<String> {
    let named = |request: &DeltaDiscoveryRequest| {
        let kind = Kind::of_type_url(&request.type_url).unwrap();
        let plus = request.resource_names_subscribe.iter().map(move |name| format!("+{kind}:{name}"));
        let minus = request.resource_names_unsubscribe.iter().map(move |name| format!("-{kind}:{name}"));
        plus.chain(minus).collect::<Vec<_>>()
    };
    requests.iter().flat_map(named).collect()
}

#[test]
fn the_first_request_names_the_listener_and_carries_the_node() {
    let mut script = Script::new();
    script.state.want(Kind::Listener, "inbound/shop/web");
    assert_eq!(script.state.take_requests(), [], "nothing is sent without a stream");
    script.state.stream_opened(script.now);
    script.state.want(Kind::Secret, "bundle");
    let requests = script.state.take_requests();
    assert_eq!(subscribed(&requests), ["+listener:inbound/shop/web", "+secret:bundle"]);
    assert_eq!(requests[0].node.as_ref().unwrap().id, "shop/web-0");
    assert!(requests[1].node.is_none());
    assert_eq!(script.state.take_requests(), [], "said once");
}

#[test]
fn nothing_is_asked_for_where_nothing_is_wanted_because_that_would_mean_everything() {
    assert_eq!(Script::connected().state.take_requests(), []);
}

#[test]
fn a_listener_is_visible_only_when_all_it_needs_has_arrived() {
    let mut script = Script::connected();
    script.state.want(Kind::Listener, "l");
    script.state.take_requests();
    let requests = script.receive(Kind::Listener, &[("l", "v1 route:r")], &[]);
    assert_eq!(subscribed(&requests), ["+route:r"]);
    let requests = script.receive(Kind::Route, &[("r", "v1 cluster:c")], &[]);
    assert_eq!(subscribed(&requests), ["+cluster:c"]);
    let requests = script.receive(Kind::Cluster, &[("c", "v1 endpoints:c")], &[]);
    assert_eq!(subscribed(&requests), ["+endpoints:c"]);
    assert_eq!(script.changes(), [""; 0]);
    assert_eq!(script.state.answer(Kind::Listener, "l"), Answer::Unknown);
    script.receive(Kind::Endpoints, &[("c", "v1")], &[]);
    assert_eq!(script.changes(), ["+endpoints:c=v1", "+cluster:c=v1", "+route:r=v1", "+listener:l=v1"]);
    assert_eq!(script.state.answer(Kind::Listener, "l"), Answer::Active);
}

#[test]
fn what_a_listener_needs_counts_as_arrived_when_it_is_known_to_be_absent() {
    let mut script = Script::connected();
    script.state.want(Kind::Listener, "l");
    script.receive(Kind::Listener, &[("l", "v1 cluster:gone")], &[]);
    script.receive(Kind::Cluster, &[], &["gone"]);
    assert_eq!(script.changes(), ["+listener:l=v1"]);
}

#[test]
fn the_wait_for_what_is_needed_is_bounded() {
    let mut script = Script::connected();
    script.state.want(Kind::Listener, "l");
    script.receive(Kind::Listener, &[("l", "v1 cluster:c")], &[]);
    assert_eq!(script.state.next_deadline(), Some(script.now + WARM_LIMIT));
    script.pass(WARM_LIMIT - Duration::from_millis(1));
    assert_eq!(script.changes(), [""; 0]);
    script.pass(Duration::from_millis(1));
    assert_eq!(script.changes(), ["+listener:l=v1"]);
    assert_eq!(script.state.next_deadline(), None);
}

#[test]
fn without_a_stream_a_working_route_is_not_given_up_for_one_that_lacks_its_cluster() {
    let mut script = Script::with_one_path();
    script.receive(Kind::Route, &[("r", "v2 cluster:c2")], &[]);
    script.state.stream_closed();
    assert_eq!(script.state.next_deadline(), None);
    script.pass(WARM_LIMIT * 10);
    assert_eq!(script.changes(), [""; 0]);
    script.state.stream_opened(script.now);
    script.pass(WARM_LIMIT / 2);
    assert_eq!(script.changes(), [""; 0], "the server has its full time");
    script.pass(WARM_LIMIT / 2);
    assert_eq!(script.changes()[0], "+route:r=v2");
}

#[test]
fn a_refused_resource_is_named_with_the_field_and_the_last_good_one_stays() {
    let mut script = Script::with_one_path();
    let requests = script.receive(Kind::Route, &[("r", "v2 bad")], &[]);
    let status = requests[0].error_detail.as_ref().unwrap();
    assert_eq!(status.message, "route `r`: filter_chains[0].filters: is bad");
    assert_eq!(status.code, 3);
    assert_eq!(script.changes(), [""; 0]);
    assert_eq!(script.state.active(Kind::Route, "r"), Some(&"v1".to_owned()));
    let record = script.state.records().find(|record| record.key.0 == Kind::Route).unwrap();
    assert_eq!(&*record.refused.unwrap().version, "v2");

    let requests = script.receive(Kind::Route, &[("r", "v3 cluster:c1")], &[]);
    assert!(requests[0].error_detail.is_none());
    assert_eq!(script.changes(), ["+route:r=v3"]);
    assert!(script.state.records().all(|record| record.refused.is_none()));
}

#[test]
fn the_good_resources_beside_a_refused_one_are_taken() {
    let mut script = Script::connected();
    script.state.want(Kind::Listener, "a");
    script.state.want(Kind::Listener, "b");
    let requests = script.receive(Kind::Listener, &[("a", "v1 bad"), ("b", "v1")], &[]);
    assert_eq!(requests[0].error_detail.as_ref().unwrap().message.lines().count(), 1);
    assert_eq!(script.changes(), ["+listener:b=v1"]);
}

#[test]
fn a_new_cluster_works_before_the_route_uses_it_and_the_old_one_until_then() {
    let mut script = Script::with_one_path();
    let requests = script.receive(Kind::Route, &[("r", "v2 cluster:c2")], &[]);
    assert_eq!(subscribed(&requests), ["+cluster:c2"]);
    // The server takes the old cluster away before the new one is complete.
    script.receive(Kind::Cluster, &[("c2", "v1 endpoints:c2")], &["c1"]);
    assert_eq!(script.changes(), [""; 0]);
    let requests = script.receive(Kind::Endpoints, &[("c2", "v1")], &[]);
    assert_eq!(script.changes(), ["+endpoints:c2=v1", "+cluster:c2=v1", "+route:r=v2", "-cluster:c1", "-endpoints:c1"]);
    assert_eq!(subscribed(&requests), ["-cluster:c1", "-endpoints:c1"]);
}

#[test]
fn what_is_removed_before_it_is_replaced_works_until_then() {
    let mut script = Script::with_one_path();
    // All of a path is replaced, and the server tells it in an order that helps nobody.
    script.receive(Kind::Endpoints, &[], &["c1"]);
    script.receive(Kind::Cluster, &[], &["c1"]);
    script.receive(Kind::Route, &[], &["r"]);
    assert_eq!(script.changes(), [""; 0]);
    script.receive(Kind::Listener, &[("l", "v2 route:s")], &[]);
    script.receive(Kind::Route, &[("s", "v1 cluster:c2")], &[]);
    assert_eq!(script.changes(), [""; 0]);
    script.receive(Kind::Cluster, &[("c2", "v1")], &[]);
    let new = ["+cluster:c2=v1", "+route:s=v1", "+listener:l=v2"];
    assert_eq!(script.changes(), [&new[..], &["-route:r", "-cluster:c1", "-endpoints:c1"]].concat());
    assert_eq!(script.state.next_deadline(), None);
}

#[test]
fn what_is_removed_goes_in_the_end_although_it_is_used() {
    let mut script = Script::with_one_path();
    script.receive(Kind::Cluster, &[], &["c1"]);
    script.pass(WARM_LIMIT - Duration::from_millis(1));
    assert_eq!(script.changes(), [""; 0]);
    assert_eq!(script.state.next_deadline(), Some(script.now + Duration::from_millis(1)));
    // Without a stream nobody could have told what follows.
    script.state.stream_closed();
    script.pass(WARM_LIMIT);
    assert_eq!((script.changes(), script.state.next_deadline()), (Vec::new(), None));
    script.state.stream_opened(script.now);
    script.pass(WARM_LIMIT);
    assert_eq!(script.changes(), ["-cluster:c1", "-endpoints:c1"]);
    assert_eq!(script.state.next_deadline(), None);
}

#[test]
fn what_is_removed_and_sent_again_has_never_left() {
    let mut script = Script::with_one_path();
    script.receive(Kind::Cluster, &[], &["c1"]);
    script.receive(Kind::Cluster, &[("c1", "v1 endpoints:c1")], &[]);
    script.pass(WARM_LIMIT);
    assert_eq!(script.changes(), [""; 0]);
}

#[test]
fn a_removed_listener_is_known_to_be_absent_and_comes_back_when_it_is_sent() {
    let mut script = Script::with_one_path();
    let requests = script.receive(Kind::Listener, &[], &["l"]);
    assert_eq!(script.changes(), ["-listener:l", "-route:r", "-cluster:c1", "-endpoints:c1"]);
    assert_eq!(script.state.answer(Kind::Listener, "l"), Answer::Absent);
    assert_eq!(subscribed(&requests), ["-route:r", "-cluster:c1", "-endpoints:c1"], "the listener stays subscribed");
    script.receive(Kind::Listener, &[("l", "v2")], &[]);
    assert_eq!(script.state.answer(Kind::Listener, "l"), Answer::Active);
}

#[test]
fn unwanted_listeners_are_unsubscribed_with_all_that_only_they_needed() {
    let mut script = Script::with_one_path();
    script.state.want(Kind::Listener, "m");
    script.receive(Kind::Listener, &[("m", "v1 cluster:c1")], &[]);
    script.changes();
    script.state.unwant(Kind::Listener, "l");
    assert_eq!(script.changes(), ["-listener:l", "-route:r"]);
    assert_eq!(subscribed(&script.state.take_requests()), ["-listener:l", "-route:r"]);
}

#[test]
fn a_new_stream_asks_for_everything_again_with_the_versions_held() {
    let mut script = Script::with_one_path();
    script.state.stream_closed();
    script.state.want(Kind::Listener, "new");
    script.state.stream_opened(script.now);
    let requests = script.state.take_requests();
    assert_eq!(subscribed(&requests), ["+listener:l", "+listener:new", "+route:r", "+cluster:c1", "+endpoints:c1"]);
    assert!(requests[0].node.is_some());
    assert_eq!(requests[0].initial_resource_versions, HashMap::from([("l".into(), "v1".into())]));
    assert_eq!(requests[3].initial_resource_versions, HashMap::from([("c1".into(), "v1".into())]));
    assert_eq!(script.changes(), [""; 0]);
}

#[test]
fn a_refused_version_is_not_claimed_to_be_held() {
    let mut script = Script::with_one_path();
    script.receive(Kind::Route, &[("r", "v2 bad")], &[]);
    script.state.stream_closed();
    script.state.stream_opened(script.now);
    let requests = script.state.take_requests();
    assert_eq!(requests[1].initial_resource_versions, HashMap::from([("r".into(), "v1".into())]));
}

#[test]
fn an_ack_for_a_stream_that_is_gone_is_not_sent_on_the_next() {
    let mut script = Script::with_one_path();
    let response =
        DeltaDiscoveryResponse { type_url: Kind::Route.type_url().into(), nonce: "old".into(), ..Default::default() };
    script.state.received(response, script.now);
    script.state.stream_closed();
    script.state.stream_opened(script.now);
    assert!(script.state.take_requests().iter().all(|request| request.response_nonce.is_empty()));
}

#[test]
fn what_an_earlier_process_left_is_in_force_at_once_and_offered_with_its_version() {
    let mut script = Script::new();
    let raw = |text: &str| Raw {
        version: "v9".into(),
        message: Arc::new(Any { type_url: String::new(), value: text.as_bytes().to_vec() }),
    };
    script.state.restore(&(Kind::Listener, "l".into()), true, raw("v9 cluster:c cluster:lost")).unwrap();
    script.state.restore(&(Kind::Cluster, "c".into()), false, raw("v9")).unwrap();
    script.state.restore(&(Kind::Cluster, "leftover".into()), false, raw("v9")).unwrap();
    assert!(script.state.restore(&(Kind::Listener, "x".into()), true, raw("bad")).is_err());
    script.state.restored();
    assert_eq!(script.state.answer(Kind::Listener, "l"), Answer::Active);
    assert_eq!(script.state.answer(Kind::Cluster, "leftover"), Answer::Unknown);
    script.state.stream_opened(script.now);
    let requests = script.state.take_requests();
    assert_eq!(subscribed(&requests), ["+listener:l", "+listener:x", "+cluster:c", "+cluster:lost"]);
    assert_eq!(requests[0].initial_resource_versions, HashMap::from([("l".into(), "v9".into())]));
}

#[test]
fn the_same_bytes_again_change_nothing() {
    let mut script = Script::with_one_path();
    let requests = script.receive(Kind::Route, &[("r", "v1 cluster:c1")], &[]);
    assert!(requests[0].error_detail.is_none());
    assert_eq!(script.changes(), [""; 0]);
}

#[test]
fn an_answer_that_crossed_our_unsubscription_is_acknowledged_and_ignored() {
    let mut script = Script::with_one_path();
    script.state.unwant(Kind::Listener, "l");
    script.changes();
    let requests = script.receive(Kind::Listener, &[("l", "v2")], &[]);
    assert!(requests[0].error_detail.is_none());
    assert_eq!(script.changes(), [""; 0]);
}

#[test]
fn a_type_that_was_never_asked_for_is_refused() {
    let mut script = Script::connected();
    let response =
        DeltaDiscoveryResponse { type_url: "type.googleapis.com/x.Y".into(), nonce: "n".into(), ..Default::default() };
    script.state.received(response, script.now);
    let requests = script.state.take_requests();
    assert_eq!(requests[0].type_url, "type.googleapis.com/x.Y");
    assert!(requests[0].error_detail.is_some());
}

#[test]
fn a_wildcard_takes_whatever_comes_and_drops_what_is_removed() {
    let mut script = Script::new();
    script.state.want_all(Kind::Cluster);
    script.state.stream_opened(script.now);
    assert_eq!(subscribed(&script.state.take_requests()), ["+cluster:*"]);
    let requests = script.receive(Kind::Cluster, &[("a", "v1"), ("b", "v1 endpoints:b")], &[]);
    assert_eq!(subscribed(&requests), ["+endpoints:b"]);
    assert_eq!(script.changes(), ["+cluster:a=v1"]);
    let requests = script.receive(Kind::Cluster, &[], &["a"]);
    assert_eq!(script.changes(), ["-cluster:a"]);
    assert_eq!(subscribed(&requests), [""; 0]);
    script.state.stream_closed();
    script.state.stream_opened(script.now);
    let requests = script.state.take_requests();
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].initial_resource_versions, HashMap::from([("b".into(), "v1".into())]));
}
