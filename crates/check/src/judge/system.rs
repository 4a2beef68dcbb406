//! Logs, and what else of the system holds a host back or up.

use crate::facts::Facts;
use crate::finding::{Group, Section};

/// journald's defaults (journald.conf(5)): lines of a service in an interval, beyond which it drops them.
const USUAL_BURST: u64 = 10_000;
const USUAL_INTERVAL: &str = "30s";

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::System);
    let system = &facts.system;
    journald(facts, &mut section);
    match system.selinux_enforces {
        Some(true) => section.warning(
            "selinux",
            "SELinux enforces its policy, and Holdfast labels nothing: pods may be refused their volumes",
            "setenforce 0 and SELINUX=permissive in /etc/selinux/config, or a policy of your own",
        ),
        Some(false) => section.ok("selinux", "SELinux only tells what it would refuse"),
        None => section.ok("selinux", "no SELinux"),
    }
    match system.apparmor {
        true => section.note(
            "apparmor",
            "AppArmor is there: containers are held to Holdfast's profile, for which apparmor_parser must be installed",
        ),
        false => section.ok("apparmor", "no AppArmor"),
    }
    match system.watchdog {
        true => section.note("watchdog", "/dev/watchdog is there: hardware, or a module, can reset this machine when it hangs"),
        false => section.note("watchdog", "there is no /dev/watchdog: nothing resets this machine when it hangs (modprobe softdog makes one, a real one is better)"),
    }
    section
}

fn journald(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "journald";
    let Some(journald) = &facts.system.journald else {
        section.note(CHECK, "there is no journald: the host's log goes where its service sends it");
        return;
    };
    let interval = journald.interval.as_deref().unwrap_or(USUAL_INTERVAL);
    let burst = journald.burst.unwrap_or(USUAL_BURST);
    let is_off = burst == 0 || interval.trim_end_matches(char::is_alphabetic).trim() == "0";
    if journald.storage.as_deref() == Some("none") {
        section.warning(
            CHECK,
            "journald keeps nothing (Storage=none): the host's log is lost",
            "set Storage=persistent in /etc/systemd/journald.conf",
        );
    } else if !is_off && burst < USUAL_BURST {
        section.warning(
            CHECK,
            format!("journald drops what a service says beyond {burst} lines in {interval}: of a fault the log tells the beginning alone"),
            "set LogRateLimitIntervalSec=0 in the service's unit, or RateLimitBurst=10000 in /etc/systemd/journald.conf",
        );
    } else if is_off {
        section.ok(CHECK, "journald keeps all that services say");
    } else {
        section.ok(CHECK, format!("journald takes {burst} lines of a service in {interval}"));
    }
    if journald.storage.as_deref() == Some("volatile") {
        section.note(
            "journald-storage",
            "journald keeps logs in memory (Storage=volatile): they are lost with the machine's power",
        );
    }
}
