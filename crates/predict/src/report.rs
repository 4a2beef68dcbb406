//! What comes out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::advice::{self, Step, advise};
use crate::check::{self, Finding, Level};
use crate::own::{self, Own};
use crate::read::{Host, NotUnderstood, Program, hosts};
use crate::story::{Clock, Phase, Story};
use crate::timers::Timers;
use crate::{File, upstream};

/// Which programs the cluster consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Holdfast.
    Holdfast,
    /// k3s, with the programs of Kubernetes in it.
    K3s,
    /// Kubernetes' own programs and etcd, each a process.
    Kubernetes,
    /// No file says anything about failover.
    Unknown,
}

/// A file of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// The file.
    pub file: String,
    /// Why it is of no use.
    pub why: String,
}

/// What a power cut of the host that leads and holds the virtual address does to a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The version of this shape.
    pub version: u32,
    /// What the cluster consists of.
    pub kind: Kind,
    /// The hosts whose files were given.
    pub hosts: Vec<String>,
    /// How many members hold the state, 0 where nothing says so.
    pub members: usize,
    /// No single failure takes it away for good or for long, as far as that can be judged.
    pub highly_available: bool,
    /// The files say enough to tell whether it is highly available: how many members hold the state.
    pub judged: bool,
    /// How long who waits.
    pub clocks: Vec<Clock>,
    /// What these times consist of.
    pub phases: Vec<Phase>,
    /// What to change, what helps most first; each after those before it.
    pub advice: Vec<Step>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// What no file says, and is taken for granted.
    pub assumed: Vec<String>,
    /// What may matter, and nobody here knows.
    pub not_understood: Vec<NotUnderstood>,
    /// Files that are of no use.
    pub unknown_files: Vec<Unknown>,
}

/// Predicts from the files of a cluster.
pub fn predict(files: &[File]) -> Report {
    of_folders(files, &[])
}

/// The same where somebody named folders: several of them are a host each, whatever they are called.
pub fn of_folders(files: &[File], folders: &[String]) -> Report {
    of_hosts(hosts(files, folders))
}

pub(crate) fn of_hosts(mut all: Vec<Host>) -> Report {
    let mut not_understood: Vec<NotUnderstood> =
        all.iter_mut().flat_map(|host| std::mem::take(&mut host.not_understood)).collect();
    let unknown = all.iter_mut().flat_map(|host| std::mem::take(&mut host.unknown));
    let unknown_files = unknown.map(|(file, why)| Unknown { file, why }).collect();
    let first = all.iter().find_map(|host| host.holdfast.as_ref());
    let mut report = match first {
        Some((_, config)) => {
            let (timeouts, members) = (config.timeouts, config.peers.len());
            let own = Own { timeouts, members, on_etcd: config.datastore.is_some() };
            let mut report = of_own(&own, check::of_own(&all));
            let given = all.iter().filter(|host| host.holdfast.is_some()).count();
            if given < own.members {
                report.assumed.push(format!(
                    "{given} of {} hosts' configurations are there: the others are taken to be like them",
                    own.members
                ));
            }
            report
        }
        None if !all.iter().any(Host::tells) => empty(),
        None => of_upstream(&all),
    };
    report.hosts = all.into_iter().map(|host| host.name).collect();
    not_understood.append(&mut report.not_understood);
    report.not_understood = not_understood;
    report.unknown_files = unknown_files;
    report
}

/// Of Holdfast, by what counts of its configuration.
pub(crate) fn of_own(own: &Own, findings: Vec<Finding>) -> Report {
    let steps = advise(own, own::story, &advice::OWN);
    finish(Kind::Holdfast, own.members, true, own::story(own), steps, findings)
}

fn of_upstream(hosts: &[Host]) -> Report {
    let is_k3s = hosts.iter().any(|host| host.runs(Program::K3s));
    let members = check::count_members(hosts);
    // Where nothing says how many there are, three is what people have.
    let (timers, unread) = Timers::of(hosts, if members == 0 { 3 } else { members });
    let story = upstream::story(&timers);
    let findings = check::upstream(hosts, &timers, &story);
    let steps = advise(&timers, upstream::story, &advice::UPSTREAM);
    let kind = if is_k3s { Kind::K3s } else { Kind::Kubernetes };
    let mut report = finish(kind, members, check::suffices(hosts), story, steps, findings);
    report.not_understood = unread;
    report.assumed = assumed(hosts, members);
    report
}

fn finish(
    kind: Kind,
    members: usize,
    judged: bool,
    story: Story,
    advice: Vec<Step>,
    findings: Vec<Finding>,
) -> Report {
    let highly_available = judged && findings.iter().all(|finding| finding.level != Level::Fatal);
    let Story { phases, clocks } = story;
    Report { kind, members, highly_available, judged, clocks, phases, advice, findings, ..empty() }
}

fn empty() -> Report {
    Report {
        version: 1,
        kind: Kind::Unknown,
        hosts: Vec::new(),
        members: 0,
        highly_available: false,
        judged: false,
        clocks: Vec::new(),
        phases: Vec::new(),
        advice: Vec::new(),
        findings: Vec::new(),
        assumed: Vec::new(),
        not_understood: Vec::new(),
        unknown_files: Vec::new(),
    }
}

fn assumed(hosts: &[Host], members: usize) -> Vec<String> {
    let mut all = Vec::new();
    let is_k3s = hosts.iter().any(|host| host.runs(Program::K3s));
    let missing: Vec<&str> =
        [Program::Etcd, Program::ApiServer, Program::ControllerManager, Program::Kubelet, Program::KubeProxy]
            .into_iter()
            .filter(|program| !is_k3s && !hosts.iter().any(|host| host.runs(*program)))
            .map(Program::name)
            .collect();
    if !missing.is_empty() {
        all.push(format!("no file of {}: as by default", missing.join(", ")));
    }
    if members == 0 {
        all.push("nothing says how many members etcd has: three".into());
    } else if members > hosts.len() {
        all.push(format!(
            "files of {} of {members} hosts are there: the others are taken to be like them",
            hosts.len()
        ));
    }
    let proxies: BTreeSet<bool> =
        hosts.iter().map(|host| host.haproxy.is_some() || host.nginx.is_some()).collect();
    if !is_k3s && !proxies.contains(&true) {
        all.push("no file of HAProxy or nginx: clients ask the API servers without a proxy".into());
    }
    if !hosts.iter().any(|host| host.keepalived.is_some()) {
        all.push("no file of keepalived: no address moves".into());
    }
    all.push("the lost host led etcd, held the address and ran a pod; images are there, and pods have no tolerations of their own".into());
    all
}

impl Report {
    /// Something is wrong that makes it not highly available, whatever else there is.
    pub fn is_fatal(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Fatal)
    }

    /// Everything as JSON, ending with a line end.
    ///
    /// # Errors
    /// Never with what [`predict`] makes.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        crate::render::text(self)
    }
}
