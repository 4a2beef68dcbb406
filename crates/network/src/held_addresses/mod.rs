//! The addresses of Services that this host holds: taken, announced and given up as their Leases and the host's own lease say.

mod driver;
mod holding;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod word;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use membership::Lease;
use membership::lease::Epoch;
use objects::{AddressPool, Writer};
use tokio::sync::watch;

pub(crate) use driver::{Driver, Place};

use crate::Error;
use crate::netlink::Netlink;
use crate::on_link::OnLink;

/// What it takes to hold addresses of Services of type LoadBalancer.
#[derive(Clone)]
pub struct LoadBalancing {
    /// Which addresses this host may hold at all. Where there are none, it has to say so.
    pub pool: AddressPool,
    /// This host's lease.
    pub lease: watch::Receiver<Lease>,
    /// What tells this process from the former ones of this host.
    pub process: u64,
    /// How this host says that it takes an address, or gave it up.
    pub writer: Arc<dyn Writer>,
    /// Here is shown in which epoch of the lease this host holds an address. The next one must not begin before that is nothing.
    pub epoch: watch::Sender<Option<Epoch>>,
}

impl fmt::Debug for LoadBalancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadBalancing").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Gives up the addresses that a former process of this host has left on a link, those of a pool and the API's: before others hear this one,
/// for a host that is heard in a later epoch has nothing left of the former ones.
///
/// # Errors
/// [`Error`] if the kernel refuses.
pub async fn give_up_former(link: &str, pool: &AddressPool, virtual_address: IpAddr) -> Result<(), Error> {
    let (_, changes) = watch::channel(0);
    let on = OnLink::new(Netlink::open()?, link.to_owned(), changes);
    for address in on.all().await? {
        if address == virtual_address || matches!(address, IpAddr::V4(v4) if pool.contains(v4)) {
            tracing::info!(%address, "a former process of this host held this address: it is given up");
            on.remove(address).await?;
        }
    }
    Ok(())
}
