//! What was found out about a machine, before anybody judges it. `None` is what couldn't be read, unless it says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dns::ResolvConf;
use ipnet::IpNet;
use objects::Fencing;

use crate::plan::Plan;

#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub plan: Plan,
    /// Whether root has looked: nobody sees more.
    pub is_root: bool,
    pub kernel: Kernel,
    pub settings: Settings,
    pub resources: Resources,
    pub disk: Result<Disk, String>,
    pub clock: Clock,
    /// Who listens on the ports of the plan.
    pub listening: Option<Vec<Listening>>,
    pub network: Network,
    pub names: Names,
    pub system: System,
    pub leftovers: Leftovers,
    /// The files of the host's keys and certificates; none before an installation.
    pub identity: Option<Identity>,
    /// What the other hosts say, or why nobody was asked; none before an installation.
    pub cluster: Option<Result<Cluster, String>>,
}

/// Whether a part of the kernel is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// As a module that the kernel loads by itself.
    Loadable,
    Missing,
    /// Why that can't be seen.
    Unseen(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    pub overlayfs: Presence,
    pub seccomp: bool,
    pub nftables: Presence,
    pub pidfd: bool,
    /// How many user namespaces there may be; none where the kernel knows none.
    pub user_namespaces: Option<u64>,
    pub cgroups: Cgroups,
}

/// Which control groups there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroups {
    /// Whether version 2 is mounted somewhere.
    pub unified: bool,
    /// The controllers that its root has.
    pub controllers: BTreeSet<String>,
    /// The controllers that hierarchies of version 1 are mounted with.
    pub legacy: BTreeSet<String>,
}

/// What stands in /proc/sys, by sysctl(8)'s names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(pub BTreeMap<String, String>);

impl Settings {
    /// Those that are read. `net.bridge.*` is there while br_netfilter is loaded, `net.netfilter.*` while nf_conntrack is.
    pub const READ: [&str; 20] = [
        "fs.inotify.max_user_instances",
        "fs.inotify.max_user_watches",
        "kernel.apparmor_restrict_unprivileged_userns",
        "kernel.panic",
        "kernel.pid_max",
        "kernel.threads-max",
        "kernel.unprivileged_userns_clone",
        "net.bridge.bridge-nf-call-iptables",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.default.rp_filter",
        "net.ipv4.ip_forward",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.netfilter.nf_conntrack_count",
        "net.netfilter.nf_conntrack_max",
        "vm.max_map_count",
        "vm.overcommit_memory",
        "vm.panic_on_oom",
        "user.max_user_namespaces",
    ];

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Resources {
    pub processors: usize,
    /// Bytes.
    pub memory: Option<Memory>,
    /// How many threads there are on this machine.
    pub threads: Option<u64>,
    pub limits: Option<Limits>,
    /// What share of the processors' time the hypervisor gave to others: since the machine started, and just now.
    pub stolen: Option<[f64; 2]>,
}

/// /proc/meminfo, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub total: u64,
    pub available: u64,
    pub swap: u64,
}

/// The hard limits of a process; none for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The host's process; none for that which checks.
    pub of: Option<u32>,
    pub files: Option<u64>,
    pub processes: Option<u64>,
    pub locked: Option<u64>,
}

/// The file system that the data folder lies in, or will.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// The folder that was looked at: the data folder, or the nearest above it that is there.
    pub at: PathBuf,
    /// Its kind, as mount(8) calls it.
    pub kind: String,
    pub read_only: bool,
    /// Bytes, and those that there is room for.
    pub size: u64,
    pub free: u64,
    /// Inodes likewise; both 0 where the file system counts none.
    pub inodes: u64,
    pub inodes_free: u64,
    /// How long its syncs take; none where the store isn't there.
    pub syncs: Option<Result<Syncs, String>>,
}

/// How long it took to write 4 KiB and sync them, many times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syncs {
    pub count: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Clock {
    pub now: SystemTime,
    pub synchronised: Option<Synchronised>,
    /// Whether there is a clock that goes on while the machine sleeps: leases are counted by it.
    pub boottime: bool,
}

/// What the kernel knows of its clock (adjtimex(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synchronised {
    pub yes: bool,
    /// By how much it may be wrong.
    pub most_wrong: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    pub protocol: Protocol,
    pub at: SocketAddr,
    /// None where that can't be seen, such as without root.
    pub holder: Option<Holder>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub pid: u32,
    pub name: String,
    /// Whether it is this program.
    pub is_ours: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// Links with their addresses.
    pub links: Result<Vec<Link>, String>,
    /// Routes of all tables but the local one: to networks of others.
    pub routes: Result<Vec<Route>, String>,
    pub filter: Result<Filter, String>,
    /// The tables of iptables' older form that are in use.
    pub old_tables: Vec<String>,
    /// Who answers at the virtual address; none where nobody was looked for.
    pub virtual_address: Option<Neighbour>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub name: String,
    pub mtu: u32,
    pub up: bool,
    pub addresses: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: IpNet,
    pub link: String,
    pub by: Option<IpAddr>,
}

/// What nftables has, iptables' newer form included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub chains: Vec<Chain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub table: String,
    pub name: String,
    /// Whether packets to this machine go through it and are dropped unless a rule lets them in.
    pub drops_input: bool,
}

/// Whether somebody has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Neighbour {
    Nobody,
    /// Somebody of this hardware address, if there is one to be seen.
    Somebody(Option<String>),
    /// There was an answer, and the address is in no link's network: it may be a router's, in the name of others.
    Beyond,
}

#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub hostname: String,
    /// Whether /etc/hosts has it, or the system makes it an address of its own (nss-myhostname).
    pub hostname_is_known: bool,
    /// Whom the machine asks, and the file that says so.
    pub resolver: Option<(PathBuf, ResolvConf)>,
}

#[derive(Debug, Clone)]
pub(crate) struct System {
    /// Whether SELinux refuses what its policy doesn't allow; none where there is none.
    pub selinux_enforces: Option<bool>,
    pub apparmor: bool,
    pub watchdog: bool,
    /// Where there is a journald.
    pub journald: Option<Journald>,
}

/// journald.conf(5), where it says something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Journald {
    pub interval: Option<String>,
    pub burst: Option<u64>,
    pub storage: Option<String>,
}

/// What another Kubernetes runs or has left.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftovers {
    /// In this machine's network, by name.
    pub processes: Vec<Holder>,
    /// Folders of its own that aren't empty.
    pub folders: Vec<PathBuf>,
    /// Configurations of pods' networks (CNI).
    pub cni: Vec<PathBuf>,
    /// Whether containerd holds pods.
    pub containerd: bool,
    /// What of all that couldn't be looked at, with the reason.
    pub unseen: Vec<String>,
}

/// What lies in `pkiDir`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub certificates: Vec<Certificate>,
    /// Keys that others may read, too.
    pub open_keys: Vec<PathBuf>,
    /// What can't be read or isn't usable.
    pub broken: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// `NAME.crt`.
    pub file: String,
    pub until: SystemTime,
    /// Whether the cluster's authority signed it, as of its end; none for an authority's own.
    pub is_signed: Option<bool>,
    /// Whether it is valid already; none as before.
    pub is_valid: Option<bool>,
}

/// What the hosts of the configuration say.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub peers: BTreeMap<String, Peer>,
    /// What the API says at the virtual address.
    pub virtual_api: Result<u16, String>,
    pub nodes: Result<Vec<Node>, String>,
    /// Whether these are all Nodes: a host may read its own alone.
    pub sees_all_nodes: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub way: Result<Way, String>,
    /// What its API says about itself.
    pub health: Result<Health, String>,
    pub lease: Result<Lease, String>,
}

/// The way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// There and back.
    pub time: Duration,
    /// The most bytes of a segment of TCP on it.
    pub segment: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub code: u16,
    /// The body of `/readyz?verbose`.
    pub says: String,
    pub skew: Option<Skew>,
}

/// By how many milliseconds another clock is ahead of this one's, at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skew {
    pub least: i64,
    pub most: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub name: String,
    pub is_ready: bool,
    /// Why it isn't.
    pub why: String,
    pub machine_id: String,
    /// Whether somebody keeps new pods away from it.
    pub is_cordoned: bool,
    /// What it runs short of: conditions that should not be true, and are.
    pub troubles: Vec<String>,
    pub fencing: Fencing,
}

/// What a host knows of leases.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lease {
    /// For how long it holds its own.
    pub seconds: f64,
    /// Who counts as fenced.
    pub fenced: Vec<String>,
}
