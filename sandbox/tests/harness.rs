//! The harness itself, by what it prints about sample tests.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitCode, Output};

use weft_sandbox::testing::{self, Test, TestResult, skip};

fn main() -> ExitCode {
    if std::env::var_os(SAMPLE).is_some() {
        return sample();
    }
    real()
}

mod real_tests {
    use super::*;
    weft_sandbox::tests! {
        a_run_is_reported_as_the_standard_harness_does,
        a_failed_tests_output_is_shown_and_a_passed_ones_is_not,
        a_skip_counts_as_ignored_with_its_reason,
        filters_choose_what_is_listed_and_run,
        a_test_that_hangs_is_killed_and_has_failed,
    }
    pub(super) fn run() -> ExitCode {
        main()
    }
}

use real_tests::run as real;

/// Set in processes that are the sample, not the test.
const SAMPLE: &str = "WEFT_HARNESS_SAMPLE";

fn sample() -> ExitCode {
    let test = |name, run: fn() -> _| Test { name, run };
    testing::main(
        &[
            test("passes", || {
                Box::pin(async {
                    println!("said by the test that passes");
                    Ok(())
                })
            }),
            test("fails", || {
                Box::pin(async {
                    println!("said by the test that fails");
                    Err(std::io::Error::other("the reason of the failure").into())
                })
            }),
            test("panics", || Box::pin(async { panic!("the panic's message") })),
            test("skips", || Box::pin(async { Err(skip("needs a moon")) })),
            test("hangs", || Box::pin(std::future::pending())),
        ],
        &[],
    )
}

async fn a_run_is_reported_as_the_standard_harness_does() -> TestResult {
    let output = run_sample(&["--skip", "hangs"])?;
    let text = stdout(&output);
    assert!(
        text.starts_with("\nrunning 4 tests\ntest passes ... ok\ntest fails ... FAILED\ntest panics ... FAILED\n"),
        "{text}"
    );
    assert!(text.contains("\nfailures:\n    fails\n    panics\n\ntest result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 1 filtered out; finished in "), "{text}");
    assert_eq!(output.status.code(), Some(101));
    let output = run_sample(&["passes", "--exact"])?;
    assert!(
        stdout(&output)
            .contains("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in ")
    );
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

async fn a_failed_tests_output_is_shown_and_a_passed_ones_is_not() -> TestResult {
    let text = stdout(&run_sample(&["--skip", "hangs"])?);
    assert!(
        text.contains("---- fails output ----\nsaid by the test that fails\nerror: the reason of the failure\n"),
        "{text}"
    );
    assert!(text.contains("the panic's message"), "{text}");
    assert!(!text.contains("said by the test that passes"), "{text}");
    assert!(stdout(&run_sample(&["passes", "--nocapture"])?).contains("said by the test that passes"));
    Ok(())
}

async fn a_skip_counts_as_ignored_with_its_reason() -> TestResult {
    let output = run_sample(&["skips"])?;
    assert!(stdout(&output).contains("test skips ... ignored, needs a moon\n"), "{}", stdout(&output));
    assert!(stdout(&output).contains("ok. 0 passed; 0 failed; 1 ignored;"));
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

async fn filters_choose_what_is_listed_and_run() -> TestResult {
    assert_eq!(
        stdout(&run_sample(&["--list"])?),
        "passes: test\nfails: test\npanics: test\nskips: test\nhangs: test\n\n5 tests, 0 benchmarks\n"
    );
    assert_eq!(stdout(&run_sample(&["--list", "-q", "pa"])?), "passes: test\npanics: test\n");
    assert_eq!(stdout(&run_sample(&["--list", "--quiet", "--ignored"])?), "");
    Ok(())
}

async fn a_test_that_hangs_is_killed_and_has_failed() -> TestResult {
    let output = Command::new(std::env::current_exe()?)
        .args(["hangs"])
        .env(SAMPLE, "1")
        .env("WEFT_TEST_TIMEOUT", "1")
        .env_remove("WEFT_TEST_CHILD")
        .output()?;
    assert!(
        stdout(&output).contains("test hangs ... FAILED") && stdout(&output).contains("killed after 1s"),
        "{}",
        stdout(&output)
    );
    Ok(())
}

fn run_sample(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(std::env::current_exe()?).args(arguments).env(SAMPLE, "1").env_remove("WEFT_TEST_CHILD").output()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
