//! The host's links, addresses and routes, by rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::StreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;
use tracing::info_span;

use crate::Error;

mod neighbours;
mod pairs;
mod view;

pub(crate) use pairs::End;
pub(crate) use view::View;

const LOOPBACK: &str = "lo";

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    /// Its hardware address; zero if it has none.
    pub hardware: [u8; 6],
    /// Whether it carries anything: it is switched on, and so is its other end.
    pub is_up: bool,
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
            _ => None,
        });
        let is_up = message.header.flags.contains(LinkFlags::LowerUp);
        Link { index: message.header.index, hardware: address.unwrap_or_default(), is_up }
    }
}

/// A connection to the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|why| Error::Socket { what: "the kernel (netlink)", why })?;
        Ok(Netlink { handle, connection: tasks::spawn(info_span!("netlink"), connection) })
    }

    pub async fn link(&self, name: &str) -> Result<Link, Error> {
        let found = self.find(name).await?;
        found.as_ref().map(Link::of).ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut links = std::pin::pin!(self.handle.link().get().match_name(name.to_owned()).execute());
        match links.next().await {
            Some(Ok(link)) => Ok(Some(link)),
            Some(Err(rtnetlink::Error::NetlinkError(e))) if e.raw_code() == -libc::ENODEV => Ok(None),
            Some(Err(why)) => Err(failed(format!("look for link {name}"))(why)),
            None => Ok(None),
        }
    }

    /// Switches the loopback link on and returns it.
    pub async fn loopback(&self) -> Result<Link, Error> {
        let link = self.link(LOOPBACK).await?;
        self.switch_on(link).await?;
        Ok(link)
    }

    /// Switches a link on. It may be on already.
    pub async fn switch_on(&self, link: Link) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(link.index).up().build();
        self.handle.link().set(change).execute().await.map_err(failed("switch a link on"))
    }

    /// Makes all addresses of a network this host's own: `ip route replace local CIDR dev lo`.
    ///
    /// The kernel then takes packets for each of them, and lets each be bound ("AnyIP"), without one entry for each
    /// address.
    pub async fn make_local(&self, cidr: IpNet, loopback: Link) -> Result<(), Error> {
        let action = || format!("make {cidr} local to this host");
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(cidr.network(), cidr.prefix_len())
            .map_err(|error| failed(action())(rtnetlink::Error::InvalidNla(error.to_string())))?
            .table_id(libc::RT_TABLE_LOCAL.into())
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .output_interface(loopback.index)
            .build();
        self.handle.route().add(route).replace().execute().await.map_err(failed(action()))
    }

    /// Sends a network's traffic to a neighbour: `ip route replace CIDR via ADDRESS`.
    pub async fn route(&self, cidr: IpNet, via: IpAddr) -> Result<(), Error> {
        let action = || format!("route {cidr} by {via}");
        let route = route_by(cidr, via, action)?;
        self.handle.route().add(route).replace().execute().await.map_err(failed(action()))
    }

    /// Takes such a route away. It may be gone already.
    pub async fn remove_route(&self, cidr: IpNet, via: IpAddr) -> Result<(), Error> {
        let action = || format!("remove the route to {cidr} by {via}");
        match self.handle.route().del(route_by(cidr, via, action)?).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => Ok(()),
            other => other.map_err(failed(action())),
        }
    }

    /// Takes away the routes to these networks and to parts of them, in whatever table they are, that were set as [`Netlink::route`] and
    /// [`Netlink::make_local`] do. Those of the kernel, which come and go with addresses, and of routing daemons are others'.
    pub async fn remove_routes(&self, networks: &[IpNet]) -> Result<(), Error> {
        let mut found = Vec::new();
        {
            let all = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
            let mut all = std::pin::pin!(all.execute());
            while let Some(route) = all.next().await {
                let route = route.map_err(failed("list the routes"))?;
                let is_in = |to: IpNet| networks.iter().any(|net| net.contains(&to));
                if route.header.protocol == RouteProtocol::Static && destination(&route).is_some_and(is_in) {
                    found.push(route);
                }
            }
        }
        for route in found {
            match self.handle.route().del(route).execute().await {
                Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => {}
                other => other.map_err(failed("remove a route to pods or services"))?,
            }
        }
        Ok(())
    }

    /// Gives a link an address of its own, beside those that it has. It may have it already.
    pub async fn add_address(&self, link: Link, address: IpAddr) -> Result<(), Error> {
        // Not the link's prefix: the kernel would make it a secondary of the link's own address, and take it away
        // with that one.
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let added = self.handle.address().add(link.index, address, prefix).replace().execute().await;
        added.map_err(failed(format!("take the address {address}")))
    }

    /// Whether a link has an address.
    pub async fn has_address(&self, link: Link, address: IpAddr) -> Result<bool, Error> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let addresses = self.handle.address().get().set_link_index_filter(link.index);
        let addresses = addresses.set_address_filter(address).set_prefix_length_filter(prefix);
        let mut found = std::pin::pin!(addresses.execute());
        match found.next().await {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(why)) => Err(failed(format!("look for the address {address}"))(why)),
        }
    }

    /// The addresses that a link has with no network around them.
    pub async fn single_addresses(&self, link: Link) -> Result<Vec<IpAddr>, Error> {
        let addresses = self.handle.address().get().set_link_index_filter(link.index);
        let mut found = std::pin::pin!(addresses.execute());
        let mut single = Vec::new();
        while let Some(message) = found.next().await {
            let message = message.map_err(failed("list a link's addresses"))?;
            let of = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
                _ => None,
            };
            let address = message.attributes.iter().find_map(of);
            let whole =
                |address: &IpAddr| message.header.prefix_len == if address.is_ipv4() { 32 } else { 128 };
            single.extend(address.filter(whole));
        }
        Ok(single)
    }

    /// Takes an address from a link. It may be gone already.
    pub async fn remove_address(&self, link: Link, address: IpAddr) -> Result<(), Error> {
        let message = match address {
            IpAddr::V4(v4) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(link.index).address(v4, 32).build()
            }
            IpAddr::V6(v6) => {
                AddressMessageBuilder::<Ipv6Addr>::new().index(link.index).address(v6, 128).build()
            }
        };
        match self.handle.address().del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EADDRNOTAVAIL => Ok(()),
            other => other.map_err(failed(format!("give up the address {address}"))),
        }
    }
}

#[cfg(test)]
impl Netlink {
    /// As if the kernel had ended the connection.
    pub fn break_off(&self) {
        self.connection.abort();
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Where a route leads, if that is a network of IPv4.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    IpNet::new(address.into(), route.header.destination_prefix_length).ok()
}

fn route_by(cidr: IpNet, via: IpAddr, action: impl Fn() -> String) -> Result<RouteMessage, Error> {
    let invalid =
        |error: String| Error::Netlink { action: action(), why: rtnetlink::Error::InvalidNla(error) };
    let to = RouteMessageBuilder::<IpAddr>::new().destination_prefix(cidr.network(), cidr.prefix_len());
    let to = to.map_err(|error| invalid(error.to_string()))?;
    Ok(to.gateway(via).map_err(|error| invalid(error.to_string()))?.build())
}

fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let action = action.into();
    move |why| Error::Netlink { action, why }
}

#[cfg(test)]
pub(crate) mod tests;
