//! Processes inside pods: started so that they cannot outlive the owner, logged, signalled, waited for.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setpgid, setuid};
use tokio::sync::watch;

use crate::netns::Namespaces;
use crate::{Error, state};

/// Who a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id; any but 0 drops all capabilities. In a rootless sandbox only 0 exists.
    pub uid: u32,
    /// Group id; no supplementary groups.
    pub gid: u32,
}

impl User {
    /// Root of the sandbox.
    pub const ROOT: User = User { uid: 0, gid: 0 };
}

/// A process in a pod. A handle: clones are the same process, and dropping them all does not end it; removing its pod does.
#[derive(Debug, Clone)]
pub struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    pid: Pid,
    log: PathBuf,
    /// True once the process has been reaped: its number may then be another's. Held while it is signalled or reaped.
    reaped: Mutex<bool>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// The name given to [`crate::Pod::spawn`].
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The process id, as the owner sees it.
    pub fn id(&self) -> u32 {
        self.0.pid.as_raw().cast_unsigned()
    }

    /// The file that holds what the process wrote to stdout and stderr, in the order written.
    pub fn log_path(&self) -> &Path {
        &self.0.log
    }

    /// What the process has written so far. Bytes that are no UTF-8 are replaced.
    pub fn log(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.0.log)?).into_owned())
    }

    /// How it ended; none while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.0.exit.borrow()
    }

    /// Waits until it ends.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.0.exit.clone();
        let status = exit.wait_for(Option::is_some).await.map(|status| *status);
        // Invariant: the waiting thread sends a status before it drops the sender.
        status.ok().flatten().expect("the waiting thread ended without a status")
    }

    /// Sends a signal to the process itself; nothing if it has ended.
    pub fn signal(&self, signal: Signal) {
        self.if_alive(|pid| kill(pid, signal));
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends it and its process group at once (SIGKILL).
    pub fn kill(&self) {
        self.if_alive(|pid| killpg(pid, Signal::SIGKILL));
    }

    /// Asks it to end, and ends it when `grace` is over.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.terminate();
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.kill();
        self.wait().await
    }

    fn if_alive(&self, act: impl FnOnce(Pid) -> nix::Result<()>) {
        let reaped = self.0.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It may be a zombie already, which no signal reaches.
            let _ = act(self.0.pid);
        }
    }
}

/// What to start, and where.
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) pod: String,
    pub(crate) command: Command,
    pub(crate) user: User,
    pub(crate) log: PathBuf,
    pub(crate) namespaces: Arc<Namespaces>,
    /// The sandbox's token, put into the environment.
    pub(crate) token: String,
}

/// The thread that forks every process of a sandbox.
///
/// The kernel sends a child its parent-death signal when the *thread* that forked it ends. So all are forked by one that lives as long as
/// the sandbox; its end is theirs, even if the process that owns the sandbox goes on.
#[derive(Debug)]
pub(crate) struct Spawner(mpsc::Sender<Job>);

type Job = Box<dyn FnOnce() + Send>;

impl Spawner {
    pub(crate) fn start() -> Result<Self, Error> {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("weft-spawner".into())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .map_err(Error::io("start a thread"))?;
        Ok(Self(sender))
    }

    pub(crate) async fn launch(&self, mut launch: Launch) -> Result<Process, Error> {
        if launch.user.uid != 0 && crate::is_rootless() {
            return Err(Error::UnmappedUser { process: launch.name, uid: launch.user.uid });
        }
        let (name, log, what) = (launch.name.clone(), launch.log.clone(), launch.describe());
        launch.prepare()?;
        let (answer, child) = tokio::sync::oneshot::channel();
        let job: Job = Box::new(move || {
            // A caller that has gone away cannot use the process: dropping the pod ends it.
            let _ = answer.send(launch.command.spawn());
        });
        // Invariant: the thread ends only when `self` is dropped, and jobs do not panic.
        self.0.send(job).expect("the spawning thread is gone");
        let child = child.await.expect("the spawning thread is gone").map_err(Error::io(what))?;
        watch_exit(name, child, log)
    }
}

impl Launch {
    fn describe(&self) -> String {
        format!("start {} ({}) in pod {}", self.name, self.command.get_program().display(), self.pod)
    }

    /// Everything about the command that does not depend on the thread that starts it.
    #[allow(unsafe_code)]
    fn prepare(&mut self) -> Result<(), Error> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(Error::io(format!("open the log {}", self.log.display())))?;
        let errors = log.try_clone().map_err(Error::io("duplicate a log's descriptor"))?;
        self.command.stdin(Stdio::null()).stdout(log).stderr(errors).env(state::MARK, &self.token);
        let namespaces = Arc::clone(&self.namespaces);
        let user = self.user;
        let owner = nix::unistd::getpid();
        // Entering a mount namespace changes the working directory to its root, after Command has changed it.
        let directory = self.command.get_current_dir().map(Path::to_owned);
        // SAFETY: the closure runs between fork and exec in a child of a process with threads, where only async-signal-safe calls are
        // allowed: it makes system calls on values made before and allocates nothing.
        unsafe {
            self.command.pre_exec(move || Ok(become_pod_process(&namespaces, user, owner, directory.as_deref())?));
        }
        Ok(())
    }
}

/// In the child, before exec.
fn become_pod_process(namespaces: &Namespaces, user: User, owner: Pid, directory: Option<&Path>) -> nix::Result<()> {
    // A group of its own: the terminal's Ctrl-C is for the owner, which ends things in order.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    namespaces.enter()?;
    if let Some(directory) = directory {
        nix::unistd::chdir(directory)?;
    }
    if user != User::ROOT {
        setgroups(&[])?;
        setgid(Gid::from_raw(user.gid))?;
        setuid(Uid::from_raw(user.uid))?;
    }
    // Last, as a change of user clears it. The owner may have died before.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != owner { Err(Errno::ESRCH) } else { Ok(()) }
}

/// A thread per process waits for it: no handler of SIGCHLD, which belongs to the program that uses this library.
fn watch_exit(name: String, mut child: Child, log: PathBuf) -> Result<Process, Error> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, exit) = watch::channel(None);
    let process = Process(Arc::new(Inner { name, pid, log, reaped: Mutex::new(false), exit }));
    let inner = Arc::clone(&process.0);
    let wait = move || {
        // First without reaping, so that the number stays the process's own while somebody signals it.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        let mut reaped = inner.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.wait();
        *reaped = true;
        drop(reaped);
        // The status is lost only if the program reaps children it did not start; the process has ended all the same.
        sender.send_replace(Some(status.unwrap_or_default()));
    };
    std::thread::Builder::new()
        .name("weft-wait".into())
        .stack_size(128 << 10)
        .spawn(wait)
        .map_err(Error::io("start a thread"))?;
    Ok(process)
}
