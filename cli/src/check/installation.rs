//! Whether the control plane and what it needs are there and well.

use serde_json::Value;
use weft_inject::names;
use x509_parser::pem::Pem;

use super::facts::{Facts, TO_DO};
use super::{Category, Check, Verdict, When};
use crate::cluster::{has_sidecar, items, name};
use crate::output::plural;

pub(super) const CATEGORY: Category = Category {
    name: "installation",
    checks: &[
        Check {
            name: "crds",
            title: "Weft's kinds are defined",
            when: When::After,
            help: "Policies are objects of kinds that `weft install` defines. Where one is missing or not established, apply what this version's\n\
                   `weft install` prints.",
            look: crds,
        },
        Check {
            name: "control-plane-ready",
            title: "the control plane's replicas are ready",
            when: When::After,
            help: "Looks at the Deployment `weft-control-plane`. Proxies that run keep what they have when no replica is ready, but new pods get no\n\
                   sidecar, no certificate and no configuration. Look at `kubectl -n weft-system describe pods` and `kubectl -n weft-system logs\n\
                   deploy/weft-control-plane`.",
            look: ready,
        },
        Check {
            name: "control-plane-version",
            title: "the control plane is of this program's version",
            when: When::After,
            help: "Apply what this version's `weft install` prints, or use the `weft` of the installation's version.",
            look: version,
        },
        Check {
            name: "control-plane-permissions",
            title: "the control plane has its rights",
            when: When::After,
            help: "Asks `kubectl auth can-i` on behalf of the control plane's service account, which you may only do as one who may impersonate.\n\
                   Apply what `weft install` prints: its ClusterRole has these rights.",
            look: permissions,
        },
        Check {
            name: "configuration-accepted",
            title: "the control plane accepts all policies and routes",
            when: When::After,
            help: "Objects that make no sense, alone or beside others, are left out, or stay as they were before the edit. `weft status` tells each with\n\
                   its field and what to write instead.",
            look: accepted,
        },
        Check {
            name: "watches",
            title: "the control plane hears from the API server",
            when: When::After,
            help: "A kind that cannot be watched stays as it was. The message is the API server's; rights are the most frequent reason.",
            look: watches,
        },
        Check {
            name: "webhook-configured",
            title: "the webhook is registered, and not for system namespaces",
            when: When::After,
            help: "Looks at the MutatingWebhookConfiguration `weft`. Without it no pod gets a sidecar; without the exclusion of system namespaces an\n\
                   outage of Weft could keep the cluster's own pods from starting. Apply what `weft install` prints.",
            look: webhook,
        },
        Check {
            name: "webhook-roots",
            title: "the API server trusts the webhook",
            when: When::After,
            help: "The control plane writes the mesh's roots into the webhook's configuration (`caBundle`), and again whenever they change. When they\n\
                   are missing or others, it does not run, or may not write: see `control-plane-permissions`.",
            look: webhook_roots,
        },
        Check {
            name: "webhook-answers",
            title: "a pod that asks for a sidecar gets one",
            when: When::After,
            help: "Creates a pod with the annotation `weft.mesh/inject: enabled` in the namespace `default`, as a dry run. When it fails, the message\n\
                   is the API server's: that it cannot reach port 15017 of the control plane's pods (a firewall between it and the nodes), or\n\
                   does not trust it (see `webhook-roots`).",
            look: webhook_answers,
        },
        Check {
            name: "validation-trusted",
            title: "wrong routes and policies are refused where they are written",
            when: When::After,
            help: "Looks at the ValidatingWebhookConfiguration `weft`, into which the control plane writes the mesh's roots as into that of injection\n\
                   (see `webhook-roots`). Without it, or while the API server does not trust it, everything is stored, and only the object's status and\n\
                   `weft status` say what is wrong with it.",
            look: validation,
        },
        Check {
            name: "ca-expiry",
            title: "the mesh's roots are valid for long enough",
            when: When::After,
            help: "Start to replace the root with `kubectl -n weft-system exec deploy/weft-control-plane -- /weft-control-plane rotate-root`: nothing\n\
                   restarts.",
            look: expiry,
        },
        Check {
            name: "trust-published",
            title: "every namespace with sidecars has the mesh's roots",
            when: When::After,
            help: "The control plane writes the roots to the ConfigMap `weft-trust` of every namespace; sidecars mount it, so a pod waits for it. When it\n\
                   is missing or other than in Weft's own namespace, look at the control plane's log.",
            look: trust,
        },
        Check {
            name: "cni-agents",
            title: "every node has the CNI plugin",
            when: When::After,
            help: "In CNI mode the DaemonSet `weft-cni` puts Weft's plugin at the end of each node's CNI configuration; its pod is ready when it is\n\
                   there and last. On a node without it injected pods wait in `weft-validate`. See [CNI mode](../cni.md).",
            look: agents,
        },
    ],
};

/// Roots that end sooner are told of: half of what a rotation with its overlaps takes, and then some.
const SOON: i64 = 60 * 86_400;

fn crds(facts: &Facts) -> Verdict {
    let crds = match &facts.crds {
        Ok(crds) => crds,
        Err(error) => return Verdict::Skipped(error.clone()),
    };
    let mut problems = Vec::new();
    let mut count = 0;
    for (_, definition) in weft_api::crd::definitions() {
        count += 1;
        let wanted = name(&definition);
        match items(crds).find(|crd| name(crd) == wanted) {
            None => problems.push(format!("{wanted} is missing")),
            Some(crd) => {
                let conditions = crd["status"]["conditions"].as_array();
                let established =
                    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True");
                if !established {
                    problems.push(format!("{wanted} is not established"));
                }
            }
        }
    }
    if problems.is_empty() { Verdict::Good(plural(count, "kind")) } else { Verdict::Failure(problems.join("; ")) }
}

fn ready(facts: &Facts) -> Verdict {
    let deployment = match &facts.deployment {
        Ok(Some(deployment)) => deployment,
        Ok(None) => {
            let namespace = &facts.weft_namespace;
            return Verdict::Failure(format!("there is no Deployment {} in {namespace}", names::CONTROL_PLANE));
        }
        Err(error) => return Verdict::Skipped(error.clone()),
    };
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let updated = deployment["status"]["updatedReplicas"].as_u64().unwrap_or(0);
    match deployment["status"]["readyReplicas"].as_u64().unwrap_or(0) {
        0 => Verdict::Failure(format!("none of {wanted} is ready")),
        ready if ready < wanted => Verdict::Warning(format!("{ready} of {wanted} are ready")),
        _ if updated < wanted => Verdict::Warning(format!("{updated} of {wanted} are up to date")),
        ready => Verdict::Good(plural(usize::try_from(ready).unwrap_or(usize::MAX), "replica")),
    }
}

fn version(facts: &Facts) -> Verdict {
    let own = env!("CARGO_PKG_VERSION");
    statuses(facts, |status| (status.version != own).then(|| format!("it is {}, this program {own}", status.version)))
        .unwrap_or_else(|| Verdict::Good(own.to_owned()))
}

fn permissions(facts: &Facts) -> Verdict {
    if let Some(Err(error)) = facts.may_do.iter().find(|may| may.is_err()) {
        return Verdict::Skipped(error.clone());
    }
    let missing: Vec<_> = TO_DO
        .iter()
        .zip(&facts.may_do)
        .filter(|(_, may)| matches!(may, Ok(false)))
        .map(|((verb, resource), _)| format!("{verb} {resource}"))
        .collect();
    if missing.is_empty() {
        Verdict::Good(String::new())
    } else {
        Verdict::Failure(format!("it may not {}", missing.join(", ")))
    }
}

fn accepted(facts: &Facts) -> Verdict {
    statuses(facts, |status| {
        let errors = status.source.problems.iter().filter(|problem| problem.severity == "error");
        let errors: Vec<_> = errors.map(|problem| problem.message.clone()).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    })
    .unwrap_or_else(|| Verdict::Good(String::new()))
}

fn watches(facts: &Facts) -> Verdict {
    statuses(facts, |status| {
        let failing = status.source.watches.iter().filter_map(|watch| {
            let error = watch.error.as_ref().filter(|_| !watch.absent)?;
            Some(format!("{}: {error}", watch.kind))
        });
        let failing: Vec<_> = failing.collect();
        (!failing.is_empty()).then(|| failing.join("; "))
    })
    .unwrap_or_else(|| Verdict::Good(String::new()))
}

/// A warning with what is wrong with any control plane; a verdict of its own where none was asked.
pub(super) fn statuses(
    facts: &Facts,
    wrong: impl Fn(&weft_control_plane::Status) -> Option<String>,
) -> Option<Verdict> {
    match &facts.statuses {
        Err(error) => Some(Verdict::Skipped(format!("the control plane cannot be asked: {error}"))),
        Ok(statuses) if statuses.is_empty() => Some(Verdict::Skipped("no control plane is ready".to_owned())),
        Ok(statuses) => statuses.iter().find_map(wrong).map(Verdict::Warning),
    }
}

/// The webhooks of a configuration.
fn webhooks(facts: &Facts) -> Result<&[Value], Verdict> {
    match &facts.webhook {
        Ok(Some(configuration)) => Ok(configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default()),
        Ok(None) => Err(Verdict::Failure(format!("there is no MutatingWebhookConfiguration {}", names::WEBHOOKS))),
        Err(error) => Err(Verdict::Skipped(error.clone())),
    }
}

fn webhook(facts: &Facts) -> Verdict {
    let webhooks = match webhooks(facts) {
        Ok(webhooks) => webhooks,
        Err(verdict) => return verdict,
    };
    for webhook in webhooks {
        let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array();
        let excluded = expressions
            .into_iter()
            .flatten()
            .find(|one| one["key"] == "kubernetes.io/metadata.name" && one["operator"] == "NotIn");
        let excluded = excluded.and_then(|one| one["values"].as_array()).map(Vec::as_slice).unwrap_or_default();
        let wanted = names::SYSTEM_NAMESPACES.into_iter().chain([facts.weft_namespace.as_str()]);
        if let Some(missing) = wanted.into_iter().find(|wanted| !excluded.iter().any(|value| value == wanted)) {
            let hook = webhook["name"].as_str().unwrap_or_default();
            return Verdict::Failure(format!("{hook} does not exclude the namespace {missing}"));
        }
    }
    let ignoring = webhooks.iter().any(|webhook| webhook["failurePolicy"] == "Ignore");
    match webhooks.len() {
        0 | 1 => Verdict::Failure("it has not both webhooks".to_owned()),
        _ if ignoring => Verdict::Warning(
            "failurePolicy is Ignore: pods start without sidecar while no control plane answers".to_owned(),
        ),
        _ => Verdict::Good(String::new()),
    }
}

fn webhook_roots(facts: &Facts) -> Verdict {
    let webhooks = match webhooks(facts) {
        Ok(webhooks) => webhooks,
        Err(verdict) => return verdict,
    };
    match trusted(facts, webhooks) {
        Ok(verdict) => verdict,
        Err(problem) => Verdict::Failure(problem),
    }
}

fn validation(facts: &Facts) -> Verdict {
    let configuration = match &facts.validation {
        Ok(Some(configuration)) => configuration,
        Ok(None) => {
            return Verdict::Warning(format!("there is no ValidatingWebhookConfiguration {}", names::WEBHOOKS));
        }
        Err(error) => return Verdict::Skipped(error.clone()),
    };
    match trusted(facts, configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default()) {
        Ok(verdict) => verdict,
        Err(problem) => Verdict::Warning(format!("the roots in it: {problem}")),
    }
}

/// Whether the roots in webhooks' configuration are the mesh's.
fn trusted(facts: &Facts, webhooks: &[Value]) -> Result<Verdict, String> {
    let bundles: Vec<_> =
        webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default()).collect();
    if bundles.contains(&"") {
        return Err("they are not there yet".to_owned());
    }
    match own_roots(facts) {
        Some(roots) if bundles.iter().all(|bundle| decoded(bundle).as_deref() == Some(roots.as_bytes())) => {
            Ok(Verdict::Good(String::new()))
        }
        Some(_) => Err(format!("they are others than in {}/{}", facts.weft_namespace, names::TRUST_CONFIG_MAP)),
        None => Ok(Verdict::Good("not compared: the mesh's roots are not published".to_owned())),
    }
}

fn webhook_answers(facts: &Facts) -> Verdict {
    match &facts.injected {
        Err(error) => Verdict::Failure(error.clone()),
        Ok(pod) => {
            let containers = pod["spec"]["initContainers"].as_array();
            let has = containers.into_iter().flatten().any(|container| container["name"] == names::PROXY_CONTAINER);
            if has { Verdict::Good(String::new()) } else { Verdict::Failure("it got none".to_owned()) }
        }
    }
}

fn expiry(facts: &Facts) -> Verdict {
    let Some(roots) = own_roots(facts) else {
        return Verdict::Skipped("the mesh's roots are not published".to_owned());
    };
    let now = i64::try_from(facts.now).unwrap_or(i64::MAX);
    let mut last = i64::MIN;
    for pem in Pem::iter_from_buffer(roots.as_bytes()).flatten() {
        if let Ok(certificate) = pem.parse_x509() {
            last = last.max(certificate.validity().not_after.timestamp());
        }
    }
    match last.saturating_sub(now) {
        _ if last == i64::MIN => Verdict::Failure("no root can be read".to_owned()),
        left if left <= 0 => Verdict::Failure("the last one has expired".to_owned()),
        left if left < SOON => Verdict::Warning(format!("the last one expires in {} days", left / 86_400)),
        left => Verdict::Good(format!("{} days", left / 86_400)),
    }
}

fn trust(facts: &Facts) -> Verdict {
    let (Ok(maps), Ok(pods)) = (&facts.trust, &facts.pods) else {
        return Verdict::Skipped("ConfigMaps or pods are not known".to_owned());
    };
    let Some(roots) = own_roots(facts) else {
        return Verdict::Skipped("the mesh's roots are not published".to_owned());
    };
    let mut namespaces: Vec<_> =
        items(pods).filter(|pod| has_sidecar(pod)).filter_map(|pod| pod["metadata"]["namespace"].as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let wrong: Vec<_> =
        namespaces.iter().copied().filter(|namespace| roots_in(maps, namespace) != Some(roots)).collect();
    if wrong.is_empty() {
        Verdict::Good(plural(namespaces.len(), "namespace"))
    } else {
        Verdict::Failure(format!("they are missing or others in {}", wrong.join(", ")))
    }
}

fn own_roots(facts: &Facts) -> Option<&str> {
    roots_in(facts.trust.as_ref().ok()?, &facts.weft_namespace)
}

fn roots_in<'a>(maps: &'a Value, namespace: &str) -> Option<&'a str> {
    items(maps).find(|map| map["metadata"]["namespace"] == namespace)?["data"][names::TRUST_KEY].as_str()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn agents(facts: &Facts) -> Verdict {
    let is_cni = match &facts.settings {
        Ok(settings) => {
            let text = settings.as_ref().and_then(|map| map["data"]["injection.yaml"].as_str());
            let settings = text.and_then(|text| serde_yaml_ng::from_str::<weft_inject::Settings>(text).ok());
            settings.is_some_and(|settings| settings.cni)
        }
        Err(error) => return Verdict::Skipped(error.clone()),
    };
    match &facts.agents {
        Err(error) => Verdict::Skipped(error.clone()),
        Ok(None) if is_cni => {
            Verdict::Failure("there is no DaemonSet weft-cni, and pods are injected for CNI mode".to_owned())
        }
        Ok(None) => Verdict::Skipped("pods redirect themselves (init mode)".to_owned()),
        Ok(Some(agents)) => {
            let number = |field: &str| agents["status"][field].as_u64().unwrap_or(0);
            match (number("numberReady"), number("desiredNumberScheduled")) {
                (ready, wanted) if ready < wanted => Verdict::Failure(format!("{ready} of {wanted} nodes have it")),
                (ready, _) => Verdict::Good(plural(usize::try_from(ready).unwrap_or(usize::MAX), "node")),
            }
        }
    }
}
