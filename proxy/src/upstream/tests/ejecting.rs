//! Who is kept out, and for how long. Under paused time.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_run_of_failures_ejects_and_time_lets_back_in() {
    let cluster = with_endpoints(
        "lb_policy: ROUND_ROBIN, outlier_detection: {consecutive_5xx: 3, base_ejection_time: 30s}",
        &["", "", ""],
    );
    let bad = endpoints(&cluster)[0].clone();
    fail(&bad, 2);
    bad.finish(Outcome::status(200), MS, Instant::now());
    fail(&bad, 2);
    assert!(!bad.is_ejected(), "a success ends the run");
    fail(&bad, 1);
    assert!(bad.is_ejected());
    assert_eq!((cluster.outliers().ejected(), cluster.outliers().ejections()), (1, 1));
    assert_eq!(picks(&cluster, 100), [(2, 50), (3, 50)].into());

    tokio::time::advance(SECOND * 29).await;
    cluster.tick(Instant::now());
    assert!(bad.is_ejected());
    tokio::time::advance(SECOND).await;
    cluster.tick(Instant::now());
    assert!(!bad.is_ejected());
    assert_eq!(cluster.outliers().ejected(), 0);
    assert_eq!(picks(&cluster, 30).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_further_ejection_lasts_longer_up_to_a_limit_and_is_forgiven_in_time() {
    let cluster = with_endpoints(
        "outlier_detection: {consecutive_5xx: 1, base_ejection_time: 10s, max_ejection_time: 25s, interval: 1s}",
        &["", "", ""],
    );
    let bad = endpoints(&cluster)[0].clone();
    for expected in [10, 20, 25, 25] {
        fail(&bad, 1);
        let mut out = 0;
        while bad.is_ejected() {
            tokio::time::advance(SECOND).await;
            out += 1;
            cluster.tick(Instant::now());
        }
        assert_eq!(out, expected);
    }
    for _ in 0..10 {
        tokio::time::advance(SECOND).await;
        cluster.tick(Instant::now());
    }
    fail(&bad, 1);
    tokio::time::advance(SECOND * 10).await;
    cluster.tick(Instant::now());
    assert!(!bad.is_ejected(), "good behaviour made it a first offence again");
}

#[test]
fn no_more_than_the_maximum_share_is_out_but_one_always_may_be() {
    for (percent, hosts, expected) in [(10, 3, 1), (50, 4, 2), (50, 5, 2), (100, 3, 3), (0, 3, 0)] {
        let cluster = with_endpoints(
            &format!("outlier_detection: {{consecutive_5xx: 1, max_ejection_percent: {percent}}}"),
            &vec![""; hosts],
        );
        endpoints(&cluster).iter().for_each(|endpoint| fail(endpoint, 5));
        assert_eq!(cluster.outliers().ejected(), expected, "{percent} % of {hosts}");
    }
}

#[test]
fn when_everyone_is_out_the_panic_threshold_keeps_traffic_flowing() {
    let cluster = with_endpoints(
        "lb_policy: ROUND_ROBIN, outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100}",
        &["", ""],
    );
    endpoints(&cluster).iter().for_each(|endpoint| fail(endpoint, 1));
    assert_eq!(picks(&cluster, 10).len(), 2);
}

#[test]
fn connect_errors_and_timeouts_count_as_gateway_errors_or_apart() {
    let joint = with_endpoints("outlier_detection: {consecutive_5xx: 2}", &["", ""]);
    let split = with_endpoints(
        "outlier_detection: {consecutive_5xx: 2, consecutive_local_origin_failure: 3, split_external_local_origin_errors: true}",
        &["", ""],
    );
    for (cluster, needed) in [(joint, 2), (split, 3)] {
        let bad = endpoints(&cluster)[0].clone();
        let outcomes = [Outcome::ConnectFailure, Outcome::Timeout, Outcome::Reset];
        for (i, outcome) in outcomes.iter().enumerate().take(needed) {
            assert!(!bad.is_ejected(), "after {i} of {needed}");
            bad.finish(*outcome, MS, Instant::now());
        }
        assert!(bad.is_ejected());
    }
}

#[test]
fn a_client_that_goes_away_says_nothing_about_the_endpoint() {
    let cluster = with_endpoints("outlier_detection: {consecutive_5xx: 2}", &["", ""]);
    let endpoint = endpoints(&cluster)[0].clone();
    fail(&endpoint, 1);
    endpoint.finish(Outcome::Cancelled, MS, Instant::now());
    fail(&endpoint, 1);
    assert!(endpoint.is_ejected(), "it neither ends a run nor counts in one");
}

#[test]
fn gateway_failures_are_enforced_only_on_demand() {
    let settings = |enforcing| {
        format!(
            "outlier_detection: {{consecutive_5xx: 0, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: {enforcing}}}"
        )
    };
    for (enforcing, status, ejected) in [(0, 503, false), (100, 503, true), (100, 500, false)] {
        let cluster = with_endpoints(&settings(enforcing), &["", ""]);
        let bad = endpoints(&cluster)[0].clone();
        (0..4).for_each(|_| bad.finish(Outcome::status(status), MS, Instant::now()));
        assert_eq!(bad.is_ejected(), ejected, "{enforcing} % of {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_success_rate_is_an_outlier_is_ejected_at_the_intervals_end() {
    let cluster = with_endpoints("outlier_detection: {consecutive_5xx: 0, interval: 10s}", &[""; 6]);
    let all = endpoints(&cluster);
    for endpoint in &all {
        for i in 0..100 {
            let bad = last_byte(endpoint) == 1 && i % 2 == 0;
            endpoint.finish(Outcome::status(if bad { 500 } else { 200 }), MS, Instant::now());
        }
    }
    cluster.tick(Instant::now());
    assert!(!all[0].is_ejected(), "the interval is not over");
    tokio::time::advance(SECOND * 10).await;
    cluster.tick(Instant::now());
    let out: Vec<_> = all.iter().filter(|endpoint| endpoint.is_ejected()).map(|endpoint| last_byte(endpoint)).collect();
    assert_eq!(out, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_percentage_ejects_where_it_is_enforced_and_the_volume_suffices() {
    for (volume, enforcing, ejected) in [(50, 100, true), (51, 100, false), (50, 0, false)] {
        let cluster = with_endpoints(
            &format!(
                "outlier_detection: {{consecutive_5xx: 0, enforcing_success_rate: 0, enforcing_failure_percentage: {enforcing}, failure_percentage_request_volume: {volume}, failure_percentage_threshold: 80}}"
            ),
            &[""; 5],
        );
        let all = endpoints(&cluster);
        for endpoint in &all {
            for i in 0..50 {
                let bad = last_byte(endpoint) == 1 && i >= 10;
                endpoint.finish(Outcome::status(if bad { 500 } else { 200 }), MS, Instant::now());
            }
        }
        tokio::time::advance(SECOND * 10).await;
        cluster.tick(Instant::now());
        assert_eq!(all[0].is_ejected(), ejected, "volume {volume}, enforced {enforcing} %");
        assert!(all[1..].iter().all(|endpoint| !endpoint.is_ejected()));
    }
}

#[test]
fn switching_detection_off_lets_everyone_back_in() {
    let cluster = with_endpoints("outlier_detection: {consecutive_5xx: 1}", &["", ""]);
    let bad = endpoints(&cluster)[0].clone();
    fail(&bad, 1);
    assert!(bad.is_ejected());
    cluster.update(
        super::super::ClusterConfig::compile(&weft_xds::yaml::from_str("{name: c, type: EDS}").unwrap(), "").unwrap(),
    );
    cluster.tick(Instant::now());
    assert!(!bad.is_ejected());
}

#[test]
fn workers_that_fail_together_eject_once() {
    let cluster =
        Arc::new(with_endpoints("outlier_detection: {consecutive_5xx: 5, max_ejection_percent: 100}", &["", ""]));
    let bad = endpoints(&cluster)[0].clone();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fail(&bad, 1_000));
        }
    });
    assert!(bad.is_ejected());
    assert_eq!((cluster.outliers().ejected(), cluster.outliers().ejections()), (1, 1));
}
