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
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::Mutex;

use self::rules::Rules;
use crate::Error;
use crate::netlink::{End, Netlink};

mod rules;

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
#[derive(Debug)]
pub struct PodLinks {
    range: Ipv4Net,
    uplink: String,
    rules: Arc<Rules>,
    /// Held while links are made or removed: containers of one pod that start side by side ask for the same ones, and one
    /// must not take away what the other has half made.
    turn: Mutex<()>,
}

impl PodLinks {
    /// Makes the host ready for pods with addresses of `range`: it passes packets on between links, and checks at each link where
    /// they come from. All pods of the `cluster` know each other by their own addresses, everybody else hears of the host; what
    /// leaves the host does so by `uplink`.
    ///
    /// # Errors
    /// What this host lacks for that: then its pods share its own network.
    pub async fn open(range: IpNet, cluster: IpNet, uplink: &str) -> Result<Self, Error> {
        let only_v4 = |network| match network {
            IpNet::V4(v4) => Ok(v4),
            IpNet::V6(_) => Err(Error::NotIpv4(network)),
        };
        let (range, cluster) = (only_v4(range)?, only_v4(cluster)?);
        if read(FORWARDING)? != "1" {
            write(FORWARDING, "1")?;
            tracing::info!(
                "packets are passed on between this host's links from now on (net.ipv4.ip_forward)"
            );
        }
        check_by_link()?;
        let netlink = Netlink::open()?;
        netlink.try_pair(TRIAL).await?;
        // Pods live on while this program doesn't run: the rules must never be without them.
        let there = netlink.names().await?;
        let there =
            there.iter().filter_map(|link| address_of(link)).filter(|address| range.contains(address));
        let rules = Arc::new(Rules::put(range, cluster, there.collect())?);
        Ok(PodLinks { range, uplink: uplink.to_owned(), rules, turn: Mutex::default() })
    }

    /// Puts back what others take away of what pods' networks need, for as long as it is polled.
    pub fn keep(&self) -> impl Future<Output = ()> + Send + use<> {
        let rules = self.rules.clone();
        async move { rules.keep().await }
    }

    /// Connects a pod's network namespace to the host, and gives it this address. One that is connected stays as it is, whatever
    /// the pod did to it, but the host's side of it is put right.
    ///
    /// # Errors
    /// If the address is not of the host's range, or the kernel refuses.
    pub async fn connect(&self, address: IpAddr, namespace: OwnedFd) -> Result<(), Error> {
        let address = self.own(address)?;
        let _turn = self.turn.lock().await;
        // Before its link can be on.
        self.rules.add(address)?;
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
                // What is too long for the host's link must not leave a pod.
                let mtu = outside.mtu(&self.uplink).await?;
                let link = outside.add_pair(near, far, &namespace, mtu).await?;
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
    pub async fn remove(&self, address: IpAddr) -> Result<(), Error> {
        let address = self.own(address)?;
        let _turn = self.turn.lock().await;
        let netlink = Netlink::open()?;
        if let Some((link, _)) = netlink.marked(&name(address)).await? {
            netlink.remove_link(link).await?;
        }
        self.rules.remove(address)
    }

    fn own(&self, address: IpAddr) -> Result<Ipv4Addr, Error> {
        match address {
            IpAddr::V4(v4) if self.range.contains(&v4) => Ok(v4),
            _ => Err(Error::ForeignAddress { address, network: self.range.into() }),
        }
    }
}

/// Takes away what [`PodLinks`] of a former process left: the links of pods with addresses of `range`, and the rules about them.
///
/// # Errors
/// If the kernel refuses.
pub(crate) async fn remove_former(range: IpNet) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    for name in netlink.names().await? {
        let is_pods = address_of(&name).is_some_and(|address| range.contains(&IpAddr::V4(address)));
        if is_pods && let Some((link, _)) = netlink.marked(&name).await? {
            netlink.remove_link(link).await?;
        }
    }
    rules::remove_all()
}

/// The name of the host's end of a pod's pair.
fn name(address: Ipv4Addr) -> String {
    format!("pod{:08x}", u32::from(address))
}

/// The address of the pod that a link leads to, if it is such a pair's end.
fn address_of(link: &str) -> Option<Ipv4Addr> {
    let digits = link.strip_prefix("pod").filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from)
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
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| *name != "all" && address_of(name).is_none()) {
            write(&format!("{SETTINGS}/{name}/rp_filter"), "2")?;
        }
    }
    write(&all, "0")
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
