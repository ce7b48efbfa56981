//! Counters of the load, kept several times over: since the start, for the current second, and since each mark.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Outcome;

/// Failures kept word for word per set of counters.
const KEPT_FAILURES: usize = 10;

/// All sets of counters.
pub(crate) struct Book {
    pub(crate) total: Stats,
    pub(crate) second: Stats,
    pub(crate) marks: BTreeMap<String, Stats>,
}

impl Book {
    pub(crate) fn new(now: Instant) -> Self {
        Self { total: Stats::new(now), second: Stats::new(now), marks: BTreeMap::new() }
    }

    /// Counts a call that was started at `started` and is over `now`. A mark counts only the calls started after it.
    pub(crate) fn record(&mut self, target: &str, outcome: &Outcome, started: Instant, now: Instant) {
        self.total.record(target, outcome, now);
        self.second.record(target, outcome, now);
        for mark in self.marks.values_mut().filter(|mark| mark.started <= started) {
            mark.record(target, outcome, now);
        }
    }

    /// Counts calls that the rate asked for and that no connection was free to make.
    pub(crate) fn skip(&mut self, count: u64) {
        self.total.skipped += count;
        self.second.skipped += count;
        for mark in self.marks.values_mut() {
            mark.skipped += count;
        }
    }

    /// The counters of the second that ends `now`; a new one begins.
    pub(crate) fn end_second(&mut self, now: Instant) -> Value {
        let line = self.second.report(now);
        // A gap does not end because a second does.
        let last_ok = self.second.last_ok;
        self.second = Stats::new(now);
        self.second.last_ok = last_ok;
        line
    }
}

/// One set of counters.
pub(crate) struct Stats {
    started: Instant,
    last_ok: Instant,
    largest_gap: Duration,
    sent: u64,
    ok: u64,
    skipped: u64,
    failures: BTreeMap<String, u64>,
    first_failures: Vec<Value>,
    versions: BTreeMap<String, u64>,
    replicas: BTreeMap<String, u64>,
    targets: BTreeMap<String, (u64, u64)>,
    latency: Histogram,
}

impl Stats {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            last_ok: now,
            largest_gap: Duration::ZERO,
            sent: 0,
            ok: 0,
            skipped: 0,
            failures: BTreeMap::new(),
            first_failures: Vec::new(),
            versions: BTreeMap::new(),
            replicas: BTreeMap::new(),
            targets: BTreeMap::new(),
            latency: Histogram::default(),
        }
    }

    fn record(&mut self, target: &str, outcome: &Outcome, now: Instant) {
        self.sent += 1;
        self.latency.record(outcome.elapsed);
        for (counts, header) in [(&mut self.versions, "x-version"), (&mut self.replicas, "x-replica")] {
            if let Some(value) = outcome.header(header) {
                increment(counts, value);
            }
        }
        if !self.targets.contains_key(target) {
            self.targets.insert(target.to_owned(), (0, 0));
        }
        let by_target = self.targets.get_mut(target);
        match &outcome.failure {
            None => {
                self.ok += 1;
                self.largest_gap = self.largest_gap.max(now.saturating_duration_since(self.last_ok));
                self.last_ok = now;
                by_target.into_iter().for_each(|(ok, _)| *ok += 1);
            }
            Some(failure) => {
                increment(&mut self.failures, &failure.class);
                by_target.into_iter().for_each(|(_, failed)| *failed += 1);
                if self.first_failures.len() < KEPT_FAILURES {
                    self.first_failures.push(json!({
                        "at_seconds": now.duration_since(self.started).as_secs_f64(),
                        "unix": unix_now(),
                        "target": target,
                        "class": failure.class,
                        "message": failure.message,
                        "replica": outcome.header("x-replica"),
                        "ms": outcome.elapsed.as_secs_f64() * 1000.0,
                    }));
                }
            }
        }
    }

    /// Everything as JSON. Durations are in milliseconds unless named otherwise.
    pub(crate) fn report(&self, now: Instant) -> Value {
        let open_gap = now.saturating_duration_since(self.last_ok);
        let targets: BTreeMap<_, _> =
            self.targets.iter().map(|(target, (ok, failed))| (target, json!({ "ok": ok, "failed": failed }))).collect();
        json!({
            "unix": unix_now(),
            "seconds": now.saturating_duration_since(self.started).as_secs_f64(),
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.sent - self.ok,
            "skipped": self.skipped,
            "p50_ms": self.latency.quantile(0.50),
            "p99_ms": self.latency.quantile(0.99),
            "largest_gap_ms": self.largest_gap.max(open_gap).as_secs_f64() * 1000.0,
            "failures": self.failures,
            "first_failures": self.first_failures,
            "versions": self.versions,
            "replicas": self.replicas,
            "targets": targets,
        })
    }
}

fn increment(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}

fn unix_now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Log-linear buckets over microseconds: 64 per power of two, so a quantile is at most 1.6 % too high.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// log2 of the buckets per power of two.
const SUB_BITS: u32 = 6;

impl Default for Histogram {
    fn default() -> Self {
        // Up to 2^32 µs (71 minutes); longer ones count as that.
        Self { counts: vec![0; bucket(u64::from(u32::MAX)) + 1], total: 0 }
    }
}

impl Histogram {
    fn record(&mut self, value: Duration) {
        let micros = u32::try_from(value.as_micros()).unwrap_or(u32::MAX);
        self.counts[bucket(u64::from(micros))] += 1;
        self.total += 1;
    }

    /// In milliseconds: the upper end of the bucket in which the quantile lies; 0 if nothing was recorded.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = ((self.total as f64) * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Below 2^SUB_BITS each value has a bucket; above, the top SUB_BITS+1 bits of the value choose one.
fn bucket(micros: u64) -> usize {
    let shift = (63 - (micros | 1).leading_zeros()).saturating_sub(SUB_BITS);
    ((u64::from(shift) << SUB_BITS) + (micros >> shift)) as usize
}

/// The largest value that falls into a bucket: the inverse of [`bucket`].
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> SUB_BITS).saturating_sub(1);
    let top = index - (shift << SUB_BITS);
    ((top + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Failure;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_bucket_is_narrow() {
        let mut previous = 0;
        for micros in (0..5_000).chain((1..32).map(|power| (1_u64 << power) + 1)) {
            let bucket = bucket(micros);
            let upper = upper_bound(bucket);
            assert!(upper >= micros, "{micros} above its bucket's end {upper}");
            assert!(upper as f64 <= micros as f64 * 1.016 + 1.0, "{micros}'s bucket ends at {upper}");
            assert!(bucket >= previous || micros < 5_000);
            previous = bucket;
        }
    }

    #[test]
    fn quantiles_are_those_of_the_recorded_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0.0);
        for ms in 1..=100 {
            histogram.record(Duration::from_millis(ms));
        }
        assert!((histogram.quantile(0.50) - 50.0).abs() < 1.0);
        assert!((histogram.quantile(0.99) - 99.0).abs() < 2.0);
    }

    #[test]
    fn a_mark_counts_only_what_started_after_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut book = Book::new(start);
        book.marks.insert("here".to_owned(), Stats::new(at(100)));
        let ok = Outcome { headers: vec![("x-version".into(), "v2".into())], ..Outcome::default() };
        book.record("t", &ok, at(90), at(110));
        book.record("t", &ok, at(120), at(130));
        assert_eq!(book.total.report(at(200))["sent"], 2);
        assert_eq!(book.marks["here"].report(at(200))["sent"], 1);
        assert_eq!(book.marks["here"].report(at(200))["versions"]["v2"], 1);
    }

    #[test]
    fn the_largest_gap_spans_failures_and_includes_the_one_still_open() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut stats = Stats::new(start);
        let failure = Some(Failure { class: "reset".into(), message: String::new() });
        stats.record("t", &Outcome::default(), at(10));
        stats.record("t", &Outcome { failure, ..Outcome::default() }, at(200));
        stats.record("t", &Outcome::default(), at(310));
        assert_eq!(stats.report(at(320))["largest_gap_ms"], 300.0);
        assert_eq!(stats.report(at(1310))["largest_gap_ms"], 1000.0);
        assert_eq!(stats.report(at(320))["failures"]["reset"], 1);
    }
}
