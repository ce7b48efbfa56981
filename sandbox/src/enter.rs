//! Getting the privileges to make network namespaces: be root, or become root of a new user namespace.

use std::fs;
use std::io;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getgid, getuid};

use crate::Error;
use crate::host::HostSide;

/// Where the sandbox's bridge and pods live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// As root where the process may, else rootless.
    #[default]
    Auto,
    /// Need root: every pod can be reached from the host.
    Root,
    /// In a new user namespace, whoever calls: nothing on the host changes, and from the host pods are reached only through
    /// [`crate::Sandbox::listen_on_host`].
    Rootless,
}

/// Makes this process able to start a sandbox. Call it first thing in `main`: a process can enter a user namespace only before it has
/// threads.
///
/// Rootless, the whole process moves into a new user, network and mount namespace, where it is root; outside of it, it stays the user it
/// was. A small child stays behind in the host's network, to listen there when asked.
///
/// # Errors
/// [`Error::Privileges`] names the command that gives this machine's users what is missing; [`Error::Threads`] if called too late.
pub fn enter(mode: Mode) -> Result<(), Error> {
    let outside = getuid();
    let privileged = has_privileges();
    let rootless = match mode {
        Mode::Auto => !privileged,
        Mode::Rootless => true,
        Mode::Root if privileged => false,
        Mode::Root => {
            return Err(missing("make network namespaces", io::ErrorKind::PermissionDenied.into()));
        }
    };
    if !rootless {
        let _ = ENTERED.set(Entered { outside, host: None });
        return Ok(());
    }
    let threads = fs::read_dir("/proc/self/task").map_err(Error::io("count this process's threads"))?.count();
    if threads != 1 {
        return Err(Error::Threads { threads });
    }
    // While still this user outside: only then may a dead sandbox's processes, in a namespace of their own, be looked at.
    crate::state::sweep(&crate::state::runtime_directory());
    let group = getgid();
    let host = HostSide::fork()?;
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|errno| missing("create a user namespace", errno.into()))?;
    // An unprivileged process may map only itself, and its group only after giving up setgroups (user_namespaces(7)).
    let maps =
        [("setgroups", "deny".into()), ("uid_map", format!("0 {outside} 1")), ("gid_map", format!("0 {group} 1"))];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| missing("become root of a user namespace", error))?;
    }
    // Ubuntu lets anyone create a user namespace but takes its privileges away: only using one tells.
    crate::link::with_netlink(async |links| links.set_up("lo", None).await).map_err(|error| match error {
        Error::Netlink { source, .. } => {
            missing("use the privileges of a user namespace", io::Error::other(source.to_string()))
        }
        other => other,
    })?;
    let _ = ENTERED.set(Entered { outside, host: Some(host) });
    Ok(())
}

/// Whether this process is inside a user namespace of its own: only uid 0 exists, and the host's network is out of reach.
pub fn is_rootless() -> bool {
    host_side().is_some()
}

/// The process's helper in the host's network; none where the process is there itself.
pub(crate) fn host_side() -> Option<&'static HostSide> {
    ENTERED.get()?.host.as_ref()
}

/// The user this process is on the host.
pub(crate) fn user_outside() -> u32 {
    ENTERED.get().map_or_else(getuid, |entered| entered.outside).as_raw()
}

/// An error that says which command helps on this machine.
pub(crate) fn missing(action: &'static str, source: io::Error) -> Error {
    Error::Privileges { action, source, hint: hint() }
}

struct Entered {
    outside: Uid,
    host: Option<HostSide>,
}

static ENTERED: OnceLock<Entered> = OnceLock::new();

/// Whether the process may administer networks and mounts where it is: CAP_SYS_ADMIN and CAP_NET_ADMIN are both effective.
fn has_privileges() -> bool {
    const NEEDED: u64 = 1 << 21 | 1 << 12;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & NEEDED == NEEDED)
}

/// What to do about missing privileges, by what this kernel says about user namespaces.
fn hint() -> String {
    let setting = |path: &str| {
        fs::read_to_string(format!("/proc/sys/{path}")).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let allow = if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if setting("kernel/unprivileged_userns_clone") == "0" {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if setting("user/max_user_namespaces") == "0" {
        "sudo sysctl -w user.max_user_namespaces=10000"
    } else {
        return "Run it as root (sudo); in a container, with all capabilities (docker run --privileged)".into();
    };
    format!("Run it as root (sudo), or let users have namespaces: {allow}")
}
