//! Addresses that this host has on its link for a while, and what neighbours hear of them.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::netlink::{Link, Netlink};
use crate::{Error, arp, keeper};

/// News this late is not sent any more: a host that paused may have lost the address without knowing it yet, and
/// would draw its callers back.
const LATE: Duration = Duration::from_millis(100);

/// A link of this host, by its name: it may go and come again.
#[derive(Debug)]
pub(crate) struct OnLink {
    netlink: Netlink,
    link: String,
    /// Tells when to look whether addresses are where they should be.
    changes: watch::Receiver<u64>,
    wait: keeper::Wait,
}

impl OnLink {
    pub fn new(netlink: Netlink, link: String, changes: watch::Receiver<u64>) -> Self {
        OnLink { netlink, link, changes, wait: keeper::Wait::default() }
    }

    /// The link as it is.
    pub async fn link(&self) -> Result<Link, Error> {
        self.netlink.link(&self.link).await
    }

    /// Takes an address. It may be here already.
    pub async fn put(&self, address: IpAddr) -> Result<Link, Error> {
        let link = self.link().await?;
        self.netlink.add_address(link, address).await?;
        Ok(link)
    }

    /// Gives an address up. It may be gone already.
    pub async fn remove(&self, address: IpAddr) -> Result<(), Error> {
        let link = match self.link().await {
            // A link that is gone has no address.
            Err(Error::NoLink(_)) => return Ok(()),
            found => found?,
        };
        self.netlink.remove_address(link, address).await
    }

    /// Whether an address is here.
    pub async fn has(&self, address: IpAddr) -> Result<bool, Error> {
        match self.link().await {
            Err(Error::NoLink(_)) => Ok(false),
            found => self.netlink.has_address(found?, address).await,
        }
    }

    /// All addresses that the link has for itself alone, as those are that move.
    pub async fn all(&self) -> Result<Vec<IpAddr>, Error> {
        match self.link().await {
            Err(Error::NoLink(_)) => Ok(Vec::new()),
            found => self.netlink.single_addresses(found?).await,
        }
    }

    /// After a refusal: the connection to the kernel may be what is broken, and would refuse for ever.
    pub fn begin_anew(&mut self) {
        if let Ok(anew) = Netlink::open() {
            self.netlink = anew;
        }
    }

    /// Waits for a reason to look at the addresses. Who stops waiting goes on where it was next time.
    pub async fn reason(&mut self) {
        keeper::next_reason(&mut self.changes, &mut self.wait).await;
    }
}

/// Tells the neighbours who has an address, at these times from now on and for as long as that `holds`: more than once, for a datagram may be
/// lost.
pub(crate) async fn tell_neighbours(
    link: Link,
    address: IpAddr,
    times: impl IntoIterator<Item = Duration>,
    holds: impl Fn() -> bool,
) {
    let IpAddr::V4(address) = address else { return };
    let acquired = now();
    for after in times {
        tokio::time::sleep_until(acquired + after).await;
        if !holds() {
            return;
        }
        if now() > acquired + after + LATE {
            continue;
        }
        let told: io::Result<()> = arp::announce(link.index, link.hardware, address);
        if let Err(error) = told {
            tracing::warn!(%address, %error, "can't tell the neighbours who has the address");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver of addresses: here it gets its time")]
fn now() -> Instant {
    Instant::now()
}
