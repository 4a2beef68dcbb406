//! Pairs of links that lead out of this namespace into another one.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use futures::StreamExt;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::info_span;

use super::{Link, Netlink, failed};
use crate::Error;

/// One end of a pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub name: &'a str,
    pub hardware: [u8; 6],
}

impl Netlink {
    /// Opens a connection to another namespace: on a thread that ends with that, since a thread of the runtime's would have
    /// to come back.
    pub async fn open_in(namespace: &OwnedFd) -> Result<Self, Error> {
        let namespace = namespace.try_clone().map_err(Error::Namespace)?;
        let (tell, told) = oneshot::channel();
        let runtime = Handle::current();
        tasks::thread("pod-namespace", info_span!("enter a pod's network"), move || {
            let entered = setns(namespace, CloneFlags::CLONE_NEWNET);
            let opened = entered.map_err(|errno| Error::Namespace(errno.into())).and_then(|()| {
                let _context = runtime.enter();
                Netlink::open()
            });
            // Who asked may be gone.
            let _ = tell.send(opened);
        })
        .map_err(Error::Namespace)?;
        told.await.map_err(|_| Error::Namespace(std::io::Error::other("the thread for it ended early")))?
    }

    /// A link with the mark that [`Netlink::mark`] left on it; None if there is none of that name.
    pub async fn marked(&self, name: &str) -> Result<Option<(Link, String)>, Error> {
        let Some(found) = self.find(name).await? else { return Ok(None) };
        let mark = found.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias.clone()),
            _ => None,
        });
        Ok(Some((Link::of(&found), mark.unwrap_or_default())))
    }

    /// Leaves a mark on a link (its alias).
    pub async fn mark(&self, link: Link, mark: &str) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(link.index).alias(mark).build();
        self.handle.link().set(change).execute().await.map_err(failed("mark a link"))
    }

    /// The names of all links.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        let mut names = Vec::new();
        while let Some(link) = links.next().await {
            let link = link.map_err(failed("list the links"))?;
            names.extend(link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            }));
        }
        Ok(names)
    }

    /// How long the longest packet is that a link takes; None if there is none of that name.
    pub async fn mtu(&self, name: &str) -> Result<Option<u32>, Error> {
        let found = self.find(name).await?;
        Ok(found.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        }))
    }

    /// Makes a pair, both ends off: one here, the other in the namespace `there`. They take packets of this length, or of the
    /// kernel's usual one.
    pub async fn add_pair(
        &self,
        here: End<'_>,
        far: End<'_>,
        there: &OwnedFd,
        mtu: Option<u32>,
    ) -> Result<Link, Error> {
        let peer = LinkUnspec::new_with_name(far.name)
            .address(far.hardware.to_vec())
            .setns_by_fd(there.as_fd().as_raw_fd());
        let peer = if let Some(mtu) = mtu { peer.mtu(mtu) } else { peer }.build();
        let pair = LinkVeth::new(here.name, far.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(here.hardware.to_vec());
        let pair = if let Some(mtu) = mtu { pair.mtu(mtu) } else { pair }.build();
        let made = self.handle.link().add(pair).execute().await;
        made.map_err(failed(format!("make the pair of links {} and {}", here.name, far.name)))?;
        self.link(here.name).await
    }

    /// Makes a pair here and removes it again: whether that can be done at all.
    pub async fn try_pair(&self, names: [&str; 2]) -> Result<(), Error> {
        let pair = LinkVeth::new(names[0], names[1]).build();
        match self.handle.link().add(pair).execute().await {
            // Left by one who died at it, or another one's who tries it at this moment.
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EEXIST => {}
            made => made.map_err(failed("make a pair of links (a kernel with veth can)"))?,
        }
        match self.find(names[0]).await? {
            Some(found) => self.remove_link(Link::of(&found)).await,
            None => Ok(()),
        }
    }

    /// Removes a link, and the other end of its pair. It may be gone already.
    pub async fn remove_link(&self, link: Link) -> Result<(), Error> {
        match self.handle.link().del(link.index).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(()),
            other => other.map_err(failed("remove a link")),
        }
    }

    /// Says which hardware address an address has at a link: nobody is asked for it.
    pub async fn neighbour(&self, link: Link, address: IpAddr, hardware: [u8; 6]) -> Result<(), Error> {
        let known = self.handle.neighbours().add(link.index, address).link_layer_address(&hardware).replace();
        known.execute().await.map_err(failed(format!("say where {address} is")))
    }

    /// Sends what is for one address out by a link: `ip route replace ADDRESS dev LINK table local`.
    ///
    /// In the table that is looked at first, where the longest prefix wins: there the whole network that the address is of
    /// may be this host's own.
    pub async fn route_out(&self, address: Ipv4Addr, link: Link) -> Result<(), Error> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .table_id(libc::RT_TABLE_LOCAL.into())
            .scope(RouteScope::Link)
            .output_interface(link.index)
            .build();
        let added = self.handle.route().add(route).replace().execute().await;
        added.map_err(failed(format!("route {address} to its pod")))
    }

    /// Sends everything by one neighbour, whether an address of the link's leads there or not.
    pub async fn default_route(&self, via: Ipv4Addr, link: Link) -> Result<(), Error> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(via).output_interface(link.index);
        let added = self.handle.route().add(route.onlink().build()).replace().execute().await;
        added.map_err(failed(format!("route everything by {via}")))
    }
}
