//! A test harness for namespaces: named asynchronous tests, each run in a fresh process that may make sandboxes.
//!
//! The standard harness runs tests on threads of one process, where nobody can enter a user namespace any more, and where a test that
//! leaves processes or namespaces behind harms the next. Here each test is a process of its own; its output is shown if it fails; a test
//! that cannot run here says why and counts as ignored, not as passed.
//!
//! In `Cargo.toml`, `[[test]] name = "redirect"` with `harness = false`; and in `tests/redirect.rs`:
//! ```no_run
//! use weft_sandbox::PodSpec;
//! use weft_sandbox::testing::{self, TestResult};
//!
//! weft_sandbox::tests! {
//!     a_pod_knows_its_name,
//! }
//!
//! async fn a_pod_knows_its_name() -> TestResult {
//!     let sandbox = testing::sandbox().await?;
//!     let pod = sandbox.add_pod(PodSpec::named("web")).await?;
//!     let name = pod.run(|| std::fs::read_to_string("/proc/sys/kernel/hostname")).await??;
//!     assert_eq!(name, "web\n");
//!     Ok(())
//! }
//! ```
//! The binary takes the arguments of the standard harness that choose tests (`--list`, `--exact`, `--skip`, `--ignored`, filters) and
//! `--nocapture`, and prints its summary line. With `WEFT_TEST_ROOTLESS=1` every test runs in a user namespace, also as root.

mod arguments;
mod runner;

use std::future::Future;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::{Config, Error, Mode, Sandbox};

/// A named test; made by [`crate::tests!`].
#[derive(Clone, Copy)]
pub struct Test {
    /// The function's name.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Pin<Box<dyn Future<Output = TestResult>>>,
}

/// A part of a test that must run in another process, before anything is set up there; see [`helper`].
#[derive(Clone, Copy)]
pub struct Helper {
    /// The function's name.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> ExitCode,
}

/// What a test returns: any error fails it, [`skip`] says that it cannot run here.
pub type TestResult = Result<(), Failure>;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Failure {
    /// It cannot run here, and why; counted as ignored.
    Skip(String),
    /// What went wrong.
    Error(String),
}

/// What a failed `?` in a test becomes.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Most of our errors contain their source's text already.
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(&format!(": {cause_text}"));
            }
            source = cause.source();
        }
        Failure::Error(text)
    }
}

/// Ends a test that cannot run here: `return Err(skip("needs IPv6"))`.
pub fn skip(reason: impl Into<String>) -> Failure {
    Failure::Skip(reason.into())
}

/// A sandbox for a test; skips the test where none can be made.
///
/// # Errors
/// A skip, or what went wrong.
pub async fn sandbox() -> Result<Sandbox, Failure> {
    Sandbox::start(Config::default()).await.map_err(skip_without_privileges)
}

/// Waits until `condition` holds, looking every few milliseconds.
///
/// # Panics
/// With `what`, if it does not within `limit`.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let look = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(limit, look).await.is_ok(), "not within {limit:?}: {what}");
}

/// The command that runs a helper listed in [`crate::tests!`] in a process of its own.
pub fn helper(name: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env_remove(CHILD).env(HELPER, name);
    Ok(command)
}

/// Makes `main` of a test binary from the names of asynchronous functions that return [`TestResult`], after `helpers: [names];` of
/// functions that return [`ExitCode`], if there are any.
#[macro_export]
macro_rules! tests {
    (helpers: [$($helper:ident),* $(,)?]; $($test:ident),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::testing::main(
                &[$($crate::testing::Test { name: stringify!($test), run: || ::std::boxed::Box::pin($test()) }),+],
                &[$($crate::testing::Helper { name: stringify!($helper), run: $helper }),*],
            )
        }
    };
    ($($test:ident),+ $(,)?) => {
        $crate::tests! { helpers: []; $($test),+ }
    };
}

/// The whole of a test binary; see [`crate::tests!`].
pub fn main(tests: &[Test], helpers: &[Helper]) -> ExitCode {
    if let Ok(name) = std::env::var(HELPER) {
        return match helpers.iter().find(|helper| helper.name == name) {
            Some(helper) => (helper.run)(),
            None => complain(&format!("there is no helper {name:?} in this test binary")),
        };
    }
    if let Ok(name) = std::env::var(CHILD) {
        return match tests.iter().find(|test| test.name == name) {
            Some(test) => run_here(test),
            None => complain(&format!("there is no test {name:?} in this test binary")),
        };
    }
    match arguments::Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => runner::run(tests, &arguments),
        Err(message) => complain(&message),
    }
}

/// Names the test a process shall run.
const CHILD: &str = "WEFT_TEST_CHILD";
/// Names the helper a process shall run.
const HELPER: &str = "WEFT_TEST_HELPER";
/// The exit code of a test that cannot run here. The reason is its last line that starts with [`SKIPPED`].
const SKIP_CODE: u8 = 77;
const SKIPPED: &str = "skipped: ";

/// Runs one test in this process, which was made for it.
fn run_here(test: &Test) -> ExitCode {
    let mode = if std::env::var_os("WEFT_TEST_ROOTLESS").is_some() { Mode::Rootless } else { Mode::Auto };
    let run = || -> TestResult {
        crate::enter(mode).map_err(skip_without_privileges)?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on((test.run)())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Skip(reason)) => {
            eprintln!("{SKIPPED}{reason}");
            ExitCode::from(SKIP_CODE)
        }
        Err(Failure::Error(text)) => complain(&format!("error: {text}")),
    }
}

fn skip_without_privileges(error: Error) -> Failure {
    if error.is_missing_privilege() { skip(error.to_string()) } else { error.into() }
}

fn complain(message: &str) -> ExitCode {
    eprintln!("{message}");
    // What a panic in main would exit with, as the standard harness does.
    ExitCode::from(101)
}
