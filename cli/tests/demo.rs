//! The demo as a user runs it: the whole story, and the table until Ctrl-C.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weft_sandbox::testing::{self, Failure, TestResult};

weft_sandbox::tests! {
    every_step_of_the_story_is_observed,
    the_table_shows_traffic_and_ctrl_c_ends_it_cleanly,
    what_a_killed_demo_leaves_is_removed_by_the_next_and_ctrl_c_leaves_nothing,
    the_shops_page_shows_in_a_browser_who_answered,
}

/// The story takes about two minutes; a busy machine may need longer.
const STORY: Duration = Duration::from_secs(800);

async fn every_step_of_the_story_is_observed() -> TestResult {
    let demo = demo(&["--once", "--output", "json"]).await?;
    let output = tokio::task::spawn_blocking(move || demo.wait_with_output());
    let output = tokio::time::timeout(STORY, output)
        .await??
        .map_err(|error| Failure::Error(format!("the story did not end: {error}")))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::Error(format!("no report ({error}):\n{told}")))?;
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 7, "{told}");
    let mut missed = false;
    for step in steps {
        assert!(step["error"].is_null(), "{told}");
        for part in ["measured", "counter_proofs"] {
            let findings = step[part].as_array().unwrap();
            assert!(!findings.is_empty(), "{}: {part}", step["name"]);
            for finding in findings.iter().filter(|finding| finding["ok"] != true) {
                // How fast this machine is just now is told, and nothing is asked of it here.
                assert_eq!(finding["pace"], true, "{finding}\n{told}");
                missed = true;
            }
        }
    }
    assert_eq!((output.status.success(), &report["ok"]), (!missed, &Value::Bool(!missed)), "{told}");
    Ok(())
}

async fn the_table_shows_traffic_and_ctrl_c_ends_it_cleanly() -> TestResult {
    let demo = demo(&["--port", "0"]).await?;
    tokio::task::spawn_blocking(move || watch(demo)).await?;
    Ok(())
}

async fn what_a_killed_demo_leaves_is_removed_by_the_next_and_ctrl_c_leaves_nothing() -> TestResult {
    // Below a directory of its own, so that no other sandbox cleans up there.
    let folder = tempfile::tempdir()?;
    let runtime = folder.path().join("run");
    let mut killed = demo_in(&["--port", "0"], Some(&runtime)).await?;
    let mut killed_lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    up(&mut killed_lines);
    let left = Left::of(&runtime);
    assert!(left.processes() >= 28, "13 pods with two processes, the control plane's, the load: {}", left.processes());
    killed.kill()?;
    killed.wait()?;
    testing::eventually("its processes die with it", LIMIT, async || left.processes() == 0).await;
    assert!(left.directory.is_dir(), "its files stay");

    let mut next = demo_in(&["--port", "0"], Some(&runtime)).await?;
    let mut next_lines = BufReader::new(next.stdout.take().unwrap()).lines();
    up(&mut next_lines);
    let own = Left::of(&runtime);
    assert!(own.token != left.token && (own.directory == left.directory || !left.directory.exists()));
    kill(Pid::from_raw(i32::try_from(next.id())?), Signal::SIGINT)?;
    assert!(next.wait()?.success());
    assert!(!runtime.exists(), "no files are left behind");
    testing::eventually("no processes are left behind", LIMIT, async || own.processes() == 0).await;
    testing::eventually("no interface is left behind", LIMIT, async || !own.interface().exists()).await;
    Ok(())
}

async fn the_shops_page_shows_in_a_browser_who_answered() -> TestResult {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["chromium", "chromium-browser", "google-chrome"];
    let installed = std::env::split_paths(&path).flat_map(|folder| known.map(|name| folder.join(name)));
    let Some(browser) = installed.into_iter().find(|program| program.is_file()) else {
        return Err(testing::skip("there is no browser here: sudo apt-get install chromium"));
    };
    let mut demo = demo(&["--port", "0"]).await?;
    // Kept open: the demo goes on printing.
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let page = up(&mut lines);
    let profile = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{page}/"))
        .env("HOME", profile.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(300), command.output()).await??;
    let page = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    // Scripts have run: the cells are theirs.
    for expected in ["served by web-", "Darjeeling", "<span class=\"tag\">v", "</span> reviews-v"] {
        assert!(page.contains(expected), "no {expected:?} in:\n{page}\n{why}");
    }
    kill(Pid::from_raw(i32::try_from(demo.id())?), Signal::SIGINT)?;
    assert!(demo.wait()?.success());
    Ok(())
}

/// What a demo has on this machine while it runs.
struct Left {
    directory: PathBuf,
    /// Marks all of its processes.
    token: String,
}

impl Left {
    /// That of the only one with this runtime directory.
    fn of(runtime: &Path) -> Self {
        let locks: Vec<_> = std::fs::read_dir(runtime)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "lock"))
            .collect();
        let [lock] = &locks[..] else { panic!("not one lock: {locks:?}") };
        Self { directory: lock.with_extension(""), token: std::fs::read_to_string(lock).unwrap() }
    }

    fn processes(&self) -> usize {
        let mark = format!("WEFT_SANDBOX={}", self.token);
        let marked = |entry: &std::fs::DirEntry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(marked).count()
    }

    fn interface(&self) -> PathBuf {
        Path::new("/sys/class/net").join(self.directory.file_name().unwrap())
    }
}

/// How long an end may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// Reads on until the table is up: where the shop's page is.
fn up(lines: &mut Lines<impl BufRead>) -> String {
    for line in lines {
        if let Some(url) = line.unwrap().strip_prefix("Shop") {
            return url.trim().split('/').nth(2).unwrap().to_owned();
        }
    }
    panic!("the demo ended by itself")
}

fn watch(mut demo: Child) {
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let page = up(&mut lines);
    let mut next = || {
        assert!(Instant::now() < deadline, "the table shows no traffic");
        lines.next().expect("the demo ended by itself").unwrap()
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
    // Bytes have no requests: what is counted is the connections, while they are open.
    let queue = loop {
        let line = next();
        if line.starts_with("(bytes)") {
            break line;
        }
    };
    assert!(queue.contains(" queue ") && queue.contains(" open ") && queue.ends_with("mutual TLS"), "{queue}");
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
    demo_in(arguments, None).await
}

/// The same with a runtime directory of its own.
async fn demo_in(arguments: &[&str], runtime: Option<&Path>) -> Result<Child, Failure> {
    testing::sandbox().await?.stop().await;
    let weft = Path::new(env!("CARGO_BIN_EXE_weft"));
    for program in ["weft-proxy", "weft-control-plane", "weft-shop"] {
        if !weft.with_file_name(program).is_file() {
            return Err(Failure::Error(format!("{program} is not built: run `cargo build --workspace --bins` first")));
        }
    }
    let mut command = Command::new(weft);
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(runtime) = runtime {
        command.env("WEFT_RUNTIME_DIR", runtime);
    }
    if !arguments.contains(&"--once") {
        command.stderr(Stdio::inherit());
    }
    Ok(command.spawn()?)
}
