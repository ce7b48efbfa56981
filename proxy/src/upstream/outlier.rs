//! Outlier detection: endpoints that fail are kept out for a while (`envoy.config.cluster.v3.OutlierDetection`).
//!
//! Runs of failures eject at once, from whichever worker sees the last of them. Success rates and failure percentages are judged per
//! interval, over counters, by [`Detector::tick`], which also lets endpoints back in: no timer per endpoint or request.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::endpoint::State;
use super::outcome::Outcome;
pub use settings::OutlierSettings;

mod settings;

/// One cluster's outlier detection. Shared by its endpoints.
#[derive(Debug)]
pub struct Detector {
    epoch: Instant,
    settings: ArcSwapOption<OutlierSettings>,
    hosts: AtomicU32,
    ejected: AtomicU32,
    ejections: AtomicU64,
    /// Start of the interval that is counted, ms since the epoch.
    interval_start: AtomicU64,
}

/// What is counted for one endpoint.
#[derive(Debug, Default)]
pub(super) struct Record {
    ejected: AtomicBool,
    /// When it may return, ms since the detector's epoch.
    until: AtomicU64,
    /// How many base times the next ejection lasts, less one; sinks by one with each interval it stays in.
    times: AtomicU32,
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    external: Window,
    local: Window,
}

/// Attempts of the current interval.
#[derive(Debug, Default)]
struct Window {
    total: AtomicU32,
    successes: AtomicU32,
}

impl Window {
    fn count(&self, success: bool) {
        self.total.fetch_add(1, Relaxed);
        self.successes.fetch_add(u32::from(success), Relaxed);
    }

    /// (total, successes), starting again from zero.
    fn take(&self) -> (u32, u32) {
        let (total, successes) = (self.total.swap(0, Relaxed), self.successes.swap(0, Relaxed));
        // Between the two swaps another worker may count: never more successes than attempts.
        (total, successes.min(total))
    }
}

impl Record {
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }
}

impl Detector {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            settings: ArcSwapOption::empty(),
            hosts: AtomicU32::new(0),
            ejected: AtomicU32::new(0),
            ejections: AtomicU64::new(0),
            interval_start: AtomicU64::new(0),
        }
    }

    /// Endpoints that are out now.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// Ejections ever.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    pub(super) fn configure(&self, settings: Option<OutlierSettings>) {
        self.settings.store(settings.map(Into::into));
    }

    /// How many endpoints the ejected ones are a share of.
    pub(super) fn set_hosts(&self, hosts: usize) {
        self.hosts.store(u32::try_from(hosts).unwrap_or(u32::MAX), Relaxed);
    }

    /// An endpoint left the cluster.
    pub(super) fn forget(&self, record: &Record) {
        if record.ejected.swap(false, Relaxed) {
            self.ejected.fetch_sub(1, Relaxed);
        }
    }

    /// Counts an outcome. Returns whether it got the endpoint ejected.
    pub(super) fn record(&self, record: &Record, outcome: Outcome, now: Instant) -> bool {
        let settings = self.settings.load();
        let (Some(settings), Some(status)) = (settings.as_deref(), outcome.effective_status()) else { return false };
        if settings.split_local_origin {
            record.local.count(!outcome.is_local_origin());
            if outcome.is_local_origin() {
                let run = record.consecutive_local.fetch_add(1, Relaxed) + 1;
                return self.judge_run(
                    run,
                    settings.consecutive_local,
                    settings.enforcing_local,
                    &record.consecutive_local,
                ) && self.eject(record, settings, now);
            }
            record.consecutive_local.store(0, Relaxed);
        }
        record.external.count(status < 500);
        if status < 500 {
            record.consecutive_5xx.store(0, Relaxed);
            record.consecutive_gateway.store(0, Relaxed);
            return false;
        }
        let gateway = if (502..=504).contains(&status) {
            let run = record.consecutive_gateway.fetch_add(1, Relaxed) + 1;
            self.judge_run(run, settings.consecutive_gateway, settings.enforcing_gateway, &record.consecutive_gateway)
        } else {
            record.consecutive_gateway.store(0, Relaxed);
            false
        };
        let run = record.consecutive_5xx.fetch_add(1, Relaxed) + 1;
        let server_error =
            self.judge_run(run, settings.consecutive_5xx, settings.enforcing_5xx, &record.consecutive_5xx);
        (gateway || server_error) && self.eject(record, settings, now)
    }

    /// Whether a run of failures is long enough, and enforced this time. A run that was judged starts again.
    fn judge_run(&self, run: u32, threshold: u32, enforcing: u32, counter: &AtomicU32) -> bool {
        if threshold == 0 || run < threshold {
            return false;
        }
        counter.store(0, Relaxed);
        roll(enforcing)
    }

    /// In => Out, if as many may be out.
    fn eject(&self, record: &Record, settings: &OutlierSettings, now: Instant) -> bool {
        let hosts = u64::from(self.hosts.load(Relaxed));
        let share = hosts * u64::from(settings.max_ejection_percent) / 100;
        // A share below one endpoint still means one, or small clusters would have no detection at all.
        let least = u64::from(settings.max_ejection_percent > 0 || settings.always_eject_one);
        let limit = share.max(least);
        let counted =
            self.ejected.fetch_update(Relaxed, Relaxed, |ejected| (u64::from(ejected) < limit).then_some(ejected + 1));
        if counted.is_err() {
            return false;
        }
        let times = record.times.load(Relaxed).saturating_add(1);
        let pause = settings.base_ejection_time.saturating_mul(times).min(settings.max_ejection_time);
        let jitter = settings.max_jitter.mul_f64(rand::random::<f64>());
        // Written before the flag that tick() looks at first.
        record.until.store(self.millis(now) + millis(pause + jitter), Relaxed);
        if record.ejected.swap(true, Relaxed) {
            // Another worker was faster.
            self.ejected.fetch_sub(1, Relaxed);
            return false;
        }
        record.times.store(times, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        true
    }

    /// Lets back in who has been out for its time and, once per interval, judges the interval. Call it about once a second.
    pub(super) fn tick<'a>(&self, endpoints: impl Iterator<Item = &'a State> + Clone, now: Instant) {
        let settings = self.settings.load();
        let now_ms = self.millis(now);
        let start = self.interval_start.load(Relaxed);
        let over = settings.as_deref().filter(|settings| now_ms.saturating_sub(start) >= millis(settings.interval));
        if over.is_some() {
            self.interval_start.store(now_ms, Relaxed);
            for state in endpoints.clone().filter(|state| !state.outlier.is_ejected()) {
                // Envoy: an endpoint that stayed in for an interval has one ejection forgiven.
                let _ = state.outlier.times.fetch_update(Relaxed, Relaxed, |times| times.checked_sub(1));
            }
        }
        for state in endpoints.clone().filter(|state| state.outlier.is_ejected()) {
            // Out => In, when its time is over or nobody detects outliers any more.
            if settings.is_none() || now_ms >= state.outlier.until.load(Relaxed) {
                self.readmit(state);
            }
        }
        if let Some(settings) = over {
            self.judge_interval(endpoints, settings, now);
        }
    }

    fn readmit(&self, state: &State) {
        let record = &state.outlier;
        for counter in [&record.consecutive_5xx, &record.consecutive_gateway, &record.consecutive_local] {
            counter.store(0, Relaxed);
        }
        record.external.take();
        record.local.take();
        // Its latency estimate is of its bad days; with it, it would get no traffic to prove itself with.
        state.load.reset();
        self.forget(record);
    }

    fn judge_interval<'a>(&self, endpoints: impl Iterator<Item = &'a State>, settings: &OutlierSettings, now: Instant) {
        let mut external = Vec::new();
        let mut local = Vec::new();
        for state in endpoints {
            let record = &state.outlier;
            external.push((record, record.external.take()));
            if settings.split_local_origin {
                local.push((record, record.local.take()));
            }
        }
        for (windows, rate, percentage) in [
            (external, settings.enforcing_success_rate, settings.enforcing_failure_percentage),
            (local, settings.enforcing_local_success_rate, settings.enforcing_local_failure_percentage),
        ] {
            for record in settings.low_success_rates(&windows).filter(|_| roll(rate)) {
                self.eject(record, settings, now);
            }
            for record in settings.high_failure_percentages(&windows).filter(|_| roll(percentage)) {
                self.eject(record, settings, now);
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.epoch))
    }
}

impl OutlierSettings {
    /// Endpoints whose success rate is below the mean by more than the configured standard deviations.
    fn low_success_rates<'a>(&self, windows: &[(&'a Record, (u32, u32))]) -> impl Iterator<Item = &'a Record> {
        let rates: Vec<_> = windows
            .iter()
            .filter(|(_, (total, _))| *total > 0 && *total >= self.success_rate_volume)
            .map(|(record, (total, successes))| (*record, f64::from(*successes) / f64::from(*total)))
            .collect();
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let threshold = mean - variance.sqrt() * f64::from(self.success_rate_stdev_factor) / 1000.0;
        let enough = rates.len() >= self.success_rate_hosts as usize;
        rates.into_iter().filter(move |(_, rate)| enough && *rate < threshold).map(|(record, _)| record)
    }

    /// Endpoints that failed at least the configured share of their attempts.
    fn high_failure_percentages<'a>(&self, windows: &[(&'a Record, (u32, u32))]) -> impl Iterator<Item = &'a Record> {
        let loaded: Vec<_> = windows
            .iter()
            .filter(|(_, (total, _))| *total > 0 && *total >= self.failure_percentage_volume)
            .copied()
            .collect();
        let enough = loaded.len() >= self.failure_percentage_hosts as usize;
        let threshold = u64::from(self.failure_percentage_threshold);
        let fails =
            move |total: u32, successes: u32| u64::from(total - successes) * 100 >= threshold * u64::from(total);
        loaded
            .into_iter()
            .filter(move |(_, (total, successes))| enough && fails(*total, *successes))
            .map(|(record, _)| record)
    }
}

/// Whether something enforced to `percent` % is enforced this time.
fn roll(percent: u32) -> bool {
    percent >= 100 || (percent > 0 && rand::random_range(0..100) < percent)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
