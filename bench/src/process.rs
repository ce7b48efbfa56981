//! What the kernel knows of a process, and a child that is killed when it is dropped.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// A process under measurement.
pub(crate) struct Measured(Child);

impl Measured {
    /// Starts it with its output dropped.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Self).with_context(|| format!("starting {name}; build it first, or name it with an option"))
    }

    /// Fails if it has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the process under measurement has ended: {status}"),
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS in /proc")?;
        Ok(kib * 1024)
    }

    /// Processor time used so far, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        // In units of 1/100 s on every architecture that Linux has (proc_pid_stat(5), USER_HZ).
        const TICK: Duration = Duration::from_millis(10);
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat is unlike proc_pid_stat(5)")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        Ok(TICK * ticks)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0.id());
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
