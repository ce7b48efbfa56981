//! Endpoints that share traffic by weight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::SplitMix;
use crate::upstream::endpoint::Endpoint;

/// Endpoints and their weights, laid out for drawing.
#[derive(Debug, Default)]
pub(super) struct Group {
    endpoints: Vec<Arc<Endpoint>>,
    /// Positions in an order in which each comes as often as its weight says, spread out; empty where all weights are equal.
    schedule: Vec<u32>,
    /// What an endpoint's weight is worth in average weights.
    shares: Vec<f32>,
    cursor: AtomicUsize,
}

/// The longest schedule: 16 KiB. Weights that need more are rounded.
const LONGEST_SCHEDULE: u64 = 4096;

impl Group {
    /// Lays out the group. `start` is where turns begin, so that all sidecars do not start with the same endpoint.
    pub(super) fn new(members: Vec<(Arc<Endpoint>, u32)>, start: usize) -> Self {
        let weights: Vec<u32> = members.iter().map(|(_, weight)| *weight).collect();
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mean = total / weights.len().max(1) as f64;
        #[allow(clippy::cast_possible_truncation)] // a ratio needs no f64
        let shares = weights.iter().map(|&weight| (f64::from(weight) / mean) as f32).collect();
        Self {
            schedule: schedule(&weights),
            shares,
            endpoints: members.into_iter().map(|(endpoint, _)| endpoint).collect(),
            cursor: AtomicUsize::new(start),
        }
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// 1 for an idle endpoint, more with each attempt under way, less so the greater its weight.
    #[allow(clippy::cast_precision_loss)] // exact below 16 million attempts
    pub(super) fn pressure(&self, at: usize) -> f32 {
        1.0 + self.endpoints[at].active() as f32 / self.shares[at]
    }

    /// The next in turn that is wanted.
    pub(super) fn next(&self, wanted: &impl Fn(usize) -> bool) -> Option<usize> {
        let turns = self.turns();
        (0..turns).map(|_| self.at_turn(self.cursor.fetch_add(1, Relaxed) % turns)).find(|&at| wanted(at))
    }

    /// One at random, by weight, that is wanted.
    pub(super) fn draw(&self, rng: &mut SplitMix, wanted: &impl Fn(usize) -> bool) -> Option<usize> {
        /// After so many misses those wanted are rare, and looking for them in order is cheaper.
        const DRAWS: usize = 6;
        let turns = self.turns();
        if turns == 0 {
            return None;
        }
        let drawn = (0..DRAWS).map(|_| self.at_turn(rng.below(turns))).find(|&at| wanted(at));
        drawn.or_else(|| {
            let start = rng.below(turns);
            (0..turns).map(|turn| self.at_turn((start + turn) % turns)).find(|&at| wanted(at))
        })
    }

    fn turns(&self) -> usize {
        if self.schedule.is_empty() { self.endpoints.len() } else { self.schedule.len() }
    }

    fn at_turn(&self, turn: usize) -> usize {
        self.schedule.get(turn).map_or(turn, |&at| at as usize)
    }
}

/// Smooth weighted round robin (nginx's): in each turn everyone gains its weight, the richest is taken and pays the total.
fn schedule(weights: &[u32]) -> Vec<u32> {
    let Some(&first) = weights.first() else { return Vec::new() };
    if weights.iter().all(|&weight| weight == first) {
        return Vec::new();
    }
    let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, u64::from(weight)));
    let total: u64 = weights.iter().map(|&weight| u64::from(weight) / divisor).sum();
    // Nobody is rounded away, which may lengthen the schedule by one turn for each.
    let scaled = |weight: u32| (u64::from(weight) / divisor * LONGEST_SCHEDULE.min(total) / total).max(1);
    #[allow(clippy::cast_possible_wrap)] // at most the longest schedule
    let weights: Vec<i64> = weights.iter().map(|&weight| scaled(weight) as i64).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
            let mut richest = 0;
            for at in 1..credit.len() {
                if credit[at] > credit[richest] {
                    richest = at;
                }
            }
            credit[richest] -= total;
            u32::try_from(richest).unwrap_or(u32::MAX)
        })
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::schedule;

    #[test]
    fn a_schedule_holds_each_as_often_as_its_weight_and_spreads_them() {
        assert_eq!(schedule(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(schedule(&[300, 100]), [0, 0, 1, 0]);
        assert!(schedule(&[7, 7]).is_empty());
        assert!(schedule(&[]).is_empty());
    }

    #[test]
    fn huge_weights_are_rounded_but_nobody_is_rounded_away() {
        let turns = schedule(&[u32::MAX, u32::MAX - 1, 1]);
        let count = |at| turns.iter().filter(|&&turn| turn == at).count();
        assert!(turns.len() <= 4096 + 3);
        assert_eq!(count(2), 1);
        assert!(count(0).abs_diff(count(1)) <= 1);
    }
}
