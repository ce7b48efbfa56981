//! Namespaces held by file descriptors, and threads that work inside them.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

/// The namespaces of a pod (network, mounts, host name) or of the bridge (network only).
///
/// Dropping it lets the kernel destroy them as soon as no process is left inside: nothing is pinned to a path.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) net: File,
    /// Mounts and host name; none for the bridge's namespace.
    pub(crate) private: Option<(File, File)>,
}

impl Namespaces {
    /// A new network namespace for the calling thread, which must be a thread of its own: there is no way back.
    pub(crate) fn unshare_net() -> Result<Self, Error> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| crate::enter::missing("create a network namespace", errno.into()))?;
        Ok(Self { net: own("net")?, private: None })
    }

    /// New network, mount and host name namespaces for the calling thread, which must be a thread of its own.
    pub(crate) fn unshare_pod() -> Result<Self, Error> {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
        unshare(flags).map_err(|errno| crate::enter::missing("create a pod's namespaces", errno.into()))?;
        Ok(Self { net: own("net")?, private: Some((own("mnt")?, own("uts")?)) })
    }

    /// Moves the calling thread, which must be a thread of its own, into these namespaces.
    pub(crate) fn enter_on_thread(&self) -> Result<(), Error> {
        if self.private.is_some() {
            // A thread that shares its working directory with others may not change mount namespaces.
            unshare(CloneFlags::CLONE_FS).map_err(Error::os("leave the process's working directory"))?;
        }
        self.enter().map_err(Error::os("enter a pod's namespaces"))
    }

    /// Moves a single-threaded process (a child between fork and exec) into these namespaces. Allocates nothing.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if let Some((mounts, host_name)) = &self.private {
            setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
            setns(host_name.as_fd(), CloneFlags::CLONE_NEWUTS)?;
        }
        Ok(())
    }

    /// The inode that names the network namespace in `/proc/<pid>/ns/net`; valid as long as `self` lives.
    pub(crate) fn net_inode(&self) -> Result<u64, Error> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.net.metadata().map_err(Error::io("look at a network namespace"))?.ino())
    }
}

/// The calling thread's namespace of `kind` ("net", "mnt", "uts").
pub(crate) fn own(kind: &str) -> Result<File, Error> {
    let path = format!("/proc/thread-self/ns/{kind}");
    File::open(&path).map_err(Error::io(format!("open {path}")))
}

/// Runs `work` on a new thread that ends with it, so that namespaces it enters are nobody else's. A panic of `work` is the caller's.
pub(crate) async fn on_fresh_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("weft-netns".into())
        .spawn(move || {
            // A caller that has gone away no longer wants the answer.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        })
        .map_err(Error::io("start a thread"))?;
    match receiver.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => resume_unwind(panic),
        // Invariant: the thread sends before it ends, whatever `work` does.
        Err(_) => unreachable!("the thread ended without an answer"),
    }
}

/// The same, waited for without a runtime (from `Drop`).
pub(crate) fn on_fresh_thread_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let thread =
        std::thread::Builder::new().name("weft-netns".into()).spawn(work).map_err(Error::io("start a thread"))?;
    thread.join().or_else(|panic| resume_unwind(panic))
}

/// Runs `future` on the calling thread, in a runtime that ends with it; its sockets belong to the thread's namespaces.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("start a runtime"))?;
    Ok(runtime.block_on(future))
}
