//! The network as a whole: bridge, host's end, pods, names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::link::{self, End, Links};
use crate::netns::{self, Namespaces, on_fresh_thread, on_fresh_thread_blocking};
use crate::pod::{Addresses, Pod, PodSpec};
use crate::process::Spawner;
use crate::state::{self, Slot};
use crate::{Capture, Error};

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

/// What pods need of their sandbox.
#[derive(Debug)]
pub(crate) struct Fabric {
    slot: Slot,
    pub(crate) bridge: Arc<Namespaces>,
    pub(crate) spawner: Spawner,
    pub(crate) log_directory: PathBuf,
    pub(crate) token: String,
    /// The index of the next pod's interface on the bridge.
    ports: AtomicU32,
}

/// The last byte of the bridge's addresses and of the host's; pods have those between.
const GATEWAY: u8 = 1;
const HOST: u8 = 254;

/// The first index on the bridge for a pod's interface: none a pod has inside.
const FIRST_PORT: u32 = 1000;

impl Sandbox {
    /// Makes a sandbox with a subnet of its own, after removing what killed ones have left. [`crate::enter`] comes first.
    ///
    /// # Errors
    /// [`Error::Privileges`], which names the command that helps; [`Error::NoFreeSubnet`]; or what the kernel refused.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let slot = Slot::take(&state::runtime_directory())?;
        let log_directory = config.log_directory.unwrap_or_else(|| slot.directory.join("logs"));
        for directory in [&log_directory, &slot.directory.join("pods")] {
            std::fs::create_dir_all(directory).map_err(Error::io(format!("create {}", directory.display())))?;
        }
        let (name, number, host) = (slot.name(), slot.number, netns::own("net")?);
        let bridge = on_fresh_thread(move || set_up_bridge(&name, number, &host)).await??;
        let token = slot.token.clone();
        let spawner = Spawner::start()?;
        let fabric = Arc::new(Fabric {
            slot,
            bridge: Arc::new(bridge),
            spawner,
            log_directory,
            token,
            ports: AtomicU32::new(FIRST_PORT),
        });
        let sandbox = Self { fabric, pods: Mutex::new(Pods { last: GATEWAY, ..Pods::default() }) };
        let (name, host) = (sandbox.name(), sandbox.host_addresses());
        on_fresh_thread(move || {
            // Only for this interface: what the host's other interfaces do is not ours to change.
            link::set_sysctls(&[
                (&format!("ipv6/conf/{name}/disable_ipv6"), "0"),
                (&format!("ipv6/conf/{name}/accept_dad"), "0"),
            ])?;
            link::with_netlink(async |links| {
                links.add_address(&name, host.v4.into(), 24).await?;
                links.add_address(&name, host.v6.into(), 64).await?;
                links.set_up(&name, None).await?;
                links.wait_until_running(&name).await?;
                links.wait_until_found(&name, host.v6).await
            })
        })
        .await??;
        let gateway = sandbox.fabric.gateway();
        let ready = async move |links: Links| {
            links.wait_until_running("host").await?;
            links.wait_until_found("bridge", gateway.v6).await
        };
        sandbox.fabric.on_bridge(ready).await?;
        Ok(sandbox)
    }

    /// Its name (`weft-7`), which is also that of its interface on the host.
    pub fn name(&self) -> String {
        self.fabric.slot.name()
    }

    /// Its directory on the host, removed with it.
    pub fn directory(&self) -> PathBuf {
        self.fabric.slot.directory.clone()
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
        let index = self.fabric.ports.fetch_add(1, Ordering::Relaxed);
        let port = End { name: format!("p{index}"), index: Some(index), mac: None };
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
        for pod in self.pods() {
            pod.kill_all();
        }
        let name = self.name();
        // The kernel would remove it with the bridge's namespace, a little later. There is nobody to tell of a failure.
        let _ = on_fresh_thread_blocking(move || link::with_netlink(async |links| links.delete(&name).await));
    }
}

impl Fabric {
    /// The bridge's addresses, the pods' gateway.
    pub(crate) fn gateway(&self) -> Addresses {
        self.addresses(GATEWAY)
    }

    pub(crate) fn pods_directory(&self) -> PathBuf {
        self.slot.directory.join("pods")
    }

    /// Runs `work` in the bridge's network namespace.
    pub(crate) async fn on_bridge<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(Links) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let bridge = Arc::clone(&self.bridge);
        on_fresh_thread(move || {
            bridge.enter_on_thread()?;
            link::with_netlink(work)
        })
        .await?
    }

    fn addresses(&self, last: u8) -> Addresses {
        addresses(self.slot.number, last)
    }
}

fn addresses(subnet: u8, last: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(198, 18, subnet, last),
        v6: Ipv6Addr::new(0xfd00, 0x198, 0x18, subnet.into(), 0, 0, 0, last.into()),
    }
}

/// Makes the bridge and its connection to the host, on a thread of its own.
fn set_up_bridge(name: &str, subnet: u8, host: &std::fs::File) -> Result<Namespaces, Error> {
    let namespaces = Namespaces::unshare_net()?;
    link::set_sysctls(&[
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // Only a router says "no route" to a pod that calls an address outside the subnet; without, the caller would wait for minutes.
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
    ])?;
    link::with_netlink(async |links| {
        links.add_bridge("bridge").await?;
        let gateway = addresses(subnet, GATEWAY);
        links.add_address("bridge", gateway.v4.into(), 24).await?;
        links.add_address("bridge", gateway.v6.into(), 64).await?;
        // An index no interface of the host will have.
        let near = End { name: "host".into(), index: Some(0x57_4546), mac: None };
        let far = End { name: name.to_owned(), ..End::default() };
        links.add_veth(near, far, host.as_fd()).await?;
        links.set_up("host", Some("bridge")).await
    })?;
    Ok(namespaces)
}
