//! A cluster's endpoints at one moment, laid out for picking.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group::Group;
use crate::upstream::assignment::Health;
use crate::upstream::endpoint::Endpoint;

/// An endpoint and what discovery says about it.
#[derive(Debug, Clone)]
pub struct Member {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its share of the traffic, relative to the others'.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Its health.
    pub health: Health,
}

/// All endpoints of a cluster. Immutable.
#[derive(Debug, Default)]
pub(in crate::upstream) struct EndpointSet {
    members: Vec<Member>,
    levels: Vec<Level>,
    draining: Group,
}

/// The endpoints of one priority that are not draining.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) healthy: Group,
    pub(super) all: Group,
}

impl EndpointSet {
    pub(in crate::upstream) fn new(members: Vec<Member>, start: usize) -> Self {
        let mut by_priority = BTreeMap::<u32, Vec<&Member>>::new();
        let mut draining = Vec::new();
        for member in &members {
            match member.health {
                Health::Draining => draining.push((member.endpoint.clone(), member.weight)),
                Health::Healthy | Health::Unhealthy => by_priority.entry(member.priority).or_default().push(member),
            }
        }
        let group = |members: &[&Member], wanted: &dyn Fn(&Member) -> bool| {
            let wanted = members.iter().filter(|member| wanted(member));
            Group::new(wanted.map(|member| (member.endpoint.clone(), member.weight)).collect(), start)
        };
        let levels = by_priority
            .values()
            .map(|members| Level {
                healthy: group(members, &|member| member.health == Health::Healthy),
                all: group(members, &|_| true),
            })
            .collect();
        Self { levels, draining: Group::new(draining, start), members }
    }

    pub(in crate::upstream) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Most preferred priority first.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Level> {
        self.levels.iter()
    }

    pub(super) fn draining(&self) -> &Group {
        &self.draining
    }
}
