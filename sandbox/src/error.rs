//! What can go wrong, said so that the operator knows what to do next.

use std::io;
use std::path::PathBuf;

/// Why a sandbox, a pod or a process could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller is not root and the kernel gives it no user namespace with privileges.
    #[error("cannot {action}: {source}. {hint}")]
    Privileges {
        /// What was attempted.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
        /// The command that helps on this machine.
        hint: String,
    },
    /// [`crate::enter()`] was called after a thread had been started.
    #[error(
        "the process already has {threads} threads: call weft_sandbox::enter first thing in main, before a runtime or a thread exists"
    )]
    Threads {
        /// Threads seen in `/proc/self/task`.
        threads: usize,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, with the path or name it concerned.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A request over netlink failed.
    #[error("cannot {action}: {source}")]
    Netlink {
        /// What was attempted, with the interface it concerned.
        action: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// Redirection rules could not be installed in a pod.
    #[error("pod {pod}: {source}")]
    Redirect {
        /// The pod's name.
        pod: String,
        /// What the library that installs them said.
        source: weft_cni::redirect::Error,
    },
    /// Every subnet 198.18.2.0/24 to 198.18.254.0/24 belongs to a running sandbox.
    #[error("every sandbox subnet is taken (locks in {}): stop a running sandbox", directory.display())]
    NoFreeSubnet {
        /// The runtime directory.
        directory: PathBuf,
    },
    /// The runtime directory is another user's.
    #[error("the runtime directory {} belongs to another user: set WEFT_RUNTIME_DIR to a directory of your own", directory.display())]
    RuntimeDirectory {
        /// The runtime directory.
        directory: PathBuf,
    },
    /// A pod of that name exists.
    #[error("pod {name} exists already: remove it first, or choose another name")]
    PodExists {
        /// The name asked for.
        name: String,
    },
    /// A name that cannot be a host name and a directory.
    #[error("pod name {name:?} is not usable: 1 to 63 of a-z, 0-9 and '-', neither first nor last '-'")]
    PodName {
        /// The name asked for.
        name: String,
    },
    /// An address asked for is outside the sandbox's subnets, reserved, or another pod's.
    #[error("pod {name}: address {address} cannot be used: {reason}")]
    Address {
        /// The pod's name.
        name: String,
        /// The address asked for.
        address: std::net::IpAddr,
        /// Why not.
        reason: String,
    },
    /// The subnet has no free address.
    #[error("the sandbox's subnet has no free address left: remove a pod")]
    NoFreeAddress,
    /// Another user than root was asked for in a rootless sandbox.
    #[error(
        "process {process}: uid {uid} does not exist in a rootless sandbox, where only uid 0 is mapped: run it as root there, and exclude its traffic by mark instead of uid"
    )]
    UnmappedUser {
        /// The process's name.
        process: String,
        /// The user id asked for.
        uid: u32,
    },
}

impl Error {
    /// An [`Error::Io`] of `source` while doing `action`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Error::Io { action, source }
    }

    /// The same for system calls made through nix.
    pub(crate) fn os(action: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let action = action.into();
        move |errno| Error::Io { action, source: errno.into() }
    }

    /// An [`Error::Netlink`] of `source` while doing `action`.
    pub(crate) fn netlink(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let action = action.into();
        move |source| Error::Netlink { action, source }
    }

    /// Whether the machine, not the caller, is the reason: tests then skip instead of failing.
    pub fn is_missing_privilege(&self) -> bool {
        matches!(self, Error::Privileges { .. })
    }
}
