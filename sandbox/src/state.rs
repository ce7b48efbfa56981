//! The runtime directory: who owns which subnet, and cleaning up after an owner that was killed.
//!
//! ```text
//! /run/weft/            or $XDG_RUNTIME_DIR/weft, /tmp/weft-<uid>; $WEFT_RUNTIME_DIR overrides
//!   weft-7.lock         locked (flock) as long as the owner lives; holds the token its processes carry in their environment
//!   weft-7/             hosts files, /run directories, logs
//! ```
//! The kernel frees a killed owner's lock and namespaces; what can be left is the directory and processes that have left their parent.
//!
//! The directory says whose a subnet was. Whether it is free is asked of the network namespace it would be in, because sandboxes with
//! different directories can share one, and those in different ones may use the same: the owner binds an abstract Unix socket, whose name
//! exists once per network namespace and as long as the owner.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access, geteuid};

use crate::Error;

/// The environment variable that marks every process of a sandbox; its value is the sandbox's token.
pub(crate) const MARK: &str = "WEFT_SANDBOX";

/// Subnets 198.18.N.0/24 and fd00:198:18:N::/64. N = 1 is left to nobody; services' virtual addresses are in 198.19.0.0/16 and
/// fd00:198:18:ffff::/64.
const SLOTS: std::ops::RangeInclusive<u8> = 2..=254;

/// A subnet of this machine, owned until dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) number: u8,
    /// Unique to this sandbox, also among those that had the number before.
    pub(crate) token: String,
    pub(crate) directory: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<File>,
    _name: UnixDatagram,
}

impl Slot {
    /// Takes the first free subnet, after cleaning up what dead owners left.
    pub(crate) fn take(runtime: &Path) -> Result<Self, Error> {
        make_runtime_directory(runtime)?;
        sweep(runtime);
        for number in SLOTS {
            let Some(name) = take_name(number)? else { continue };
            let Some((lock_path, mut lock)) = lock(runtime, number)? else { continue };
            // Its owner may have died since the sweep.
            clean_up(runtime, number, &mut lock);
            let fail = |action: &str, path: &Path| Error::io(format!("{action} {}", path.display()));
            let directory = runtime.join(slot_name(number));
            // What an owner could not remove at its end must not become part of this sandbox. Usually there is nothing.
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).map_err(fail("create", &directory))?;
            let random = fs::read_to_string("/proc/sys/kernel/random/uuid");
            let random = random.map_err(fail("read a random token for", &directory))?;
            let token = format!("{}:{}", slot_name(number), random.trim());
            lock.set_len(0).and_then(|()| lock.write_all_at(token.as_bytes(), 0)).map_err(fail("write", &lock_path))?;
            return Ok(Self { number, token, directory, lock_path, _lock: lock, _name: name });
        }
        Err(Error::NoFreeSubnet { directory: runtime.to_owned() })
    }

    /// The sandbox's name, which is also that of its interface on the host.
    pub(crate) fn name(&self) -> String {
        slot_name(self.number)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Best effort, as there is nobody to tell; the next start sweeps what could not be removed.
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_file(&self.lock_path);
        if let Some(runtime) = self.lock_path.parent() {
            // Fails unless empty, as it should.
            let _ = fs::remove_dir(runtime);
        }
    }
}

/// Where sandboxes of this user keep their state.
pub(crate) fn runtime_directory() -> PathBuf {
    if let Some(path) = std::env::var_os("WEFT_RUNTIME_DIR") {
        return path.into();
    }
    // Not by the user id: in a user namespace anyone can be root.
    if access("/run", AccessFlags::W_OK).is_ok() {
        return "/run/weft".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(path) if access(&path, AccessFlags::W_OK).is_ok() => path.join("weft"),
        _ => std::env::temp_dir().join(format!("weft-{}", crate::enter::user_outside())),
    }
}

/// Makes the runtime directory, or accepts the one there is if it is this user's: in /tmp, anyone can make one of that name.
fn make_runtime_directory(path: &Path) -> Result<(), Error> {
    let make = || -> std::io::Result<bool> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        let found = fs::symlink_metadata(path)?;
        Ok(found.is_dir() && found.uid() == geteuid().as_raw())
    };
    match make() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::RuntimeDirectory { directory: path.to_owned() }),
        Err(source) => Err(Error::io(format!("create the runtime directory {}", path.display()))(source)),
    }
}

/// Removes what sandboxes with dead owners left below `runtime`: processes that had left their parent, and directories. Best effort: a
/// sandbox of another user cannot be cleaned up, and does no harm.
pub(crate) fn sweep(runtime: &Path) {
    for number in SLOTS {
        if !runtime.join(lock_name(number)).exists() {
            continue;
        }
        if let Ok(Some((lock_path, mut lock))) = lock(runtime, number) {
            clean_up(runtime, number, &mut lock);
            let _ = fs::remove_file(lock_path);
        }
    }
}

/// The same for one subnet, whose lock is held.
fn clean_up(runtime: &Path, number: u8, lock: &mut File) {
    let mut token = String::new();
    if lock.read_to_string(&mut token).is_err() || token.is_empty() {
        return;
    }
    kill_marked(&token);
    // Best effort: what cannot be removed harms nobody.
    let _ = fs::remove_dir_all(runtime.join(slot_name(number)));
    tracing::info!(sandbox = slot_name(number), "removed what a killed sandbox had left");
}

/// Kills every process whose environment carries `token`, and those they start meanwhile.
fn kill_marked(token: &str) {
    let mark = format!("{MARK}={token}");
    let marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    };
    // A process in the middle of exec shows no environment: so look again after none was found.
    let mut quiet = 0;
    while quiet < 3 {
        let found: Vec<i32> = processes().filter(marked).collect();
        quiet = if found.is_empty() { quiet + 1 } else { 0 };
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills every process inside the network namespace with this inode, which must be held open meanwhile.
pub(crate) fn kill_inside(net_inode: u64) {
    let own = std::process::id();
    let inside = |pid: &i32| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net"));
        pid.cast_unsigned() != own && namespace.is_ok_and(|namespace| namespace.ino() == net_inode)
    };
    // A process may start another while the list is read. What is killed has no namespace any more.
    for _ in 0..100 {
        let found: Vec<i32> = processes().filter(inside).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn slot_name(number: u8) -> String {
    format!("weft-{number}")
}

fn lock_name(number: u8) -> String {
    format!("weft-{number}.lock")
}

/// Takes a subnet's name in the caller's network namespace; none if another has it.
fn take_name(number: u8) -> Result<Option<UnixDatagram>, Error> {
    let bind = || UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("weft/sandbox/{number}"))?);
    match bind() {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(Error::io("reserve a subnet")(error)),
    }
}

/// Locks a subnet; none if its owner is alive.
fn lock(runtime: &Path, number: u8) -> Result<Option<(PathBuf, Flock<File>)>, Error> {
    let path = runtime.join(lock_name(number));
    loop {
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open {
            // The owner of the last sandbox has removed the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_runtime_directory(runtime)?;
                continue;
            }
            // Another user's lock in a shared directory.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && path.exists() => {
                return Ok(None);
            }
            open => open.map_err(Error::io(format!("open {}", path.display())))?,
        };
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return Ok(None);
        };
        // The owner before may have removed the file between our open and our lock; then the name is free for a file nobody locked.
        let same = |opened: std::io::Result<fs::Metadata>| match (opened, fs::metadata(&path)) {
            (Ok(opened), Ok(named)) => opened.ino() == named.ino() && opened.dev() == named.dev(),
            _ => false,
        };
        if same(lock.metadata()) {
            return Ok(Some((path, lock)));
        }
    }
}
