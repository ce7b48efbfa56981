//! Retries, access and faults.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{forward, request, table_of_routes};
use weft_rules::fault::AbortWith;
use weft_rules::view::NoRequest;
use weft_rules::{Attempt, Fault, FaultDecision, Peer, Rbac, RetryPolicy};
use weft_xds::FieldError;
use weft_xds::envoy::config::rbac::v3::Policy;

fn retry(yaml: &str) -> RetryPolicy {
    forward(&table_of_routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: c, retry_policy: {{{yaml}}}}}}}]")))
        .retry
        .unwrap()
}

fn status(status: u16) -> Attempt {
    Attempt::Response { status, grpc_status: None }
}

#[test]
fn each_retry_condition_covers_what_envoy_documents() {
    let reset = Attempt::Reset { request_sent: true };
    let early = Attempt::Reset { request_sent: false };
    for (on, yes, no) in [
        (
            "5xx",
            vec![
                status(500),
                status(599),
                reset,
                early,
                Attempt::ConnectFailure,
                Attempt::RefusedStream,
                Attempt::PerTryTimeout,
            ],
            vec![status(499), status(200)],
        ),
        (
            "gateway-error",
            vec![status(502), status(503), status(504), reset, Attempt::PerTryTimeout],
            vec![status(500), status(501), status(505)],
        ),
        ("reset", vec![reset, early, Attempt::PerTryTimeout, Attempt::ConnectFailure], vec![status(503)]),
        (
            "reset-before-request",
            vec![early, Attempt::ConnectFailure],
            vec![reset, status(503), Attempt::PerTryTimeout],
        ),
        ("connect-failure", vec![Attempt::ConnectFailure], vec![reset, early, status(503), Attempt::RefusedStream]),
        ("refused-stream", vec![Attempt::RefusedStream], vec![reset, early, Attempt::ConnectFailure]),
        ("retriable-4xx", vec![status(409)], vec![status(404), status(429), status(500)]),
        ("", vec![], vec![status(503), reset, Attempt::ConnectFailure]),
    ] {
        let policy = retry(&format!("retry_on: '{on}'"));
        for attempt in yes.into_iter().chain([Attempt::Undelivered]) {
            assert!(policy.decide(attempt, |_| None), "{on}: {attempt:?}");
        }
        for attempt in no.into_iter().chain([Attempt::Overflow]) {
            assert!(!policy.decide(attempt, |_| None), "{on}: {attempt:?}");
        }
    }
}

#[test]
fn grpc_conditions_look_at_the_grpc_status_of_the_head() {
    for (on, code) in
        [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)]
    {
        let policy = retry(&format!("retry_on: {on}"));
        for other in [0, 1, 2, 4, 8, 13, 14, 16] {
            let attempt = Attempt::Response { status: 200, grpc_status: Some(other) };
            assert_eq!(policy.decide(attempt, |_| None), other == code, "{on}: {other}");
        }
    }
}

#[test]
fn status_codes_and_headers_of_the_response_can_ask_for_a_retry() {
    let policy = retry(
        "retry_on: 'retriable-status-codes,retriable-headers', retriable_status_codes: [418], retriable_headers: [{name: x-again}, {name: ':status', string_match: {exact: '420'}}]",
    );
    assert!(policy.decide(status(418), |_| None));
    assert!(!policy.decide(status(419), |_| None));
    assert!(policy.decide(status(420), |_| None));
    assert!(policy.decide(status(200), |name| (name == "x-again").then(|| b"1"[..].into())));
}

#[test]
fn what_a_rate_limiter_turned_away_is_repeated_only_on_demand() {
    let limited = |name: &str| (name == "x-envoy-ratelimited").then(|| b"true"[..].into());
    assert!(!retry("retry_on: 5xx").decide(status(503), limited));
    assert!(retry("retry_on: envoy-ratelimited").decide(status(429), limited));
}

#[test]
fn a_policy_may_apply_to_some_requests_only() {
    let policy = retry(
        "retry_on: 5xx, retriable_request_headers: [{name: ':method', string_match: {exact: GET}}, {name: x-retry}]",
    );
    assert!(policy.applies_to(&request("GET http://h/")));
    assert!(policy.applies_to(&request("POST http://h/\nx-retry: 1")));
    assert!(!policy.applies_to(&request("POST http://h/")));
}

#[test]
fn back_off_is_jittered_grows_and_is_bounded() {
    let policy = retry("retry_on: 5xx");
    assert_eq!((policy.num_retries, policy.per_try_timeout), (1, None));
    let ms = |retry, random| policy.backoff(retry, random).as_secs_f64() * 1000.0;
    assert_eq!(ms(1, 0), 0.0);
    for (retry, ceiling) in [(1, 25.0), (2, 75.0), (3, 175.0), (4, 250.0), (40, 250.0), (u32::MAX, 250.0)] {
        assert!((ms(retry, u32::MAX) - ceiling).abs() < 0.001, "{retry}: {}", ms(retry, u32::MAX));
        assert!((ms(retry, u32::MAX / 2) - ceiling / 2.0).abs() < 0.001);
    }
    let own = retry("retry_on: 5xx, retry_back_off: {base_interval: 0.0001s, max_interval: 2s}, num_retries: 0");
    assert_eq!(own.num_retries, 0);
    assert!(own.backoff(1, u32::MAX) > Duration::from_micros(999), "a base below 1 ms is 1 ms");
}

#[test]
fn previous_hosts_are_avoided_where_asked_for() {
    let any = "typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}";
    let policy = retry(&format!(
        "retry_on: 5xx, host_selection_retry_max_attempts: 5, retry_host_predicate: [{{name: envoy.retry_host_predicates.previous_hosts, {any}}}]"
    ));
    assert!(policy.avoid_previous_hosts);
    assert_eq!(policy.host_selection_attempts, 5);
}

fn rbac(yaml: &str) -> Result<Rbac, FieldError> {
    Rbac::compile(&weft_xds::yaml::from_str(yaml).unwrap(), "rbac")
}

fn peer(identity: Option<&str>) -> Peer<'_> {
    Peer {
        identity,
        source_ip: "198.18.0.7".parse().unwrap(),
        destination: "198.18.1.1:8080".parse().unwrap(),
        server_name: None,
    }
}

const WEB: &str = "spiffe://weft.local/ns/shop/sa/web";

#[test]
fn allow_needs_a_policy_and_names_it_and_deny_needs_none() {
    let policies = format!(
        "policies: {{web: {{permissions: [{{url_path: {{path: {{prefix: /api}}}}}}], principals: [{{authenticated: {{principal_name: {{exact: '{WEB}'}}}}}}]}}}}"
    );
    let allow = rbac(&format!("{{rules: {{action: ALLOW, {policies}}}}}")).unwrap();
    let deny = rbac(&format!("{{rules: {{action: DENY, {policies}}}}}")).unwrap();
    let log = rbac(&format!("{{rules: {{action: LOG, {policies}}}}}")).unwrap();
    for (line, identity, hit) in [
        ("GET http://h/api/x", Some(WEB), true),
        ("GET http://h/other?/api", Some(WEB), false),
        ("GET http://h/api/x", Some("spiffe://weft.local/ns/shop/sa/webx"), false),
        ("GET http://h/api/x", None, false),
    ] {
        let (request, peer) = (request(line), peer(identity));
        let named = hit.then_some("web");
        let verdict = allow.decide(&request, &peer);
        assert_eq!((verdict.allowed, verdict.policy), (hit, named), "{line}");
        assert_eq!(deny.decide(&request, &peer).allowed, !hit);
        assert!(log.decide(&request, &peer).allowed);
    }
}

#[test]
fn without_rules_everything_passes_and_with_none_that_allow_nothing_does() {
    let any = request("GET http://h/");
    assert!(rbac("{}").unwrap().decide(&any, &peer(None)).allowed);
    let verdict = rbac("{rules: {action: ALLOW}}").unwrap().decide(&any, &peer(Some(WEB))).allowed;
    assert!(!verdict);
    assert!(rbac("{rules: {action: DENY}}").unwrap().decide(&any, &peer(None)).allowed);
}

#[test]
fn every_permission_and_principal_decides_by_its_own_fact() {
    for (permission, principal, line, hit) in [
        ("any: true", "any: true", "GET http://h/", true),
        ("header: {name: ':method', string_match: {exact: GET}}", "any: true", "GET http://h/", true),
        ("header: {name: ':method', string_match: {exact: GET}}", "any: true", "PUT http://h/", false),
        ("destination_port: 8080", "any: true", "GET http://h/", true),
        ("destination_port: 8081", "any: true", "GET http://h/", false),
        ("destination_port_range: {start: 8000, end: 8080}", "any: true", "GET http://h/", false),
        ("destination_port_range: {start: 8000, end: 8081}", "any: true", "GET http://h/", true),
        ("destination_ip: {address_prefix: 198.18.1.0, prefix_len: 24}", "any: true", "GET http://h/", true),
        ("destination_ip: {address_prefix: 198.18.2.0, prefix_len: 24}", "any: true", "GET http://h/", false),
        ("and_rules: {rules: [{any: true}, {not_rule: {any: true}}]}", "any: true", "GET http://h/", false),
        ("or_rules: {rules: [{not_rule: {any: true}}, {any: true}]}", "any: true", "GET http://h/", true),
        ("any: true", "authenticated: {}", "GET http://h/", true),
        ("any: true", "not_id: {authenticated: {}}", "GET http://h/", false),
        ("any: true", "direct_remote_ip: {address_prefix: 198.18.0.0, prefix_len: 16}", "GET http://h/", true),
        ("any: true", "direct_remote_ip: {address_prefix: 198.19.0.0, prefix_len: 16}", "GET http://h/", false),
        ("any: true", "direct_remote_ip: {address_prefix: '::', prefix_len: 0}", "GET http://h/", false),
        ("any: true", "and_ids: {ids: [{any: true}, {header: {name: x}}]}", "GET http://h/\nx: 1", true),
        ("any: true", "or_ids: {ids: [{header: {name: x}}, {url_path: {path: {exact: /}}}]}", "GET http://h/", true),
    ] {
        let rbac = rbac(&format!(
            "{{rules: {{policies: {{p: {{permissions: [{{{permission}}}], principals: [{{{principal}}}]}}}}}}}}"
        ))
        .unwrap();
        assert_eq!(rbac.decide(&request(line), &peer(Some(WEB))).allowed, hit, "{permission} / {principal}");
    }
}

#[test]
fn shadow_rules_are_told_but_not_enforced() {
    let rbac = rbac(
        "{shadow_rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}",
    )
    .unwrap();
    let verdict = rbac.decide(&request("GET http://h/"), &peer(None));
    assert!(verdict.allowed);
    let shadow = verdict.shadow.unwrap();
    assert_eq!((shadow.allowed, shadow.policy), (false, Some("all")));
}

#[test]
fn the_first_matching_policy_by_name_is_reported() {
    let policy = "{permissions: [{any: true}], principals: [{any: true}]}";
    let rbac = rbac(&format!("{{rules: {{policies: {{b: {policy}, a: {policy}, c: {policy}}}}}}}")).unwrap();
    assert_eq!(rbac.decide(&request("GET http://h/"), &peer(None)).policy, Some("a"));
}

#[test]
fn a_connection_without_http_has_no_headers_to_match() {
    let yaml = "{stat_prefix: x, rules: {policies: {p: {permissions: [{header: {name: ':method', string_match: {exact: GET}}}], principals: [{any: true}]}}}}";
    let rbac = Rbac::compile_network(&weft_xds::yaml::from_str(yaml).unwrap(), "rbac").unwrap();
    assert!(!rbac.decide(&NoRequest, &peer(Some(WEB))).allowed);
}

#[test]
fn access_rules_that_cannot_be_decided_are_refused() {
    for (policy, path) in [
        (
            "{permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 10.0.0.0}}]}",
            "principals[0].remote_ip",
        ),
        ("{permissions: [{metadata: {}}], principals: [{any: true}]}", "permissions[0].metadata"),
        ("{permissions: [], principals: [{any: true}]}", "permissions"),
        ("{permissions: [{any: false}], principals: [{any: true}]}", "permissions[0].any"),
        ("{permissions: [{and_rules: {rules: []}}], principals: [{any: true}]}", "permissions[0].and_rules.rules"),
        ("{permissions: [{destination_port: 70000}], principals: [{any: true}]}", "permissions[0].destination_port"),
        (
            "{permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 33}}]}",
            "principals[0].direct_remote_ip.prefix_len",
        ),
    ] {
        let error = rbac(&format!("{{rules: {{policies: {{p: {policy}}}}}}}")).unwrap_err();
        assert_eq!(error.path, format!("rbac.rules.policies[\"p\"].{path}"));
    }
    // The message type is used so that a rename in the protobufs breaks this test rather than the YAML above at run time.
    let _ = Policy::default();
}

fn fault(yaml: &str) -> Result<Fault, FieldError> {
    Fault::compile(&weft_xds::yaml::from_str(yaml).unwrap(), "fault")
}

#[test]
fn delays_and_aborts_fall_independently_by_their_percentages() {
    let fault = fault("{delay: {fixed_delay: 2s, percentage: {numerator: 50}}, abort: {http_status: 503, percentage: {numerator: 25}, response_body: broken}}").unwrap();
    let any = request("GET http://h/");
    let decide = |delay: u64, abort: u64| fault.decide(&any, "c", abort << 32 | delay);
    assert_eq!(
        decide(49, 24),
        FaultDecision { delay: Some(Duration::from_secs(2)), abort: Some(AbortWith::Http(503)), body: "broken" }
    );
    assert_eq!(decide(50, 24).delay, None);
    assert_eq!(decide(49, 25).abort, None);
    assert!(decide(50, 25).is_none());
}

#[test]
fn a_fault_concerns_only_its_cluster_headers_and_nodes() {
    let fault = fault("{abort: {grpc_status: 14, percentage: {numerator: 100}}, upstream_cluster: a, headers: [{name: x-fault}], downstream_nodes: [n1]}").unwrap();
    let full = request("GET http://h/\nx-fault: 1\nx-envoy-downstream-service-node: n1");
    assert_eq!(fault.decide(&full, "a", 0).abort, Some(AbortWith::Grpc(14)));
    assert!(fault.decide(&full, "b", 0).is_none());
    assert!(fault.decide(&request("GET http://h/\nx-fault: 1"), "a", 0).is_none());
    assert!(fault.decide(&request("GET http://h/\nx-envoy-downstream-service-node: n1"), "a", 0).is_none());
}

#[test]
fn a_request_can_ask_for_its_fault_within_the_configured_share() {
    let fault = fault("{delay: {header_delay: {}, percentage: {numerator: 50}}, abort: {header_abort: {}, percentage: {numerator: 100}}}").unwrap();
    let asks = request(
        "GET http://h/\nx-envoy-fault-delay-request: 30\nx-envoy-fault-delay-request-percentage: 80\nx-envoy-fault-abort-request: 418",
    );
    let decision = fault.decide(&asks, "c", 49);
    assert_eq!(decision.delay, Some(Duration::from_millis(30)));
    assert_eq!(decision.abort, Some(AbortWith::Http(418)));
    assert_eq!(fault.decide(&asks, "c", 50).delay, None, "a request cannot raise the share");
    assert!(fault.decide(&request("GET http://h/\nx-envoy-fault-abort-request: 99"), "c", 0).is_none());
}

#[test]
fn an_unset_percentage_harms_nobody() {
    let fault = fault("{abort: {http_status: 500}}").unwrap();
    assert!(fault.decide(&request("GET http://h/"), "c", 0).is_none());
}

#[test]
fn faults_that_cannot_be_injected_are_refused() {
    for (yaml, path) in [
        ("{delay: {percentage: {numerator: 1}}}", "fault.delay"),
        ("{delay: {fixed_delay: 0s}}", "fault.delay.fixed_delay"),
        ("{abort: {http_status: 199}}", "fault.abort.http_status"),
        ("{response_rate_limit: {header_limit: {}}}", "fault.response_rate_limit"),
    ] {
        assert_eq!(fault(yaml).unwrap_err().path, path);
    }
}
