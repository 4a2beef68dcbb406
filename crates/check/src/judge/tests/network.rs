//! What is wrong with the network of one machine: ports, addresses, ranges, names.

use super::*;

fn route(facts: &mut Facts, to: &str) {
    let route = Route { to: to.parse().unwrap(), link: "tun0".into(), by: None };
    facts.network.routes.as_mut().unwrap().push(route);
}

fn listens(facts: &mut Facts, protocol: Protocol, at: &str, name: &str) {
    let holder = Holder { pid: 7, name: name.into(), is_ours: name == "holdfast" };
    let socket = Listening { protocol, at: at.parse().unwrap(), holder: Some(holder) };
    facts.listening.as_mut().unwrap().push(socket);
}

#[test]
fn ports_that_somebody_holds_are_found() {
    each_is_said(
        good,
        &[
            (
                |f| listens(f, Protocol::Tcp, "0.0.0.0:6443", "kube-apiserver"),
                "fault ports: TCP port 6443 (ports.api) is held by kube-apiserver (process 7)",
                "stop kube-apiserver, or set ports.api",
            ),
            (
                |f| listens(f, Protocol::Udp, "[::]:53", "dnsmasq"),
                "fault ports: UDP port 53 (DNS)",
                "127.0.0.1 alone",
            ),
            (
                |f| listens(f, Protocol::Tcp, "10.73.0.1:2380", "holdfast"),
                "warning ports: ",
                "runs here already",
            ),
            (
                |f| set(f, "net.ipv4.ip_local_port_range", "1024 65535"),
                "warning port-range: connections that go out may take 6443, 10250, 2381, 2380 and 2379",
                "ip_local_reserved_ports=6443,10250,2381,2380,2379",
            ),
            (|f| f.listening = None, "unseen ports: ", "ss -lntup"),
        ],
    );
    // Others' addresses, protocols and ports are free to use.
    let mut facts = good();
    for (protocol, at) in [
        (Protocol::Udp, "127.0.0.53:53"),
        (Protocol::Tcp, "10.73.0.9:6443"),
        (Protocol::Udp, "0.0.0.0:6443"),
        (Protocol::Tcp, "0.0.0.0:8080"),
    ] {
        listens(&mut facts, protocol, at, "another");
    }
    set(&mut facts, "net.ipv4.ip_local_port_range", "2381 60999");
    set(&mut facts, "net.ipv4.ip_local_reserved_ports", "2300-2400,6443,10250");
    assert_eq!(said(&facts), [""; 0]);
    // Before there is a configuration, any address may be the host's but the loopback's.
    facts.plan.config = None;
    assert_eq!(said(&facts).len(), 1, "{:?}", said(&facts));
}

#[test]
fn addresses_and_ranges_that_cannot_work_are_found() {
    each_is_said(
        good,
        &[
            (
                |f| links(f)[1].name = "eth1".into(),
                "fault address: there is no link eth0 (net.link); name one of lo and eth1",
                "",
            ),
            (|f| links(f)[1].up = false, "fault address: the link eth0 is down", "ip link set eth0 up"),
            (
                |f| links(f)[1].addresses.clear(),
                "fault address: no link has this host's address, 10.73.0.1",
                "give it to eth0",
            ),
            (
                |f| links(f)[1].addresses = vec!["10.73.0.1/16".parse().unwrap()],
                "warning address: eth0 has 10.73.0.1/16, and hostCidr is 10.73.0.0/24",
                "set hostCidr to 10.73.0.0/16",
            ),
            (
                |f| links(f).push(link("eth1", "10.244.7.1/24")),
                "fault ranges: clusterCidr, 10.244.0.0/16, overlaps 10.244.7.0/24 on eth1",
                "another range",
            ),
            (
                |f| route(f, "10.96.0.0/12"),
                "fault ranges: serviceCidr, 10.96.0.0/16, overlaps the route to 10.96.0.0/12 by tun0",
                "",
            ),
            (
                |f| f.names.resolver = Some(("/r".into(), ResolvConf::parse("nameserver 10.96.9.9"))),
                "fault ranges: serviceCidr, 10.96.0.0/16, has the server of names 10.96.9.9 in it",
                "",
            ),
            (
                |f| links(f)[1].addresses.push("10.73.0.100/32".parse().unwrap()),
                "fault virtual-address: the virtual address, 10.73.0.100, is on eth0 already",
                "ip address del 10.73.0.100 dev eth0",
            ),
            (
                |f| f.network.virtual_address = Some(Neighbour::Somebody(Some("52:54:00:12:34:56".into()))),
                "warning virtual-address: 52:54:00:12:34:56 has the virtual address",
                "another address",
            ),
            (
                |f| f.network.virtual_address = Some(Neighbour::Beyond),
                "unseen virtual-address: whether somebody has the virtual address, 10.73.0.100, can't be seen",
                "hostCidr",
            ),
            (|f| links(f)[1].mtu = 1000, "warning mtu: eth0 carries packets of 1000 bytes", "mtu 1500"),
            (
                |f| {
                    let chain = |drops_input, name: &str| Chain {
                        table: "filter".into(),
                        name: name.into(),
                        drops_input,
                    };
                    f.network.filter =
                        Ok(Filter { chains: vec![chain(true, "INPUT"), chain(false, "FORWARD")] });
                },
                "warning firewall: what no rule of filter INPUT lets in is dropped",
                "let in TCP 6443, 10250, 2380, 2379 and UDP 2381 from the hosts",
            ),
            (
                |f| f.network.old_tables = vec!["filter".into()],
                "unseen firewall: the older form of iptables",
                "iptables-legacy",
            ),
            (|f| f.network.routes = Err("no".into()), "unseen routes: ", "no"),
        ],
    );
    // All hosts of a cluster on loopback have ranges of 127.0.0.0/8.
    let mut facts = good();
    let config = facts.plan.config.as_mut().unwrap();
    config.net = NetConfig::Loopback { switch: "127.0.0.254:2382".parse().unwrap() };
    config.service_cidr = "127.96.0.0/16".parse().unwrap();
    assert_eq!(said(&facts), [""; 0]);
    let mut facts = good();
    facts.plan.config = None;
    facts.network.routes = Ok(Vec::new());
    assert!(said(&facts)[0].starts_with("warning address: there is no default route"), "{:?}", said(&facts));
}

#[test]
fn names_that_do_not_resolve_are_found() {
    fn resolver(facts: &mut Facts, text: &str) {
        facts.names.resolver = Some(("/etc/resolv.conf".into(), ResolvConf::parse(text)));
    }
    each_is_said(
        good,
        &[
            (|f| f.names.resolver = None, "warning resolver: there is no /etc/resolv.conf", "dns.upstream"),
            (|f| resolver(f, "search a"), "warning resolver: /etc/resolv.conf names no server", ""),
            (|f| resolver(f, "nameserver 10.96.0.10"), "fault resolver: ", "go round"),
            (|f| resolver(f, "nameserver 10.73.0.1"), "fault resolver: ", "go round"),
            (
                |f| {
                    resolver(
                        f,
                        "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
                    )
                },
                "warning resolver: /etc/resolv.conf names 4",
                "3 at most",
            ),
            (
                |f| f.names.hostname_is_known = false,
                "warning own-name: n1 isn't in /etc/hosts",
                "127.0.1.1 n1",
            ),
        ],
    );
    let mut facts = good();
    facts.plan.config = None;
    facts.network.virtual_address = None;
    for (hostname, part) in [("My_Host", "can't be a Node's"), ("localhost", "many machines")] {
        facts.names.hostname = hostname.into();
        let said = said(&facts);
        assert!(
            said.len() == 1 && said[0].starts_with("warning hostname: ") && said[0].contains(part),
            "{said:?}"
        );
    }
    // A host may have a name of its own.
    let mut facts = good();
    facts.names.hostname = "My_Host".into();
    assert_eq!(said(&facts), [""; 0]);
}
