//! `/clusters` and `/certs`.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::snapshot::Snapshot;
use crate::tls::LocalIdentity;
use crate::upstream::breaker::Resource;
use crate::upstream::{Cluster, Discovery, Health, Member};

/// Clusters in Envoy's text form: `cluster::address::name::value`, one a line, clusters by name.
pub(super) fn clusters_text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for cluster in sorted(snapshot) {
        let name = cluster.name();
        for (resource, text) in RESOURCES {
            line(&mut out, format_args!("{name}::default_priority::{text}::{}", cluster.breaker().in_use(resource)));
        }
        line(&mut out, format_args!("{name}::outlier::ejected::{}", cluster.outliers().ejected()));
        for member in cluster.members() {
            let at = format!("{name}::{}", member.endpoint.address());
            line(&mut out, format_args!("{at}::rq_active::{}", member.endpoint.active()));
            line(&mut out, format_args!("{at}::rq_total::{}", member.endpoint.requests()));
            line(&mut out, format_args!("{at}::rq_error::{}", member.endpoint.failures()));
            line(&mut out, format_args!("{at}::hostname::{}", member.endpoint.hostname().unwrap_or_default()));
            line(&mut out, format_args!("{at}::health_flags::{}", flags(&member)));
            line(&mut out, format_args!("{at}::weight::{}", member.weight));
            line(&mut out, format_args!("{at}::zone::{}", member.zone.as_deref().unwrap_or_default()));
            line(&mut out, format_args!("{at}::priority::{}", member.priority));
            if let Some(identity) = member.endpoint.identity() {
                line(&mut out, format_args!("{at}::identity::{}", identity.spiffe));
            }
            if let Some(latency) = member.endpoint.latency(Instant::now()) {
                line(&mut out, format_args!("{at}::latency_ms::{:.3}", latency.as_secs_f64() * 1e3));
            }
        }
    }
    out
}

/// The same as JSON.
pub(super) fn clusters_json(snapshot: &Snapshot) -> Value {
    let clusters = sorted(snapshot).map(|cluster| {
        let config = cluster.config();
        let in_use: serde_json::Map<String, Value> = RESOURCES
            .iter()
            .map(|(resource, text)| ((*text).to_owned(), cluster.breaker().in_use(*resource).into()))
            .collect();
        json!({
            "name": &*config.name,
            "discovery": match &config.discovery {
                Discovery::Eds(name) => format!("eds {name}"),
                Discovery::Static(_) => "static".to_owned(),
                Discovery::Dns(_) => "dns".to_owned(),
                Discovery::OriginalDestination => "original destination".to_owned(),
            },
            "in_use": in_use,
            "ejected": cluster.outliers().ejected(),
            "ejections": cluster.outliers().ejections(),
            "endpoints": cluster.members().iter().map(endpoint).collect::<Vec<_>>(),
        })
    });
    json!({ "clusters": clusters.collect::<Vec<_>>() })
}

const RESOURCES: [(Resource, &str); 4] = [
    (Resource::Connections, "cx_active"),
    (Resource::Pending, "rq_pending_active"),
    (Resource::Requests, "rq_active"),
    (Resource::Retries, "rq_retry_active"),
];

fn endpoint(member: &Member) -> Value {
    let endpoint = &member.endpoint;
    json!({
        "address": endpoint.address().to_string(),
        "hostname": endpoint.hostname(),
        "identity": endpoint.identity().map(|identity| identity.spiffe.as_str()),
        "pod": endpoint.identity().and_then(|identity| identity.pod.as_deref()),
        "tls": endpoint.tls().is_some(),
        "health": flags(member),
        "weight": member.weight,
        "priority": member.priority,
        "zone": member.zone.as_deref(),
        "active": endpoint.active(),
        "requests": endpoint.requests(),
        "failures": endpoint.failures(),
        "latency_ms": endpoint.latency(Instant::now()).map(|latency| latency.as_secs_f64() * 1e3),
    })
}

/// Envoy's health flags, as far as they apply.
fn flags(member: &Member) -> &'static str {
    match (member.endpoint.is_ejected(), member.health) {
        (true, _) => "/failed_outlier_check",
        (false, Health::Healthy) => "healthy",
        (false, Health::Unhealthy) => "/failed_eds_health",
        (false, Health::Draining) => "/eds_status_draining",
    }
}

fn sorted(snapshot: &Snapshot) -> impl Iterator<Item = &Cluster> {
    let mut clusters: Vec<_> = snapshot.clusters.iter().collect();
    clusters.sort_unstable_by(|a, b| a.0.cmp(b.0));
    clusters.into_iter().map(|(_, cluster)| &**cluster)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "{text}");
}

/// Our certificate and the trust bundle in Envoy's form (`envoy.admin.v3.Certificates`).
pub(super) fn certificates(identity: &LocalIdentity) -> Value {
    let current = identity.current();
    let chain: Vec<Value> = current
        .leaf
        .iter()
        .map(|leaf| {
            let uris = leaf.identity.uris.iter().map(|uri| json!({ "uri": uri }));
            let names = leaf.identity.dns_names.iter().map(|dns| json!({ "dns": dns }));
            json!({
                "path": "SDS: identity",
                "serial_number": leaf.serial,
                "subject_alt_names": uris.chain(names).collect::<Vec<_>>(),
                "valid_from": rfc3339(leaf.not_before),
                "expiration_time": rfc3339(leaf.not_after),
                "days_until_expiration": days_until(leaf.not_after),
            })
        })
        .collect();
    let roots: Vec<Value> =
        current.bundle.iter().flat_map(|bundle| bundle.certificates()).filter_map(|der| root(der)).collect();
    let mut answer =
        json!({ "certificates": [{ "ca_cert": roots, "cert_chain": chain }], "generation": current.generation });
    if let Some(failure) = identity.last_failure() {
        answer["last_failure"] = failure.into();
    }
    answer
}

fn root(der: &[u8]) -> Option<Value> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let time =
        |seconds: i64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some(json!({
        "path": "SDS: bundle",
        "serial_number": parsed.raw_serial_as_string().replace(':', ""),
        "subject": parsed.subject().to_string(),
        "valid_from": rfc3339(time(from)),
        "expiration_time": rfc3339(time(to)),
        "days_until_expiration": days_until(time(to)),
    }))
}

fn days_until(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs() / (24 * 60 * 60))
}

/// `2026-11-25T02:30:00Z`: days since 1970 as a date of the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_573_799, "2026-11-25T02:29:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
