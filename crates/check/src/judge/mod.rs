//! What the facts mean. Functions of the facts alone: no file, no clock, no question to anybody.

mod certificates;
mod clock;
mod cluster;
mod disk;
mod kernel;
mod leftovers;
mod names;
mod network;
mod ports;
mod resources;
mod settings;
mod system;

pub(crate) use certificates::{DAY, RENEW, SOON, judge_identity};
pub(crate) use cluster::margin_of;

use std::time::Duration;

use crate::facts::Facts;
use crate::finding::{Finding, Grade, Group, Section};

/// All there is to say, in the order of the groups.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let sections = [
        configuration(facts),
        kernel::judge(facts),
        settings::judge(facts),
        resources::judge(facts),
        disk::judge(facts),
        clock::judge(facts),
        ports::judge(facts),
        network::judge(facts),
        names::judge(facts),
        system::judge(facts),
        leftovers::judge(facts),
        certificates::judge(facts),
        cluster::judge(facts),
    ];
    sections.into_iter().flat_map(|section| section.findings).collect()
}

fn configuration(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Configuration);
    match (&facts.plan.config, &facts.plan.refused) {
        (_, Some(why)) => {
            section.fault("configuration", why, "mend it; what follows is as by the defaults");
        }
        (None, None) => {
            let [(_, pods), (_, services)] = facts.plan.ranges();
            section.note(
                "configuration",
                format!(
                    "none yet: what follows is for the ports and timeouts of `holdfast config --defaults`, state in {}, pods in {pods} and services in {services}",
                    facts.plan.data_dir().display()
                ),
            );
        }
        (Some(config), None) => {
            let warnings = config.check().warnings;
            if warnings.is_empty() {
                section.ok(
                    "configuration",
                    format!("that of host {} of cluster {}", config.name, config.cluster_id),
                );
            }
            for warning in warnings {
                section.warning(
                    "configuration",
                    format!("{}: {}", warning.field, warning.what),
                    warning.remedy,
                );
            }
        }
    }
    section
}

/// How a setting of the kernel is changed, now and for the next start.
fn set(setting: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w {setting}={value}, and write it to /etc/sysctl.d/90-holdfast.conf")
}

/// What helps where something couldn't be looked at: root sees more, unless it was root who looked.
fn as_root(facts: &Facts, otherwise: &'static str) -> &'static str {
    if facts.is_root { otherwise } else { "check as root" }
}

/// `1.5 GiB`.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `3.4 ms`.
fn milliseconds(time: Duration) -> String {
    let value = time.as_secs_f64() * 1000.0;
    let digits = if value < 0.1 {
        2
    } else if value < 10.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} ms")
}

/// `a, b and c`.
pub(crate) fn listed(words: &[impl AsRef<str>]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

impl Section {
    /// Says that something is as it should be, unless something was said about it already.
    fn ok_unless_said(&mut self, check: &'static str, what: impl Into<String>) {
        let said = |finding: &Finding| finding.check == check && finding.grade > Grade::Note;
        if !self.findings.iter().any(said) {
            self.ok(check, what);
        }
    }
}

#[cfg(test)]
mod tests;
