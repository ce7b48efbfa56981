//! What a pod sees instead of the host's files: its own hosts file, resolver settings and `/run`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::Error;
use crate::pod::Addresses;
use crate::sandbox::HostEntry;

/// A pod's files, in the sandbox's directory on the host.
#[derive(Debug, Clone)]
pub(crate) struct PodFiles {
    directory: PathBuf,
    /// The pod's own line of its hosts file.
    own_line: String,
}

impl PodFiles {
    /// Writes the files of the pod `name`, below `pods`.
    pub(crate) fn create(pods: &Path, name: &str, addresses: Addresses, services: &[HostEntry]) -> Result<Self, Error> {
        let directory = pods.join(name);
        let own_line = format!("{} {name}\n{} {name}\n", addresses.v4, addresses.v6);
        let files = Self { directory, own_line };
        fs::create_dir_all(files.run()).map_err(Error::io(format!("create {}", files.run().display())))?;
        // Names come from the hosts file alone. The address is one nobody listens on, so that a name not in it fails at once.
        let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        for (name, text) in [("resolv.conf", resolver), ("nsswitch.conf", "hosts: files\n"), ("hosts", "")] {
            let path = files.directory.join(name);
            fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        }
        files.set_hosts(services)?;
        Ok(files)
    }

    /// The directory that is `/run` inside the pod.
    pub(crate) fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Replaces the pod's hosts file, in place: it is mounted by its inode. A reader sees the old or the new text, never an empty file:
    /// the text is written at once and the rest of a longer old text is overwritten by empty lines.
    pub(crate) fn set_hosts(&self, services: &[HostEntry]) -> Result<(), Error> {
        let path = self.directory.join("hosts");
        let write = || -> std::io::Result<()> {
            let file = OpenOptions::new().write(true).open(&path)?;
            let mut text = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{}", self.own_line);
            for entry in services {
                for address in &entry.addresses {
                    text.push_str(&format!("{address} {}\n", entry.names.join(" ")));
                }
            }
            let mut bytes = text.into_bytes();
            bytes.resize(bytes.len().max(file.metadata()?.len() as usize), b'\n');
            file.write_all_at(&bytes, 0)
        };
        write().map_err(Error::io(format!("write {}", path.display())))
    }

    /// Mounts the files, in the mount namespace of the calling thread, which must be the pod's own and new.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        // Otherwise the mounts below would appear on the host.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(Error::os("make the pod's mounts private"))?;
        // Before /run is covered: the directory is usually below it.
        let sources =
            ["hosts", "resolv.conf", "nsswitch.conf"].map(|name| (name, File::open(self.directory.join(name))));
        bind(&self.run(), Path::new("/run"))?;
        for (name, source) in sources {
            use std::os::fd::AsRawFd;
            let source = source.map_err(Error::io(format!("open the pod's {name}")))?;
            let target = Path::new("/etc").join(name);
            match name {
                // Without the file the C library looks into the hosts file first, which is what the file would say.
                "nsswitch.conf" if !target.exists() => continue,
                "resolv.conf" => restore_link_target(&target)?,
                _ => {}
            }
            bind(&PathBuf::from(format!("/proc/thread-self/fd/{}", source.as_raw_fd())), &target)?;
        }
        Ok(())
    }

    /// Removes the files.
    pub(crate) fn remove(&self) {
        // Best effort: what stays is removed with the sandbox's directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `/etc/resolv.conf` is often a link into `/run`, which is the pod's own by now and lacks the target: makes it, to mount on.
fn restore_link_target(path: &Path) -> Result<(), Error> {
    let Ok(link) = fs::read_link(path) else {
        return Ok(());
    };
    let target = Path::new("/etc").join(link);
    if target.exists() {
        return Ok(());
    }
    let make = || -> std::io::Result<()> {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(&target).map(drop)
    };
    make().map_err(Error::io(format!("create {}, which {} points to", target.display(), path.display())))
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).map_err(|errno| {
        let hint =
            if target.exists() { "" } else { " (it does not exist on this machine: create it, empty, with touch)" };
        Error::os(format!("mount the pod's own {}{hint}", target.display()))(errno)
    })
}
