//! The time.

use std::time::{Duration, UNIX_EPOCH};

use super::milliseconds;
use crate::facts::Facts;
use crate::finding::{Group, Section};

/// 2026-01-01: before that this program wasn't there, and no certificate of its clusters is valid.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// A clock that may be wrong by more is of no use for comparing logs.
const MUCH: Duration = Duration::from_secs(1);
const REMEDY: &str = "run chrony or systemd-timesyncd, with servers that this machine reaches";

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Clock);
    let clock = &facts.clock;
    if clock.now.duration_since(UNIX_EPOCH).is_ok_and(|since| since < EARLIEST) {
        section.fault(
            "time",
            "the clock stands before 2026: no certificate of the cluster is valid then",
            REMEDY,
        );
    }
    match clock.synchronised {
        None => section.unseen(
            "synchronised",
            "the kernel doesn't say whether its clock is synchronised",
            "see `timedatectl`",
        ),
        Some(state) if !state.yes => section.warning(
            "synchronised",
            "nobody synchronises the clock: certificates and tokens may count as over or as not yet valid",
            REMEDY,
        ),
        Some(state) if state.most_wrong > MUCH => section.warning(
            "synchronised",
            format!("the clock is synchronised, and may be wrong by {}", milliseconds(state.most_wrong)),
            REMEDY,
        ),
        Some(state) => {
            section.ok(
                "synchronised",
                format!("the clock is synchronised, to {}", milliseconds(state.most_wrong)),
            );
        }
    }
    match clock.boottime {
        true => section.ok("boottime", "CLOCK_BOOTTIME is there: leases are counted by it"),
        false => section.fault(
            "boottime",
            "CLOCK_BOOTTIME can't be read: leases can't be counted",
            "take a kernel of this century's second decade, and allow clock_gettime",
        ),
    }
    section
}
