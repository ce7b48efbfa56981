//! Interfaces, addresses and routes, over netlink, in the calling thread's network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::Error;
use crate::netns::block_on;

/// Opens netlink in the calling thread's network namespace, runs `work` with it, and closes it.
pub(crate) fn with_netlink<T>(work: impl AsyncFnOnce(Links) -> Result<T, Error>) -> Result<T, Error> {
    block_on(async move {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::io("open a netlink socket"))?;
        tokio::spawn(connection);
        work(Links(handle)).await
    })?
}

/// How long the kernel may take to act on a change; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a pair of connected interfaces, to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct End {
    pub(crate) name: String,
    /// Its number in its namespace, or the kernel's choice. One end's should be chosen: if both happen to have the same, the kernel takes
    /// up to a second to act on their being connected (linkwatch_urgent_event in net/core/link_watch.c), and frames are lost meanwhile.
    pub(crate) index: Option<u32>,
    /// Its Ethernet address, or the kernel's choice.
    pub(crate) mac: Option<[u8; 6]>,
}

impl End {
    fn message<T>(self, mut message: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        if let Some(index) = self.index {
            message = message.index(index);
        }
        if let Some(mac) = self.mac {
            message = message.address(mac.to_vec());
        }
        message.name(self.name)
    }
}

/// The interfaces of one network namespace.
pub(crate) struct Links(Handle);

impl Links {
    /// The index of the interface `name`; none if there is none of that name.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<u32>, Error> {
        Ok(self.get(name).await?.map(|link| link.header.index))
    }

    async fn state(&self, name: &str) -> Result<Option<State>, Error> {
        let state = |attribute| {
            if let LinkAttribute::OperState(state) = attribute { Some(state) } else { None }
        };
        Ok(self.get(name).await?.and_then(|link| link.attributes.into_iter().find_map(state)))
    }

    async fn get(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut answer = self.0.link().get().match_name(name.to_owned()).execute();
        match answer.try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(None),
            Err(error) => Err(Error::netlink(format!("look for interface {name}"))(error)),
        }
    }

    /// The index of the interface `name`, which must exist.
    pub(crate) async fn index(&self, name: &str) -> Result<u32, Error> {
        let missing =
            || Error::Io { action: format!("find interface {name}"), source: std::io::ErrorKind::NotFound.into() };
        self.find(name).await?.ok_or_else(missing)
    }

    /// Makes a bridge without spanning tree or multicast snooping: a frame is forwarded from the first moment.
    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        let bridge = LinkBridge::new(name).forward_delay(0).mcast_snooping(false).build();
        self.0.link().add(bridge).execute().await.map_err(Error::netlink(format!("add bridge {name}")))
    }

    /// Makes a pair of connected interfaces: `near` here, `far` in the namespace `there`.
    pub(crate) async fn add_veth(&self, near: End, far: End, there: BorrowedFd<'_>) -> Result<(), Error> {
        let action = format!("add interface {}", near.name);
        let peer = far.message::<LinkUnspec>(LinkMessageBuilder::default()).setns_by_fd(there.as_raw_fd());
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
        let pair = near.message(pair).set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.0.link().add(pair.build()).execute().await.map_err(Error::netlink(action))
    }

    /// Waits until the interface carries frames: it is up, its peer is, and the kernel has told its bridge or queue.
    ///
    /// Frames sent before are lost without a trace, and repeated by the sender a second later.
    pub(crate) async fn wait_until_running(&self, name: &str) -> Result<(), Error> {
        let running = async {
            while self.state(name).await? != Some(State::Up) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        let late = |_| Error::io(format!("connect interface {name}"))(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(PATIENCE, running).await.map_err(late)?
    }

    /// Sets the interface up, as a port of the bridge `controller` if one is given.
    pub(crate) async fn set_up(&self, name: &str, controller: Option<&str>) -> Result<(), Error> {
        let mut change = LinkUnspec::new_with_index(self.index(name).await?).up();
        if let Some(controller) = controller {
            change = change.controller(self.index(controller).await?);
        }
        self.0.link().change(change.build()).execute().await.map_err(Error::netlink(format!("set interface {name} up")))
    }

    /// Gives the interface an address, usable at once: IPv6 does not first ask whether another has it.
    pub(crate) async fn add_address(&self, name: &str, address: IpAddr, prefix_len: u8) -> Result<(), Error> {
        let mut request = self.0.address().add(self.index(name).await?, address, prefix_len);
        if address.is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(Error::netlink(format!("add address {address} to {name}")))
    }

    /// Waits until the interface answers neighbours that look for its IPv6 `address`: the kernel joins the multicast group of such
    /// questions (RFC 4291 2.7.1) some time after the interface is up. A question asked before is repeated a second later.
    pub(crate) async fn wait_until_found(&self, name: &str, address: Ipv6Addr) -> Result<(), Error> {
        let [.., high, low] = address.segments();
        let group = format!("ff0200000000000000000001ff{:02x}{low:04x}", high & 0xff);
        let joined = async || -> std::io::Result<()> {
            loop {
                let groups = std::fs::read_to_string("/proc/thread-self/net/igmp6")?;
                let mut lines = groups.lines().map(|line| line.split_whitespace());
                if lines.any(|mut fields| fields.nth(1) == Some(name) && fields.next() == Some(&group)) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let late = |_| Err(std::io::ErrorKind::TimedOut.into());
        let waited = tokio::time::timeout(PATIENCE, joined()).await.unwrap_or_else(late);
        waited.map_err(Error::io(format!("make interface {name} answer for {address}")))
    }

    /// Routes everything unknown to the gateways.
    pub(crate) async fn add_default_routes(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<(), Error> {
        let v4_route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build();
        self.0.route().add(v4_route).execute().await.map_err(Error::netlink(format!("route to {v4}")))?;
        let v6_route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build();
        self.0.route().add(v6_route).execute().await.map_err(Error::netlink(format!("route to {v6}")))
    }

    /// Deletes the interface (and so its peer) if it exists.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.find(name).await? else {
            return Ok(());
        };
        match self.0.link().del(index).execute().await {
            // Its namespace is going away too, and was faster.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(()),
            answer => answer.map_err(Error::netlink(format!("delete interface {name}"))),
        }
    }
}

/// Writes kernel settings below `/proc/sys/net` of the calling thread's network namespace. A setting the kernel does not have (IPv6
/// compiled out, an old kernel) is left.
pub(crate) fn set_sysctls(settings: &[(&str, &str)]) -> Result<(), Error> {
    for (key, value) in settings {
        let path = format!("/proc/sys/net/{key}");
        match std::fs::write(&path, value) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            answer => answer.map_err(Error::io(format!("write {value} to {path}")))?,
        }
    }
    Ok(())
}
