//! Links, addresses and routes by rtnetlink, and who has the virtual address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::net::TcpStream;
use tracing::info_span;

use super::text;
use crate::facts::{Link, Neighbour, Route};
use crate::plan::Plan;

/// How long somebody may take to say that an address is theirs: ARP asks three times, a second apart.
const PATIENCE: Duration = Duration::from_millis(1500);

type Gathered = (Result<Vec<Link>, String>, Result<Vec<Route>, String>);

pub(super) async fn links_and_routes() -> Gathered {
    let (connection, handle, _) = match rtnetlink::new_connection() {
        Ok(open) => open,
        Err(why) => return (Err(why.to_string()), Err(why.to_string())),
    };
    let connection = tasks::spawn(info_span!("netlink"), connection);
    let links = links(&handle).await.map_err(|error| error.to_string());
    let names: BTreeMap<u32, String> =
        links.iter().flatten().map(|(index, link)| (*index, link.name.clone())).collect();
    let routes = routes(&handle, &names).await.map_err(|error| error.to_string());
    connection.abort();
    (links.map(|links| links.into_values().collect()), routes)
}

async fn links(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    let mut found = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = found.try_next().await? {
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Link { name: String::new(), mtu: 0, up, addresses: Vec::new() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        links.insert(message.header.index, link);
    }
    let mut found = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = found.try_next().await? {
        let of = |local: bool| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
        };
        // On links from point to point the one is the other side's.
        let own = of(true).or_else(|| of(false));
        let network = own.and_then(|address| IpNet::new(address, message.header.prefix_len).ok());
        if let (Some(network), Some(link)) = (network, links.get_mut(&message.header.index)) {
            link.addresses.push(network);
        }
    }
    Ok(links)
}

/// Those to networks of others, of both families.
async fn routes(handle: &Handle, names: &BTreeMap<u32, String>) -> Result<Vec<Route>, rtnetlink::Error> {
    let mut routes = Vec::new();
    let families =
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
    for family in families {
        let mut found = std::pin::pin!(handle.route().get(family).execute());
        while let Some(message) = found.try_next().await? {
            routes.extend(route(&message, names));
        }
    }
    Ok(routes)
}

fn route(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Route> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::from(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::from(*address)),
        _ => None,
    };
    // Not those of this machine's own addresses, nor of broadcasts.
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let any: IpAddr = match u8::from(message.header.address_family) {
        2 => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut to, mut link, mut by) = (any, String::new(), None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => by = ip(address),
            RouteAttribute::Oif(index) => link = names.get(index).cloned().unwrap_or_default(),
            _ => {}
        }
    }
    Some(Route { to: IpNet::new(to, message.header.destination_prefix_length).ok()?, link, by })
}

/// What came of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted,
    Refused,
    Silence,
}

/// Who answers at the virtual address: a connection makes the kernel ask the network for it, and the hardware address of the one that answers is
/// known then, also where nobody listens.
pub(super) async fn neighbour(plan: &Plan, links: &[Link]) -> Option<Neighbour> {
    let config = plan.config.as_ref().filter(|_| plan.pre)?;
    let at = SocketAddr::new(config.virtual_address, config.ports.api);
    let answer = match tokio::time::timeout(PATIENCE, TcpStream::connect(at)).await {
        Ok(Ok(_)) => Answer::Accepted,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Answer::Refused,
        Ok(Err(_)) | Err(_) => Answer::Silence,
    };
    let hardware = text("/proc/self/net/arp").and_then(|table| hardware(&table, at.ip()));
    Some(holder(at.ip(), links, answer, hardware))
}

/// Who has an address, as far as an answer proves that.
fn holder(address: IpAddr, links: &[Link], answer: Answer, hardware: Option<String>) -> Neighbour {
    let is_near = links.iter().flat_map(|link| &link.addresses).any(|network| network.contains(&address));
    match answer {
        _ if hardware.is_some() => Neighbour::Somebody(hardware),
        Answer::Silence => Neighbour::Nobody,
        // On the loopback each address is this machine's, which refuses in the name of nobody.
        Answer::Refused if address.is_loopback() => Neighbour::Nobody,
        Answer::Accepted | Answer::Refused if is_near => Neighbour::Somebody(None),
        // Routers and filters refuse in the name of others; proxies of whole networks accept everything.
        Answer::Accepted | Answer::Refused => Neighbour::Beyond,
    }
}

/// `10.0.0.9  0x1  0x2  52:54:00:12:34:56  *  eth0`: complete entries (ATF_COM) alone.
fn hardware(table: &str, address: IpAddr) -> Option<String> {
    let own = address.to_string();
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_complete = |flags: &str| {
            u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 2 != 0)
        };
        let [address, _, flags, hardware, ..] = fields.as_slice() else { return None };
        (*address == own && is_complete(flags)).then(|| (*hardware).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_is_seen() {
        let (links, routes) = links_and_routes().await;
        let links = links.unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(loopback.mtu >= 1500, "{loopback:?}");
        let own: IpNet = "127.0.0.1/8".parse().unwrap();
        assert!(!loopback.up || loopback.addresses.contains(&own), "{loopback:?}");
        assert!(routes.unwrap().iter().all(|route| !route.to.addr().is_loopback()), "none of its own");
    }

    #[test]
    fn only_a_complete_neighbour_has_an_address() {
        const TABLE: &str = "IP address       HW type     Flags       HW address            Mask     Device
10.0.0.9         0x1         0x2         52:54:00:12:34:56     *        eth0
10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0";
        let of = |address: &str| hardware(TABLE, address.parse().unwrap());
        assert_eq!(of("10.0.0.9").as_deref(), Some("52:54:00:12:34:56"));
        assert_eq!(of("10.0.0.8"), None);
        assert_eq!(of("10.0.0.7"), None);
    }

    #[test]
    fn an_answer_proves_somebody_only_on_a_link() {
        let link = |name: &str, own: &str| {
            let addresses = vec![own.parse().unwrap()];
            Link { name: name.into(), mtu: 1500, up: true, addresses }
        };
        let links = [link("lo", "127.0.0.1/8"), link("eth0", "10.0.0.1/24")];
        let somebody = || Neighbour::Somebody(None);
        for (address, answer, expected) in [
            ("10.0.0.9", Answer::Accepted, somebody()),
            ("10.0.0.9", Answer::Refused, somebody()),
            ("10.0.0.9", Answer::Silence, Neighbour::Nobody),
            ("10.9.0.9", Answer::Accepted, Neighbour::Beyond),
            ("10.9.0.9", Answer::Refused, Neighbour::Beyond),
            ("10.9.0.9", Answer::Silence, Neighbour::Nobody),
            ("127.0.0.100", Answer::Accepted, somebody()),
            ("127.0.0.100", Answer::Refused, Neighbour::Nobody),
        ] {
            let found = holder(address.parse().unwrap(), &links, answer, None);
            assert_eq!(found, expected, "{address} {answer:?}");
        }
        let known = Some("52:54:00:12:34:56".to_owned());
        let found = holder("10.9.0.9".parse().unwrap(), &links, Answer::Silence, known.clone());
        assert_eq!(found, Neighbour::Somebody(known), "the network says who it is");
    }
}
