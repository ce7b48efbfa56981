//! Whether the pods that are to be in the mesh are, and their sidecars well.

use serde_json::Value;
use weft_control_plane::xds::ProxyState;
use weft_inject::{Outcome, Place, Settings, names};

use super::facts::Facts;
use super::installation::statuses;
use super::{Category, Check, Verdict, When};
use crate::cluster::{has_sidecar, items, name};
use crate::output::plural;

pub(super) const CATEGORY: Category = Category {
    name: "proxies",
    checks: &[
        Check {
            name: "pods-injected",
            title: "every pod that is to have a sidecar has one",
            when: When::After,
            help: "Pods get their sidecar when they are created. Those that are older than the label on their namespace, or were created while the\n\
                   webhook did not answer, have none: restart them (`kubectl rollout restart deployment …`).",
            look: injected,
        },
        Check {
            name: "proxies-ready",
            title: "every sidecar is ready",
            when: When::After,
            help: "A sidecar is ready when it has its certificate and its first configuration, and does not drain. Look at `weft logs pod/NAME.NAMESPACE`.",
            look: ready,
        },
        Check {
            name: "proxies-version",
            title: "every sidecar is of the control plane's version",
            when: When::After,
            help: "Sidecars stay as they are until their pods are created anew. Restart the pods that are named; one version behind is fine meanwhile.",
            look: version,
        },
        Check {
            name: "proxies-connected",
            title: "every sidecar is connected to a control plane",
            when: When::After,
            help: "A sidecar that is not connected keeps what it had. Look at `weft logs pod/NAME.NAMESPACE` for the reason.",
            look: connected,
        },
        Check {
            name: "proxies-in-sync",
            title: "every sidecar accepts its configuration",
            when: When::After,
            help: "NACK means that a proxy refused what it was told and goes on with what it had; `weft status` tells the field.",
            look: synced,
        },
    ],
};

/// More are counted, not named.
const MOST_NAMED: usize = 5;

/// Pods that have not come to their end.
fn running(facts: &Facts) -> Result<impl Iterator<Item = &Value>, Verdict> {
    let pods = facts.pods.as_ref().map_err(|error| Verdict::Skipped(error.clone()))?;
    Ok(items(pods).filter(|pod| {
        !["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
            && pod["metadata"].get("deletionTimestamp").is_none()
    }))
}

fn who(pod: &Value) -> String {
    format!("{}.{}", name(pod), pod["metadata"]["namespace"].as_str().unwrap_or_default())
}

fn named(mut pods: Vec<String>, good: usize, bad: impl FnOnce(String) -> Verdict) -> Verdict {
    if pods.is_empty() {
        return Verdict::Good(plural(good, "pod"));
    }
    let more = pods.len().saturating_sub(MOST_NAMED);
    pods.truncate(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    bad(format!("{}{more}", pods.join(", ")))
}

fn injected(facts: &Facts) -> Verdict {
    let (pods, namespaces) = match (running(facts), &facts.namespaces) {
        (Ok(pods), Ok(namespaces)) => (pods, namespaces),
        (Err(verdict), _) => return verdict,
        (_, Err(error)) => return Verdict::Skipped(error.clone()),
    };
    let settings = Settings { system_namespace: facts.weft_namespace.clone(), ..Settings::default() };
    let asks = |namespace: &str| {
        let found = items(namespaces).find(|one| name(one) == namespace);
        found.is_some_and(|one| ["enabled", "true"].iter().any(|yes| one["metadata"]["labels"][names::INJECT] == *yes))
    };
    let (mut without, mut with) = (Vec::new(), 0);
    for pod in pods {
        if has_sidecar(pod) {
            with += 1;
            continue;
        }
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let place = Place { namespace, enabled: asks(namespace) };
        // What injection would refuse now has come in before the rule did.
        if !matches!(weft_inject::inject(pod, &place, &settings), Ok(Outcome::LeftAlone(_))) {
            without.push(who(pod));
        }
    }
    named(without, with, |pods| Verdict::Warning(format!("without: {pods}")))
}

fn ready(facts: &Facts) -> Verdict {
    let pods = match running(facts) {
        Ok(pods) => pods,
        Err(verdict) => return verdict,
    };
    let is_ready = |pod: &Value| {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|field| pod["status"][field].as_array());
        statuses
            .into_iter()
            .flatten()
            .flatten()
            .any(|status| status["name"] == names::PROXY_CONTAINER && status["ready"] == true)
    };
    let (ready, not): (Vec<_>, Vec<_>) = pods.filter(|pod| has_sidecar(pod)).partition(|pod| is_ready(pod));
    named(not.into_iter().map(who).collect(), ready.len(), |pods| Verdict::Warning(format!("not ready: {pods}")))
}

fn version(facts: &Facts) -> Verdict {
    let pods = match running(facts) {
        Ok(pods) => pods,
        Err(verdict) => return verdict,
    };
    let current = match &facts.statuses {
        Ok(statuses) => statuses.first().map(|status| status.version.clone()),
        Err(_) => None,
    };
    let current = current.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let (same, others): (Vec<_>, Vec<_>) = pods
        .filter(|pod| has_sidecar(pod))
        .partition(|pod| pod["metadata"]["annotations"][names::INJECTED] == current.as_str());
    named(others.into_iter().map(who).collect(), same.len(), |pods| {
        Verdict::Warning(format!("not injected by {current}: {pods}"))
    })
}

fn connected(facts: &Facts) -> Verdict {
    if let Some(verdict) = statuses(facts, |_| None) {
        return verdict;
    }
    let (Ok(pods), Ok(statuses)) = (running(facts), &facts.statuses) else {
        return Verdict::Skipped("pods are not known".to_owned());
    };
    let is_connected = |pod: &Value| {
        let mut proxies = statuses.iter().flat_map(|status| &status.proxies);
        proxies.any(|proxy| proxy.pod == name(pod) && pod["metadata"]["namespace"] == proxy.namespace.as_str())
    };
    let meshed = pods.filter(|pod| has_sidecar(pod) && pod["status"]["phase"] == "Running");
    let (connected, not): (Vec<_>, Vec<_>) = meshed.partition(|pod| is_connected(pod));
    named(not.into_iter().map(who).collect(), connected.len(), |pods| {
        Verdict::Warning(format!("not connected: {pods}"))
    })
}

fn synced(facts: &Facts) -> Verdict {
    if let Some(verdict) = statuses(facts, |_| None) {
        return verdict;
    }
    let proxies = || facts.statuses.iter().flatten().flat_map(|status| &status.proxies);
    let refusing: Vec<_> = proxies()
        .filter(|proxy| proxy.state == ProxyState::Nack)
        .map(|proxy| format!("{}.{}", proxy.pod, proxy.namespace))
        .collect();
    named(refusing, proxies().count(), |pods| Verdict::Failure(format!("refused by {pods}")))
}
