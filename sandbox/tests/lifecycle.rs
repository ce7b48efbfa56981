//! Nothing is left behind: after a stop, after a kill, as root and rootless.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use weft_sandbox::testing::{self, TestResult, eventually, skip};
use weft_sandbox::{Config, Error, Mode, PodSpec, Sandbox};

weft_sandbox::tests! {
    helpers: [own_a_sandbox, use_a_sandbox_as_an_ordinary_user, enter_with_a_thread, enter_where_namespaces_are_forbidden];
    stopping_leaves_nothing_behind,
    removing_a_pod_ends_its_processes_and_their_children,
    a_process_outlives_the_thread_that_asked_for_it,
    a_killed_owner_leaves_no_process_and_the_next_start_removes_the_rest,
    an_interrupted_owner_leaves_nothing_behind,
    an_ordinary_user_has_a_sandbox_too_and_listens_on_the_host,
    entering_with_threads_is_refused_with_the_way_out,
    where_namespaces_are_forbidden_the_error_names_the_command_that_helps,
}

const LIMIT: Duration = Duration::from_secs(10);

async fn stopping_leaves_nothing_behind() -> TestResult {
    let sandbox = sandbox_in(&runtime()).await?;
    let (name, directory) = (sandbox.name(), sandbox.directory());
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    let process = pod.spawn("parent", with_a_runaway_child()).await?;
    let child = runaway(&pod.run_dir()).await;
    let lock = directory.with_extension("lock");
    let interface = Interface::find(&name)?;
    assert!(directory.is_dir() && lock.is_file() && is_alive(child));
    sandbox.stop().await;
    assert!(process.wait().await.code().is_none(), "it was killed");
    eventually("the runaway child is killed", LIMIT, async || !is_alive(child)).await;
    assert!(interface.is_gone());
    drop(pod);
    assert!(!directory.exists() && !lock.exists());
    Ok(())
}

async fn removing_a_pod_ends_its_processes_and_their_children() -> TestResult {
    let sandbox = sandbox_in(&runtime()).await?;
    let (a, b) = (sandbox.add_pod(PodSpec::named("a")).await?, sandbox.add_pod(PodSpec::named("b")).await?);
    let process = a.spawn("parent", with_a_runaway_child()).await?;
    let other = b.spawn("other", with_a_runaway_child()).await?;
    let child = runaway(&a.run_dir()).await;
    sandbox.remove_pod(&a).await?;
    assert!(process.exit_status().is_some());
    eventually("the runaway child is killed", LIMIT, async || !is_alive(child)).await;
    assert_eq!(other.exit_status(), None, "another pod's process goes on");
    sandbox.remove_pod(&a).await?;
    Ok(())
}

async fn a_process_outlives_the_thread_that_asked_for_it() -> TestResult {
    let sandbox = sandbox_in(&runtime()).await?;
    let pod = sandbox.add_pod(PodSpec::named("a")).await?;
    let asker = {
        let pod = pod.clone();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "while [ ! -e /run/go ]; do sleep 0.02; done; echo went"]);
        move || {
            tokio::runtime::Builder::new_current_thread()
                .build()?
                .block_on(pod.spawn("waiting", command))
                .map_err(std::io::Error::other)
        }
    };
    let process = std::thread::spawn(asker).join().unwrap()?;
    std::fs::write(pod.run_dir().join("go"), "")?;
    assert!(tokio::time::timeout(LIMIT, process.wait()).await?.success());
    assert_eq!(process.log()?, "went\n");
    Ok(())
}

async fn a_killed_owner_leaves_no_process_and_the_next_start_removes_the_rest() -> TestResult {
    let own = sandbox_in(&runtime()).await?;
    let mut owner = Owner::start().await?;
    assert!(is_alive(owner.process) && is_alive(owner.runaway) && !owner.interface.is_gone());
    owner.child.kill()?;
    owner.child.wait()?;
    eventually("the process dies with its owner", LIMIT, async || !is_alive(owner.process)).await;
    eventually("the interface goes with the bridge's namespace", LIMIT, async || owner.interface.is_gone()).await;
    assert!(owner.directory.is_dir());
    let next = sandbox_in(&runtime()).await?;
    eventually("the child that had left its parent is killed", LIMIT, async || !is_alive(owner.runaway)).await;
    assert!(own.directory().is_dir(), "a living owner's sandbox is left alone");
    assert!(next.directory() == owner.directory || !owner.directory.exists());
    Ok(())
}

async fn an_interrupted_owner_leaves_nothing_behind() -> TestResult {
    let mut owner = Owner::start().await?;
    let pid = nix::unistd::Pid::from_raw(owner.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    assert!(owner.child.wait()?.success());
    assert!(owner.interface.is_gone() && !owner.directory.exists());
    eventually("all processes are gone", LIMIT, async || !is_alive(owner.process) && !is_alive(owner.runaway)).await;
    Ok(())
}

async fn an_ordinary_user_has_a_sandbox_too_and_listens_on_the_host() -> TestResult {
    const NOBODY: u32 = 65534;
    let mut command = testing::helper("use_a_sandbox_as_an_ordinary_user")?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if nix::unistd::geteuid().is_root() && !weft_sandbox::is_rootless() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(skip("the test binary is in a directory that the user nobody may not enter"));
        }
        spawned => spawned?,
    };
    let mut lines = Lines::of(&mut child);
    let line = lines.next();
    assert!(!line.is_empty(), "the helper failed: {:?}", child.wait());
    let Some(port) = line.strip_prefix("port ") else {
        return Err(skip(format!("the kernel gives an ordinary user no namespaces: {line}")));
    };
    let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
    let mut text = String::new();
    TcpStream::connect_timeout(&address, LIMIT)?.read_to_string(&mut text)?;
    assert_eq!(text, "from a pod, as uid 0 inside");
    // Its end of the pipe tells the helper to leave.
    drop(child.stdin.take());
    assert!(child.wait()?.success());
    eventually("the host's listener goes with it", LIMIT, async || TcpStream::connect(address).is_err()).await;
    Ok(())
}

async fn entering_with_threads_is_refused_with_the_way_out() -> TestResult {
    let output = testing::helper("enter_with_a_thread")?.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("has 2 threads: call weft_sandbox::enter first thing in main"), "{text}");
    Ok(())
}

async fn where_namespaces_are_forbidden_the_error_names_the_command_that_helps() -> TestResult {
    let output = testing::helper("enter_where_namespaces_are_forbidden")?.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.is_empty() {
        return Err(skip("the kernel gives this user no namespaces, or does not let it forbid them"));
    }
    assert!(text.starts_with("cannot create a user namespace: No space left on device"), "{text}");
    assert!(text.contains("sudo sysctl -w user.max_user_namespaces=10000"), "{text}");
    Ok(())
}

/// A directory of this test's own, so that tests that run at the same time do not clean up after each other. The sandbox makes and
/// removes it.
fn runtime() -> PathBuf {
    std::env::temp_dir().join(format!("weft-test-{}", std::process::id()))
}

async fn sandbox_in(runtime: &Path) -> Result<Sandbox, testing::Failure> {
    let cannot = |error: Error| if error.is_missing_privilege() { skip(error.to_string()) } else { error.into() };
    Sandbox::start_in(runtime, Config::default()).await.map_err(cannot)
}

/// Another process that owns a sandbox.
struct Owner {
    child: Child,
    interface: Interface,
    directory: PathBuf,
    /// A process in its pod.
    process: i32,
    /// A child of that which has left it.
    runaway: i32,
}

impl Owner {
    async fn start() -> Result<Self, testing::Failure> {
        let mut command = testing::helper("own_a_sandbox")?;
        command.env("WEFT_RUNTIME_DIR", runtime()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = Lines::of(&mut child);
        let interface = Interface::find(&lines.next())?;
        let directory = PathBuf::from(lines.next());
        let process = lines.next().parse()?;
        let runaway = runaway(&directory.join("pods/a/run")).await;
        Ok(Self { child, interface, directory, process, runaway })
    }
}

/// A helper: owns a sandbox until it is interrupted.
fn own_a_sandbox() -> ExitCode {
    let own = async || -> Result<(), Error> {
        let sandbox = Sandbox::start(Config::default()).await?;
        let pod = sandbox.add_pod(PodSpec::named("a")).await?;
        let process = pod.spawn("parent", with_a_runaway_child()).await?;
        println!("{}\n{}\n{}", sandbox.name(), sandbox.directory().display(), process.id());
        tokio::signal::ctrl_c().await.unwrap();
        sandbox.stop().await;
        Ok(())
    };
    weft_sandbox::enter(Mode::Auto).unwrap();
    block_on(own()).unwrap();
    ExitCode::SUCCESS
}

/// A helper: a pod is called by another and through a port of the host, until stdin ends.
fn use_a_sandbox_as_an_ordinary_user() -> ExitCode {
    let serve = async || -> Result<(), Box<dyn std::error::Error>> {
        let sandbox = Sandbox::start(Config::default()).await?;
        let (a, b) = (sandbox.add_pod(PodSpec::named("a")).await?, sandbox.add_pod(PodSpec::named("b")).await?);
        let address = SocketAddr::new(b.v6(), 80);
        let server = b.run(move || TcpListener::bind(address)).await??;
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let uid = nix::unistd::getuid();
                stream.unwrap().write_all(format!("from a pod, as uid {uid} inside").as_bytes()).unwrap();
            }
        });
        let text = a.run(move || std::io::read_to_string(TcpStream::connect(address)?)).await??;
        assert_eq!(text, "from a pod, as uid 0 inside");
        let published = sandbox.publish(SocketAddr::from(([127, 0, 0, 1], 0)), address)?;
        let taken = sandbox.listen_on_host(published.address()).unwrap_err();
        assert!(taken.to_string().contains("Address already in use"), "{taken}");
        println!("port {}", published.address().port());
        tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
        Ok(())
    };
    if let Err(error) = weft_sandbox::enter(Mode::Rootless) {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    block_on(serve()).unwrap();
    ExitCode::SUCCESS
}

/// A helper: says what to do where there may be no user namespaces.
fn enter_where_namespaces_are_forbidden() -> ExitCode {
    // A setting of the namespace it is written in, so that no one else's is changed.
    let forbid = || std::fs::write("/proc/sys/user/max_user_namespaces", "0");
    if weft_sandbox::enter(Mode::Rootless).is_ok() && forbid().is_ok() {
        println!("{}", weft_sandbox::enter(Mode::Rootless).unwrap_err());
    }
    ExitCode::SUCCESS
}

/// A helper: makes the mistake of entering too late.
fn enter_with_a_thread() -> ExitCode {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    println!("{}", weft_sandbox::enter(Mode::Rootless).unwrap_err());
    drop(release);
    thread.join().unwrap().unwrap_err();
    ExitCode::SUCCESS
}

/// A shell that starts a child in a session of its own, which the kernel does not kill with its parent.
fn with_a_runaway_child() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        "setsid sh -c 'echo $$ > /run/child.tmp; mv /run/child.tmp /run/child; exec sleep 100' & exec sleep 100",
    ]);
    command
}

/// The process id of the child [`with_a_runaway_child`] starts.
async fn runaway(run: &Path) -> i32 {
    let read = || std::fs::read_to_string(run.join("child")).ok()?.trim().parse().ok();
    eventually("the shell starts its child", LIMIT, async || read().is_some()).await;
    read().unwrap()
}

fn is_alive(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is dead; whether its new parent has noticed is not ours to say.
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// An interface of the host: its name, and its number, which unlike the name is not used again soon.
struct Interface(String, u32);

impl Interface {
    fn find(name: &str) -> Result<Self, nix::Error> {
        Ok(Self(name.to_owned(), nix::net::if_::if_nametoindex(name)?))
    }

    fn is_gone(&self) -> bool {
        nix::net::if_::if_nametoindex(self.0.as_str()) != Ok(self.1)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What another process prints.
struct Lines(BufReader<ChildStdout>);

impl Lines {
    fn of(child: &mut Child) -> Self {
        Self(BufReader::new(child.stdout.take().unwrap()))
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
