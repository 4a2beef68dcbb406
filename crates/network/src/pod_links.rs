//! Networks of pods' own: each is a namespace, and a pair of links leads from it to the host, which routes.
//!
//! There is no bridge, and so nothing that pods could say to each other past the host. A pod's end has its address alone and
//! sends all to a gateway that is no address of anybody's (as Calico does it); the host's end has none. So the host takes what is
//! for its own addresses (services among them) as if it came from any other link.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use ipnet::IpNet;

use crate::Error;
use crate::netlink::{End, Netlink};

/// The name of a pod's link, as pods have it everywhere.
const POD_LINK: &str = "eth0";
/// What a pod takes for its gateway: link-local, so that no packet bears it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of the host's end of each pair: the two ends meet nobody else.
const GATEWAY_HARDWARE: [u8; 6] = [0x02, 0x48, 0x46, 0x01, 0x00, 0x01];
/// Names for a pair that is made only to see whether it can be.
const TRIAL: [&str; 2] = ["podtrial0", "podtrial1"];
/// Where the kernel's settings of links are, of the network of the thread that looks.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// Whether packets are passed on between links.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The links of a host's pods.
#[derive(Debug, Clone, Copy)]
pub struct PodLinks {
    range: IpNet,
}

impl PodLinks {
    /// Makes the host ready for pods with addresses of `range`: it passes packets on between links, and checks at each link where
    /// they come from.
    ///
    /// # Errors
    /// What this host lacks for that: then its pods share its own network.
    pub async fn open(range: IpNet) -> Result<Self, Error> {
        if read(FORWARDING)? != "1" {
            write(FORWARDING, "1")?;
            tracing::info!(
                "packets are passed on between this host's links from now on (net.ipv4.ip_forward)"
            );
        }
        check_by_link()?;
        Netlink::open()?.try_pair(TRIAL).await?;
        Ok(PodLinks { range })
    }

    /// Connects a pod's network namespace to the host, and gives it this address. One that is connected stays as it is, whatever
    /// the pod did to it, but the host's side of it is put right.
    ///
    /// # Errors
    /// If the address is not of the host's range, or the kernel refuses.
    pub async fn connect(self, address: IpAddr, namespace: OwnedFd) -> Result<(), Error> {
        let address = self.own(address)?;
        let mark = format!("pod {address} net:[{}]", number(&namespace).map_err(Error::Namespace)?);
        let (name, outside) = (name(address), Netlink::open()?);
        let link = match outside.marked(&name).await? {
            // It is marked last: with the mark it is whole.
            Some((link, known)) if known == mark => link,
            other => {
                if let Some((stale, _)) = other {
                    outside.remove_link(stale).await?;
                }
                let near = End { name: &name, hardware: GATEWAY_HARDWARE };
                let far = End { name: POD_LINK, hardware: hardware(address) };
                let link = outside.add_pair(near, far, &namespace).await?;
                furnish(&namespace, address).await?;
                outside.mark(link, &mark).await?;
                link
            }
        };
        // Before anything comes in.
        check_by_link()?;
        write(&format!("{SETTINGS}/{name}/rp_filter"), "1")?;
        without_ipv6(&name)?;
        outside.switch_on(link).await?;
        outside.neighbour(link, address.into(), hardware(address)).await?;
        outside.route_out(address, link).await
    }

    /// Removes the links of a pod that has ended. There may be none any more: they end with the namespace, but that takes the
    /// kernel a moment.
    ///
    /// # Errors
    /// If the address is not of the host's range, or the kernel refuses.
    pub async fn remove(self, address: IpAddr) -> Result<(), Error> {
        let netlink = Netlink::open()?;
        match netlink.marked(&name(self.own(address)?)).await? {
            Some((link, _)) => netlink.remove_link(link).await,
            None => Ok(()),
        }
    }

    fn own(self, address: IpAddr) -> Result<Ipv4Addr, Error> {
        match address {
            IpAddr::V4(v4) if self.range.contains(&address) => Ok(v4),
            _ => Err(Error::ForeignAddress { address, network: self.range }),
        }
    }
}

/// The name of the host's end of a pod's pair.
fn name(address: Ipv4Addr) -> String {
    format!("pod{:08x}", u32::from(address))
}

/// The hardware address of a pod's link: by its address, as with CNI's plugins.
fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// What tells a namespace from others that live.
fn number(namespace: &OwnedFd) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::File::from(namespace.try_clone()?).metadata()?.ino())
}

/// Sets up a pod's side.
async fn furnish(namespace: &OwnedFd, address: Ipv4Addr) -> Result<(), Error> {
    let inside = Netlink::open_in(namespace).await?;
    inside.loopback().await?;
    let link = inside.link(POD_LINK).await?;
    inside.switch_on(link).await?;
    inside.add_address(link, address.into()).await?;
    inside.neighbour(link, GATEWAY.into(), GATEWAY_HARDWARE).await?;
    inside.default_route(GATEWAY, link).await
}

/// Sees to it that each link says itself how it checks where packets come from (`rp_filter`). What is said for all counts
/// beside it, and the looser of both would win (Linux' ip-sysctl: the maximum, and 2 is loose): then a pod could send in the name
/// of another. Links that were loose by that stay so.
fn check_by_link() -> Result<(), Error> {
    let all = format!("{SETTINGS}/all/rp_filter");
    if read(&all)? != "2" {
        return Ok(());
    }
    let listed = fs::read_dir(SETTINGS).map_err(|why| Error::Setting { file: SETTINGS.into(), why })?;
    for entry in listed.flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| *name != "all" && !is_pods(name)) {
            write(&format!("{SETTINGS}/{name}/rp_filter"), "2")?;
        }
    }
    write(&all, "0")
}

/// Whether a link of that name is one of a pod's.
fn is_pods(link: &str) -> bool {
    link.strip_prefix("pod").is_some_and(|rest| rest.len() == 8 && u32::from_str_radix(rest, 16).is_ok())
}

/// Pods have no address of IPv6: what they send that way, by addresses that nobody gave them, is not heard.
fn without_ipv6(link: &str) -> Result<(), Error> {
    let file = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    // A host without IPv6 has no such setting.
    if Path::new(&file).exists() { write(&file, "1") } else { Ok(()) }
}

fn read(file: &str) -> Result<String, Error> {
    let text = fs::read_to_string(file).map_err(|why| Error::Setting { file: file.into(), why })?;
    Ok(text.trim().to_owned())
}

fn write(file: &str, value: &str) -> Result<(), Error> {
    fs::write(file, value).map_err(|why| Error::Setting { file: format!("{file} to {value}"), why })
}

#[cfg(test)]
pub(crate) mod tests;
