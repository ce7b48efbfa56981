//! What is counted, and how it is written.

use super::*;

fn key(route: &str) -> RequestKey {
    RequestKey {
        direction: Direction::Outbound,
        source_workload: "web".into(),
        source_namespace: "shop".into(),
        destination_service: "shop/reviews".into(),
        destination_workload: "reviews-v1".into(),
        destination_namespace: "shop".into(),
        route: route.into(),
        peer: "spiffe://weft.local/ns/shop/sa/reviews".into(),
        tls: Tls::Mutual,
    }
}

#[test]
fn a_request_is_counted_by_class_and_flag_and_timed_once() {
    let metrics = Metrics::new();
    let request = metrics.request(key("r"));
    request.record(ResponseClass::of_status(200), None, Duration::from_millis(4));
    request.record(ResponseClass::of_status(204), None, Duration::from_millis(4));
    request.record(ResponseClass::of_status(503), Some(Flag::new("UH")), Duration::from_millis(4));
    let text = metrics.encode();
    let labels = r#"direction="outbound",source_workload="web",source_namespace="shop",destination_service="shop/reviews",destination_workload="reviews-v1",destination_namespace="shop",route="r",peer="spiffe://weft.local/ns/shop/sa/reviews",tls="mutual""#;
    for line in [
        format!(r#"weft_requests_total{{{labels},response_class="2xx",flag=""}} 2"#),
        format!(r#"weft_requests_total{{{labels},response_class="5xx",flag="UH"}} 1"#),
        format!("weft_request_duration_seconds_count{{{labels}}} 3"),
        format!(r#"weft_request_duration_seconds_bucket{{le="0.003",{labels}}} 0"#),
        format!(r#"weft_request_duration_seconds_bucket{{le="0.005",{labels}}} 3"#),
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\nis not in\n{text}");
    }
}

#[test]
fn the_same_key_gives_the_same_handles() {
    let metrics = Metrics::new();
    assert!(Arc::ptr_eq(&metrics.request(key("r")), &metrics.request(key("r"))));
}

#[test]
fn keys_beyond_the_limit_share_one_series() {
    let metrics = Metrics::new();
    for n in 0..MAX_REQUEST_KEYS {
        metrics.request(key(&n.to_string()));
    }
    let (one, other) = (metrics.request(key("one more")), metrics.request(key("and another")));
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(one.key().route.as_str(), "overflow");
    assert!(metrics.encode().contains("weft_request_series_overflow_total 2\n"));
    assert_eq!(metrics.request(key("3")).key().route.as_str(), "3");
}

#[test]
fn a_connection_is_active_until_its_guard_is_dropped() {
    let metrics = Metrics::new();
    let connection = metrics.connection(Direction::Inbound, Protocol::Tcp, Tls::None);
    let guard = connection.open();
    connection.sent(7);
    let active = r#"weft_connections_active{direction="inbound",protocol="tcp",tls="none"}"#;
    assert!(metrics.encode().contains(&format!("{active} 1\n")));
    drop(guard);
    let text = metrics.encode();
    assert!(text.contains(&format!("{active} 0\n")));
    assert!(text.contains("weft_connections_total{direction=\"inbound\",protocol=\"tcp\",tls=\"none\"} 1\n"));
    assert!(text.contains("weft_bytes_total{direction=\"inbound\",way=\"sent\"} 7\n"));
}

#[test]
fn label_values_cannot_break_the_text_format() {
    let metrics = Metrics::new();
    metrics.request(key("a\"b\\c\nd")).record(ResponseClass::Error, None, Duration::ZERO);
    assert!(metrics.encode().contains(r#"route="a\"b\\c\nd""#));
}

#[test]
fn names_that_others_read_are_there() {
    let metrics = Metrics::new();
    metrics.set_certificate_expiry(1_700_000_000);
    let cluster = metrics.cluster("shop/reviews");
    cluster.retry(RetryOutcome::Success);
    let text = metrics.encode();
    for line in [
        "weft_certificate_expiry_seconds 1700000000.0",
        r#"weft_request_retries_total{destination_service="shop/reviews",outcome="success"} 1"#,
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\nis not in\n{text}");
    }
    assert!(text.contains("process_resident_memory_bytes "));
}

#[test]
fn series_that_no_connection_uses_expire_after_an_hour() {
    let metrics = Metrics::new();
    let (held, left) = (metrics.request(key("held")), metrics.request(key("left")));
    for request in [&held, &left] {
        request.record(ResponseClass::Success, None, Duration::ZERO);
        request.record(ResponseClass::ServerError, Some(Flag::new("UH")), Duration::ZERO);
    }
    drop(left);
    let start = Instant::now();
    metrics.expire(start);
    metrics.expire(start + UNUSED - Duration::from_secs(1));
    assert!(metrics.encode().contains("route=\"left\""), "not yet");
    metrics.expire(start + UNUSED);
    let text = metrics.encode();
    assert!(!text.contains("route=\"left\""), "{text}");
    assert!(text.contains("route=\"held\""));
    assert!(text.contains("weft_request_series_expired_total 1\n"));

    let again = metrics.request(key("left"));
    again.record(ResponseClass::Success, None, Duration::ZERO);
    assert!(metrics.encode().contains("route=\"left\""), "a key that comes back is counted anew");
}

#[test]
fn series_that_are_used_again_in_between_do_not_expire() {
    let metrics = Metrics::new();
    drop(metrics.request(key("r")));
    let start = Instant::now();
    metrics.expire(start);
    drop(metrics.request(key("r")));
    metrics.expire(start + UNUSED);
    assert!(metrics.encode().contains("route=\"r\""), "unused since then only");
    metrics.expire(start + 2 * UNUSED);
    assert!(!metrics.encode().contains("route=\"r\""));
}

#[test]
fn what_is_served_is_what_the_table_says() {
    let store = Arc::new(Store::new());
    let message = weft_xds::envoy::config::cluster::v3::Cluster { name: "c".into(), ..Default::default() };
    let cluster = Arc::new(crate::upstream::Cluster::compile(&message, "").unwrap());
    store.update(|next| drop(next.clusters.insert("c".into(), cluster)));
    let metrics = Metrics::observing(store);
    // A family without series is not written at all.
    metrics.request(key("r")).record(ResponseClass::Success, None, Duration::ZERO);
    metrics.cluster("shop/reviews").retry(RetryOutcome::Success);
    let _open = metrics.connection(Direction::Inbound, Protocol::Tcp, Tls::None).open();
    let _tunnel = metrics.tunnel(Direction::Inbound);
    metrics.count_lookup(LookupOutcome::Found);
    metrics.set_config_resources("route", "active", 1);
    metrics.count_config_rejections("route", 1);
    let text = metrics.encode();

    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let described: BTreeSet<_> = described.collect();
    let table: BTreeSet<_> = table::ALL.iter().map(|family| (family.name, family.kind.as_str())).collect();
    assert_eq!(described, table);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let family = weft_telemetry::family_of(series).unwrap_or_else(|| panic!("{series} is not in the table"));
        // No value in this test holds a quotation mark.
        let names =
            rest.split('"').step_by(2).map(|part| part.trim_matches(|c: char| !c.is_ascii_alphabetic() && c != '_'));
        let names: BTreeSet<_> = names.filter(|name| !name.is_empty() && *name != "le").collect();
        assert_eq!(names, family.labels.iter().copied().collect::<BTreeSet<_>>(), "{line}");
    }
}

#[test]
fn the_bytes_of_requests_are_counted_as_those_of_relays_are() {
    let metrics = Metrics::new();
    metrics.request(key("r")).bytes(3, 5);
    metrics.request(key("s")).bytes(0, 1);
    let text = metrics.encode();
    assert!(text.contains("weft_bytes_total{direction=\"outbound\",way=\"received\"} 3\n"), "{text}");
    assert!(text.contains("weft_bytes_total{direction=\"outbound\",way=\"sent\"} 6\n"), "{text}");
}
