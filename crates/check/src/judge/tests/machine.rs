//! What is wrong with one machine.

use super::*;

fn set(facts: &mut Facts, name: &str, value: &str) {
    facts.settings.0.insert(name.into(), value.into());
}

fn disk(facts: &mut Facts) -> &mut Disk {
    facts.disk.as_mut().unwrap()
}

fn syncs(facts: &mut Facts, p50: u64, p99: u64, longest: u64) {
    disk(facts).syncs = Some(Ok(Syncs { count: 200, p50: ms(p50), p99: ms(p99), longest: ms(longest) }));
}

fn links(facts: &mut Facts) -> &mut Vec<Link> {
    facts.network.links.as_mut().unwrap()
}

fn link(name: &str, address: &str) -> Link {
    Link { name: name.into(), mtu: 1500, up: true, addresses: vec![address.parse().unwrap()] }
}

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
fn what_the_kernel_lacks_is_found() {
    each_is_said(
        good,
        &[
            (
                |f| f.kernel.release = "5.10.0-28".into(),
                "fault version: Linux 5.10.0-28",
                "; take Linux 5.14",
            ),
            (|f| f.kernel.release = "5.13.1".into(), "warning version: Linux 5.13.1 can't kill", "5.14"),
            (|f| f.kernel.release = "unknown".into(), "unseen version", "5.14"),
            (|f| f.kernel.overlayfs = Presence::Missing, "fault overlayfs: ", "modprobe overlay"),
            (|f| f.kernel.seccomp = false, "fault seccomp: ", "CONFIG_SECCOMP_FILTER"),
            (|f| f.kernel.pidfd = false, "warning pidfd: ", "pidfd_open"),
            (
                |f| f.kernel.user_namespaces = Some(0),
                "warning user-namespaces: ",
                "sysctl -w user.max_user_namespaces=",
            ),
            (|f| f.kernel.user_namespaces = None, "warning user-namespaces: ", "CONFIG_USER_NS"),
            (|f| f.kernel.nftables = Presence::Missing, "warning nftables: ", "modprobe nf_tables"),
            (|f| f.kernel.nftables = Presence::Unseen("no".into()), "unseen nftables: nftables: no", "root"),
            (
                |f| f.kernel.cgroups = Cgroups { legacy: ["memory".to_owned()].into(), ..Cgroups::default() },
                "warning cgroups: control groups are of version 1, without a freezer: ",
                "systemd.unified_cgroup_hierarchy=1",
            ),
            (
                |f| {
                    f.kernel.cgroups =
                        Cgroups { legacy: ["cpu".to_owned()].into(), unified: true, ..Cgroups::default() }
                },
                "warning cgroups: control groups are there without memory, as the kernel gives none",
                "cgroup_enable",
            ),
            (
                |f| f.kernel.cgroups.controllers = ["cpu".to_owned()].into(),
                "warning cgroups: control groups are there without memory, as the kernel gives none",
                "cgroup_enable",
            ),
        ],
    );
}

#[test]
fn settings_of_the_kernel_that_hinder_are_found() {
    each_is_said(
        good,
        &[
            (
                |f| {
                    set(f, "net.ipv4.conf.all.rp_filter", "0");
                    set(f, "net.ipv4.conf.eth0.rp_filter", "1");
                    links(f).push(link("eth1", "192.168.7.1/24"));
                },
                "warning rp-filter: net.ipv4.conf.eth0.rp_filter is 1, and 2 links",
                "rp_filter=2",
            ),
            (
                |f| set(f, "net.netfilter.nf_conntrack_count", "262144"),
                "fault conntrack: all 262144",
                "nf_conntrack_max=524288",
            ),
            (
                |f| set(f, "net.netfilter.nf_conntrack_count", "230000"),
                "warning conntrack: 230000 of 262144",
                "nf_conntrack_max=",
            ),
            (
                |f| set(f, "net.netfilter.nf_conntrack_max", "65536"),
                "warning conntrack: net.netfilter.nf_conntrack_max is 65536",
                "131072",
            ),
            (
                |f| set(f, "fs.inotify.max_user_instances", "128"),
                "warning inotify-instances: ",
                "max_user_instances=512",
            ),
            (
                |f| set(f, "fs.inotify.max_user_watches", "8192"),
                "warning inotify-watches: ",
                "max_user_watches=65536",
            ),
            (|f| set(f, "kernel.pid_max", "32768"), "warning pid-max: ", "kernel.pid_max=65536"),
            (
                |f| f.resources.threads = Some(110_000),
                "fault threads-max: 110000 of 126000",
                "kernel.threads-max=504000",
            ),
            (|f| set(f, "vm.overcommit_memory", "2"), "warning overcommit: ", "vm.overcommit_memory=1"),
            (|f| set(f, "kernel.panic", "0"), "warning kernel-panic: ", "kernel.panic=10"),
            (|f| set(f, "vm.panic_on_oom", "1"), "warning panic-on-oom: ", "vm.panic_on_oom=0"),
        ],
    );
    // A host sets it itself, unless it can't; pods are on no bridge.
    let mut facts = good();
    set(&mut facts, "net.ipv4.ip_forward", "0");
    set(&mut facts, "net.bridge.bridge-nf-call-iptables", "0");
    assert_eq!(said(&facts), [""; 0]);
    let mut facts = running();
    set(&mut facts, "net.ipv4.ip_forward", "0");
    assert!(
        said(&facts)[0]
            .ends_with("; sysctl -w net.ipv4.ip_forward=1, and write it to /etc/sysctl.d/90-holdfast.conf")
    );
    // Strict is right where there is one way alone, and a module that isn't loaded has no settings.
    let mut facts = good();
    set(&mut facts, "net.ipv4.conf.all.rp_filter", "1");
    facts.settings.0.retain(|name, _| !name.starts_with("net.bridge") && !name.starts_with("net.netfilter"));
    assert_eq!(said(&facts), [""; 0]);
}

#[test]
fn too_little_of_the_machine_is_found() {
    each_is_said(
        good,
        &[
            (|f| f.resources.processors = 1, "warning processors: ", "two or more"),
            (|f| f.resources.stolen = Some([0.0, 0.2]), "warning steal: ", "20.0 % just now"),
            (
                |f| f.resources.memory.as_mut().unwrap().available = 100 << 20,
                "warning memory: 100 MiB of 8.0 GiB",
                "more",
            ),
            (|f| f.resources.memory.as_mut().unwrap().available = 30 << 20, "fault memory: ", "killed"),
            (
                |f| f.resources.memory.as_mut().unwrap().swap = 2 << 30,
                "warning swap: there are 2.0 GiB",
                "swapoff -a",
            ),
            (
                |f| f.resources.limits.as_mut().unwrap().files = Some(1024),
                "fault open-files: this shell may open 1024",
                "LimitNOFILE",
            ),
            (
                |f| f.resources.limits.as_mut().unwrap().files = Some(16384),
                "warning open-files: ",
                "LimitNOFILE",
            ),
            (
                |f| f.resources.limits.as_mut().unwrap().processes = Some(100),
                "warning processes: ",
                "LimitNPROC",
            ),
        ],
    );
}

#[test]
fn the_disk_says_which_elections_it_allows() {
    each_is_said(
        good,
        &[
            (|f| disk(f).read_only = true, "fault file-system: /var/lib is read-only", "remount"),
            (|f| disk(f).kind = "tmpfs".into(), "warning file-system: ", "in memory"),
            (|f| disk(f).kind = "nfs4".into(), "warning file-system: ", "other machines"),
            (|f| disk(f).kind = "overlay".into(), "warning file-system: ", "overlayfs"),
            (
                |f| disk(f).free = 5 << 30,
                "warning room: 5.0 GiB of 100 GiB are free, less than 10 %",
                "image rm",
            ),
            (|f| disk(f).free = 100 << 20, "fault room: 100 MiB", "takes no writes"),
            (|f| disk(f).inodes_free = 40, "warning inodes: 40 of 1000", "remove"),
            // Ten times a message of 1 ms and a sync: 15 ms and more are too slow for elections after 150 ms.
            (
                |f| syncs(f, 15, 40, 50),
                "fault sync: 200 syncs of 4 KiB took 15 ms (p50), 40 ms (p99), 50 ms (the longest); ten times that and a message of 1.0 ms is 160 ms and timeouts.store.electionMin is 150 ms",
                "electionMin: 410ms, electionMax: 820ms, diskStall: 820ms",
            ),
            (
                |f| syncs(f, 2, 20, 50),
                "warning sync: ",
                "electionMin: 210ms, electionMax: 420ms, diskStall: 420ms",
            ),
            (|f| syncs(f, 1, 5, 400), "warning sync: ", "diskStall, 300 ms"),
            (|f| f.disk = Err("no".into()), "unseen disk: no", "root"),
        ],
    );
    // Longer elections bear it, and on an etcd it doesn't matter.
    let mut facts = good();
    syncs(&mut facts, 15, 40, 50);
    let config = facts.plan.config.as_mut().unwrap();
    (config.timeouts.store.election_min, config.timeouts.store.election_max) = (ms(410), ms(820));
    assert_eq!(said(&facts), [""; 0]);
    let mut facts = good();
    disk(&mut facts).syncs = None;
    assert_eq!(said(&facts), [""; 0]);
}

#[test]
fn a_clock_that_nobody_keeps_right_is_found() {
    each_is_said(
        good,
        &[
            (
                |f| f.clock.synchronised.as_mut().unwrap().yes = false,
                "warning synchronised: nobody",
                "chrony",
            ),
            (
                |f| f.clock.synchronised.as_mut().unwrap().most_wrong = ms(3000),
                "warning synchronised: ",
                "3000 ms",
            ),
            (
                |f| f.clock.now = SystemTime::UNIX_EPOCH + Duration::from_secs(60),
                "fault time: ",
                "certificate",
            ),
            (|f| f.clock.boottime = false, "fault boottime: ", "leases"),
        ],
    );
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

#[test]
fn a_system_that_loses_logs_or_refuses_is_found() {
    fn journald(facts: &mut Facts) -> &mut Journald {
        facts.system.journald.as_mut().unwrap()
    }
    each_is_said(
        good,
        &[
            (
                |f| journald(f).burst = Some(100),
                "warning journald: journald drops what a service says beyond 100 lines in 30s",
                "LogRateLimitIntervalSec=0",
            ),
            (|f| journald(f).storage = Some("none".into()), "warning journald: ", "persistent"),
            (|f| f.system.selinux_enforces = Some(true), "warning selinux: ", "setenforce 0"),
        ],
    );
    let mut facts = good();
    *journald(&mut facts) = Journald { interval: Some("0".into()), burst: Some(100), storage: None };
    assert_eq!(said(&facts), [""; 0], "without an interval nothing is dropped");
}

#[test]
fn what_root_alone_sees_is_unseen_by_others_in_each_group() {
    let mut facts = good();
    facts.network.filter = Err("only root may see them".into());
    let of = |facts: &Facts| said(facts).join("\n");
    let as_user = of(&facts);
    for part in [
        "unseen firewall: filters can't be read: only root",
        "unseen leftovers: ",
        "chains of filters; check as root",
    ] {
        assert!(as_user.contains(part), "{part}: {as_user}");
    }
    assert!(judge(&facts).iter().all(|finding| finding.what != "no other Kubernetes is or was here"));
    facts.disk = Err("/var/lib can't be looked at".into());
    facts.kernel.nftables = Presence::Unseen("busy".into());
    facts.network.links = Err("busy".into());
    facts.leftovers.unseen = vec!["/etc/kubernetes (permission denied)".into()];
    facts.cluster = Some(Err("n1.key: gone".into()));
    assert_eq!(of(&facts).matches("check as root").count(), 5, "{}", of(&facts));
    facts.is_root = true;
    let as_root = of(&facts);
    assert!(!as_root.contains("as root"), "root looks already: {as_root}");
    assert!(
        as_root.contains("not /etc/kubernetes (permission denied), links and the chains of filters; "),
        "{as_root}"
    );
}

#[test]
fn without_a_configuration_it_is_said_what_stands_in_for_one() {
    let mut facts = good();
    facts.plan.config = None;
    let note = judge(&facts).remove(0);
    for part in ["`holdfast config --defaults`", "/var/lib/holdfast/data", "10.244.0.0/16", "10.96.0.0/16"] {
        assert!(note.what.contains(part), "{part}: {note:?}");
    }
}

#[test]
fn what_another_kubernetes_left_is_found() {
    each_is_said(
        good,
        &[
            (
                |f| {
                    f.leftovers.processes = vec![Holder { pid: 9, name: "k3s-server".into(), is_ours: false }]
                },
                "fault processes: k3s-server runs here (process 9)",
                "k3s-uninstall.sh",
            ),
            (
                |f| f.leftovers.folders = vec!["/etc/kubernetes".into()],
                "warning folders: /etc/kubernetes",
                "kubeadm reset",
            ),
            (
                |f| f.leftovers.unseen = vec!["/var/lib/kubelet (permission denied)".into()],
                "unseen leftovers: not all that another Kubernetes runs or has left can be seen: not /var/lib/kubelet",
                "check as root",
            ),
            (
                |f| f.leftovers.cni = vec!["/etc/cni/net.d/10-flannel.conflist".into()],
                "warning cni: /etc/cni/net.d/10-flannel",
                "move it away",
            ),
            (
                |f| links(f).push(Link { addresses: Vec::new(), ..link("flannel.1", "10.9.0.1/24") }),
                "warning links: the link flannel.1",
                "ip link delete flannel.1",
            ),
            (
                |f| links(f).push(Link { addresses: Vec::new(), ..link("kube-ipvs0", "10.9.0.1/24") }),
                "warning links: ",
                "this machine's own",
            ),
            (
                |f| {
                    let chain = |table: &str, name: &str| Chain {
                        table: table.into(),
                        name: name.into(),
                        drops_input: false,
                    };
                    let chains = vec![
                        chain("nat", "KUBE-SERVICES"),
                        chain("kube-proxy", "services"),
                        chain("nat", "OUTPUT"),
                    ];
                    f.network.filter = Ok(Filter { chains });
                },
                "warning chains: 2 chains",
                "--cleanup",
            ),
        ],
    );
}
