//! What a pod says about its sidecar, by annotations.

use serde_json::Value;
use weft_cni::redirect::Cidr;

use crate::settings::{LONGEST_DRAIN, Settings};

/// An annotation that users may write on a pod, for the documentation and for hints.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub values: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const SIDECAR: &str = "weft.mesh/sidecar";
const PROXY_IMAGE: &str = "weft.mesh/proxy-image";
const LOG_LEVEL: &str = "weft.mesh/proxy-log-level";
const CPU_REQUEST: &str = "weft.mesh/proxy-cpu-request";
const CPU_LIMIT: &str = "weft.mesh/proxy-cpu-limit";
const MEMORY_REQUEST: &str = "weft.mesh/proxy-memory-request";
const MEMORY_LIMIT: &str = "weft.mesh/proxy-memory-limit";
const DRAIN_TIME: &str = "weft.mesh/drain-time";
const SKIP_INBOUND: &str = "weft.mesh/skip-inbound-ports";
const SKIP_OUTBOUND: &str = "weft.mesh/skip-outbound-ports";
const SKIP_NETWORKS: &str = "weft.mesh/skip-outbound-cidrs";
/// Ports of a pod, or of a Service, that carry bytes whatever they look like: what [`ports`] reads.
pub const OPAQUE_PORTS: &str = "weft.mesh/opaque-ports";

/// Every annotation that users may write.
pub const ANNOTATIONS: [Annotation; 13] = [
    Annotation {
        name: crate::names::INJECT,
        values: "`enabled` or `disabled`",
        meaning: "whether the pod gets a sidecar, whatever its namespace says; a label of this name means the same",
    },
    Annotation {
        name: SIDECAR,
        values: "`native` (default) or `container`",
        meaning: "how the sidecar runs: as an init container that goes on running, which ends after the application, or as an ordinary container; a Job with the latter never finishes",
    },
    Annotation { name: PROXY_IMAGE, values: "an image", meaning: "the sidecar's image" },
    Annotation {
        name: LOG_LEVEL,
        values: "such as `info`, `debug`, `weft_proxy::ads=debug,info`",
        meaning: "what the sidecar logs",
    },
    Annotation { name: CPU_REQUEST, values: "a quantity, such as `100m`", meaning: "CPU that the sidecar asks for" },
    Annotation { name: CPU_LIMIT, values: "a quantity", meaning: "CPU that the sidecar may use at most" },
    Annotation {
        name: MEMORY_REQUEST,
        values: "a quantity, such as `64Mi`",
        meaning: "memory that the sidecar asks for",
    },
    Annotation { name: MEMORY_LIMIT, values: "a quantity", meaning: "memory that the sidecar may use at most" },
    Annotation { name: DRAIN_TIME, values: "whole seconds, such as `45s`", meaning: "longest drain of the sidecar" },
    Annotation {
        name: SKIP_INBOUND,
        values: "ports and ranges, such as `9100,8000-8003`",
        meaning: "ports that others connect to past the sidecar",
    },
    Annotation {
        name: SKIP_OUTBOUND,
        values: "ports and ranges",
        meaning: "destination ports to which the application connects past the sidecar",
    },
    Annotation {
        name: SKIP_NETWORKS,
        values: "networks, such as `198.18.9.0/24`",
        meaning: "networks to which the application connects past the sidecar",
    },
    Annotation {
        name: OPAQUE_PORTS,
        values: "ports and ranges",
        meaning: "ports of the application that carry bytes, whatever they look like",
    },
];

/// Most ports in one annotation: each is a rule that every new connection is compared with.
const MOST_PORTS: usize = 1000;

/// An annotation that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata.annotations[{name:?}]: {value:?} {problem}")]
pub struct InvalidAnnotation {
    /// The annotation.
    pub name: String,
    /// Its value, or the part that is wrong.
    pub value: String,
    /// Why, and what to write instead.
    pub problem: String,
}

/// The settings of one pod, and its redirect's exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodSettings {
    pub(crate) settings: Settings,
    /// Whether the sidecar is an init container that goes on running.
    pub(crate) native: bool,
    pub(crate) skip_inbound: Vec<u16>,
    pub(crate) skip_outbound: Vec<u16>,
    pub(crate) skip_networks: Vec<Cidr>,
}

/// Reads a pod's annotations.
pub(crate) fn read(annotations: &Value, settings: &Settings) -> Result<PodSettings, InvalidAnnotation> {
    let map = annotations.as_object();
    for (name, value) in map.into_iter().flatten() {
        let known = ANNOTATIONS.iter().any(|known| known.name == name);
        let own = [crate::names::INJECTED, crate::names::REDIRECT].contains(&name.as_str());
        if name.starts_with("weft.mesh/") && !known && !own {
            let text = value.as_str().unwrap_or_default();
            let names: Vec<_> = ANNOTATIONS.iter().map(|known| known.name).collect();
            return Err(invalid(
                name,
                text,
                format!("is of no annotation that Weft knows; there are {}", names.join(", ")),
            ));
        }
    }
    let get = |name: &str| map.and_then(|map| map.get(name)).and_then(Value::as_str).map(str::trim);
    let mut own = settings.clone();
    if let Some(image) = get(PROXY_IMAGE) {
        if !is_image(image) {
            return Err(invalid(PROXY_IMAGE, image, "is not an image; write <registry>/<name>:<tag>"));
        }
        image.clone_into(&mut own.proxy_image);
    }
    if let Some(level) = get(LOG_LEVEL) {
        if !is_log_level(level) {
            return Err(invalid(
                LOG_LEVEL,
                level,
                "is not a log level; write error, warn, info, debug or trace, or weft_proxy::ads=debug,info",
            ));
        }
        level.clone_into(&mut own.log_level);
    }
    for (name, target) in [
        (CPU_REQUEST, &mut own.cpu_request),
        (CPU_LIMIT, &mut own.cpu_limit),
        (MEMORY_REQUEST, &mut own.memory_request),
        (MEMORY_LIMIT, &mut own.memory_limit),
    ] {
        if let Some(quantity) = get(name) {
            if !is_quantity(quantity) {
                return Err(invalid(name, quantity, "is not a quantity; write such as 100m or 64Mi"));
            }
            quantity.clone_into(target);
        }
    }
    if let Some(time) = get(DRAIN_TIME) {
        let seconds =
            time.strip_suffix('s').and_then(|number| number.parse().ok()).filter(|seconds| *seconds <= LONGEST_DRAIN);
        own.drain_seconds = seconds.ok_or_else(|| {
            invalid(DRAIN_TIME, time, "is not a drain time; write whole seconds up to 3600s, such as 45s")
        })?;
    }
    let native = match get(SIDECAR) {
        None | Some("native") => true,
        Some("container") => false,
        Some(other) => return Err(invalid(SIDECAR, other, "is neither native nor container")),
    };
    ports(OPAQUE_PORTS, get(OPAQUE_PORTS).unwrap_or_default())?;
    Ok(PodSettings {
        settings: own,
        native,
        skip_inbound: ports(SKIP_INBOUND, get(SKIP_INBOUND).unwrap_or_default())?,
        skip_outbound: ports(SKIP_OUTBOUND, get(SKIP_OUTBOUND).unwrap_or_default())?,
        skip_networks: networks(get(SKIP_NETWORKS).unwrap_or_default())?,
    })
}

fn invalid(name: &str, value: &str, problem: impl Into<String>) -> InvalidAnnotation {
    InvalidAnnotation { name: name.to_owned(), value: value.to_owned(), problem: problem.into() }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Reads an annotation's ports and ranges, such as `9100,8000-8003`; sorted, each once.
///
/// # Errors
/// What is no port, or that there are too many.
pub fn ports(name: &str, text: &str) -> Result<Vec<u16>, InvalidAnnotation> {
    let mut ports = Vec::new();
    for part in parts(text) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => ports.extend(first..=last),
            _ => {
                return Err(invalid(
                    name,
                    part,
                    "is not a port; write ports from 1 to 65535 and ranges of them, such as 9100,8000-8003",
                ));
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MOST_PORTS {
        return Err(invalid(
            name,
            text,
            format!("is more than {MOST_PORTS} ports, each of which costs every new connection; skip networks instead"),
        ));
    }
    Ok(ports)
}

fn networks(text: &str) -> Result<Vec<Cidr>, InvalidAnnotation> {
    parts(text)
        .map(|part| part.parse().map_err(|error| invalid(SKIP_NETWORKS, part, format!("is not a network: {error}"))))
        .collect()
}

/// An image's name, as far as it can be told without a registry.
pub(crate) fn is_image(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '$')
}

/// A filter of the `tracing` crate.
pub(crate) fn is_log_level(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:=,-".contains(&b))
}

/// A Kubernetes quantity without exponent: a number and an optional suffix.
pub(crate) fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && number.parse::<f64>().is_ok_and(|number| number > 0.0)
        && ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"].contains(&suffix)
}
