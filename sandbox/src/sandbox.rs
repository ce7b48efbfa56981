//! The network as a whole: bridge, host's end, pods, names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fabric::{Directories, Fabric, GATEWAY, HOST};
use crate::link;
use crate::netns::{on_fresh_thread, on_fresh_thread_blocking};
use crate::pod::{Addresses, Pod, PodSpec};
use crate::state::{self, Slot};
use crate::{Capture, Error, Published};

/// What may be chosen about a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where processes' logs go; by default into the sandbox's own directory, which is removed with it.
    pub log_directory: Option<PathBuf>,
}

/// A line of the pods' hosts files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// What the names stand for, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// A service's names, the full one first.
    pub names: Vec<String>,
}

/// A running sandbox. Dropping it ends every process inside and removes everything it made.
#[derive(Debug)]
pub struct Sandbox {
    fabric: Arc<Fabric>,
    pods: Mutex<Pods>,
    /// Last, as fields are dropped in order: what it removes must not be in use any more.
    slot: Slot,
}

#[derive(Debug, Default)]
struct Pods {
    by_name: BTreeMap<String, Member>,
    services: Vec<HostEntry>,
    /// The last address given out: a removed pod's is given again as late as possible.
    last: u8,
}

#[derive(Debug)]
struct Member {
    addresses: Addresses,
    /// None while it is being made.
    pod: Option<Pod>,
}

impl Sandbox {
    /// Makes a sandbox with a subnet of its own, after removing what killed ones have left. [`crate::enter()`] comes first.
    ///
    /// # Errors
    /// [`Error::Privileges`], which names the command that helps; [`Error::NoFreeSubnet`]; or what the kernel refused.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_in(&state::runtime_directory(), config).await
    }

    /// The same with its directory and lock in `runtime`, instead of the place described in the crate's documentation. `runtime` is
    /// made if it does not exist, and removed with the last sandbox in it.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub async fn start_in(runtime: &Path, config: Config) -> Result<Self, Error> {
        let slot = Slot::take(runtime)?;
        let directories = Directories {
            pods: slot.directory.join("pods"),
            logs: config.log_directory.unwrap_or_else(|| slot.directory.join("logs")),
        };
        let fabric = Fabric::create(slot.name(), slot.number, slot.token.clone(), directories).await?;
        Ok(Self { fabric: Arc::new(fabric), pods: Mutex::new(Pods { last: GATEWAY, ..Pods::default() }), slot })
    }

    /// Its name (`weft-7`), which is also that of its interface on the host.
    pub fn name(&self) -> String {
        self.slot.name()
    }

    /// Its directory on the host, removed with it.
    pub fn directory(&self) -> PathBuf {
        self.slot.directory.clone()
    }

    /// Where processes' logs are.
    pub fn log_directory(&self) -> PathBuf {
        self.fabric.log_directory.clone()
    }

    /// The host's own addresses in the subnet: what a pod sees when the host calls it, and where a pod reaches the host.
    pub fn host_addresses(&self) -> Addresses {
        self.fabric.addresses(HOST)
    }

    /// The subnets all pods are in: IPv4 with its prefix length, and IPv6.
    pub fn subnets(&self) -> [(IpAddr, u8); 2] {
        let Addresses { v4, v6 } = self.fabric.addresses(0);
        [(v4.into(), 24), (v6.into(), 64)]
    }

    /// Makes a pod; it can be reached when this returns.
    ///
    /// # Errors
    /// A name or address that is taken or not usable; a full subnet; or what the kernel refused.
    pub async fn add_pod(&self, spec: PodSpec) -> Result<Pod, Error> {
        let (addresses, services) = self.reserve(&spec)?;
        let port = self.fabric.next_port();
        let made = Pod::create(spec.name.clone(), addresses, port, Arc::clone(&self.fabric), &services).await;
        let mut pods = self.lock();
        match made {
            Ok(pod) => {
                // Names may have changed meanwhile.
                pod.set_hosts(&pods.services)?;
                pods.by_name.insert(spec.name, Member { addresses, pod: Some(pod.clone()) });
                Ok(pod)
            }
            Err(error) => {
                pods.by_name.remove(&spec.name);
                Err(error)
            }
        }
    }

    /// The pod of that name.
    pub fn pod(&self, name: &str) -> Option<Pod> {
        self.lock().by_name.get(name)?.pod.clone()
    }

    /// All pods, by name.
    pub fn pods(&self) -> Vec<Pod> {
        self.lock().by_name.values().filter_map(|member| member.pod.clone()).collect()
    }

    /// Ends the pod's processes at once and disconnects it; its name and addresses are free when this returns. To remove a pod in order,
    /// stop its processes first.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_pod(&self, pod: &Pod) -> Result<(), Error> {
        pod.disconnect().await?;
        let mut pods = self.lock();
        // Unless a successor has the name already.
        if pods.by_name.get(pod.name()).and_then(|member| member.pod.as_ref()).is_some_and(|known| known.is(pod)) {
            pods.by_name.remove(pod.name());
        }
        Ok(())
    }

    /// Sets which names the hosts files of all pods have, those of pods made later too. Running processes see the change with their next
    /// look-up.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn set_hosts(&self, services: &[HostEntry]) -> Result<(), Error> {
        let mut pods = self.lock();
        pods.services = services.to_vec();
        pods.by_name.values().filter_map(|member| member.pod.as_ref()).try_for_each(|pod| pod.set_hosts(services))
    }

    /// Captures what passes the bridge: each frame once, from pods and from the host.
    ///
    /// # Errors
    /// If the packet socket cannot be opened.
    pub async fn capture(&self) -> Result<Capture, Error> {
        Capture::start(Arc::clone(&self.fabric.bridge), false).await
    }

    /// A listener on `address` of the host, also from inside a rootless sandbox. It blocks; make it non-blocking before giving it to a
    /// runtime.
    ///
    /// # Errors
    /// What the kernel refused, with the address.
    pub fn listen_on_host(&self, address: SocketAddr) -> Result<TcpListener, Error> {
        let listener = match crate::enter::host_side() {
            Some(host) => host.listen(address),
            None => TcpListener::bind(address),
        };
        listener.map_err(Error::io(format!("listen on {address} of the host")))
    }

    /// Serves `to`, an address of a pod, on `on` of the host, as a port mapping does; also from inside a rootless sandbox, whose pods the
    /// host cannot reach otherwise. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// What the kernel refused, with the address.
    pub fn publish(&self, on: SocketAddr, to: SocketAddr) -> Result<Published, Error> {
        Published::start(self.listen_on_host(on)?, to).map_err(Error::io(format!("publish {to} on {on} of the host")))
    }

    /// Ends every process and removes everything, as dropping does, without blocking the runtime.
    pub async fn stop(self) {
        // A thread that cannot be started drops what it was given, all the same.
        let _ = on_fresh_thread(move || drop(self)).await;
    }

    /// Checks a pod's name and addresses, and takes them.
    fn reserve(&self, spec: &PodSpec) -> Result<(Addresses, Vec<HostEntry>), Error> {
        let name = &spec.name;
        let usable = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty()
            || name.len() > 63
            || !name.bytes().all(usable)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            return Err(Error::PodName { name: name.clone() });
        }
        let mut pods = self.lock();
        if pods.by_name.contains_key(name) {
            return Err(Error::PodExists { name: name.clone() });
        }
        let addresses = match spec.addresses {
            Some(addresses) => self.check(name, addresses, &pods)?,
            None => self.next_free(&mut pods)?,
        };
        pods.by_name.insert(name.clone(), Member { addresses, pod: None });
        Ok((addresses, pods.services.clone()))
    }

    fn check(&self, name: &str, addresses: Addresses, pods: &Pods) -> Result<Addresses, Error> {
        let refuse = |address: IpAddr, reason: String| Err(Error::Address { name: name.to_owned(), address, reason });
        let [(v4, _), (v6, _)] = self.subnets();
        if IpAddr::from(Ipv4Addr::from(addresses.v4.to_bits() & !0xff)) != v4 {
            return refuse(addresses.v4.into(), format!("it is outside the sandbox's subnet {v4}/24"));
        }
        if IpAddr::from(Ipv6Addr::from(addresses.v6.to_bits() & !u128::from(u64::MAX))) != v6 {
            return refuse(addresses.v6.into(), format!("it is outside the sandbox's subnet {v6}/64"));
        }
        for last in [0, GATEWAY, HOST, 255] {
            let reserved = self.fabric.addresses(last);
            if let Some(address) = addresses.both().into_iter().find(|address| reserved.both().contains(address)) {
                return refuse(address, "it is the network's, the bridge's or the host's".into());
            }
        }
        for (other, member) in &pods.by_name {
            if let Some(address) =
                addresses.both().into_iter().find(|address| member.addresses.both().contains(address))
            {
                return refuse(address, format!("pod {other} has it"));
            }
        }
        Ok(addresses)
    }

    fn next_free(&self, pods: &mut Pods) -> Result<Addresses, Error> {
        let after = pods.last.saturating_add(1)..HOST;
        let before = GATEWAY + 1..=pods.last;
        let taken = |addresses: Addresses| {
            let shares = |member: &Member| member.addresses.v4 == addresses.v4 || member.addresses.v6 == addresses.v6;
            pods.by_name.values().any(shares)
        };
        let free = after.chain(before).find(|&last| !taken(self.fabric.addresses(last))).ok_or(Error::NoFreeAddress)?;
        pods.last = free;
        Ok(self.fabric.addresses(free))
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let pods = self.pods();
        for pod in &pods {
            pod.kill_all();
        }
        // Killed processes end within milliseconds; when this returns, their ports are free and their logs complete.
        let deadline = Instant::now() + Duration::from_secs(2);
        while pods.iter().any(|pod| !pod.processes().is_empty()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let name = self.name();
        // The kernel would remove it with the bridge's namespace, a little later. There is nobody to tell of a failure.
        let _ = on_fresh_thread_blocking(move || link::with_netlink(async |links| links.delete(&name).await));
    }
}
