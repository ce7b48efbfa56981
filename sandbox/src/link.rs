//! Interfaces, addresses and routes, over netlink, in the calling thread's network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::Error;
use crate::netns::block_on;

/// Opens netlink in the calling thread's network namespace, runs `work` with it, and closes it.
pub(crate) fn with_netlink<T>(
    work: impl AsyncFnOnce(Links) -> Result<T, Error>,
) -> Result<T, Error> {
    block_on(async move {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(Error::io("open a netlink socket"))?;
        tokio::spawn(connection);
        work(Links(handle)).await
    })?
}

/// The interfaces of one network namespace.
pub(crate) struct Links(Handle);

impl Links {
    /// The index of the interface `name`; none if there is none of that name.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut answer = self.0.link().get().match_name(name.to_owned()).execute();
        match answer.try_next().await {
            Ok(message) => Ok(message.map(|message| message.header.index)),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ENODEV =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::netlink(format!("look for interface {name}"))(error)),
        }
    }

    /// The index of the interface `name`, which must exist.
    pub(crate) async fn index(&self, name: &str) -> Result<u32, Error> {
        let missing = || Error::Io {
            action: format!("find interface {name}"),
            source: std::io::ErrorKind::NotFound.into(),
        };
        self.find(name).await?.ok_or_else(missing)
    }

    /// Makes a bridge without spanning tree or multicast snooping: a frame is forwarded from the first moment.
    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        let bridge = LinkBridge::new(name)
            .forward_delay(0)
            .mcast_snooping(false)
            .build();
        self.0
            .link()
            .add(bridge)
            .execute()
            .await
            .map_err(Error::netlink(format!("add bridge {name}")))
    }

    /// Makes a pair of connected interfaces: `name` here, `peer` in the namespace `there`.
    pub(crate) async fn add_veth(
        &self,
        name: &str,
        mac: Option<[u8; 6]>,
        peer: &str,
        there: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer)
            .setns_by_fd(there.as_raw_fd())
            .build();
        let mut near = LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far)));
        if let Some(mac) = mac {
            near = near.address(mac.to_vec());
        }
        self.0
            .link()
            .add(near.build())
            .execute()
            .await
            .map_err(Error::netlink(format!("add interface {name}")))
    }

    /// Sets the interface up, as a port of the bridge `controller` if one is given.
    pub(crate) async fn set_up(&self, name: &str, controller: Option<&str>) -> Result<(), Error> {
        let mut change = LinkUnspec::new_with_index(self.index(name).await?).up();
        if let Some(controller) = controller {
            change = change.controller(self.index(controller).await?);
        }
        self.0
            .link()
            .change(change.build())
            .execute()
            .await
            .map_err(Error::netlink(format!("set interface {name} up")))
    }

    /// Gives the interface an address, usable at once: IPv6 does not first ask whether another has it.
    pub(crate) async fn add_address(
        &self,
        name: &str,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), Error> {
        let mut request = self
            .0
            .address()
            .add(self.index(name).await?, address, prefix_len);
        if address.is_ipv6() {
            request
                .message_mut()
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request
            .execute()
            .await
            .map_err(Error::netlink(format!("add address {address} to {name}")))
    }

    /// Routes everything unknown to the gateways.
    pub(crate) async fn add_default_routes(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<(), Error> {
        let v4_route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build();
        self.0
            .route()
            .add(v4_route)
            .execute()
            .await
            .map_err(Error::netlink(format!("route to {v4}")))?;
        let v6_route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build();
        self.0
            .route()
            .add(v6_route)
            .execute()
            .await
            .map_err(Error::netlink(format!("route to {v6}")))
    }

    /// Deletes the interface (and so its peer) if it exists.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.find(name).await? else {
            return Ok(());
        };
        match self.0.link().del(index).execute().await {
            // Its namespace is going away too, and was faster.
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ENODEV =>
            {
                Ok(())
            }
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
