//! Working in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// A network namespace, kept alive by this handle.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
    path: PathBuf,
}

/// Why nothing could be done in a network namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such namespace, or no longer.
    #[error("there is no network namespace at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is the caller's own: on a node, that is the node's.
    #[error("{} is the node's own network namespace, which is never redirected: is it a pod with hostNetwork?", path.display())]
    Own {
        /// Where it is.
        path: PathBuf,
    },
    /// It cannot be entered.
    #[error("cannot enter the network namespace {}: {source}", path.display())]
    Enter {
        /// Where it is.
        path: PathBuf,
        /// The system's answer. EPERM: the process lacks CAP_SYS_ADMIN.
        source: io::Error,
    },
}

impl NetworkNamespace {
    /// Another network namespace than the caller's, by a path such as `/var/run/netns/cni-1` or `/proc/7/ns/net`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Own`], or [`Error::Enter`] if it is there but cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fail = |source: io::Error| match source.raw_os_error() {
            // ESRCH: the process of /proc/<pid>/ns/net has ended in between.
            Some(nix::libc::ENOENT | nix::libc::ESRCH) => Error::Missing { path: path.into() },
            _ => Error::Enter { path: path.into(), source },
        };
        let file = File::open(path).map_err(fail)?;
        let (this, own) =
            (file.metadata().map_err(fail)?, std::fs::metadata("/proc/thread-self/ns/net").map_err(fail)?);
        if (this.dev(), this.ino()) == (own.dev(), own.ino()) {
            return Err(Error::Own { path: path.into() });
        }
        if this.dev() != own.dev() {
            // A namespace's mount point, after the namespace has gone: an ordinary file.
            return Err(Error::Missing { path: path.into() });
        }
        Ok(Self { file, path: path.into() })
    }

    /// Does `work` inside, on a thread of its own, so that the caller stays where it is.
    ///
    /// # Errors
    /// [`Error::Enter`].
    ///
    /// # Panics
    /// If `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let inside = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Enter { path: self.path.clone(), source: errno.into() })?;
            Ok(work())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}
