//! Which policy governs what: existence of targets, and who wins where several name the same.

use std::collections::BTreeMap;

use weft_api::{FieldPath, mesh::TargetRef};

use super::services::Services;
use super::{Notes, Written, spec};
use crate::model::ObjectName;

/// A policy at one of its targets.
pub(super) struct Attached<'a, T> {
    pub(super) policy: Written<'a, T>,
    pub(super) path: FieldPath,
}

/// Chooses the policy of each target: the oldest, then the first by name. The losers are told.
pub(super) fn winners<'a, K: Ord, T>(
    mut attached: BTreeMap<K, Vec<Attached<'a, T>>>,
    notes: &mut Notes,
    describe: impl Fn(&K) -> String,
) -> BTreeMap<K, Written<'a, T>> {
    let mut winners = BTreeMap::new();
    while let Some((target, mut candidates)) = attached.pop_first() {
        candidates.sort_by_key(|a| a.policy.seniority());
        let mut candidates = candidates.into_iter();
        let Some(winner) = candidates.next() else { continue };
        for loser in candidates {
            notes.warning(
                loser.policy.origin,
                &loser.path,
                describe(&target),
                format!(
                    "is governed by the older or first-named {} ({})",
                    winner.policy.origin.name(),
                    winner.policy.origin.file()
                ),
                "this policy has no effect there; merge the two",
            );
        }
        winners.insert(target, winner.policy);
    }
    winners
}

/// Policies by (service, port name or none for all ports).
pub(super) fn to_services<'a, T>(
    policies: &[Written<'a, T>],
    services: &Services<'_>,
    refs: impl Fn(&'a T) -> &'a [TargetRef],
    notes: &mut Notes,
) -> BTreeMap<(ObjectName, Option<String>), Vec<Attached<'a, T>>> {
    let mut attached: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for policy in policies {
        for (index, target) in refs(policy.object).iter().enumerate() {
            let path = spec("targetRefs").index(index);
            let name = ObjectName::new(policy.name.namespace.clone(), target.name.as_str());
            let Some(service) = services.get(&name) else {
                notes.warning(
                    policy.origin,
                    &path.key("name"),
                    &target.name,
                    format!("there is no Service {name}"),
                    "a policy's targets are in its own namespace",
                );
                continue;
            };
            if let Some(section) = &target.section_name
                && !service.service.ports.iter().any(|p| p.name.as_ref() == Some(section))
            {
                notes.warning(
                    policy.origin,
                    &path.key("sectionName"),
                    section,
                    format!("Service {name} has no port of this name"),
                    "name one of its ports",
                );
                continue;
            }
            attached
                .entry((name, target.section_name.clone()))
                .or_default()
                .push(Attached { policy: policy.clone(), path });
        }
    }
    attached
}

pub(super) fn describe_service((name, section): &(ObjectName, Option<String>)) -> String {
    match section {
        Some(section) => format!("{name} port {section}"),
        None => name.to_string(),
    }
}
