//! What Weft needs of a cluster.

use serde_json::Value;
use weft_api::k8s_openapi::jiff::Timestamp;

use super::facts::{Facts, TO_CREATE};
use super::{Category, Check, Verdict, When};
use crate::cluster::{is_ready, items, name};
use crate::output::plural;

pub(super) const CATEGORY: Category = Category {
    name: "cluster",
    checks: &[
        Check {
            name: "cluster-reachable",
            title: "the API server answers",
            when: When::Always,
            help: "Asks `kubectl version`. When it fails, `kubectl` itself does not reach the cluster: look at `kubectl config current-context`, or\n\
                   name another with `--context` or `--kubeconfig`.",
            look: reachable,
        },
        Check {
            name: "cluster-version",
            title: "Kubernetes is new enough",
            when: When::Always,
            help: "Weft's sidecars are native ones (init containers that go on running), which Kubernetes has since 1.29. Upgrade the cluster.",
            look: version,
        },
        Check {
            name: "node-versions",
            title: "every node's kubelet is new enough",
            when: When::Always,
            help: "As `cluster-version`, for kubelets, which may be older than the API server. Upgrade the nodes that are named, or keep meshed\n\
                   pods from them.",
            look: kubelets,
        },
        Check {
            name: "node-kernels",
            title: "every node's kernel can redirect",
            when: When::Always,
            help: "Redirection is by nftables rules of family inet, which Linux can do since 5.2. Nodes that do not run Linux are passed over:\n\
                   their pods get no sidecar.",
            look: kernels,
        },
        Check {
            name: "clock-skew",
            title: "this machine's clock and the API server's agree",
            when: When::Always,
            help: "Compares this machine's time with that of an object that the API server makes in a dry run. Certificates are valid from a little\n\
                   before they are made; where clocks differ by more than some minutes, they are refused. Let the machines keep time by NTP.",
            look: clock,
        },
        Check {
            name: "node-clocks",
            title: "the nodes' clocks and the API server's agree",
            when: When::Always,
            help: "Every kubelet renews its Lease with its own time, usually each 10 seconds. A time that is in the future, or minutes old on a node\n\
                   that is ready, is that of a wrong clock. Let the node keep time by NTP.",
            look: node_clocks,
        },
        Check {
            name: "gateway-api",
            title: "the Gateway API's kinds are there",
            when: When::Always,
            help: "Routes are HTTPRoute, GRPCRoute and ReferenceGrant of the Gateway API, whose definitions are no part of Weft. Without them the mesh\n\
                   works, but has no routes. Install the standard channel of a release from https://gateway-api.sigs.k8s.io.",
            look: gateway_api,
        },
        Check {
            name: "install-permissions",
            title: "you may install",
            when: When::Before,
            help: "Asks `kubectl auth can-i create` for what an installation creates. Ask an administrator of the cluster for these rights, or to\n\
                   apply what `weft install` prints.",
            look: may_install,
        },
    ],
};

/// Native sidecars are on by default.
const LEAST: (u32, u32) = (1, 29);
/// NAT in nftables' family inet.
const LEAST_KERNEL: (u32, u32) = (5, 2);
/// More is said.
const SKEW_WARNING: u64 = 30;
/// More breaks certificates.
const SKEW_FAILURE: u64 = 300;

fn reachable(facts: &Facts) -> Verdict {
    match &facts.version {
        Ok(version) if version.get("serverVersion").is_some() => Verdict::Good(String::new()),
        Ok(_) => Verdict::Failure("kubectl knows no API server".to_owned()),
        Err(error) => Verdict::Failure(error.clone()),
    }
}

fn version(facts: &Facts) -> Verdict {
    let Ok(version) = &facts.version else {
        return Verdict::Skipped("the API server does not answer".to_owned());
    };
    let text = version["serverVersion"]["gitVersion"].as_str().unwrap_or_default();
    match two_numbers(text) {
        Some(found) if found >= LEAST => Verdict::Good(text.to_owned()),
        Some(_) => Verdict::Failure(format!("it is {text}, older than {}.{}", LEAST.0, LEAST.1)),
        None => Verdict::Warning(format!("the version {text:?} is not understood")),
    }
}

fn kubelets(facts: &Facts) -> Verdict {
    nodes(facts, |node| {
        let text = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
        let old = two_numbers(text).is_some_and(|found| found < LEAST);
        old.then(|| format!("has {text}, older than {}.{}", LEAST.0, LEAST.1))
    })
}

fn kernels(facts: &Facts) -> Verdict {
    nodes(facts, |node| {
        let info = &node["status"]["nodeInfo"];
        if info["operatingSystem"] != "linux" {
            return None;
        }
        let text = info["kernelVersion"].as_str().unwrap_or_default();
        let old = two_numbers(text).is_some_and(|found| found < LEAST_KERNEL);
        old.then(|| format!("has Linux {text}, older than {}.{}", LEAST_KERNEL.0, LEAST_KERNEL.1))
    })
}

/// A failure that names the nodes with which something is wrong.
fn nodes(facts: &Facts, wrong: impl Fn(&Value) -> Option<String>) -> Verdict {
    let nodes: Vec<_> = match &facts.nodes {
        Ok(nodes) => items(nodes).collect(),
        Err(error) => return Verdict::Skipped(error.clone()),
    };
    let problems: Vec<_> = nodes.iter().filter_map(|node| Some(format!("{} {}", name(node), wrong(node)?))).collect();
    if problems.is_empty() { Verdict::Good(plural(nodes.len(), "node")) } else { Verdict::Failure(problems.join("; ")) }
}

fn clock(facts: &Facts) -> Verdict {
    let object = match &facts.server_object {
        Ok(object) => object,
        Err(error) => return Verdict::Skipped(format!("the API server's time is not known: {error}")),
    };
    let Some(server) = seconds(&object["metadata"]["creationTimestamp"]) else {
        return Verdict::Skipped("the API server's time is not known".to_owned());
    };
    match facts.now.abs_diff(server) {
        skew if skew > SKEW_FAILURE => Verdict::Failure(format!("they differ by {skew} s")),
        skew if skew > SKEW_WARNING => Verdict::Warning(format!("they differ by {skew} s")),
        _ => Verdict::Good(String::new()),
    }
}

fn node_clocks(facts: &Facts) -> Verdict {
    let (Ok(nodes), Ok(leases), Ok(object)) = (&facts.nodes, &facts.leases, &facts.server_object) else {
        return Verdict::Skipped("nodes, their leases or the API server's time are not known".to_owned());
    };
    let Some(server) = seconds(&object["metadata"]["creationTimestamp"]) else {
        return Verdict::Skipped("the API server's time is not known".to_owned());
    };
    let ready: Vec<_> = items(nodes).filter(|node| is_ready(node)).map(name).collect();
    let mut problems = Vec::new();
    let mut seen = 0;
    for lease in items(leases).filter(|lease| ready.contains(&name(lease))) {
        let Some(renewed) = seconds(&lease["spec"]["renewTime"]) else { continue };
        seen += 1;
        // A little is the time between the two questions.
        if renewed > server + SKEW_WARNING {
            problems.push(format!("{} is {} s ahead", name(lease), renewed - server));
        } else if server.saturating_sub(renewed) > SKEW_FAILURE {
            problems.push(format!("{} is {} s behind", name(lease), server - renewed));
        }
    }
    if problems.is_empty() { Verdict::Good(plural(seen, "node")) } else { Verdict::Failure(problems.join("; ")) }
}

fn gateway_api(facts: &Facts) -> Verdict {
    let crds = match &facts.crds {
        Ok(crds) => crds,
        Err(error) => return Verdict::Skipped(error.clone()),
    };
    let kinds =
        ["httproutes", "grpcroutes", "referencegrants"].map(|plural| format!("{plural}.gateway.networking.k8s.io"));
    let missing: Vec<_> =
        kinds.iter().filter(|kind| !items(crds).any(|crd| name(crd) == kind.as_str())).cloned().collect();
    if !missing.is_empty() {
        return Verdict::Warning(format!("there is no {}", missing.join(", ")));
    }
    let any = items(crds).find(|crd| name(crd) == kinds[0]);
    let version = any.map(|crd| crd["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"].clone());
    Verdict::Good(version.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn may_install(facts: &Facts) -> Verdict {
    let missing: Vec<_> = TO_CREATE
        .iter()
        .zip(&facts.may_create)
        .filter(|(_, may)| matches!(may, Ok(false)))
        .map(|(resource, _)| *resource)
        .collect();
    if let Some(Err(error)) = facts.may_create.iter().find(|may| may.is_err()) {
        return Verdict::Skipped(error.clone());
    }
    if missing.is_empty() {
        Verdict::Good(String::new())
    } else {
        Verdict::Failure(format!("you may not create {}", missing.join(", ")))
    }
}

/// The first two numbers of a version, such as `v1.34.4` or `6.1.0-13-amd64`.
fn two_numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A time of Kubernetes in seconds of Unix time.
fn seconds(time: &Value) -> Option<u64> {
    time.as_str()?.parse::<Timestamp>().ok()?.as_second().try_into().ok()
}
