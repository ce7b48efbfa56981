//! Choosing an endpoint for an attempt. No lock, no allocation.

use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::{Endpoint, EndpointId};
use group::Group;
pub(super) use set::EndpointSet;
pub use set::Member;

mod group;
mod set;

/// How a cluster spreads its attempts (`lb_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The one of a few drawn by weight that has the fewest attempts under way.
    LeastRequest {
        /// How many are drawn, 2 at least.
        choices: u32,
    },
    /// The one of two drawn by weight with the least peak-EWMA latency times attempts under way.
    PeakEwma,
}

/// What a pick may depend on.
#[derive(Debug, Clone, Copy)]
pub struct PickContext<'a> {
    /// Endpoints that earlier attempts of the request went to; avoided while there are others.
    pub tried: &'a [EndpointId],
    /// Any number, different for every pick.
    pub random: u64,
}

/// Why there is no endpoint to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The cluster has no endpoints.
    #[error("no endpoints")]
    NoEndpoints,
    /// It has some, none of them fit, and its panic threshold is 0.
    #[error("all endpoints are unhealthy or ejected by outlier detection")]
    AllEjected,
}

impl EndpointSet {
    /// Chooses by `policy`. Below `panic_threshold` (percent of endpoints that are fit) health is not looked at: it is likelier that the
    /// judgement is wrong than that nearly everyone is down.
    /// `ejected` is how many of the cluster are; with none, nothing needs to be counted.
    pub(super) fn pick(
        &self,
        policy: Policy,
        panic_threshold: u32,
        ejected: u32,
        cx: &PickContext<'_>,
    ) -> Result<Arc<Endpoint>, PickError> {
        let mut rng = SplitMix(cx.random);
        for level in self.levels() {
            let fit = match ejected {
                0 => level.healthy.len(),
                _ => level.healthy.endpoints().iter().filter(|endpoint| !endpoint.is_ejected()).count(),
            };
            if fit > 0 && fit * 100 >= panic_threshold as usize * level.all.len() {
                let usable = |endpoint: &Endpoint| !endpoint.is_ejected();
                return choose(&level.healthy, policy, cx, &mut rng, usable).ok_or(PickError::AllEjected);
            }
        }
        if let Some(level) = self.levels().find(|level| level.all.len() > 0) {
            return match panic_threshold {
                0 => Err(PickError::AllEjected),
                _ => choose(&level.all, policy, cx, &mut rng, |_| true).ok_or(PickError::NoEndpoints),
            };
        }
        // Only draining ones are left. They still serve, which is better than failing (Kubernetes does the same for terminating pods).
        choose(self.draining(), policy, cx, &mut rng, |_| true).ok_or(PickError::NoEndpoints)
    }
}

fn choose(
    group: &Group,
    policy: Policy,
    cx: &PickContext<'_>,
    rng: &mut SplitMix,
    usable: impl Fn(&Endpoint) -> bool,
) -> Option<Arc<Endpoint>> {
    let fresh = |at: usize| usable(&group.endpoints()[at]) && !cx.tried.contains(&group.endpoints()[at].id());
    let chosen = match policy {
        Policy::RoundRobin => group.next(&fresh),
        Policy::Random => group.draw(rng, &fresh),
        Policy::LeastRequest { choices } => {
            best_of(group, choices, rng, &fresh, |a, b| group.pressure(b) < group.pressure(a))
        }
        Policy::PeakEwma => {
            let now = Instant::now();
            best_of(group, 2, rng, &fresh, |a, b| is_faster(group, a, b, now))
        }
    };
    // Rather one that has been tried than none.
    let chosen = chosen.or_else(|| group.draw(rng, &|at| usable(&group.endpoints()[at])))?;
    Some(group.endpoints()[chosen].clone())
}

/// The best of so many draws, each by weight. `beats(a, b)` says whether b is clearly better than a: between equals the one drawn
/// first stays, so that weights decide.
fn best_of(
    group: &Group,
    choices: u32,
    rng: &mut SplitMix,
    fresh: &impl Fn(usize) -> bool,
    beats: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let mut best = group.draw(rng, fresh)?;
    for _ in 1..choices.max(2) {
        match group.draw(rng, &|at| at != best && fresh(at)) {
            Some(other) if beats(best, other) => best = other,
            Some(_) => {}
            None => break,
        }
    }
    Some(best)
}

/// Whether b has clearly less peak-EWMA latency times attempts under way than a.
fn is_faster(group: &Group, a: usize, b: usize, now: Instant) -> bool {
    /// Estimates differ by noise. Without a margin the one that happens to be faster by a hair gets everything until the other's fades.
    const MARGIN: f32 = 1.25;
    let load = |at: usize| &group.endpoints()[at].state().load;
    let (paused_a, paused_b) = (load(a).is_paused(now), load(b).is_paused(now));
    if paused_a != paused_b {
        return paused_a;
    }
    match (load(a).estimate(now), load(b).estimate(now)) {
        (Some(slow), Some(fast)) => fast * group.pressure(b) * MARGIN < slow * group.pressure(a),
        // Without an estimate nothing is known but how much is under way.
        _ => group.pressure(b) < group.pressure(a),
    }
}

/// A small generator that makes several draws of one random number.
#[derive(Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is above zero.
    #[allow(clippy::cast_possible_truncation)] // below n, which was a usize
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}
