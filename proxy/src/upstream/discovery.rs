//! Where a cluster's endpoints come from (`envoy.config.cluster.v3.Cluster.type` and what belongs to each).

use std::sync::Arc;
use std::time::Duration;

use weft_xds::FieldError;
use weft_xds::envoy::config::cluster::v3::Cluster as Message;
use weft_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily};

use super::assignment::Assignment;
use super::fields::{optional_duration, unsupported};
use crate::dns::Family;

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// EDS, under this resource name.
    Eds(Arc<str>),
    /// The message itself.
    Static(Assignment),
    /// The message itself, its names resolved again and again.
    Dns(DnsSettings),
    /// Each connection goes where it was going.
    OriginalDestination,
}

/// How a cluster's names become endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsSettings {
    /// Endpoints with names.
    pub assignment: Assignment,
    /// Whether only one address of the name is used at a time (LOGICAL_DNS), and not all (STRICT_DNS).
    pub one_address: bool,
    /// Time from an answer to the next question (5 s).
    pub refresh: Duration,
    /// Whether an answer's own time to live goes before `refresh`.
    pub respect_ttl: bool,
    /// Random addition to the time between questions, at most.
    pub jitter: Duration,
    /// Time from a failure to the next question; doubled with each failure from the first to the second.
    pub failure_refresh: (Duration, Duration),
    /// Which addresses are wanted.
    pub family: Family,
}

/// Envoy's default.
const DNS_REFRESH: Duration = Duration::from_secs(5);

impl Discovery {
    pub(super) fn compile(message: &Message, path: &str) -> Result<Self, FieldError> {
        let kind = match message.cluster_discovery_type.as_ref() {
            None => DiscoveryType::Static,
            Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind).map_err(|_| {
                let way_out = "use EDS, STATIC, STRICT_DNS, LOGICAL_DNS or ORIGINAL_DST";
                FieldError::invalid(format!("{path}.type"), kind, "is unknown", way_out)
            })?,
            Some(ClusterDiscoveryType::ClusterType(_)) => {
                return Err(FieldError::new(
                    format!("{path}.cluster_type"),
                    "not supported; use type EDS, STATIC, STRICT_DNS, LOGICAL_DNS or ORIGINAL_DST",
                ));
            }
        };
        let own_endpoints = || {
            let assignment = message.load_assignment.as_ref();
            let path = format!("{path}.load_assignment");
            assignment.map_or_else(|| Ok(Assignment::default()), |assignment| Assignment::compile(assignment, &path))
        };
        match kind {
            DiscoveryType::Eds => {
                unsupported(message.load_assignment.is_some(), path, "load_assignment")?;
                let service = message.eds_cluster_config.as_ref().map_or("", |eds| eds.service_name.as_str());
                Ok(Self::Eds(if service.is_empty() { message.name.as_str() } else { service }.into()))
            }
            DiscoveryType::Static => {
                let assignment = own_endpoints()?;
                if let Some(name) = assignment.names().next() {
                    let why = "is not an IP address, which a STATIC cluster needs";
                    let way_out = "give an address, or use type STRICT_DNS";
                    return Err(FieldError::invalid(format!("{path}.load_assignment"), name, why, way_out));
                }
                Ok(Self::Static(assignment))
            }
            DiscoveryType::StrictDns => Ok(Self::Dns(DnsSettings::compile(message, own_endpoints()?, false, path)?)),
            DiscoveryType::LogicalDns => {
                let assignment = own_endpoints()?;
                if assignment.endpoints.len() != 1 {
                    let count = assignment.endpoints.len();
                    let way_out = "a LOGICAL_DNS cluster has exactly one; use STRICT_DNS for more";
                    return Err(FieldError::invalid(
                        format!("{path}.load_assignment.endpoints"),
                        count,
                        "is the number of endpoints",
                        way_out,
                    ));
                }
                Ok(Self::Dns(DnsSettings::compile(message, assignment, true, path)?))
            }
            DiscoveryType::OriginalDst => Ok(Self::OriginalDestination),
        }
    }
}

impl DnsSettings {
    /// The fields are deprecated in favour of an extension, and what everybody writes.
    #[allow(deprecated)]
    fn compile(message: &Message, assignment: Assignment, one_address: bool, path: &str) -> Result<Self, FieldError> {
        // Envoy refuses less: a question per millisecond helps nobody.
        let interval = |value, field: &str| {
            let path = format!("{path}.{field}");
            match optional_duration(value, &path)? {
                Some(interval) if interval <= Duration::from_millis(1) => {
                    let value = format!("{interval:?}");
                    Err(FieldError::invalid(path, value, "is too short", "give more than 1 ms"))
                }
                interval => Ok(interval),
            }
        };
        let refresh = interval(message.dns_refresh_rate.as_ref(), "dns_refresh_rate")?.unwrap_or(DNS_REFRESH);
        let failure_refresh = match &message.dns_failure_refresh_rate {
            None => (refresh, refresh),
            Some(rate) => {
                let Some(base) = interval(rate.base_interval.as_ref(), "dns_failure_refresh_rate.base_interval")?
                else {
                    let path = format!("{path}.dns_failure_refresh_rate.base_interval");
                    return Err(FieldError::missing(path, "give the time to the first repetition"));
                };
                let longest = interval(rate.max_interval.as_ref(), "dns_failure_refresh_rate.max_interval")?;
                let longest = longest.unwrap_or(base * 10);
                if longest < base {
                    let path = format!("{path}.dns_failure_refresh_rate.max_interval");
                    let value = format!("{longest:?}");
                    return Err(FieldError::invalid(path, value, "is below base_interval", "give as much or more"));
                }
                (base, longest)
            }
        };
        let family = match DnsLookupFamily::try_from(message.dns_lookup_family) {
            Ok(DnsLookupFamily::Auto) => Family::Auto,
            Ok(DnsLookupFamily::V4Only) => Family::V4Only,
            Ok(DnsLookupFamily::V6Only) => Family::V6Only,
            Ok(DnsLookupFamily::V4Preferred) => Family::V4Preferred,
            Ok(DnsLookupFamily::All) => Family::All,
            Err(_) => {
                return Err(FieldError::invalid(
                    format!("{path}.dns_lookup_family"),
                    message.dns_lookup_family,
                    "is unknown",
                    "use AUTO, V4_ONLY, V6_ONLY, V4_PREFERRED or ALL",
                ));
            }
        };
        let jitter = optional_duration(message.dns_jitter.as_ref(), &format!("{path}.dns_jitter"))?.unwrap_or_default();
        let respect_ttl = message.respect_dns_ttl;
        Ok(Self { assignment, one_address, refresh, respect_ttl, jitter, failure_refresh, family })
    }
}
