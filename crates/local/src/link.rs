//! The switch of an island and the hosts' links to it: a bridge, and for each host a network namespace with a
//! veth pair. All by rtnetlink: a fresh machine has no `ip`.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use futures::StreamExt;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;
use tracing::info_span;

use crate::addresses::{Addresses, NetKind};
use crate::island::Island;
use crate::loss::{self, Lost};
use crate::who_has::WhoHas;

const BRIDGE: &str = "br0";
/// The name of a host's link inside the host.
pub const HOST_LINK: &str = "eth0";
const PREFIX: u8 = 24;
/// The bridge's own hardware address. Without one of its own it takes over the lowest of its ports', which
/// changes when a host is cut off, and the surviving hosts would talk to the old one.
const BRIDGE_HARDWARE: [u8; 6] = [0x02, 0x48, 0x46, 0x00, 0x00, 0xfe];

/// Why a bridge or a link can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change to the network.
    #[error("can't {action}: {why}")]
    Netlink {
        /// What was to be done.
        action: String,
        /// What the kernel said.
        why: rtnetlink::Error,
    },
    /// The kernel refused rules about packets.
    #[error(
        "can't lose packets at link {port}: {why}; that needs a kernel with nftables for bridges (CONFIG_NF_TABLES_BRIDGE)"
    )]
    Loss {
        /// At which port of the switch.
        port: String,
        /// What the kernel said.
        why: std::io::Error,
    },
    /// A link isn't there.
    #[error("there is no link {0}; was it removed by someone else?")]
    Missing(String),
    /// No namespace for a host.
    #[error("can't make a network namespace for host n{number}: {why}")]
    Namespace {
        /// The host's number.
        number: u8,
        /// What the system said.
        why: std::io::Error,
    },
    /// No netlink socket.
    #[error("can't open a netlink socket: {0}")]
    Socket(std::io::Error),
}

fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let action = action.into();
    move |why| Error::Netlink { action, why }
}

/// A netlink connection to one network namespace; ends when dropped.
struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Netlink {
    /// Opens the connection in the calling thread's network namespace.
    fn open(runtime: &tokio::runtime::Handle) -> std::io::Result<Self> {
        let _context = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tasks::spawn_on(runtime, info_span!("netlink"), connection) })
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut links = std::pin::pin!(self.handle.link().get().match_name(name.to_owned()).execute());
        match links.next().await {
            Some(Ok(link)) => Ok(Some(link)),
            Some(Err(rtnetlink::Error::NetlinkError(e))) if e.raw_code() == -libc::ENODEV => Ok(None),
            Some(Err(why)) => Err(Error::Netlink { action: format!("look for link {name}"), why }),
            None => Ok(None),
        }
    }

    async fn index(&self, name: &str) -> Result<u32, Error> {
        match self.find(name).await? {
            Some(link) => Ok(link.header.index),
            None => Err(Error::Missing(name.into())),
        }
    }

    async fn up(&self, index: u32) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(change).execute().await.map_err(failed("switch a link on"))
    }

    async fn address(&self, index: u32, address: Ipv4Addr) -> Result<(), Error> {
        let request = self.handle.address().add(index, address.into(), PREFIX);
        request.execute().await.map_err(failed(format!("give out address {address}")))
    }

    async fn route(&self, to: (Ipv4Addr, u8), via: Ipv4Addr) -> Result<(), Error> {
        let route =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.0, to.1).gateway(via).build();
        let request = self.handle.route().add(route).replace();
        request.execute().await.map_err(failed(format!("add the route to {}/{}", to.0, to.1)))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The bridge that stands for the switch, in this process' island.
pub struct Bridge {
    netlink: Netlink,
    index: u32,
    addresses: Addresses,
}

impl Bridge {
    /// Makes the bridge, with the switch's address, in the island.
    pub async fn build(_island: &Island) -> Result<Self, Error> {
        let netlink = Netlink::open(&tokio::runtime::Handle::current()).map_err(Error::Socket)?;
        let addresses = Addresses::new(NetKind::Netns);
        netlink.up(netlink.index("lo").await?).await?;
        if let Some(old) = netlink.find(BRIDGE).await? {
            let request = netlink.handle.link().del(old.header.index);
            request.execute().await.map_err(failed("remove the old bridge"))?;
        }
        let bridge = LinkBridge::new(BRIDGE).address(BRIDGE_HARDWARE.to_vec()).up().build();
        netlink.handle.link().add(bridge).execute().await.map_err(failed("make a bridge"))?;
        let index = netlink.index(BRIDGE).await?;
        netlink.address(index, addresses.switch()).await?;
        // Pods of different hosts meet here where the hosts have no routes of their own; without that, hosts
        // and their own pods still work.
        let _ = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        Ok(Self { netlink, index, addresses })
    }

    /// Gives host `number` a network namespace with a link to the bridge: address, routes and all.
    pub async fn plug(&self, number: u8) -> Result<HostNamespace, Error> {
        let runtime = tokio::runtime::Handle::current();
        let (namespace, inside) =
            open_namespace(runtime).await.map_err(|why| Error::Namespace { number, why })?;
        let port = port_name(number);
        self.unplug(number).await?;
        let pair = LinkVeth::new(&port, &format!("{port}-peer")).controller(self.index).build();
        self.netlink.handle.link().add(pair).execute().await.map_err(failed(format!("make link {port}")))?;
        let outer = self.netlink.index(&port).await?;
        let peer = self.netlink.index(&format!("{port}-peer")).await?;
        let change = LinkUnspec::new_with_index(peer)
            .setns_by_fd(namespace.file.as_raw_fd())
            .name(HOST_LINK.to_owned())
            .address(Addresses::hardware(number).to_vec())
            .build();
        let request = self.netlink.handle.link().set(change);
        request.execute().await.map_err(failed(format!("move link {port} into its host")))?;

        inside.up(inside.index("lo").await?).await?;
        let link = inside.index(HOST_LINK).await?;
        inside.address(link, self.addresses.host(number)).await?;
        self.netlink.up(outer).await?;
        inside.up(link).await?;
        // No default route: nothing lies beyond the switch, and what is sent there is to fail at once.
        // Routes come last: the kernel takes none through a link that is off.
        inside.route(self.addresses.pods(), self.addresses.switch()).await?;
        self.netlink.route(self.addresses.pod_network(number), self.addresses.host(number)).await?;
        Ok(namespace)
    }

    /// Asks the hosts who has an address.
    ///
    /// # Errors
    /// No socket for that.
    pub fn who_has(&self) -> std::io::Result<WhoHas> {
        WhoHas::on(self.index, BRIDGE_HARDWARE, self.addresses.switch())
    }

    /// Takes the link of host `number` down: from then on nothing goes in or out.
    pub async fn cut(&self, number: u8) -> Result<(), Error> {
        let port = port_name(number);
        let change = LinkUnspec::new_with_index(self.netlink.index(&port).await?).down().build();
        let request = self.netlink.handle.link().set(change);
        request.execute().await.map_err(failed(format!("take link {port} down")))
    }

    /// Takes the link of host `number` up again.
    pub async fn mend(&self, number: u8) -> Result<(), Error> {
        self.netlink.up(self.netlink.index(&port_name(number)).await?).await
    }

    /// From now on so many of a hundred packets between host `number` and the other hosts are lost.
    pub fn lose(&self, number: u8, lost: Lost, percent: u8) -> Result<(), Error> {
        let port = port_name(number);
        loss::lose(&port, lost, percent).map_err(|why| Error::Loss { port, why })
    }

    /// No packets are lost any more between host `number` and the others.
    pub fn lose_nothing(&self, number: u8) -> Result<(), Error> {
        let port = port_name(number);
        loss::lose_nothing(&port).map_err(|why| Error::Loss { port, why })
    }

    /// Removes the link of host `number`, if it has one.
    pub async fn unplug(&self, number: u8) -> Result<(), Error> {
        let port = port_name(number);
        if let Some(link) = self.netlink.find(&port).await? {
            let request = self.netlink.handle.link().del(link.header.index);
            match request.execute().await {
                // The kernel removes it by itself, a moment after the last that was in its host's namespace.
                Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => {}
                done => done.map_err(failed(format!("remove link {port}")))?,
            }
        }
        Ok(())
    }
}

fn port_name(number: u8) -> String {
    format!("port{number}")
}

/// A host's network namespace: there as long as this, or a process, is in it.
pub struct HostNamespace {
    file: File,
}

impl HostNamespace {
    /// What tells this namespace from others: the inode behind `/proc/PID/ns/net`.
    pub fn inode(&self) -> std::io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.ino())
    }

    /// A handle of its own, to be entered by a process that is about to start.
    pub fn handle(&self) -> std::io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

impl AsFd for HostNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes a network namespace on a thread that ends with it, and a netlink connection into it.
async fn open_namespace(runtime: tokio::runtime::Handle) -> std::io::Result<(HostNamespace, Netlink)> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tasks::thread("host-namespace", info_span!("host namespace"), move || {
        let made = (|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // A host that is switched on tells its neighbours, who may have given it up: otherwise those who
            // asked for it last are deaf to it for up to a second (ip-sysctl, `arp_notify`).
            let _ = std::fs::write("/proc/sys/net/ipv4/conf/default/arp_notify", "1");
            let file = File::open("/proc/thread-self/ns/net")?;
            Ok((HostNamespace { file }, Netlink::open(&runtime)?))
        })();
        // A receiver that is gone no longer wants the namespace.
        let _ = sender.send(made);
    })?;
    receiver.await.map_err(|_| std::io::Error::other("the thread that makes it ended early"))?
}
