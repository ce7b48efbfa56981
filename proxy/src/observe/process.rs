//! The process's own memory, descriptors and CPU time, read from `/proc` when scraped.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use weft_telemetry::{Family, proxy as table};

/// Prometheus' standard `process_…` metrics. A value that cannot be read is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |Family { name, help, .. }: Family, value: Option<u64>| {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else {
                return Ok(());
            };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge(table::PROCESS_MEMORY, resident_bytes())?;
        gauge(table::PROCESS_DESCRIPTORS, open_descriptors())?;
        gauge(table::PROCESS_THREADS, threads())?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            counter.encode(encoder.encode_descriptor(
                table::PROCESS_CPU.name,
                table::PROCESS_CPU.help,
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}

/// `VmRSS` of `/proc/self/status`, which the kernel gives in KiB.
fn resident_bytes() -> Option<u64> {
    status_field("VmRSS:").map(|kib| kib * 1024)
}

fn threads() -> Option<u64> {
    status_field("Threads:")
}

fn status_field(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_descriptors() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // Reading the folder holds one descriptor itself.
    u64::try_from(entries.saturating_sub(1)).ok()
}

/// `utime` and `stime` of `/proc/self/stat` (proc(5)), in ticks of `USER_HZ`, which is 100 on every Linux architecture we build for.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold spaces and brackets: count from the last one. What follows starts with field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(14 - 3);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}
