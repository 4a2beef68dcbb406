//! What a host that runs no more has left in the network of its machine.

use std::net::IpAddr;

use ipnet::IpNet;
use objects::AddressPool;

use crate::netlink::Netlink;
use crate::{Error, give_up_former, pod_links};

/// Where to look for it.
#[derive(Debug)]
pub struct Remains<'a> {
    /// The link on which the host had its address.
    pub link: &'a str,
    /// The addresses of load balancers.
    pub pool: &'a AddressPool,
    /// The API's virtual address.
    pub virtual_address: IpAddr,
    /// The pods of all hosts.
    pub cluster: IpNet,
    /// The services.
    pub services: IpNet,
}

impl Remains<'_> {
    /// Takes it away: addresses on the link, links of pods, rules about them, and routes to pods and services. All is tried, and there
    /// may be nothing.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn remove(&self) -> Result<(), Error> {
        let addresses = match give_up_former(self.link, self.pool, self.virtual_address).await {
            // With the link its addresses went.
            Err(Error::NoLink(_)) => Ok(()),
            other => other,
        };
        let pods = pod_links::remove_former(self.cluster).await;
        let routes = async { Netlink::open()?.remove_routes(&[self.cluster, self.services]).await }.await;
        addresses.and(pods).and(routes)
    }
}
