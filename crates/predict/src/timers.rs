//! The times of a cluster of upstream's programs, each with the setting that it comes from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::read::{
    Haproxy, Host, Instance, NotUnderstood, Program, Section, Source, is_api_port, milliseconds,
};

/// A time that somebody can set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timer {
    pub(crate) ms: u64,
    /// What to set.
    pub(crate) setting: &'static str,
    /// Where it is set; nowhere where it is as the program has it.
    pub(crate) file: Option<String>,
}

impl Timer {
    fn new(setting: &'static str, ms: u64) -> Self {
        Timer { ms, setting, file: None }
    }

    pub(crate) fn told(&self) -> String {
        let from = self.file.as_deref().unwrap_or("by default");
        format!("{} {} ({from})", self.setting, crate::span::time(self.ms))
    }
}

/// How an API server that died is found by the proxies in front of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Finding {
    /// There is no proxy.
    NoProxy,
    /// HAProxy's checks.
    Checks {
        /// From one check to the next.
        inter: Timer,
        /// The same after one that failed.
        after_failure_ms: u64,
        /// How many fail.
        fall: u64,
        /// How long each waits at most.
        limit_ms: u64,
    },
    /// nginx notices callers' connections that fail.
    Passive {
        /// How long each waits.
        connect: Timer,
    },
    /// Nobody looks.
    Blind,
}

/// All times that a power cut meets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timers {
    pub(crate) members: usize,
    pub(crate) heartbeat: Timer,
    pub(crate) election: Timer,
    /// Between keepalived's announcements, and the priority of the host that takes over.
    pub(crate) address: Option<(Timer, u64)>,
    pub(crate) proxy: Finding,
    pub(crate) lease: Timer,
    pub(crate) renew_deadline: Timer,
    pub(crate) retry: Timer,
    pub(crate) grace: Timer,
    pub(crate) monitor: Timer,
    pub(crate) kubelet: Timer,
    pub(crate) toleration: Timer,
    pub(crate) idle: Timer,
    pub(crate) ping: Timer,
    pub(crate) sync: Timer,
    /// Each host's programs ask the API server on the same host.
    pub(crate) asks_locally: bool,
}

/// How much of a value that can't be read is shown: what is longer is no time at all.
const LONGEST_VALUE: usize = 20;

/// The slowest of what hosts say, or the program's own; what can't be read as a time is named.
fn slowest(
    (hosts, unread): (&[Host], &RefCell<Vec<NotUnderstood>>),
    program: Program,
    name: &str,
    setting: &'static str,
    own_ms: u64,
    unit: f64,
) -> Timer {
    let told = hosts.iter().filter_map(|host| host.setting(program, name));
    let read = told.filter_map(|told| {
        let ms = milliseconds(&told.value, unit);
        if ms.is_none() {
            let value = values::cut(&told.value, LONGEST_VALUE);
            let what =
                format!("{name} is {value:?}, which is no time that is known here: taken as by default");
            unread.borrow_mut().push(NotUnderstood::of(&told.file, &what));
        }
        Some((ms?, &told.file))
    });
    match read.max_by_key(|(ms, _)| *ms) {
        Some((ms, file)) => Timer { ms, setting, file: Some(file.clone()) },
        None => Timer::new(setting, own_ms),
    }
}

impl Timers {
    /// With what is no time where one should stand.
    pub(crate) fn of(hosts: &[Host], members: usize) -> (Timers, Vec<NotUnderstood>) {
        let unread = RefCell::default();
        let from = (hosts, &unread);
        let is_k3s = hosts.iter().any(|host| host.runs(Program::K3s));
        // k3s runs its etcd with these (pkg/etcd), etcd itself with those.
        let (heartbeat, election) = if is_k3s { (500, 5000) } else { (100, 1000) };
        let etcd = |name, setting, own| slowest(from, Program::Etcd, name, setting, own, 1.0);
        let manager =
            |name, setting, own| slowest(from, Program::ControllerManager, name, setting, own, 1000.0);
        let proxy = |name, setting, own| slowest(from, Program::KubeProxy, name, setting, own, 1000.0);
        let mut kubelet = slowest(
            from,
            Program::Kubelet,
            "node-lease-duration-seconds",
            "kubelet nodeLeaseDurationSeconds",
            40_000,
            1000.0,
        );
        // The kubelet renews its Lease after a quarter of what it is valid for.
        kubelet.ms /= 4;
        kubelet.setting = "kubelet nodeLeaseDurationSeconds / 4";
        let toleration = "default-unreachable-toleration-seconds";
        let mode = hosts.iter().find_map(|host| host.value(Program::KubeProxy, "proxy-mode"));
        let sync = match mode {
            Some("nftables") => "nftables-min-sync-period",
            _ => "iptables-min-sync-period",
        };
        let timers = Timers {
            members,
            heartbeat: etcd("heartbeat-interval", "etcd heartbeat-interval", heartbeat),
            election: etcd("election-timeout", "etcd election-timeout", election),
            address: address(hosts),
            proxy: finding(hosts),
            lease: manager(
                "leader-elect-lease-duration",
                "kube-controller-manager --leader-elect-lease-duration",
                15_000,
            ),
            renew_deadline: manager(
                "leader-elect-renew-deadline",
                "kube-controller-manager --leader-elect-renew-deadline",
                10_000,
            ),
            retry: manager(
                "leader-elect-retry-period",
                "kube-controller-manager --leader-elect-retry-period",
                2000,
            ),
            // 50 s since 1.32.
            grace: manager(
                "node-monitor-grace-period",
                "kube-controller-manager --node-monitor-grace-period",
                50_000,
            ),
            monitor: manager("node-monitor-period", "kube-controller-manager --node-monitor-period", 5000),
            kubelet,
            toleration: slowest(
                from,
                Program::ApiServer,
                toleration,
                "kube-apiserver --default-unreachable-toleration-seconds",
                300_000,
                1000.0,
            ),
            idle: proxy(
                "HTTP2_READ_IDLE_TIMEOUT_SECONDS",
                "kube-proxy's HTTP2_READ_IDLE_TIMEOUT_SECONDS",
                30_000,
            ),
            ping: proxy("HTTP2_PING_TIMEOUT_SECONDS", "kube-proxy's HTTP2_PING_TIMEOUT_SECONDS", 15_000),
            sync: proxy(sync, "kube-proxy --iptables-min-sync-period or its like", 1000),
            asks_locally: is_k3s,
        };
        // What is about all hosts is asked of each.
        let mut unread = unread.into_inner();
        unread.sort();
        unread.dedup();
        (timers, unread)
    }
}

/// The instances of keepalived that hold the API's address, each with its host and file: those that a proxy listens on or that
/// clients are told, and all where that isn't known.
pub(crate) fn instances(hosts: &[Host]) -> Vec<(&Host, &Source, &Instance)> {
    let all = hosts.iter().filter_map(|host| Some((host, host.keepalived.as_ref()?)));
    let all = all.flat_map(|(host, (file, read))| read.instances.iter().map(move |one| (host, file, one)));
    let all: Vec<_> = all.collect();
    let wanted = wanted_addresses(hosts);
    let of_api: Vec<_> = all
        .iter()
        .filter(|(_, _, one)| one.addresses.iter().any(|address| wanted.contains(address)))
        .copied()
        .collect();
    if of_api.is_empty() { all } else { of_api }
}

/// The addresses at which clients ask the API.
fn wanted_addresses(hosts: &[Host]) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    for host in hosts {
        for (front, _) in host.haproxy.iter().flat_map(|(_, read)| pairs(read)) {
            wanted.extend(front.listens.iter().map(|listen| listen.address.clone()));
        }
        wanted.extend(
            host.nginx.iter().flat_map(|(_, read)| read.of_api()).flat_map(|proxy| proxy.listens.clone()),
        );
        let told = host.value(Program::ApiServer, "control-plane-endpoint");
        wanted.extend(told.map(|told| crate::read::endpoint(told).0));
        let told = host.value(Program::K3s, "tls-san").unwrap_or_default();
        wanted.extend(told.split(',').map(str::to_owned));
    }
    wanted
}

fn address(hosts: &[Host]) -> Option<(Timer, u64)> {
    let all = instances(hosts);
    let slowest = all.iter().max_by_key(|(_, _, one)| one.advert_ms)?;
    let (_, file, one) = slowest;
    let timer = Timer {
        ms: one.advert_ms,
        setting: "keepalived advert_int",
        file: Some(file.file(one.line).to_owned()),
    };
    // The host with the highest priority holds it; the next one takes over. Of one file only, the others are taken to be like it.
    let mut priorities: Vec<u64> = all.iter().map(|(_, _, one)| one.priority).collect();
    priorities.sort_unstable();
    let next = if priorities.len() > 1 { priorities.len() - 2 } else { 0 };
    Some((timer, priorities[next]))
}

/// The API's frontends of HAProxy with their backends: those whose servers are API servers by their port, or the only ones.
pub(crate) fn pairs(read: &Haproxy) -> Vec<(&Section, &Section)> {
    let by_name: BTreeMap<&str, &Section> =
        read.sections.iter().filter(|of| !of.servers.is_empty()).map(|of| (of.name.as_str(), of)).collect();
    let mut all = Vec::new();
    for section in &read.sections {
        if !section.servers.is_empty() && !section.listens.is_empty() {
            all.push((section, section));
        }
        let used = section.uses.iter().filter_map(|name| by_name.get(name.as_str()));
        all.extend(used.map(|backend| (section, *backend)));
    }
    // A backend that nothing here names is named by another file.
    if all.is_empty() {
        all.extend(read.sections.iter().filter(|of| !of.servers.is_empty()).map(|of| (of, of)));
    }
    let is_api = |section: &Section| section.servers.iter().any(|server| is_api_port(server.port));
    match all.iter().any(|(_, backend)| is_api(backend)) {
        true => all.into_iter().filter(|(_, backend)| is_api(backend)).collect(),
        false => all,
    }
}

fn finding(hosts: &[Host]) -> Finding {
    let mut slowest = Finding::NoProxy;
    let mut longest = 0;
    for (file, read) in hosts.iter().filter_map(|host| host.haproxy.as_ref()) {
        for (_, backend) in pairs(read) {
            for server in backend.in_use() {
                if !server.checked {
                    return Finding::Blind;
                }
                // HAProxy's own: every 2 s, three times.
                let inter_ms = server.inter_ms.unwrap_or(2000).max(1);
                let fall = server.fall.unwrap_or(3).max(1);
                // Without `timeout check` a check may take as long as it is to the next one; with it, connecting also ends with
                // `timeout connect`.
                let limit_ms = match (backend.check_ms, backend.connect_ms) {
                    (Some(_), Some(connect)) => inter_ms.min(connect),
                    _ => inter_ms,
                };
                let after_failure_ms = server.fastinter_ms.unwrap_or(inter_ms);
                let all =
                    inter_ms.saturating_add(fall.saturating_mul(limit_ms.saturating_add(after_failure_ms)));
                if all > longest {
                    longest = all;
                    let inter = Timer {
                        ms: inter_ms,
                        setting: "HAProxy inter",
                        file: Some(file.file(server.line).to_owned()),
                    };
                    slowest = Finding::Checks { inter, after_failure_ms, fall, limit_ms };
                }
            }
        }
    }
    for (file, read) in hosts.iter().filter_map(|host| host.nginx.as_ref()) {
        for proxy in read.of_api() {
            if !proxy.tries_next || proxy.servers.iter().any(|server| server.max_fails == 0) {
                return Finding::Blind;
            }
            if proxy.connect_ms > longest {
                longest = proxy.connect_ms;
                let connect = Timer {
                    ms: proxy.connect_ms,
                    setting: "nginx proxy_connect_timeout",
                    file: Some(file.file(proxy.line).to_owned()),
                };
                slowest = Finding::Passive { connect };
            }
        }
    }
    slowest
}
