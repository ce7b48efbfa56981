//! Runs tests one after the other, each in a process of its own, and reports as the standard harness does.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::arguments::Arguments;
use super::{CHILD, SKIP_CODE, SKIPPED, Test};

/// A test that takes longer is killed and has failed. `WEFT_TEST_TIMEOUT` overrides, in seconds.
const TIME_LIMIT: Duration = Duration::from_secs(900);

pub(super) fn run(tests: &[Test], arguments: &Arguments) -> ExitCode {
    let chosen: Vec<&Test> = tests.iter().filter(|test| arguments.choose(test.name)).collect();
    if arguments.list {
        return list(&chosen, arguments);
    }
    let started = Instant::now();
    let mut report = Report::default();
    println!("\nrunning {} test{}", chosen.len(), if chosen.len() == 1 { "" } else { "s" });
    for test in &chosen {
        print!("test {} ... ", test.name);
        // Shown before the test runs, so that one that hangs is known. A closed stdout is noticed by println.
        let _ = io::stdout().flush();
        let (verdict, output) = run_one(test, arguments.show_output);
        println!("{}", verdict.word());
        report.add(test.name, verdict, output);
    }
    report.print(tests.len() - chosen.len(), started.elapsed());
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

#[derive(Debug)]
enum Verdict {
    Passed,
    Ignored(String),
    Failed,
}

impl Verdict {
    fn word(&self) -> String {
        match self {
            Verdict::Passed => "ok".into(),
            Verdict::Ignored(reason) => format!("ignored, {reason}"),
            Verdict::Failed => "FAILED".into(),
        }
    }
}

#[derive(Default)]
struct Report {
    passed: usize,
    ignored: usize,
    failures: Vec<(&'static str, String)>,
}

impl Report {
    fn add(&mut self, name: &'static str, verdict: Verdict, output: String) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Ignored(_) => self.ignored += 1,
            Verdict::Failed => self.failures.push((name, output)),
        }
    }

    fn print(&self, filtered_out: usize, elapsed: Duration) {
        if !self.failures.is_empty() {
            println!("\nfailures:");
            for (name, output) in &self.failures {
                println!("\n---- {name} output ----\n{}", output.trim_end());
            }
            println!("\n\nfailures:");
            for (name, _) in &self.failures {
                println!("    {name}");
            }
        }
        let verdict = if self.failures.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
            self.passed,
            self.failures.len(),
            self.ignored,
            elapsed.as_secs_f64()
        );
    }
}

fn list(chosen: &[&Test], arguments: &Arguments) -> ExitCode {
    for test in chosen {
        println!("{}: test", test.name);
    }
    if !arguments.quiet {
        println!("\n{} tests, 0 benchmarks", chosen.len());
    }
    ExitCode::SUCCESS
}

fn run_one(test: &Test, show_output: bool) -> (Verdict, String) {
    match start(test, show_output) {
        Ok((mut child, mut log)) => {
            let status = wait(&mut child, time_limit());
            let mut bytes = Vec::new();
            // What cannot be read is missing from the report, no more.
            let _ = log.rewind().and_then(|()| log.read_to_end(&mut bytes));
            let mut output = String::from_utf8_lossy(&bytes).into_owned();
            let verdict = judge(status, &mut output);
            (verdict, output)
        }
        Err(error) => (Verdict::Failed, format!("the test's process could not be started: {error}")),
    }
}

/// Starts the test's process. Its output goes into memory rather than a pipe, because a process it leaves behind would keep a pipe open.
fn start(test: &Test, show_output: bool) -> io::Result<(Child, File)> {
    let log = File::from(memfd_create(c"test output", MFdFlags::MFD_CLOEXEC)?);
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CHILD, test.name).stdin(Stdio::null());
    if !show_output {
        // Both share one position in the file, so that lines stay in the order in which they were written.
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
    }
    Ok((command.spawn()?, log))
}

/// Waits for the process, and kills it when its time is over: then there is no status.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Its pods' processes die with it.
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn judge(status: Option<ExitStatus>, output: &mut String) -> Verdict {
    let Some(status) = status else {
        output.push_str(&format!("\nkilled after {:?}\n", time_limit()));
        return Verdict::Failed;
    };
    match status.code() {
        Some(0) => Verdict::Passed,
        Some(code) if code == i32::from(SKIP_CODE) => {
            let reason = output.lines().rev().find_map(|line| line.strip_prefix(SKIPPED));
            Verdict::Ignored(reason.unwrap_or("no reason given").to_owned())
        }
        Some(_) => Verdict::Failed,
        None => {
            output.push_str(&format!("\nkilled by signal {}\n", status.signal().unwrap_or_default()));
            Verdict::Failed
        }
    }
}

fn time_limit() -> Duration {
    let seconds = std::env::var("WEFT_TEST_TIMEOUT").ok().and_then(|text| text.parse().ok());
    seconds.map_or(TIME_LIMIT, Duration::from_secs)
}
