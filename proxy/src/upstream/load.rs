//! An endpoint's load: peak EWMA of its latency, and whether it asked to be left alone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How fast an estimate forgets. Finagle's ten seconds keep an endpoint away for half a minute after one hiccup of 20 ms among
/// answers of 1 ms; with two, a persistently slow endpoint is still tried only every few seconds.
const DECAY: Duration = Duration::from_secs(2);

/// What a failure does to the estimate: times this much, up to [`MOST`].
const PENALTY: f32 = 10.0;

/// The estimate's ceiling, seconds.
const MOST: f32 = 30.0;

/// No endpoint may ask to be left alone for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The latency estimate of one endpoint, shared by all workers without a lock.
#[derive(Debug)]
pub(super) struct Load {
    epoch: Instant,
    /// The estimate in seconds as `f32` bits (high half), and when it was made in ms since the epoch (low half, wrapping after 49 days,
    /// which only makes one estimate forget late). 0 is no estimate.
    estimate: AtomicU64,
    /// Until when it asked to be left alone, ms since the epoch; 0 is not at all.
    paused_until: AtomicU32,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now, estimate: AtomicU64::new(0), paused_until: AtomicU32::new(0) }
    }

    /// An answer took this long.
    pub(super) fn observe(&self, latency: Duration, now: Instant) {
        self.update(now, |estimate, elapsed| {
            let sample = latency.as_secs_f32().min(MOST);
            match estimate {
                // Peak: rises at once, sinks slowly.
                Some(estimate) if sample < estimate => {
                    let keep = (-elapsed / DECAY.as_secs_f32()).exp();
                    estimate * keep + sample * (1.0 - keep)
                }
                _ => sample,
            }
        });
    }

    /// It failed, or turned a request away, after this long.
    pub(super) fn penalize(&self, latency: Duration, now: Instant) {
        /// Without an estimate, or with one from fast failures only, a failure counts as an answer this slow.
        const LEAST: f32 = 0.001;
        self.update(now, |estimate, _| {
            (estimate.unwrap_or(LEAST).max(LEAST) * PENALTY).max(latency.as_secs_f32()).min(MOST)
        });
    }

    /// It asked for a pause (`Retry-After`, gRPC push-back).
    pub(super) fn pause(&self, pause: Duration, now: Instant) {
        let until = self.millis(now).wrapping_add(millis(pause.min(LONGEST_PAUSE)));
        self.paused_until.store(until.max(1), Relaxed);
    }

    /// Forgets everything, as when an ejected endpoint comes back.
    pub(super) fn reset(&self) {
        self.estimate.store(0, Relaxed);
        self.paused_until.store(0, Relaxed);
    }

    /// The estimate in seconds, faded by the time since it was made: an endpoint that gets no traffic is tried again. `None` before the
    /// first answer.
    pub(super) fn estimate(&self, now: Instant) -> Option<f32> {
        let (estimate, made) = unpack(self.estimate.load(Relaxed))?;
        Some(estimate * (-self.seconds_since(made, now) / DECAY.as_secs_f32()).exp())
    }

    /// Whether the pause it asked for is not over.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        let until = self.paused_until.load(Relaxed);
        // Wrapping difference: until is ahead of now by less than half the range, since pauses are bounded.
        until != 0 && until.wrapping_sub(self.millis(now)).wrapping_sub(1) < millis(LONGEST_PAUSE)
    }

    fn update(&self, now: Instant, f: impl Fn(Option<f32>, f32) -> f32) {
        // The closure always gives a value, so the update cannot fail.
        let _ = self.estimate.fetch_update(Relaxed, Relaxed, |bits| {
            let old = unpack(bits);
            let elapsed = old.map_or(0.0, |(_, made)| self.seconds_since(made, now));
            // An estimate of zero would read as none.
            let new = f(old.map(|(estimate, _)| estimate), elapsed).max(f32::MIN_POSITIVE);
            Some(u64::from(new.to_bits()) << 32 | u64::from(self.millis(now)))
        });
    }

    fn millis(&self, now: Instant) -> u32 {
        millis(now.saturating_duration_since(self.epoch))
    }

    fn seconds_since(&self, made: u32, now: Instant) -> f32 {
        // Another worker may have stamped the estimate a moment later than our `now`: that is no time, not 49 days.
        let elapsed = self.millis(now).wrapping_sub(made);
        if elapsed > u32::MAX / 2 { 0.0 } else { elapsed as f32 / 1000.0 }
    }
}

#[allow(clippy::cast_possible_truncation)] // wraps by design
fn millis(duration: Duration) -> u32 {
    duration.as_millis() as u32
}

#[allow(clippy::cast_possible_truncation)] // the two halves
fn unpack(bits: u64) -> Option<(f32, u32)> {
    (bits != 0).then(|| (f32::from_bits((bits >> 32) as u32), bits as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rises_at_once_and_sinks_slowly() {
        let start = Instant::now();
        let load = Load::new(start);
        assert_eq!(load.estimate(start), None);
        load.observe(MS, start);
        load.observe(MS * 100, start);
        assert!((load.estimate(start).unwrap() - 0.1).abs() < 1e-6);
        load.observe(MS, start + MS * 100);
        let estimate = load.estimate(start + MS * 100).unwrap();
        assert!(estimate > 0.09, "one fast answer must not hide the peak: {estimate}");
    }

    #[test]
    fn fades_without_traffic() {
        let start = Instant::now();
        let load = Load::new(start);
        load.observe(MS * 20, start);
        assert!(load.estimate(start + DECAY * 3).unwrap() < 0.001);
    }

    #[test]
    fn failures_add_up_to_a_ceiling_however_fast_they_are() {
        let start = Instant::now();
        let load = Load::new(start);
        load.observe(MS, start);
        load.penalize(Duration::ZERO, start);
        let once = load.estimate(start).unwrap();
        load.penalize(Duration::ZERO, start);
        let twice = load.estimate(start).unwrap();
        assert!(once >= 0.0099 && twice > once * 9.0);
        (0..20).for_each(|_| load.penalize(Duration::ZERO, start));
        assert!(load.estimate(start).unwrap() <= MOST);
    }

    #[test]
    fn a_pause_ends() {
        let start = Instant::now();
        let load = Load::new(start);
        assert!(!load.is_paused(start));
        load.pause(Duration::from_secs(2), start);
        assert!(load.is_paused(start + Duration::from_secs(1)));
        assert!(!load.is_paused(start + Duration::from_secs(3)));
        load.pause(Duration::from_secs(86_400), start);
        assert!(!load.is_paused(start + LONGEST_PAUSE + MS));
    }
}
