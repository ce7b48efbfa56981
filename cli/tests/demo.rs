//! The demo as a user runs it: the whole story, and the table until Ctrl-C.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weft_sandbox::testing::{self, Failure, TestResult};

weft_sandbox::tests! {
    every_step_of_the_story_is_observed,
    the_table_shows_traffic_and_ctrl_c_ends_it_cleanly,
}

/// The story takes about two minutes; a busy machine may need longer.
const STORY: Duration = Duration::from_secs(600);

async fn every_step_of_the_story_is_observed() -> TestResult {
    let demo = demo(&["--once", "--output", "json"]).await?;
    let output = tokio::task::spawn_blocking(move || demo.wait_with_output());
    let output = tokio::time::timeout(STORY, output)
        .await??
        .map_err(|error| Failure::Error(format!("the story did not end: {error}")))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::Error(format!("no report ({error}):\n{told}")))?;
    assert!(output.status.success() && report["ok"] == true, "{told}");
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 7, "{told}");
    for step in steps {
        for part in ["measured", "counter_proofs"] {
            assert!(!step[part].as_array().unwrap().is_empty(), "{}: {part}", step["name"]);
        }
    }
    Ok(())
}

async fn the_table_shows_traffic_and_ctrl_c_ends_it_cleanly() -> TestResult {
    let demo = demo(&["--port", "0"]).await?;
    tokio::task::spawn_blocking(move || watch(demo)).await?;
    Ok(())
}

fn watch(mut demo: Child) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut next = || {
        assert!(Instant::now() < deadline, "the table is not up");
        lines.next().expect("the demo ended by itself").unwrap()
    };
    let page = loop {
        let line = next();
        if let Some(url) = line.strip_prefix("Shop") {
            break url.trim().split('/').nth(2).unwrap().to_owned();
        }
    };
    // from, to, requests per second, …, the peer's identity.
    let row = loop {
        let line = next();
        if line.starts_with("web ") && line.contains("shop/catalog") {
            break line;
        }
    };
    assert!(row.contains("100.00 %"), "{row}");
    assert!(row.ends_with("spiffe://weft.local/ns/shop/sa/catalog"), "{row}");
    let answer = get(&page, "/");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Darjeeling"), "{answer}");

    kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), Signal::SIGINT).unwrap();
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    let status = demo.wait().unwrap();
    assert!(status.success(), "{status}: {}", rest.join("\n"));
    assert!(TcpStream::connect(&page).is_err(), "the page is still served");
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Starts the demo, where a sandbox can be made and all programs are built.
async fn demo(arguments: &[&str]) -> Result<Child, Failure> {
    testing::sandbox().await?.stop().await;
    let weft = std::path::Path::new(env!("CARGO_BIN_EXE_weft"));
    for program in ["weft-proxy", "weft-control-plane", "weft-shop"] {
        if !weft.with_file_name(program).is_file() {
            return Err(Failure::Error(format!("{program} is not built: run `cargo build --workspace --bins` first")));
        }
    }
    let mut command = Command::new(weft);
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !arguments.contains(&"--once") {
        command.stderr(Stdio::inherit());
    }
    Ok(command.spawn()?)
}
