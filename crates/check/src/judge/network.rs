//! Links, addresses, ranges, filters.

use std::net::IpAddr;

use config::HostConfig;
use ipnet::IpNet;

use super::{as_root, listed};
use crate::facts::{Facts, Link, Neighbour, Route};
use crate::finding::{Group, Section};

/// The least that IPv6 asks of a link (RFC 8200, section 5).
const LEAST_MTU: u32 = 1280;
/// Ethernet's.
const USUAL_MTU: u32 = 1500;
/// The headers of IPv4 and TCP, and TCP's time stamps: what a segment leaves of a packet. IPv6's header is longer by 20.
const HEADERS: u32 = 40;
const STAMPS: u32 = 12;
const LONGER: u32 = 20;

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Network);
    match &facts.network.links {
        Err(why) => {
            section.unseen("links", format!("links and addresses can't be read: {why}"), "see `ip address`")
        }
        Ok(links) => {
            match &facts.plan.config {
                Some(config) => own(facts, config, links, &mut section),
                None => any(facts, links, &mut section),
            }
            if !facts.plan.is_on_loopback() {
                ranges(facts, links, &mut section);
            }
        }
    }
    virtual_address(facts, &mut section);
    filter(facts, &mut section);
    packets(facts, &mut section);
    section
}

fn holder(links: &[Link], address: IpAddr) -> Option<(&Link, IpNet)> {
    links.iter().find_map(|link| {
        let own = link.addresses.iter().find(|network| network.addr() == address)?;
        Some((link, *own))
    })
}

/// The address of the configuration, and the link that it names.
fn own(facts: &Facts, config: &HostConfig, links: &[Link], section: &mut Section) {
    const CHECK: &str = "address";
    let address = config.address;
    let Some(wanted) = facts.plan.link() else {
        // On loopback each address of 127.0.0.0/8 is there without being shown.
        section.ok(CHECK, format!("{address} is the loopback's"));
        return;
    };
    let Some(link) = links.iter().find(|link| link.name == wanted) else {
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        section.fault(
            CHECK,
            format!("there is no link {wanted} (net.link)"),
            format!("name one of {}", listed(&names)),
        );
        return;
    };
    if !link.up {
        section.fault(CHECK, format!("the link {wanted} is down"), format!("ip link set {wanted} up"));
    }
    match holder(links, address) {
        None => section.fault(
            CHECK,
            format!("no link has this host's address, {address}"),
            format!("give it to {wanted}, and see that it stays (a fixed address, not one of DHCP); or correct `address`"),
        ),
        Some((other, _)) if other.name != wanted => section.fault(
            CHECK,
            format!("{address} is on {}, and the configuration names {wanted}", other.name),
            format!("set net.link to {}", other.name),
        ),
        Some((_, own)) if own.trunc() != config.host_cidr.trunc() && own.prefix_len() != 32 && own.prefix_len() != 128 => section.warning(
            CHECK,
            format!("{wanted} has {own}, and hostCidr is {}: the two don't mean the same neighbours", config.host_cidr),
            format!("set hostCidr to {} on all hosts", own.trunc()),
        ),
        Some(_) => section.ok_unless_said(CHECK, format!("{address} is on {wanted}")),
    }
}

/// Before there is a configuration: which address it would be.
fn any(facts: &Facts, links: &[Link], section: &mut Section) {
    const CHECK: &str = "address";
    let default = facts
        .network
        .routes
        .as_ref()
        .ok()
        .and_then(|routes| routes.iter().find(|route| route.to.prefix_len() == 0));
    let Some(default) = default else {
        section.warning(
            CHECK,
            "there is no default route: images can't be pulled from elsewhere, and the host's address isn't evident",
            "add a route, or name address and link in the configuration",
        );
        return;
    };
    let link = links.iter().find(|link| link.name == default.link);
    let own = link.and_then(|link| link.addresses.iter().find(|address| address.addr().is_ipv4()));
    match own {
        Some(own) => {
            section.ok(CHECK, format!("the host's address would be {} on {}", own.addr(), default.link))
        }
        None => section.warning(CHECK, format!("{} has no IPv4 address", default.link), "give it one"),
    }
}

/// What of the cluster's ranges is taken already. Once the host runs, its own addresses and routes are there.
fn ranges(facts: &Facts, links: &[Link], section: &mut Section) {
    const CHECK: &str = "ranges";
    let installed = facts.plan.installed();
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    for (field, range) in facts.plan.ranges() {
        let is_ours = |network: &IpNet| installed.is_some() && range.contains(network);
        for link in links {
            let taken = link
                .addresses
                .iter()
                .map(IpNet::trunc)
                .find(|network| overlap(network, &range) && !is_ours(network));
            if let Some(network) = taken {
                section.fault(
                    CHECK,
                    format!("{field}, {range}, overlaps {network} on {}: what is meant for one goes to the other", link.name),
                    format!("take another range for {field}, such as a part of 10.0.0.0/8 or 100.64.0.0/10 that nobody uses"),
                );
            }
        }
        let routes = facts.network.routes.as_deref().unwrap_or_default();
        // A link's own network was named already.
        let is_links =
            |route: &Route| links.iter().any(|link| link.addresses.iter().any(|own| own.trunc() == route.to));
        let taken = |route: &&Route| {
            route.to.prefix_len() > 0 && overlap(&route.to, &range) && !is_ours(&route.to) && !is_links(route)
        };
        for route in routes.iter().filter(taken) {
            section.fault(
                CHECK,
                format!("{field}, {range}, overlaps the route to {} by {}", route.to, route.link),
                format!("take another range for {field}, or remove the route"),
            );
        }
        let resolver = facts.names.resolver.as_ref().map(|(_, conf)| conf);
        let own = facts.plan.dns();
        for server in resolver
            .iter()
            .flat_map(|conf| conf.servers())
            .filter(|server| range.contains(server) && Some(*server) != own)
        {
            section.fault(
                CHECK,
                format!("{field}, {range}, has the server of names {server} in it: nobody would reach it"),
                format!("take another range for {field}"),
            );
        }
    }
    let [(_, pods), (_, services)] = facts.plan.ranges();
    section.ok_unless_said(CHECK, format!("{pods} (pods) and {services} (services) are used by nobody else"));
    if let Err(why) = &facts.network.routes {
        section.unseen("routes", format!("routes can't be read: {why}"), "see `ip route show table all`");
    }
}

fn virtual_address(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "virtual-address";
    let Some(config) = &facts.plan.config else { return };
    let address = config.virtual_address;
    let links = facts.network.links.as_deref().unwrap_or_default();
    let runs = facts.plan.installed().is_some();
    if let Some((link, _)) = holder(links, address).filter(|_| !runs) {
        section.fault(
            CHECK,
            format!("the virtual address, {address}, is on {} already", link.name),
            format!(
                "remove it (ip address del {address} dev {}), and what puts it there, such as keepalived",
                link.name
            ),
        );
        return;
    }
    // Nobody was looked for once the host runs: its leader answers.
    match &facts.network.virtual_address {
        None => {}
        Some(Neighbour::Nobody) => {
            section.ok(CHECK, format!("nobody answers at the virtual address, {address}"));
        }
        Some(Neighbour::Beyond) => section.unseen(
            CHECK,
            format!("whether somebody has the virtual address, {address}, can't be seen: no link has its network, and a router may be what answers"),
            "give a link an address of that network, or take a virtual address of the hosts' own (hostCidr)",
        ),
        Some(Neighbour::Somebody(hardware)) => section.warning(
            CHECK,
            format!(
                "{} has the virtual address, {address}, already",
                hardware.as_deref().unwrap_or("somebody")
            ),
            "fine where the cluster runs already and this is its leader; else take another address",
        ),
    }
}

fn filter(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "firewall";
    if !facts.network.old_tables.is_empty() {
        section.unseen(
            CHECK,
            format!(
                "the older form of iptables has rules (tables {}), which can't be read here",
                listed(&facts.network.old_tables)
            ),
            "see `iptables-legacy -S`, and let the hosts' ports in",
        );
    }
    let chains = match &facts.network.filter {
        Err(why) => {
            let remedy = as_root(facts, "see `nft list ruleset`");
            section.unseen(CHECK, format!("filters can't be read: {why}"), remedy);
            return;
        }
        Ok(filter) => &filter.chains,
    };
    let dropping: Vec<String> = chains
        .iter()
        .filter(|chain| chain.drops_input)
        .map(|chain| format!("{} {}", chain.table, chain.name))
        .collect();
    let ports = facts.plan.ports();
    let mut tcp = vec![ports.api, ports.agent];
    if facts.plan.has_store() {
        tcp.extend([ports.store, ports.etcd]);
    }
    let tcp: Vec<String> = tcp.into_iter().map(|port| port.to_string()).collect();
    match dropping.is_empty() {
        true => section.ok(CHECK, "no filter drops by its policy what comes in"),
        false => section.warning(
            CHECK,
            format!("what no rule of {} lets in is dropped", listed(&dropping)),
            format!("let in TCP {} and UDP {} from the hosts, and everything from the pods' range; fine if rules do so already", tcp.join(", "), ports.heartbeats),
        ),
    }
}

/// How large packets may be: on this host's link, and on the ways to the others.
fn packets(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "mtu";
    let links = facts.network.links.as_deref().unwrap_or_default();
    let address = facts.plan.config.as_ref().map(|config| config.address);
    let Some((link, _)) = address.and_then(|address| holder(links, address)) else { return };
    let mtu = link.mtu;
    if mtu < LEAST_MTU {
        section.warning(
            CHECK,
            format!("{} carries packets of {mtu} bytes, less than IPv6 asks for ({LEAST_MTU})", link.name),
            format!("ip link set {} mtu {USUAL_MTU}", link.name),
        );
    }
    let cluster = facts.cluster.as_ref().and_then(|cluster| cluster.as_ref().ok());
    for (name, peer) in cluster
        .iter()
        .flat_map(|cluster| &cluster.peers)
        .filter(|(_, peer)| Some(peer.address.ip()) != address)
    {
        let Some(segment) = peer.way.as_ref().ok().and_then(|way| way.segment) else { continue };
        let headers = HEADERS + if peer.address.is_ipv6() { LONGER } else { 0 };
        // Time stamps may be switched off: a segment is larger by as much then.
        if segment + headers + STAMPS < mtu {
            section.warning(
                CHECK,
                format!(
                    "the way to {name} carries packets of about {} bytes, and {} sends {mtu}",
                    segment + headers + STAMPS,
                    link.name
                ),
                "give the links of all hosts the same MTU",
            );
        }
    }
    section.ok_unless_said(CHECK, format!("{} carries packets of {mtu} bytes", link.name));
}
