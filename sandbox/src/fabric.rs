//! What connects a sandbox's pods: the bridge in a namespace of its own, and its connection to the host.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Error;
use crate::link::{self, End, Links};
use crate::netns::{self, Namespaces, on_fresh_thread};
use crate::pod::Addresses;
use crate::process::Spawner;

/// What pods need of their sandbox.
#[derive(Debug)]
pub(crate) struct Fabric {
    /// The N of 198.18.N.0/24 and fd00:198:18:N::/64.
    subnet: u8,
    pub(crate) bridge: Arc<Namespaces>,
    pub(crate) spawner: Spawner,
    /// Where pods have their files.
    pub(crate) pods_directory: PathBuf,
    pub(crate) log_directory: PathBuf,
    /// Marks the sandbox's processes.
    pub(crate) token: String,
    /// The index of the next pod's interface on the bridge.
    next_port: AtomicU32,
}

/// The last byte of the bridge's addresses and of the host's; pods have those between.
pub(crate) const GATEWAY: u8 = 1;
pub(crate) const HOST: u8 = 254;

/// The bridge's name in its namespace.
pub(crate) const BRIDGE: &str = "bridge";

/// The first index on the bridge for a pod's interface: none a pod has inside (see [`End::index`]).
const FIRST_PORT: u32 = 1000;

/// The index on the bridge of the host's interface: none the host has.
const HOST_PORT: u32 = 0x57_4546;

/// Where things of a sandbox are kept.
#[derive(Debug)]
pub(crate) struct Directories {
    pub(crate) pods: PathBuf,
    pub(crate) logs: PathBuf,
}

impl Fabric {
    /// Makes the bridge, and the interface `name` of the host that is connected to it. Both carry frames when this returns.
    pub(crate) async fn create(
        name: String,
        subnet: u8,
        token: String,
        directories: Directories,
    ) -> Result<Self, Error> {
        for directory in [&directories.pods, &directories.logs] {
            std::fs::create_dir_all(directory).map_err(Error::io(format!("create {}", directory.display())))?;
        }
        let host = netns::own("net")?;
        let bridge = {
            let name = name.clone();
            on_fresh_thread(move || {
                // The kernel may still be about to remove that of an owner who has died: nobody else's has this name.
                link::with_netlink(async |links| links.delete(&name).await)?;
                make_bridge(name, subnet, &host)
            })
            .await??
        };
        let fabric = Self {
            subnet,
            bridge: Arc::new(bridge),
            spawner: Spawner::start()?,
            pods_directory: directories.pods,
            log_directory: directories.logs,
            token,
            next_port: AtomicU32::new(FIRST_PORT),
        };
        let host = fabric.addresses(HOST);
        on_fresh_thread(move || set_up_host(&name, host)).await??;
        let gateway = fabric.gateway();
        let ready = async move |links: Links| {
            links.wait_until_running("host").await?;
            links.wait_until_found(BRIDGE, gateway.v6).await
        };
        fabric.on_bridge(ready).await?;
        Ok(fabric)
    }

    /// The addresses that end in `last`.
    pub(crate) fn addresses(&self, last: u8) -> Addresses {
        addresses(self.subnet, last)
    }

    /// The bridge's addresses, the pods' gateway.
    pub(crate) fn gateway(&self) -> Addresses {
        self.addresses(GATEWAY)
    }

    /// A new interface on the bridge, to be made by a pod.
    pub(crate) fn next_port(&self) -> End {
        let index = self.next_port.fetch_add(1, Ordering::Relaxed);
        End { name: format!("p{index}"), index: Some(index), mac: None }
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
}

fn addresses(subnet: u8, last: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(198, 18, subnet, last),
        v6: Ipv6Addr::new(0xfd00, 0x198, 0x18, subnet.into(), 0, 0, 0, last.into()),
    }
}

/// Makes the bridge and its connection to the host, on a thread of its own.
fn make_bridge(name: String, subnet: u8, host: &File) -> Result<Namespaces, Error> {
    let namespaces = Namespaces::unshare_net()?;
    link::set_sysctls(&[
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // Only a router says "no route" to a pod that calls an address outside the subnet; without, the caller would wait for minutes.
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
    ])?;
    link::with_netlink(async |links| {
        links.add_bridge(BRIDGE).await?;
        let gateway = addresses(subnet, GATEWAY);
        links.add_address(BRIDGE, gateway.v4.into(), 24).await?;
        links.add_address(BRIDGE, gateway.v6.into(), 64).await?;
        let near = End { name: "host".into(), index: Some(HOST_PORT), mac: None };
        links.add_veth(near, End { name, ..End::default() }, host.as_fd()).await?;
        links.set_up("host", Some(BRIDGE)).await
    })?;
    Ok(namespaces)
}

/// Gives the host its addresses in the subnet, on a thread in the host's network.
fn set_up_host(name: &str, host: Addresses) -> Result<(), Error> {
    // Only for this interface: what the host's other interfaces do is not ours to change.
    link::set_sysctls(&[
        (&format!("ipv6/conf/{name}/disable_ipv6"), "0"),
        (&format!("ipv6/conf/{name}/accept_dad"), "0"),
    ])?;
    link::with_netlink(async |links| {
        links.add_address(name, host.v4.into(), 24).await?;
        links.add_address(name, host.v6.into(), 64).await?;
        links.set_up(name, None).await?;
        links.wait_until_running(name).await?;
        links.wait_until_found(name, host.v6).await
    })
}
