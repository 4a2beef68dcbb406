//! The kernel: its version, its parts, its settings.

use std::collections::BTreeMap;
use std::path::Path;

use super::text;
use crate::facts::{Cgroups, Kernel, Presence, Settings};

pub(super) fn kernel() -> Kernel {
    Kernel {
        release: release(),
        overlayfs: overlayfs(),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        // Found out with the filters themselves.
        nftables: Presence::Missing,
        pidfd: has_pidfd(),
        user_namespaces: Path::new("/proc/self/ns/user").exists().then(|| {
            text("/proc/sys/user/max_user_namespaces").and_then(|text| text.parse().ok()).unwrap_or(1)
        }),
        cgroups: groups(&text("/proc/self/mountinfo").unwrap_or_default(), |folder| {
            text(Path::new(folder).join("cgroup.controllers")).unwrap_or_default()
        }),
    }
}

fn release() -> String {
    text("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn overlayfs() -> Presence {
    match text("/proc/filesystems") {
        None => Presence::Unseen("/proc/filesystems can't be read".into()),
        Some(known) if known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) => {
            Presence::Here
        }
        Some(_) => module("overlay"),
    }
}

/// Whether a part that isn't loaded could be: `modules.dep` names those that are files, `modules.builtin` those in the kernel itself.
pub(super) fn module(name: &str) -> Presence {
    let folder = Path::new("/lib/modules").join(release());
    let file = format!("/{name}.ko");
    let lists = [text(folder.join("modules.dep")), text(folder.join("modules.builtin"))];
    let known = lists.iter().flatten().flat_map(|list| list.lines()).any(|line| {
        line.split(':').next().is_some_and(|path| {
            path.split(".ko").next().is_some_and(|path| format!("{path}.ko").ends_with(&file))
        })
    });
    if known { Presence::Loadable } else { Presence::Missing }
}

fn has_pidfd() -> bool {
    // SAFETY: asks for a descriptor of this process, by numbers alone.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(std::process::id() as i32), 0) };
    let Ok(descriptor) = i32::try_from(descriptor) else { return false };
    if descriptor < 0 {
        return false;
    }
    // SAFETY: it was just opened here, and nobody else knows it.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(descriptor) });
    true
}

/// By the first hierarchy of version 2, as the agent takes it.
fn groups(mounts: &str, controllers: impl Fn(&str) -> String) -> Cgroups {
    let mut groups = Cgroups::default();
    for line in mounts.lines() {
        let Some((place, what)) = line.split_once(" - ") else { continue };
        match what.split(' ').next() {
            Some("cgroup2") if !groups.unified => {
                groups.unified = true;
                let folder = place.split(' ').nth(4).unwrap_or_default();
                groups.controllers = controllers(folder).split_whitespace().map(str::to_owned).collect();
            }
            // With the options of every mount among them.
            Some("cgroup") => groups.legacy.extend(what.split([' ', ',']).map(str::to_owned)),
            _ => {}
        }
    }
    groups
}

/// The settings that are there, those of a link among them.
pub(super) fn settings(link: Option<&str>) -> Settings {
    let mut settings: BTreeMap<String, String> = Settings::READ
        .iter()
        .filter_map(|name| {
            Some(((*name).to_owned(), text(Path::new("/proc/sys").join(name.replace('.', "/")))?))
        })
        .collect();
    // A link's name may have dots in it.
    if let Some(link) = link
        && let Some(value) = text(Path::new("/proc/sys/net/ipv4/conf").join(link).join("rp_filter"))
    {
        settings.insert(format!("net.ipv4.conf.{link}.rp_filter"), value);
    }
    Settings(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_kernel_is_read() {
        let kernel = kernel();
        assert!(kernel.release.contains('.'), "{kernel:?}");
        // What the tests of containers run on has them all.
        assert!(kernel.pidfd && kernel.seccomp);
        let settings = settings(Some("lo"));
        for name in
            ["vm.overcommit_memory", "kernel.pid_max", "net.ipv4.ip_forward", "net.ipv4.conf.lo.rp_filter"]
        {
            assert!(settings.number(name).is_some(), "{name}: {settings:?}");
        }
    }

    #[test]
    fn control_groups_are_told_apart_by_what_is_mounted() {
        const UNIFIED: &str =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        const HYBRID: &str = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let read =
            |mounts| {
                let groups = groups(mounts, |folder| {
                    if folder == "/sys/fs/cgroup" { "cpu memory".into() } else { String::new() }
                });
                (groups.unified, groups.legacy.contains("memory"), groups.controllers.len())
            };
        assert_eq!(read(UNIFIED), (true, false, 2));
        assert_eq!(read(HYBRID), (true, true, 0));
        assert_eq!(read("31 23 0:27 / /c rw - cgroup cgroup rw,memory"), (false, true, 0));
        assert_eq!(read(""), (false, false, 0));
    }
}
