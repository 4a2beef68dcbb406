//! What a link is like at one moment.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;

use futures::StreamExt;
use rtnetlink::packet_route::address::AddressAttribute;

use super::{Link, Netlink, failed};
use crate::Error;

/// A link as it was when somebody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub link: Link,
    /// Its addresses of IPv4, in the kernel's order: the one that it was given first comes first.
    pub addresses: Vec<Ipv4Addr>,
}

impl Netlink {
    /// Looks at a link. None if there is none of that name.
    pub async fn view(&self, name: &str) -> Result<Option<View>, Error> {
        let Some(message) = self.find(name).await? else { return Ok(None) };
        let link = Link::of(&message);
        let mut addresses = Vec::new();
        let mut found = pin!(self.handle.address().get().set_link_index_filter(link.index).execute());
        while let Some(address) = found.next().await {
            let address = address.map_err(failed(format!("look at the addresses of {name}")))?;
            addresses.extend(address.attributes.iter().filter_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            }));
        }
        Ok(Some(View { link, addresses }))
    }
}
