//! The reference page of all metrics.

use std::fmt::Write as _;

use crate::{Family, control_plane, proxy};

/// What the labels say.
pub const LABELS: &[(&str, &str)] = &[
    (
        "cluster",
        "a group of endpoints: `service/<namespace>/<name>/<port>`, `inbound/<port>`, or as another control plane named it",
    ),
    ("destination_namespace", "the namespace of that workload; empty when it is not in the mesh"),
    (
        "destination_service",
        "`<namespace>/<name>` of the Service whose endpoint was chosen: of a route with weights its backend; empty on the inbound side, and for an address that is none",
    ),
    ("destination_workload", "the workload that answered; empty when it is not in the mesh"),
    ("direction", "`outbound`: the application beside the proxy calls; `inbound`: it is called"),
    (
        "flag",
        "empty when the application answered; otherwise why it did not, by Envoy's short names: `UH` no healthy endpoint, `UF` connecting failed, \
      `UO` a circuit breaker said no, `UT` timed out, `UC` the connection broke, `NR` no route, `NC` no configuration, `FI` an injected fault, `DI` an \
      injected delay, `UAEX` denied by an access policy, `DC` the caller went away",
    ),
    (
        "kind",
        "of a proxy's configuration: `listener`, `route`, `cluster`, `endpoints`, `secret`; of the API server's objects: their kind",
    ),
    (
        "outcome",
        "of a retry: `success`, `failure`, `over_budget`, `body_too_large`; of a lookup: `found`, `absent`, `no_answer`",
    ),
    ("peer", "the SPIFFE ID of the other side, as its certificate proved it; empty without mutual TLS"),
    ("protocol", "`http/1.1`, `h2`, `tcp`"),
    (
        "resource",
        "`connections` to endpoints, `pending` requests that wait for one, `requests` under way, `retries` under way",
    ),
    ("response_class", "`1xx` to `5xx`, or `error` when the caller got no whole response"),
    ("result", "how it ended; the metric says which there are"),
    ("route", "the route's rule, or `inbound/<port>`"),
    ("source_namespace", "the caller's namespace; empty when it is not in the mesh"),
    ("source_workload", "the workload that called; empty when it is not in the mesh"),
    (
        "state",
        "`active`, `warming` (not complete yet), `absent` (the control plane says that there is none), `refused`",
    ),
    ("tls", "between the two proxies: `mutual`, `simple` (only the server proved itself), `none`"),
    ("type", "`LDS`, `RDS`, `CDS`, `EDS`, `SDS`"),
    ("version", "of the program"),
    ("way", "`sent` to whoever connected, `received` from there"),
];

/// `docs/reference/metrics.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Made from the tables in telemetry/src by `WEFT_WRITE_REFERENCE=1 cargo test -p weft-telemetry --test generated`; a test compares. -->\n\n\
         Everything is in the OpenMetrics text format, which Prometheus reads. How to scrape it, and what is made of it (rules, alerts,\n\
         dashboards), is in [Seeing what happens](../observability.md).\n\n\
         A counter's series have the suffix `_total`, those of an info `_info`, and a histogram is three: `_bucket` (with the label `le`),\n\
         `_sum` and `_count`.\n",
    );
    section(&mut page, "Proxy", "Port 15020 of every pod with a sidecar, `/stats/prometheus`.", proxy::ALL);
    section(
        &mut page,
        "Control plane",
        "Port 15021 of the control plane's pods, `/metrics`; on one machine 127.0.0.1:15014.",
        control_plane::ALL,
    );
    page.push_str("\n## Labels\n\n| label | meaning |\n|---|---|\n");
    for (label, meaning) in LABELS {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(page, "| `{label}` | {meaning} |");
    }
    page
}

fn section(page: &mut String, title: &str, place: &str, families: &[Family]) {
    let _ = write!(page, "\n## {title}\n\n{place}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Family { name, kind, labels, help } in families {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {} | {} | {help} |", kind.as_str(), labels.join(", "));
    }
}
