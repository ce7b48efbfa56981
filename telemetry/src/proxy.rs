//! What `weft-proxy` serves at `/stats/prometheus`.

/// What a request is told apart by.
pub const REQUEST_LABELS: [&str; 9] = [
    "direction",
    "source_workload",
    "source_namespace",
    "destination_service",
    "destination_workload",
    "destination_namespace",
    "route",
    "peer",
    "tls",
];

/// [`REQUEST_LABELS`], and how it was answered.
const RESPONSE_LABELS: [&str; 11] = [
    "direction",
    "source_workload",
    "source_namespace",
    "destination_service",
    "destination_workload",
    "destination_namespace",
    "route",
    "peer",
    "tls",
    "response_class",
    "flag",
];

crate::families! {
    REQUESTS = Counter "weft_requests" RESPONSE_LABELS,
        "Requests, by response class and by the flag of a response that is not the application's own";
    REQUEST_DURATION = Histogram "weft_request_duration_seconds" REQUEST_LABELS,
        "Time from the head of a request to the end of its response";
    REQUEST_SERIES_EXPIRED = Counter "weft_request_series_expired" [],
        "Kinds of requests whose series were removed: no connection had used them for an hour";
    REQUEST_SERIES_OVERFLOW = Counter "weft_request_series_overflow" [],
        "Times that a connection brought a kind of request for which there were too many series already; it is counted with `overflow` in every label";
    REQUEST_RETRIES = Counter "weft_request_retries" ["destination_service", "outcome"],
        "Retries, by how they ended";
    CONNECTIONS = Counter "weft_connections" ["direction", "protocol", "tls"],
        "Connections accepted, by what they carry";
    CONNECTIONS_ACTIVE = Gauge "weft_connections_active" ["direction", "protocol", "tls"],
        "Connections open now, by what they carry";
    TUNNELS_ACTIVE = Gauge "weft_tunnels_active" ["direction"],
        "WebSockets and other tunnels open now, each also a request once it has ended";
    BYTES = Counter "weft_bytes" ["direction", "way"],
        "Bytes of bodies and relays on the side of whoever connected, counted when the request or the connection has ended";
    CERTIFICATE_EXPIRY = Gauge "weft_certificate_expiry_seconds" [],
        "When the workload's certificate ends, in seconds since 1970; 0 without one";
    DESTINATION_LOOKUPS = Counter "weft_destination_lookups" ["outcome"],
        "Questions to the control plane for a destination seen for the first time, by answer";
    CONTROL_PLANE_CONNECTED = Gauge "weft_control_plane_connected" [],
        "1 while the configuration stream is open";
    CONFIG_RESOURCES = Gauge "weft_config_resources" ["kind", "state"],
        "Configuration resources known, by kind and state";
    CONFIG_REJECTIONS = Counter "weft_config_rejections" ["kind"],
        "Configuration resources refused, by kind";
    OUTLIER_EJECTIONS = Counter "weft_outlier_ejections" ["cluster"],
        "Endpoints ejected by outlier detection";
    OUTLIER_EJECTED = Gauge "weft_outlier_ejected" ["cluster"],
        "Endpoints that are ejected now";
    UPSTREAM_IN_USE = Gauge "weft_upstream_in_use" ["cluster", "resource"],
        "What circuit breakers limit, as it is now";
    UPSTREAM_OVERFLOWS = Counter "weft_upstream_overflows" ["cluster", "resource"],
        "Times that a circuit breaker said no";
    BUILD = Info "weft_build" ["version"],
        "The running version";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [],
        "Resident memory";
    PROCESS_DESCRIPTORS = Gauge "process_open_fds" [],
        "Open file descriptors";
    PROCESS_THREADS = Gauge "process_threads" [],
        "Threads";
    PROCESS_CPU = Counter "process_cpu_seconds" [],
        "User and system CPU time spent";
}
