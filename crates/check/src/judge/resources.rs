//! Processors, memory, limits.

use super::bytes;
use crate::facts::Facts;
use crate::finding::{Group, Section};

/// Files and connections that a host opens: ten thousand connections of services have two each, watches and logs come on top.
const LEAST_FILES: u64 = 65_536;
/// Below it a host can't even hold what it has of its own at a busy hour.
const FEWEST_FILES: u64 = 4096;
/// Pods' processes count as root's on the host.
const LEAST_PROCESSES: u64 = 4096;
/// An idle host takes some 40 MB, one with ten thousand pods in the state 100, and pods want the rest.
const LEAST_MEMORY: u64 = 256 << 20;
const SO_LITTLE: u64 = 64 << 20;
/// What programs that map keys or buffers ask for (io_uring's and BPF's old accounting): the kernel's default since 5.16.
const LEAST_LOCKED: u64 = 8 << 20;
/// From here on heartbeats of 50 ms come late.
const MUCH_STOLEN: f64 = 0.05;

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Resources);
    processors(facts, &mut section);
    memory(facts, &mut section);
    limits(facts, &mut section);
    section
}

fn processors(facts: &Facts, section: &mut Section) {
    let resources = &facts.resources;
    match resources.processors {
        0 | 1 => section.warning(
            "processors",
            "there is one processor: what pods do delays heartbeats and elections",
            "give the machine two or more",
        ),
        count => section.ok("processors", format!("{count} processors")),
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    match resources.stolen {
        Some([ever, now]) if now.max(ever) >= MUCH_STOLEN => section.warning(
            "steal",
            format!(
                "the hypervisor took {} of the processors' time since the machine started, and {} just now: elections begin without a fault",
                percent(ever),
                percent(now)
            ),
            "move the machine, or give it processors of its own",
        ),
        Some([ever, _]) => section.ok("steal", format!("the hypervisor took {} of the processors' time", percent(ever))),
        None => section.unseen("steal", "/proc/stat can't be read", "check outside of a container"),
    }
}

fn memory(facts: &Facts, section: &mut Section) {
    let Some(memory) = facts.resources.memory else {
        section.unseen("memory", "/proc/meminfo can't be read", "check outside of a container");
        return;
    };
    let what = format!("{} of {} of memory are available", bytes(memory.available), bytes(memory.total));
    match memory.available {
        ..SO_LITTLE => section.fault(
            "memory",
            format!("{what}: the host would be killed"),
            "end something, or give the machine more",
        ),
        SO_LITTLE..LEAST_MEMORY => {
            section.warning("memory", format!("{what}: little is left for pods"), "give the machine more")
        }
        _ => section.ok("memory", what),
    }
    match memory.swap {
        0 => section.ok("swap", "no swap"),
        swap => section.warning(
            "swap",
            format!(
                "there are {} of swap: a host that is swapped out answers late, and looks dead to the others",
                bytes(swap)
            ),
            "swapoff -a, and take it out of /etc/fstab",
        ),
    }
}

fn limits(facts: &Facts, section: &mut Section) {
    let Some(limits) = facts.resources.limits else {
        section.unseen("limits", "limits can't be read", "see `ulimit -Ha`");
        return;
    };
    let (of, place) = match limits.of {
        Some(pid) => (format!("the host (process {pid})"), "in the service's unit"),
        None => ("this shell".to_owned(), "in the service's unit, or with ulimit"),
    };
    match limits.files {
        Some(files) if files < FEWEST_FILES => section.fault(
            "open-files",
            format!("{of} may open {files} files: too few for the host's own connections"),
            format!("LimitNOFILE=1048576 {place}"),
        ),
        Some(files) if files < LEAST_FILES => section.warning(
            "open-files",
            format!("{of} may open {files} files: fewer connections are carried than could be"),
            format!("LimitNOFILE=1048576 {place}"),
        ),
        Some(files) => section.ok("open-files", format!("{of} may open {files} files")),
        None => section.ok("open-files", format!("{of} may open any number of files")),
    }
    match limits.processes {
        Some(count) if count < LEAST_PROCESSES => section.warning(
            "processes",
            format!("{of} may have {count} processes: pods may reach it together"),
            format!("LimitNPROC=infinity {place}"),
        ),
        _ => section.ok("processes", format!("{of} may have processes enough")),
    }
    match limits.locked {
        Some(locked) if locked < LEAST_LOCKED => section.note(
            "locked-memory",
            format!(
                "{of} may lock {} of memory, and pods no more; LimitMEMLOCK=infinity {place} gives them more",
                bytes(locked)
            ),
        ),
        _ => section.ok("locked-memory", format!("{of} may lock memory enough")),
    }
}
