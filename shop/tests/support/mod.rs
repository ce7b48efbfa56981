//! Starts roles of the shop on free ports and probes them, as processes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_weft-shop");

/// One process of the shop; killed when dropped.
pub struct Shop {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub started: Value,
}

impl Shop {
    /// Starts a server role on free ports and waits until it listens.
    pub fn role(role: &str, extra: &[&str]) -> Self {
        let mut arguments = vec![role, "--port", "0", "--admin", "127.0.0.1:0", "--replica", "r-0"];
        arguments.extend(extra);
        Self::spawn(&arguments)
    }

    /// Starts anything that prints a first line of JSON.
    pub fn spawn(arguments: &[&str]) -> Self {
        let mut child = Command::new(BINARY).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let started = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{arguments:?}: {line:?}: {error}"));
        Self { child, stdout, started }
    }

    /// `127.0.0.1:PORT` of the role's port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.started["port"])
    }

    /// Calls the admin port.
    pub fn admin(&self, path: &str) -> Value {
        probe(&[&format!("POST http://{}{path}", self.started["admin"].as_str().unwrap())])
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the end; panics if it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for(limit, "the process to end", || self.child.try_wait().unwrap())
    }

    /// Everything printed after the first line; call after [`Shop::wait`].
    pub fn rest(&mut self) -> Vec<Value> {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes one call with the probe role.
pub fn probe(arguments: &[&str]) -> Value {
    let output = Command::new(BINARY).arg("probe").args(arguments).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.success(), answer["ok"] == true, "the exit code tells the verdict: {answer}");
    answer
}

/// The value of a header in a probe's answer.
pub fn header<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    let pairs = answer["headers"].as_array().unwrap();
    pairs.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}

/// The JSON body of a probe's answer.
pub fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap_or_else(|error| panic!("{answer}: {error}"))
}

/// Polls until there is a value.
pub fn wait_for<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
