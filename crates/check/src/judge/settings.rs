//! How the kernel is set.

use super::set;
use crate::facts::Facts;
use crate::finding::{Group, Section};

/// kube-proxy's least table of connections (`conntrack.min`).
const LEAST_CONNECTIONS: u64 = 131_072;
/// From which share of a table on it is nearly full, in percent.
const NEARLY_FULL: u64 = 80;
/// What kind's known issues ask for ("too many open files"): each `kubectl logs -f`, and most controllers in pods, take one, and all
/// that root runs share them.
const LEAST_INSTANCES: u64 = 512;
/// A file each that somebody follows.
const LEAST_WATCHES: u64 = 65_536;
/// More than the kernel's old default, 32,768, which 110 pods of 300 threads pass.
const LEAST_THREADS: u64 = 32_769;
/// What search engines and databases ask for at their start.
const MAPS: u64 = 262_144;
/// As the kubelet sets it: seconds.
const PANIC: u64 = 10;

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Settings);
    forwarding(facts, &mut section);
    paths(facts, &mut section);
    connections(facts, &mut section);
    watches(facts, &mut section);
    processes(facts, &mut section);
    memory(facts, &mut section);
    panics(facts, &mut section);
    section
}

fn forwarding(facts: &Facts, section: &mut Section) {
    const NAME: &str = "net.ipv4.ip_forward";
    let has_link = facts.plan.installed().is_some() && !facts.plan.is_on_loopback();
    match facts.settings.number(NAME) {
        Some(0) if has_link => section.warning(
            "ip-forward",
            format!("{NAME} is 0: pods in networks of their own reach nobody, and the host couldn't set it or somebody set it back"),
            set(NAME, 1),
        ),
        Some(0) => section.note("ip-forward", format!("{NAME} is 0: a host that gives pods networks of their own sets it to 1")),
        Some(_) => section.ok("ip-forward", format!("{NAME} is 1")),
        None => section.unseen("ip-forward", format!("{NAME} can't be read"), "check in the host's own network"),
    }
    match facts.settings.number("net.bridge.bridge-nf-call-iptables") {
        None => section.ok("bridge-netfilter", "br_netfilter isn't loaded, and Holdfast's pods are on no bridge"),
        Some(0) => section.note(
            "bridge-netfilter",
            "net.bridge.bridge-nf-call-iptables is 0: right for Holdfast's pods, which are on no bridge; other networks of pods (CNI) want 1",
        ),
        Some(_) => section.ok("bridge-netfilter", "what stays on a bridge goes through the filters, too"),
    }
}

/// A strict filter drops what comes by another way than its answer would leave by.
fn paths(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "rp-filter";
    let of = |place: &str| {
        let name = format!("net.ipv4.conf.{place}.rp_filter");
        facts.settings.number(&name).map(|value| (name, value))
    };
    // The kernel takes the larger of the two.
    let link = facts.plan.link().unwrap_or("default");
    let Some((name, value)) = of("all").into_iter().chain(of(link)).max_by_key(|(_, value)| *value) else {
        section.unseen(CHECK, "net.ipv4.conf.all.rp_filter can't be read", "check in the host's own network");
        return;
    };
    let links = facts.network.links.as_ref().map_or(0, |links| {
        let has_address = |link: &&crate::facts::Link| {
            link.addresses.iter().any(|address| address.addr().is_ipv4() && !address.addr().is_loopback())
        };
        links.iter().filter(has_address).count()
    });
    match (value, links) {
        (1, 2..) => section.warning(
            CHECK,
            format!("{name} is 1, and {links} links have addresses: packets are dropped that come by another link than their answers take"),
            set(&name, 2),
        ),
        (1, _) => section.ok(CHECK, format!("{name} is 1 (strict), which does with one link")),
        _ => section.ok(CHECK, format!("{name} is {value}")),
    }
}

fn connections(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "conntrack";
    const NAME: &str = "net.netfilter.nf_conntrack_max";
    let Some(most) = facts.settings.number(NAME) else {
        section.note(CHECK, "connections aren't followed: nf_conntrack isn't loaded");
        return;
    };
    let used = facts.settings.number("net.netfilter.nf_conntrack_count").unwrap_or(0);
    let remedy = set(NAME, LEAST_CONNECTIONS.max(most.saturating_mul(2)));
    if most > 0 && used >= most {
        section.fault(
            CHECK,
            format!("all {most} places for connections are taken: new ones are dropped"),
            remedy,
        );
    } else if most > 0 && used.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL) {
        section.warning(
            CHECK,
            format!(
                "{used} of {most} places for connections are taken; where none is left, new ones are dropped"
            ),
            remedy,
        );
    } else if most > 0 && most < LEAST_CONNECTIONS {
        section.warning(
            CHECK,
            format!("{NAME} is {most}, less than the {LEAST_CONNECTIONS} that Kubernetes' proxy asks for"),
            set(NAME, LEAST_CONNECTIONS),
        );
    } else {
        section.ok(CHECK, format!("{used} of {most} places for connections are taken"));
    }
}

fn watches(facts: &Facts, section: &mut Section) {
    let table = [
        (
            "inotify-instances",
            "fs.inotify.max_user_instances",
            LEAST_INSTANCES,
            "programs that follow files fail with \"too many open files\"",
        ),
        (
            "inotify-watches",
            "fs.inotify.max_user_watches",
            LEAST_WATCHES,
            "programs that follow many files fail with \"no space left on device\"",
        ),
    ];
    for (check, name, least, effect) in table {
        at_least(facts, section, check, name, least, effect);
    }
}

fn at_least(facts: &Facts, section: &mut Section, check: &'static str, name: &str, least: u64, effect: &str) {
    match facts.settings.number(name) {
        Some(value) if value < least => {
            section.warning(check, format!("{name} is {value}: {effect}"), set(name, least));
        }
        Some(value) => section.ok(check, format!("{name} is {value}")),
        None => section.unseen(check, format!("{name} can't be read"), "check outside of a container"),
    }
}

fn processes(facts: &Facts, section: &mut Section) {
    let table = [("pid-max", "kernel.pid_max", 65_536), ("threads-max", "kernel.threads-max", 65_536)];
    for (check, name, wanted) in table {
        let (Some(most), Some(now)) = (facts.settings.number(name), facts.resources.threads) else {
            section.unseen(check, format!("{name} can't be read"), "check outside of a container");
            continue;
        };
        if now.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL) {
            section.fault(
                check,
                format!("{now} of {most} threads are there ({name}): soon nobody starts another one"),
                set(name, wanted.max(most.saturating_mul(4))),
            );
        } else if most < LEAST_THREADS {
            section.warning(
                check,
                format!("{name} is {most}: a host full of pods may reach it"),
                set(name, wanted),
            );
        } else {
            section.ok(check, format!("{name} is {most}, {now} are there"));
        }
    }
}

fn memory(facts: &Facts, section: &mut Section) {
    const OVERCOMMIT: &str = "vm.overcommit_memory";
    match facts.settings.number(OVERCOMMIT) {
        Some(2) => section.warning(
            "overcommit",
            format!("{OVERCOMMIT} is 2: programs that reserve more than they use don't start though there is memory"),
            set(OVERCOMMIT, 1),
        ),
        Some(value) => section.ok("overcommit", format!("{OVERCOMMIT} is {value}")),
        None => section.unseen("overcommit", format!("{OVERCOMMIT} can't be read"), "check outside of a container"),
    }
    const NAME: &str = "vm.max_map_count";
    match facts.settings.number(NAME) {
        Some(value) if value < MAPS => section.note(
            "max-map-count",
            format!("{NAME} is {value}; search engines and databases in pods may ask for {MAPS}"),
        ),
        Some(value) => section.ok("max-map-count", format!("{NAME} is {value}")),
        None => {}
    }
    const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
    if let Some(value) = facts.settings.number(PORTS).filter(|value| *value > 0) {
        section.note(
            "unprivileged-ports",
            format!(
                "{PORTS} is {value}: pods that share the host's network can't listen below it without root"
            ),
        );
    }
}

/// A host that stands still is worse than one that starts again: its pods are replaced elsewhere, and it never comes back.
fn panics(facts: &Facts, section: &mut Section) {
    const PANIC_AFTER: &str = "kernel.panic";
    match facts.settings.text(PANIC_AFTER) {
        Some("0") => section.warning(
            "kernel-panic",
            format!("{PANIC_AFTER} is 0: a kernel that panics stays down until somebody comes"),
            set(PANIC_AFTER, PANIC),
        ),
        Some(value) => {
            section.ok("kernel-panic", format!("{PANIC_AFTER} is {value}: a kernel that panics starts again"))
        }
        None => {}
    }
    const ON_OOM: &str = "vm.panic_on_oom";
    if facts.settings.number(ON_OOM).is_some_and(|value| value != 0) {
        section.warning(
            "panic-on-oom",
            format!(
                "{ON_OOM} isn't 0: a machine without memory goes down whole, instead of losing one process"
            ),
            set(ON_OOM, 0),
        );
    }
}
