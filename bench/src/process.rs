//! What the kernel knows of a process, and a child that is killed when it is dropped.

use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pid(pub(crate) u32);

impl Pid {
    /// Resident memory in bytes.
    pub(crate) fn resident(self) -> Result<u64> {
        kibibytes(&self.read("status")?, "VmRSS:")
    }

    /// The part of it that is no file's, in bytes: a program's own pages are shared by all its processes.
    pub(crate) fn anonymous(self) -> Result<u64> {
        kibibytes(&self.read("smaps_rollup")?, "Anonymous:")
    }

    /// Processor time used so far, in user and kernel mode.
    pub(crate) fn cpu(self) -> Result<Duration> {
        // In units of 1/100 s on every architecture that Linux has (proc_pid_stat(5), USER_HZ).
        const TICK: Duration = Duration::from_millis(10);
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat is unlike proc_pid_stat(5)")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        Ok(TICK * ticks)
    }

    /// The same to the nanosecond, of those threads that have not ended.
    pub(crate) fn cpu_of_threads(self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.0);
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(&tasks).with_context(|| format!("reading {tasks}: has the process ended?"))? {
            let path = task?.path().join("schedstat");
            // A thread may end between the listing and the reading.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let on_cpu = text.split_whitespace().next().context("schedstat in /proc is empty")?;
            nanoseconds += on_cpu.parse::<u64>().context("schedstat in /proc")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}: has the process ended?"))
    }
}

fn kibibytes(text: &str, field: &str) -> Result<u64> {
    let value =
        text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field} in /proc"))?;
    let kib: u64 = value.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("{field} in /proc"))?;
    Ok(kib * 1024)
}

/// A process under measurement.
pub(crate) struct Measured {
    child: Child,
    pid: Pid,
    name: String,
}

impl Measured {
    /// Starts it with its output dropped.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Self::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Starts it with its output where the command says.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {name}; build or install it first, or name it with an option"))?;
        Ok(Self { pid: Pid(child.id()), child, name })
    }

    /// Fails if it has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the process under measurement has ended: {}: {status}", self.name),
        }
    }
}

impl Deref for Measured {
    type Target = Pid;

    fn deref(&self) -> &Pid {
        &self.pid
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
