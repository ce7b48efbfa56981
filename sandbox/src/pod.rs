//! One pod: namespaces with an address, private files, and processes.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use weft_cni::redirect::{self, Installed, Redirect};

use crate::fabric::{BRIDGE, Fabric};
use crate::files::PodFiles;
use crate::link::End;
use crate::netns::{Namespaces, block_on, on_fresh_thread};
use crate::process::Launch;
use crate::sandbox::HostEntry;
use crate::{Capture, Error, Process, User, link, state};

/// What a new pod shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// Its name, host name and directory: 1 to 63 of a-z, 0-9 and '-'.
    pub name: String,
    /// Its addresses; the next free ones if none are given. Giving a removed pod's addresses makes a successor that re-uses them.
    pub addresses: Option<Addresses>,
}

impl PodSpec {
    /// A pod with the next free addresses.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), addresses: None }
    }
}

/// One IPv4 and one IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addresses {
    /// Below 198.18.0.0/16.
    pub v4: Ipv4Addr,
    /// Below fd00:198:18::/48.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Both, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// A pod. A handle: clones are the same pod, which lives until it is removed or its sandbox stops.
#[derive(Debug, Clone)]
pub struct Pod(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    addresses: Addresses,
    namespaces: Arc<Namespaces>,
    files: PodFiles,
    /// The bridge's end of its interface.
    port: End,
    fabric: Arc<Fabric>,
    processes: Mutex<Vec<Process>>,
}

impl Pod {
    /// Makes the pod and connects it to the bridge.
    pub(crate) async fn create(
        name: String,
        addresses: Addresses,
        port: End,
        fabric: Arc<Fabric>,
        services: &[HostEntry],
    ) -> Result<Self, Error> {
        let files = PodFiles::create(&fabric.pods_directory, &name, addresses, services)?;
        let namespaces = {
            let (fabric, files, port, name) = (Arc::clone(&fabric), files.clone(), port.clone(), name.clone());
            Arc::new(on_fresh_thread(move || set_up(&fabric, &files, &port, &name, addresses)).await??)
        };
        let pod =
            Self(Arc::new(Inner { name, addresses, namespaces, files, port, fabric, processes: Mutex::default() }));
        let port = pod.0.port.name.clone();
        pod.0
            .fabric
            .on_bridge(async move |links| {
                links.set_up(&port, Some(BRIDGE)).await?;
                links.wait_until_running(&port).await
            })
            .await?;
        pod.run(move || {
            link::with_netlink(async |links| {
                links.wait_until_running("eth0").await?;
                links.wait_until_found("eth0", addresses.v6).await
            })
        })
        .await??;
        Ok(pod)
    }

    /// Its name, which is also its host name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its addresses.
    pub fn addresses(&self) -> Addresses {
        self.0.addresses
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> IpAddr {
        self.0.addresses.v4.into()
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> IpAddr {
        self.0.addresses.v6.into()
    }

    /// The directory that is `/run` inside the pod, by its path on the host: for handing files in, and for Unix sockets inside.
    pub fn run_dir(&self) -> PathBuf {
        self.0.files.run()
    }

    /// Starts a process as root of the sandbox. See [`Pod::spawn_as`].
    ///
    /// # Errors
    /// As [`Pod::spawn_as`].
    pub async fn spawn(&self, name: &str, command: Command) -> Result<Process, Error> {
        self.spawn_as(name, command, User::ROOT).await
    }

    /// Starts a process inside the pod. Of `command`, the program, arguments, environment and directory count; its stdin is empty, and
    /// stdout and stderr go to the file `<log directory>/<pod>.<name>.log`, appended. `name` is free to choose and need not be unique.
    ///
    /// The process dies with the sandbox, whatever happens to the owner.
    ///
    /// # Errors
    /// [`Error::UnmappedUser`] for another user than root in a rootless sandbox; [`Error::Io`] if it cannot be started.
    pub async fn spawn_as(&self, name: &str, command: Command, user: User) -> Result<Process, Error> {
        let launch = Launch {
            name: name.to_owned(),
            pod: self.0.name.clone(),
            command,
            user,
            log: self.0.fabric.log_directory.join(format!("{}.{name}.log", self.0.name)),
            namespaces: Arc::clone(&self.0.namespaces),
            token: self.0.fabric.token.clone(),
        };
        let process = self.0.fabric.spawner.launch(launch).await?;
        let mut processes = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|process| process.exit_status().is_none());
        processes.push(process.clone());
        Ok(process)
    }

    /// Its running processes, oldest first.
    pub fn processes(&self) -> Vec<Process> {
        let processes = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.iter().filter(|process| process.exit_status().is_none()).cloned().collect()
    }

    /// Runs `work` on a thread of its own inside the pod: sockets it opens are the pod's, files and names are as the pod sees them, and so
    /// are those of the threads it starts. A panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// If the thread cannot be started or moved.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let namespaces = Arc::clone(&self.0.namespaces);
        on_fresh_thread(move || namespaces.enter_on_thread().map(|()| work())).await?
    }

    /// The same for asynchronous work, in a single-threaded runtime of its own.
    ///
    /// # Errors
    /// As [`Pod::run`].
    pub async fn run_async<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.run(move || block_on(async move { work().await })).await?
    }

    /// Redirects the pod's TCP connections into the sidecar, in place of rules installed before.
    ///
    /// # Errors
    /// [`Error::Redirect`], which says what the kernel lacks.
    pub async fn redirect(&self, rules: &Redirect) -> Result<(), Error> {
        let rules = rules.clone();
        self.run(move || redirect::install(&rules)).await?.map_err(self.redirect_error())
    }

    /// Removes the redirection, if there is any.
    ///
    /// # Errors
    /// As [`Pod::redirect`].
    pub async fn remove_redirect(&self) -> Result<(), Error> {
        self.run(redirect::remove).await?.map_err(self.redirect_error())
    }

    /// The redirection as the kernel has it, with how often each rule applied; none if there is none.
    ///
    /// # Errors
    /// As [`Pod::redirect`].
    pub async fn redirection(&self) -> Result<Option<Installed>, Error> {
        self.run(redirect::installed).await?.map_err(self.redirect_error())
    }

    /// Captures on the pod's interfaces, loopback included, in both directions.
    ///
    /// # Errors
    /// If the packet socket cannot be opened.
    pub async fn capture(&self) -> Result<Capture, Error> {
        Capture::start(Arc::clone(&self.0.namespaces), true).await
    }

    /// Ends the pod's processes at once and disconnects it. Doing it again changes nothing.
    pub(crate) async fn disconnect(&self) -> Result<(), Error> {
        self.kill_all();
        let port = self.0.port.name.clone();
        // The pod's own end goes with the bridge's; its namespace may live on for connections in their last state.
        self.0.fabric.on_bridge(async move |links| links.delete(&port).await).await?;
        for process in self.processes() {
            process.wait().await;
        }
        self.0.files.remove();
        Ok(())
    }

    /// Kills every process inside, children of children too.
    pub(crate) fn kill_all(&self) {
        for process in self.processes() {
            process.kill();
        }
        if let Ok(inode) = self.0.namespaces.net_inode() {
            state::kill_inside(inode);
        }
    }

    pub(crate) fn set_hosts(&self, services: &[HostEntry]) -> Result<(), Error> {
        self.0.files.set_hosts(services)
    }

    /// Whether both handles are of one pod.
    pub(crate) fn is(&self, other: &Pod) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn redirect_error(&self) -> impl FnOnce(redirect::Error) -> Error {
        let pod = self.0.name.clone();
        move |source| Error::Redirect { pod, source }
    }
}

/// Makes the pod's namespaces, on a thread of its own, and what belongs inside.
fn set_up(
    fabric: &Fabric,
    files: &PodFiles,
    port: &End,
    name: &str,
    addresses: Addresses,
) -> Result<Namespaces, Error> {
    let namespaces = Namespaces::unshare_pod()?;
    nix::unistd::sethostname(name).map_err(Error::os(format!("set the host name of pod {name}")))?;
    files.mount()?;
    link::set_sysctls(&[
        // Applications listen on port 80 without being root.
        ("ipv4/ip_unprivileged_port_start", "0"),
        // Duplicate address detection takes a second in which link-local addresses cannot be used.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ])?;
    link::with_netlink(async |links| {
        links.set_up("lo", None).await?;
        // Made from the address, so that a successor with the same address is reached without waiting for neighbours to forget the old.
        let [_, b, c, d] = addresses.v4.octets();
        let eth0 = End { name: "eth0".into(), index: None, mac: Some([0x02, 0x57, 0x46, b, c, d]) };
        links.add_veth(eth0, port.clone(), fabric.bridge.net.as_fd()).await?;
        links.add_address("eth0", addresses.v4.into(), 24).await?;
        links.add_address("eth0", addresses.v6.into(), 64).await?;
        links.set_up("eth0", None).await?;
        links.add_default_routes(fabric.gateway().v4, fabric.gateway().v6).await
    })?;
    Ok(namespaces)
}
