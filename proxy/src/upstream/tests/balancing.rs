//! Who is picked.

use super::*;

#[test]
fn round_robin_takes_turns_by_weight() {
    let even = with_endpoints("lb_policy: ROUND_ROBIN", &["", "", ""]);
    assert_eq!(picks(&even, 300), [(1, 100), (2, 100), (3, 100)].into());
    let uneven = with_endpoints("lb_policy: ROUND_ROBIN", &["load_balancing_weight: 3", "load_balancing_weight: 1"]);
    assert_eq!(picks(&uneven, 400), [(1, 300), (2, 100)].into());
}

#[test]
fn idle_endpoints_get_their_weights_share_under_every_policy() {
    for policy in ["lb_policy: RANDOM", "lb_policy: LEAST_REQUEST", PEAK_EWMA] {
        let cluster = with_endpoints(policy, &["load_balancing_weight: 3", "load_balancing_weight: 1", ""]);
        let counts = picks(&cluster, 20_000);
        for (endpoint, share) in [(1, 0.6), (2, 0.2), (3, 0.2)] {
            assert!(is_share(counts[&endpoint], 20_000, share), "{policy}: {counts:?}");
        }
    }
}

#[test]
fn least_request_prefers_the_endpoint_with_fewer_attempts_under_way() {
    let cluster = with_endpoints("lb_policy: LEAST_REQUEST", &["", ""]);
    let busy = endpoints(&cluster)[0].clone();
    let under_way: Vec<_> = (0..3).map(|_| busy.begin()).collect();
    assert_eq!(busy.active(), 3);
    assert_eq!(picks(&cluster, 1_000), [(2, 1_000)].into());
    drop(under_way);
    assert_eq!(busy.active(), 0);
    assert!(is_share(picks(&cluster, 1_000)[&1], 1_000, 0.5));
}

#[test]
fn least_request_spreads_what_stays_under_way_by_weight() {
    let cluster = with_endpoints("lb_policy: LEAST_REQUEST", &["load_balancing_weight: 3", "load_balancing_weight: 1"]);
    let _under_way: Vec<_> = (0..400).map(|random| pick(&cluster, random).unwrap().begin()).collect();
    let active: Vec<_> = endpoints(&cluster).iter().map(|endpoint| endpoint.active()).collect();
    assert!((280..=320).contains(&active[0]), "{active:?}");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_avoids_a_slow_endpoint_but_keeps_trying_it() {
    let cluster = with_endpoints(PEAK_EWMA, &["", "", ""]);
    let mut counts = BTreeMap::<u8, u64>::new();
    for random in 0..10_000 {
        let endpoint = pick(&cluster, random).unwrap();
        let latency = if last_byte(&endpoint) == 1 { MS * 200 } else { MS * 2 };
        endpoint.finish(Outcome::status(200), latency, Instant::now());
        *counts.entry(last_byte(&endpoint)).or_default() += 1;
        tokio::time::advance(MS * 10).await;
    }
    assert!(counts[&1] > 1 && counts[&1] < 100, "{counts:?}");
    assert!(is_share(counts[&2], counts[&2] + counts[&3], 0.5), "equals share alike: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_shares_between_endpoints_whose_latency_differs_by_noise() {
    let cluster = with_endpoints(PEAK_EWMA, &["", ""]);
    let mut first = 0;
    for random in 0..4_000 {
        let endpoint = pick(&cluster, random).unwrap();
        let hiccup = if random % 500 == 0 { MS * 20 } else { Duration::ZERO };
        let latency = Duration::from_micros(1_000 + random * 7919 % 150) + hiccup;
        endpoint.finish(Outcome::status(200), latency, Instant::now());
        first += u64::from(last_byte(&endpoint) == 1);
        tokio::time::advance(MS * 10).await;
    }
    assert!((800..=3_200).contains(&first), "a hiccup must not starve an endpoint for long: {first} of 4000");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_counts_fast_failures_as_load() {
    let cluster = with_endpoints(PEAK_EWMA, &["", ""]);
    for endpoint in endpoints(&cluster) {
        endpoint.finish(Outcome::status(200), MS * 5, Instant::now());
    }
    for outcome in [Outcome::status(503), Outcome::ConnectFailure] {
        endpoints(&cluster)[0].finish(outcome, Duration::ZERO, Instant::now());
    }
    assert_eq!(picks(&cluster, 100), [(2, 100)].into());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_a_pause_gets_it() {
    let cluster = with_endpoints(PEAK_EWMA, &["", ""]);
    let outcome = Outcome::Response { status: 429, grpc_status: None, retry_after: Some(SECOND * 3) };
    endpoints(&cluster)[0].finish(outcome, MS, Instant::now());
    assert_eq!(picks(&cluster, 100), [(2, 100)].into());
    tokio::time::advance(SECOND * 60).await;
    assert!(picks(&cluster, 100).contains_key(&1));
}

#[test]
fn a_tried_endpoint_is_avoided_while_there_is_another() {
    for policy in ["lb_policy: ROUND_ROBIN", "lb_policy: RANDOM", "lb_policy: LEAST_REQUEST", PEAK_EWMA] {
        let cluster = with_endpoints(policy, &["load_balancing_weight: 100", "", ""]);
        let all: Vec<_> = endpoints(&cluster).iter().map(|endpoint| endpoint.id()).collect();
        for random in 0..200 {
            assert_eq!(pick_untried(&cluster, &all[..2], random).unwrap().id(), all[2], "{policy}");
            assert!(pick_untried(&cluster, &all, random).is_ok(), "{policy}: rather one tried than none");
        }
    }
}

#[test]
fn draining_and_unhealthy_endpoints_get_nothing_while_others_are_fit() {
    for policy in ["lb_policy: ROUND_ROBIN", "lb_policy: RANDOM", "lb_policy: LEAST_REQUEST", PEAK_EWMA] {
        let cluster = with_endpoints(
            policy,
            &["health_status: DRAINING", "health_status: UNHEALTHY", "", "health_status: HEALTHY", ""],
        );
        let counts = picks(&cluster, 300);
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [3, 4, 5], "{policy}");
    }
}

#[test]
fn draining_endpoints_count_neither_for_a_panic_nor_in_one() {
    let cluster = with_endpoints("lb_policy: RANDOM", &["", "health_status: DRAINING", "health_status: DRAINING"]);
    assert_eq!(picks(&cluster, 100), [(1, 100)].into());
    let panicking = with_endpoints("lb_policy: RANDOM", &["health_status: UNHEALTHY", "health_status: DRAINING"]);
    assert_eq!(picks(&panicking, 100), [(1, 100)].into());
    let last = with_endpoints("lb_policy: RANDOM", &["health_status: DRAINING"]);
    assert_eq!(picks(&last, 10), [(1, 10)].into(), "a draining endpoint still serves, which beats failing");
}

#[test]
fn below_the_panic_threshold_health_is_not_looked_at() {
    let endpoints = ["", "health_status: UNHEALTHY", "health_status: UNHEALTHY"];
    let panicking = with_endpoints("lb_policy: ROUND_ROBIN", &endpoints);
    assert_eq!(picks(&panicking, 30).len(), 3);
    let never =
        with_endpoints("lb_policy: ROUND_ROBIN, common_lb_config: {healthy_panic_threshold: {value: 0}}", &endpoints);
    assert_eq!(picks(&never, 30), [(1, 30)].into());
    let nobody =
        with_endpoints("common_lb_config: {healthy_panic_threshold: {value: 0}}", &["health_status: UNHEALTHY"]);
    assert_eq!(pick(&nobody, 0).unwrap_err(), PickError::AllEjected);
}

#[test]
fn a_lower_priority_is_used_when_a_higher_one_is_down() {
    let cluster = cluster("lb_policy: ROUND_ROBIN");
    let level = |priority: u32, i: usize, health: &str| {
        format!("{{priority: {priority}, lb_endpoints: [{{{}, health_status: {health}}}]}}", address(i))
    };
    let set = |first: &str| {
        let yaml = format!("{{endpoints: [{}, {}]}}", level(0, 1, first), level(1, 2, "HEALTHY"));
        cluster.set_endpoints(&weft_xds::yaml::from_str(&yaml).unwrap(), "").unwrap();
        picks(&cluster, 10)
    };
    assert_eq!(set("HEALTHY"), [(1, 10)].into());
    assert_eq!(set("UNHEALTHY"), [(2, 10)].into());
}

#[test]
fn without_endpoints_there_is_nothing_to_pick() {
    let cluster = cluster("");
    assert!(!cluster.is_warm());
    assert_eq!(pick(&cluster, 0).unwrap_err(), PickError::NoEndpoints);
    cluster.set_endpoints(&ClusterLoadAssignment::default(), "").unwrap();
    assert!(cluster.is_warm());
    assert_eq!(pick(&cluster, 0).unwrap_err(), PickError::NoEndpoints);
}
