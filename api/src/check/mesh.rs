//! Weft's own kinds.

use super::Check;
use super::values::is_token;
use crate::Duration;
use crate::mesh::{
    AccessFrom, AccessPolicy, AccessTo, FaultPolicy, MeshTls, Selector, TargetRef, TrafficPolicy, Workload,
};

/// The kinds that a policy may name.
#[derive(Clone, Copy)]
enum Targets {
    Services,
    Receivers,
}

pub(crate) fn workload(c: &mut Check, workload: &Workload) {
    c.metadata(&workload.metadata, false);
    let spec = &workload.spec;
    c.field("spec", |c| {
        if spec.addresses.is_empty() {
            c.field("addresses", |c| c.error("", "is empty", "write the workload's IP addresses"));
        }
        let mut families = [false; 2];
        c.each("addresses", &spec.addresses, |c, address| {
            if let Some(ip) = c.address(address) {
                let seen = &mut families[usize::from(ip.is_ipv6())];
                if *seen {
                    c.error(
                        address,
                        "is a second address of its family",
                        "a workload has at most one IPv4 and one IPv6 address",
                    );
                }
                *seen = true;
            }
        });
        if let Some(account) = &spec.service_account {
            c.field("serviceAccount", |c| c.subdomain(account));
        }
        // A label of the pod's DNS name, in which a dot would read two ways.
        if let Some(name) = spec.workload.as_ref().or(workload.metadata.name.as_ref()) {
            c.field("workload", |c| c.label_name(name));
        }
        c.each("ports", &spec.ports, |c, port| {
            c.field("port", |c| c.port(port.port.into()));
            if let Some(name) = &port.name {
                c.field("name", |c| c.label_name(name));
            }
        });
        c.unique("ports", &spec.ports, "the port", |p| (p.port, p.port.to_string()));
    });
}

pub(crate) fn traffic_policy(c: &mut Check, policy: &TrafficPolicy) {
    c.metadata(&policy.metadata, false);
    let spec = &policy.spec;
    c.field("spec", |c| {
        targets(c, &spec.target_refs, Targets::Services, true);
        if let Some(timeouts) = &spec.timeouts
            && let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request)
            && !request.0.is_zero()
            && backend > request
        {
            c.field("timeouts", |c| {
                c.field("backendRequest", |c| {
                    c.error(backend, format!("is longer than request ({request})"), "each try fits into the whole");
                });
            });
        }
        if let Some(timeouts) = &spec.timeouts
            && timeouts.connect.is_some_and(|d| d.0.is_zero())
        {
            c.field("timeouts", |c| {
                c.field("connect", |c| c.error("0s", "a connection needs a limit", "write a duration above 0s"));
            });
        }
        if let Some(retries) = &spec.retries {
            c.field("retries", |c| {
                if let Some(attempts) = retries.attempts {
                    c.field("attempts", |c| c.range(attempts.into(), 0, 10));
                }
                c.each("codes", &retries.codes, |c, code| c.range((*code).into(), 400, 599));
                if let Some(backoff) = &retries.backoff {
                    c.field("backoff", |c| {
                        for (name, duration) in [("base", backoff.base), ("max", backoff.max)] {
                            if let Some(duration) = duration {
                                c.field(name, |c| positive(c, duration));
                            }
                        }
                        if let (Some(base), Some(max)) = (backoff.base, backoff.max)
                            && max < base
                        {
                            c.field("max", |c| c.error(max, format!("is shorter than base ({base})"), ""));
                        }
                    });
                }
                if let Some(percent) = retries.budget.and_then(|b| b.percent) {
                    c.field("budget", |c| c.field("percent", |c| c.percent(percent)));
                }
            });
        }
        if let Some(percent) = spec.load_balancing.and_then(|l| l.panic_threshold) {
            c.field("loadBalancing", |c| c.field("panicThreshold", |c| c.percent(percent)));
        }
        if let Some(outliers) = &spec.outlier_detection {
            c.field("outlierDetection", |c| {
                if let Some(percent) = outliers.failure_percentage {
                    c.field("failurePercentage", |c| c.range(percent.into(), 1, 100));
                }
                if let Some(percent) = outliers.max_ejection_percent {
                    c.field("maxEjectionPercent", |c| c.range(percent.into(), 0, 100));
                }
                for (name, duration) in [
                    ("interval", outliers.interval),
                    ("baseEjectionTime", outliers.base_ejection_time),
                    ("maxEjectionTime", outliers.max_ejection_time),
                ] {
                    if let Some(duration) = duration {
                        c.field(name, |c| positive(c, duration));
                    }
                }
                if let (Some(base), Some(max)) = (outliers.base_ejection_time, outliers.max_ejection_time)
                    && max < base
                {
                    c.field("maxEjectionTime", |c| {
                        c.error(max, format!("is shorter than baseEjectionTime ({base})"), "")
                    });
                }
            });
        }
    });
}

pub(crate) fn mesh_tls(c: &mut Check, policy: &MeshTls) {
    c.metadata(&policy.metadata, false);
    c.field("spec", |c| {
        receivers(c, &policy.spec.target_refs, policy.spec.selector.as_ref());
        c.each("ports", &policy.spec.ports, |c, port| c.field("port", |c| c.port(port.port.into())));
        c.unique("ports", &policy.spec.ports, "the port", |p| (p.port, p.port.to_string()));
    });
}

pub(crate) fn access_policy(c: &mut Check, policy: &AccessPolicy) {
    c.metadata(&policy.metadata, false);
    let spec = &policy.spec;
    c.field("spec", |c| {
        receivers(c, &spec.target_refs, spec.selector.as_ref());
        if spec.rules.is_empty() && spec.action == crate::mesh::AccessAction::Deny {
            c.field("rules", |c| {
                c.error("", "is empty, so nothing is ever denied", "write what is denied; - {} denies everything")
            });
        }
        c.each("rules", &spec.rules, |c, rule| {
            c.each("from", &rule.from, caller);
            c.each("to", &rule.to, call);
        });
    });
}

fn caller(c: &mut Check, from: &AccessFrom) {
    if *from == AccessFrom::default() {
        c.error(
            "",
            "names no caller",
            "set identities, serviceAccounts or namespaces; leave out from to mean everyone",
        );
    }
    c.each("identities", &from.identities, |c, identity| {
        if !identity.starts_with("spiffe://") && identity != "*" {
            c.error(
                identity,
                "is not a SPIFFE identity",
                "write spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
            );
        } else {
            trailing_star(c, identity);
        }
    });
    c.each("serviceAccounts", &from.service_accounts, |c, account| match account.split_once('/') {
        Some((namespace, name)) => {
            c.label_name(namespace);
            c.subdomain(name);
        }
        None => c.error(account, "names no namespace", "write <namespace>/<service account>"),
    });
    c.each("namespaces", &from.namespaces, |c, namespace| c.label_name(namespace));
}

fn call(c: &mut Check, to: &AccessTo) {
    if *to == AccessTo::default() {
        c.error("", "names no call", "set ports, methods or paths; leave out to to mean every call");
    }
    c.each("ports", &to.ports, |c, port| c.port((*port).into()));
    c.each("methods", &to.methods, |c, method| {
        if method.is_empty() || !method.bytes().all(is_token) {
            c.error(method, "is not an HTTP method", "");
        } else if method.bytes().any(|b| b.is_ascii_lowercase()) {
            c.warning(
                method,
                "is not in upper case, and methods are compared exactly",
                format!("did you mean {}?", method.to_uppercase()),
            );
        }
    });
    c.each("paths", &to.paths, |c, path| {
        if !path.starts_with('/') && path != "*" {
            c.error(path, "does not start with '/'", "write an absolute path; a * at the end matches any rest");
        } else {
            trailing_star(c, path);
        }
        if path.contains(['?', '#']) {
            c.error(path, "paths are compared without the query", "remove what follows");
        }
    });
}

fn trailing_star(c: &mut Check, pattern: &str) {
    if pattern.trim_end_matches('*').contains('*') || pattern.ends_with("**") {
        c.error(pattern, "a * stands only at the end, and once", "write several patterns");
    }
}

pub(crate) fn fault_policy(c: &mut Check, policy: &FaultPolicy) {
    c.metadata(&policy.metadata, false);
    let spec = &policy.spec;
    c.field("spec", |c| {
        targets(c, &spec.target_refs, Targets::Services, true);
        if spec.delay.is_none() && spec.abort.is_none() {
            c.error("", "has neither delay nor abort", "set at least one of them");
        }
        if let Some(delay) = &spec.delay {
            c.field("delay", |c| {
                c.field("duration", |c| positive(c, delay.duration));
                c.field("percentage", |c| c.percent(delay.percentage.unwrap_or(100.0)));
            });
        }
        if let Some(abort) = &spec.abort {
            c.field("abort", |c| {
                c.field("percentage", |c| c.percent(abort.percentage.unwrap_or(100.0)));
                match (abort.http_status, abort.grpc_status) {
                    (Some(status), None) => c.field("httpStatus", |c| c.range(status.into(), 200, 599)),
                    (None, Some(status)) => c.field("grpcStatus", |c| c.range(status.into(), 1, 16)),
                    _ => c.error("", "needs exactly one of httpStatus and grpcStatus", ""),
                }
            });
        }
    });
}

fn receivers(c: &mut Check, refs: &[TargetRef], selector: Option<&Selector>) {
    targets(c, refs, Targets::Receivers, false);
    if let Some(selector) = selector {
        c.field("selector", |c| {
            if !refs.is_empty() {
                c.error("", "targetRefs is set too", "keep one of the two");
            }
            if selector.match_labels.is_empty() {
                c.field("matchLabels", |c| c.error("", "is empty", "leave out selector to mean the whole namespace"));
            }
        });
    }
}

fn targets(c: &mut Check, refs: &[TargetRef], allowed: Targets, required: bool) {
    if refs.is_empty() && required {
        c.field("targetRefs", |c| c.error("", "is empty", "name the Services that the policy is about"));
    }
    c.each("targetRefs", refs, |c, target| {
        let group = match (target.kind.as_str(), allowed) {
            ("Service", _) => "",
            ("Workload", Targets::Receivers) => crate::mesh::GROUP,
            (kind, Targets::Services) => {
                return c.field("kind", |c| c.error(kind, "cannot be a target of this policy", "name a Service"));
            }
            (kind, Targets::Receivers) => {
                return c.field("kind", |c| {
                    c.error(kind, "cannot be a target of this policy", "name a Service or a Workload")
                });
            }
        };
        if target.group != group {
            c.field("group", |c| {
                c.error(
                    &target.group,
                    format!("is not the group of {}", target.kind),
                    format!("write group: {group:?}"),
                )
            });
        }
        if target.section_name.is_some() && (target.kind != "Service" || matches!(allowed, Targets::Receivers)) {
            c.field("sectionName", |c| c.error("", "this policy governs a target's ports alike", "remove it"));
        }
    });
    c.unique("targetRefs", refs, "the target", |t| {
        ((t.kind.clone(), t.name.clone(), t.section_name.clone()), t.name.clone())
    });
}

fn positive(c: &mut Check, duration: Duration) {
    if duration.0.is_zero() {
        c.error(duration, "has to be longer than nothing", "write a duration above 0s");
    }
}
