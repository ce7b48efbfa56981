//! What `weft-control-plane` serves at `/metrics`.

/// What the names of all of them begin with.
pub const PREFIX: &str = "weft_control_plane_";

crate::families! {
    CONNECTED_PROXIES = Gauge "weft_control_plane_connected_proxies" [],
        "Open ADS streams";
    PUSHES = Counter "weft_control_plane_pushes" ["type"],
        "Responses sent, by xDS type";
    RESOURCES_SENT = Counter "weft_control_plane_resources_sent" ["type"],
        "Resources sent in responses, by xDS type";
    NACKS = Counter "weft_control_plane_nacks" ["type"],
        "Responses that a proxy rejected, by xDS type";
    CONVERGENCE = Histogram "weft_control_plane_convergence_seconds" [],
        "From a change of the configuration to the last acknowledgement of a proxy that it concerns";
    CERTIFICATES = Counter "weft_control_plane_certificates" ["result"],
        "Signing requests, by result (issued, refused)";
    TOKEN_REVIEWS = Counter "weft_control_plane_token_reviews" ["result"],
        "Questions to the API server about service-account tokens, by result (accepted, refused, unavailable)";
    ELECTED = Gauge "weft_control_plane_elected" [],
        "Whether this replica is the one that writes trust bundles and statuses (on Kubernetes)";
    STATUS_WRITES = Counter "weft_control_plane_status_writes" ["result"],
        "Statuses of users' objects written to the API server, by result (written, overtaken, failed)";
    SOURCE_ERRORS = Gauge "weft_control_plane_source_errors" [],
        "Errors in the configuration; while a folder has any, its last good state is served, in a cluster that of each object";
    CONFIGURATION_CHANGES = Counter "weft_control_plane_configuration_changes" [],
        "Configurations taken over from the folder or the API server";
    WATCH_SYNCED = Gauge "weft_control_plane_watch_synced" ["kind"],
        "Whether all objects of a kind have been listed once";
    WATCH_LISTS = Gauge "weft_control_plane_watch_lists" ["kind"],
        "Complete lists: the first, and one after each watch that expired";
    WATCH_FAILURES = Gauge "weft_control_plane_watch_failures" ["kind"],
        "Times that the API server could not be asked for a kind";
    WATCH_LAST_EVENT = Gauge "weft_control_plane_watch_last_event_seconds" ["kind"],
        "Unix time when the API server last told something of a kind";
}
