//! What an unset field means, where that is more than "nothing": Envoy's defaults, which the compilers apply.

/// (message, field, what it is where unset)
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("envoy.config.bootstrap.v3.Admin", "address", "127.0.0.1:15000"),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds", "max_connections", "1024"),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds", "max_pending_requests", "1024"),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds", "max_requests", "1024"),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds", "max_retries", "3, where there is no `retry_budget`"),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget", "budget_percent", "20 %"),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget", "min_retry_concurrency", "3"),
    ("envoy.config.cluster.v3.Cluster", "connect_timeout", "5 s"),
    ("envoy.config.cluster.v3.Cluster", "dns_refresh_rate", "5 s"),
    ("envoy.config.cluster.v3.Cluster", "lb_policy", "ROUND_ROBIN"),
    ("envoy.config.cluster.v3.Cluster", "type", "STATIC"),
    ("envoy.config.cluster.v3.Cluster.LeastRequestLbConfig", "choice_count", "2"),
    ("envoy.config.cluster.v3.Cluster.CommonLbConfig", "healthy_panic_threshold", "50 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "base_ejection_time", "30 s"),
    ("envoy.config.cluster.v3.OutlierDetection", "consecutive_5xx", "5"),
    ("envoy.config.cluster.v3.OutlierDetection", "consecutive_gateway_failure", "5"),
    ("envoy.config.cluster.v3.OutlierDetection", "consecutive_local_origin_failure", "5"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_consecutive_5xx", "100 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_consecutive_gateway_failure", "0 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_consecutive_local_origin_failure", "100 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_local_origin_success_rate", "100 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_success_rate", "100 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_failure_percentage", "0 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "enforcing_failure_percentage_local_origin", "0 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "failure_percentage_minimum_hosts", "5"),
    ("envoy.config.cluster.v3.OutlierDetection", "failure_percentage_request_volume", "50"),
    ("envoy.config.cluster.v3.OutlierDetection", "failure_percentage_threshold", "85 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "interval", "10 s"),
    ("envoy.config.cluster.v3.OutlierDetection", "max_ejection_percent", "10 %"),
    ("envoy.config.cluster.v3.OutlierDetection", "max_ejection_time", "300 s, at least `base_ejection_time`"),
    ("envoy.config.cluster.v3.OutlierDetection", "max_ejection_time_jitter", "0 s"),
    ("envoy.config.cluster.v3.OutlierDetection", "success_rate_minimum_hosts", "5"),
    ("envoy.config.cluster.v3.OutlierDetection", "success_rate_request_volume", "100"),
    ("envoy.config.cluster.v3.OutlierDetection", "success_rate_stdev_factor", "1900"),
    ("envoy.config.core.v3.HttpProtocolOptions", "idle_timeout", "1 h"),
    ("envoy.config.core.v3.HttpProtocolOptions", "max_headers_count", "100"),
    ("envoy.config.core.v3.Http2ProtocolOptions", "initial_connection_window_size", "24 MiB"),
    ("envoy.config.core.v3.Http2ProtocolOptions", "initial_stream_window_size", "256 KiB (Envoy: 16 MiB)"),
    ("envoy.config.core.v3.Http2ProtocolOptions", "max_concurrent_streams", "1024"),
    ("envoy.config.core.v3.KeepaliveSettings", "timeout", "20 s"),
    ("envoy.config.listener.v3.Listener", "bind_to_port", "true"),
    ("envoy.config.listener.v3.Listener", "listener_filters_timeout", "15 s"),
    ("envoy.config.route.v3.RetryPolicy", "num_retries", "1"),
    ("envoy.config.route.v3.RetryPolicy", "retry_back_off", "25 ms, at most 250 ms"),
    ("envoy.config.route.v3.RetryPolicy.RetryBackOff", "max_interval", "10 times `base_interval`"),
    ("envoy.config.route.v3.RouteAction", "timeout", "15 s"),
    ("envoy.config.route.v3.RouteConfiguration", "max_direct_response_body_size_bytes", "4096"),
    (HTTP, "codec_type", "AUTO"),
    (HTTP, "delayed_close_timeout", "1 s"),
    (HTTP, "max_request_headers_kb", "60"),
    (HTTP, "stream_idle_timeout", "5 min"),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "idle_timeout", "1 h"),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "max_connect_attempts", "1"),
];

const HTTP: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// What the field is where a message leaves it unset; `None` where that is nothing, zero or off.
pub(super) fn of(message: &str, field: &str) -> Option<&'static str> {
    DEFAULTS.iter().find(|default| default.0 == message && default.1 == field).map(|default| default.2)
}

#[cfg(test)]
mod tests {
    use super::super::{Support, rows};
    use super::*;

    #[test]
    fn only_fields_that_are_enforced_have_a_default() {
        for (message, field, _) in DEFAULTS {
            let row = rows().find(|row| row.message == *message && row.field == *field);
            assert_eq!(row.map(|row| row.support), Some(Support::Enforced), "{message}.{field}");
        }
    }
}
