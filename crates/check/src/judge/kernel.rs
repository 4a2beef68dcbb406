//! What the kernel can do.

use super::as_root;
use crate::facts::{Facts, Presence};
use crate::finding::{Group, Section};

/// The first kernel that changes mounts by descriptors (mount_setattr(2)), without which no container has a root of its own, and the first
/// that kills a control group whole (cgroup.kill), with its version as (major, minor).
const CONTAINERS: (u32, u32) = (5, 12);
const KILLS_GROUPS: (u32, u32) = (5, 14);
/// The controllers that pods' limits are given to.
const NEEDED: [&str; 2] = ["cpu", "memory"];
/// Those that the kubelet asks for, too (`cgroupManagerImpl.Validate`).
const USEFUL: [&str; 3] = ["cpuset", "io", "pids"];

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Kernel);
    version(facts, &mut section);
    overlayfs(facts, &mut section);
    groups(facts, &mut section);
    features(facts, &mut section);
    nftables(facts, &mut section);
    section
}

/// `6.1.0-13-amd64` is (6, 1).
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn version(facts: &Facts, section: &mut Section) {
    let release = &facts.kernel.release;
    match parse(release) {
        None => section.unseen(
            "version",
            format!("{release:?} is no version that can be read"),
            "compare it with 5.14",
        ),
        Some(version) if version < CONTAINERS => section.fault(
            "version",
            format!("Linux {release} can't give containers a root of their own"),
            "take Linux 5.14 or newer; pods of the RuntimeClass host run here, too",
        ),
        Some(version) if version < KILLS_GROUPS => section.warning(
            "version",
            format!("Linux {release} can't kill a control group, so that pods' limits are not kept"),
            "take Linux 5.14 or newer",
        ),
        Some(_) => section.ok("version", format!("Linux {release}; 5.14 or newer is needed")),
    }
}

/// Says whether a part of the kernel is there, and by `missing` what it means if it isn't.
fn part(
    section: &mut Section,
    check: &'static str,
    presence: &Presence,
    missing: impl FnOnce(&mut Section),
    remedy: impl Into<String>,
) {
    match presence {
        Presence::Here => section.ok(check, format!("{check} is there")),
        Presence::Loadable => {
            section.ok(check, format!("{check} is there as a module, which the kernel loads when it is used"))
        }
        Presence::Missing => missing(section),
        Presence::Unseen(why) => section.unseen(check, format!("{check}: {why}"), remedy),
    }
}

fn overlayfs(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "overlayfs";
    let missing = |section: &mut Section| {
        section.fault(
            CHECK,
            "overlayfs is missing: no container has a root",
            "install the kernel's module `overlay`, and load it: modprobe overlay",
        );
    };
    part(section, CHECK, &facts.kernel.overlayfs, missing, "look into /proc/filesystems");
}

fn groups(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "cgroups";
    const REMEDY: &str = "start the kernel with systemd.unified_cgroup_hierarchy=1, or mount version 2 alone (the default of current distributions)";
    let groups = &facts.kernel.cgroups;
    // What kills a pod whole where there is no version 2.
    if !groups.unified && !groups.legacy.contains("freezer") {
        let what = match groups.legacy.is_empty() {
            true => "no control groups are mounted",
            false => "control groups are of version 1, without a freezer",
        };
        let message = format!("{what}: limits of pods are not kept, and nothing kills a pod whole");
        section.warning(CHECK, message, REMEDY);
        return;
    }
    let has = |name: &&str| groups.controllers.contains(*name) || groups.legacy.contains(*name);
    let missing = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().filter(|name| !has(name)).copied().collect()
    };
    let (needed, useful) = (missing(&NEEDED), missing(&USEFUL));
    let is_old = NEEDED.iter().any(|name| groups.legacy.contains(*name));
    if !needed.is_empty() {
        let needed = super::listed(&needed);
        let why = "the kernel gives none: limits of pods are not kept";
        let message = format!("control groups are there without {needed}, as {why}");
        section.warning(CHECK, message, "start the kernel with cgroup_enable=cpu,memory");
    } else if is_old {
        section.ok(CHECK, "control groups of version 1 keep the limits of pods");
    } else if useful.is_empty() {
        section.ok(CHECK, "control groups are of version 2, with all controllers that pods use");
    } else {
        section.ok(CHECK, format!("control groups are of version 2; without {}", super::listed(&useful)));
    }
}

fn features(facts: &Facts, section: &mut Section) {
    match facts.kernel.seccomp {
        true => section.ok("seccomp", "system calls can be filtered"),
        false => section.fault(
            "seccomp",
            "the kernel filters no system calls: no container is started",
            "take a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
    match facts.kernel.pidfd {
        true => section.ok("pidfd", "processes can be held by descriptors"),
        false => section.warning(
            "pidfd",
            "processes can't be held by descriptors (pidfd_open fails): programs in pods may miss it",
            "take Linux 5.3 or newer, and allow pidfd_open where a filter of a container around this host refuses it",
        ),
    }
    let settings = &facts.settings;
    let unprivileged = settings.number("kernel.unprivileged_userns_clone") != Some(0)
        && settings.number("kernel.apparmor_restrict_unprivileged_userns").unwrap_or(0) == 0;
    match facts.kernel.user_namespaces {
        None => section.warning(
            "user-namespaces",
            "the kernel has no user namespaces: pods with hostUsers: false are refused",
            "take a kernel with CONFIG_USER_NS",
        ),
        Some(0) => section.warning(
            "user-namespaces",
            "user.max_user_namespaces is 0: pods with hostUsers: false don't start",
            super::set("user.max_user_namespaces", 15_000),
        ),
        Some(_) if unprivileged => section.ok("user-namespaces", "user namespaces are there"),
        Some(_) => section
            .note("user-namespaces", "user namespaces are there for root alone, which is enough for a host"),
    }
}

fn nftables(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "nftables";
    let missing = |section: &mut Section| {
        section.warning(
            CHECK,
            "nftables is missing: pods of containers get no networks of their own, and share the host's",
            "install the kernel's module `nf_tables`, and load it: modprobe nf_tables",
        );
    };
    part(section, CHECK, &facts.kernel.nftables, missing, as_root(facts, "see `nft list ruleset`"));
}
