//! What is wrong with one machine.

use super::*;

fn disk(facts: &mut Facts) -> &mut Disk {
    facts.disk.as_mut().unwrap()
}

fn syncs(facts: &mut Facts, p50: u64, p99: u64, longest: u64) {
    disk(facts).syncs = Some(Ok(Syncs { count: 200, p50: ms(p50), p99: ms(p99), longest: ms(longest) }));
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
