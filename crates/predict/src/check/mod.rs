//! What is wrong with a design, whatever its times are.

mod addresses;
mod certificates;
mod members;
mod own;
mod proxies;
mod times;

use serde::Serialize;

use crate::read::Host;
use crate::story::Story;
use crate::timers::Timers;

pub(crate) use members::{count as count_members, suffices};

/// The most addresses that are held against all hosts: a cluster has one or two.
const MOST_ADDRESSES: usize = 100;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// One failure takes the cluster, its API or its data away until a person acts, or for longer than a minute: that is not
    /// highly available.
    Fatal,
    /// It makes an outage longer, likelier, or possible; or opens a door.
    Risk,
    /// It is seldom meant.
    Note,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What is wrong, and what comes of it.
    pub what: String,
    /// Where: a file, with its line where that is known; or a host.
    pub place: String,
    /// What to do.
    pub remedy: String,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        level: Level,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding { level, what: what.into(), place: place.into(), remedy: remedy.into() });
    }

    fn fatal(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Fatal, place, what, remedy);
    }

    fn risk(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Risk, place, what, remedy);
    }

    /// The worst first, each once.
    fn sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

fn at(file: &str, line: usize) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
}

/// What is wrong with a cluster of upstream's programs.
pub(crate) fn upstream(hosts: &[Host], timers: &Timers, story: &Story) -> Vec<Finding> {
    let mut findings = Findings::default();
    members::check(hosts, timers, &mut findings);
    proxies::check(hosts, story, &mut findings);
    addresses::check(hosts, &mut findings);
    certificates::check(hosts, &mut findings);
    times::check(hosts, timers, story, &mut findings);
    secrets(hosts, &mut findings);
    findings.sorted()
}

/// What is wrong with a cluster of Holdfast.
pub(crate) fn of_own(hosts: &[Host]) -> Vec<Finding> {
    let mut findings = Findings::default();
    own::check(hosts, &mut findings);
    findings.sorted()
}

/// What is wrong with a cluster of Holdfast of which only that is known.
pub(crate) fn of_members(members: usize) -> Vec<Finding> {
    let mut findings = Findings::default();
    own::count("the cluster", members, &mut findings);
    findings.sorted()
}

fn secrets(hosts: &[Host], findings: &mut Findings) {
    for host in hosts {
        for (file, line, of) in &host.passwords {
            let what = format!("a secret stands there in clear ({of}): each reader of the file has it");
            findings.risk(
                at(file, *line),
                what,
                "keep it in a file of its own that root alone may read, and change it",
            );
        }
    }
}
