//! Times that don't fit each other.

use std::collections::BTreeSet;

use super::{Findings, Level};
use crate::read::{Host, Program};
use crate::span::{NEVER, time};
use crate::story::Story;
use crate::timers::{Timer, Timers};
use crate::upstream::{API, API_STEADY};

/// etcd's own limits.
const LONGEST_ELECTION_MS: u64 = 50_000;

fn place(timer: &Timer) -> String {
    timer.file.clone().unwrap_or_else(|| timer.setting.to_owned())
}

pub(super) fn check(hosts: &[Host], timers: &Timers, story: &Story, findings: &mut Findings) {
    let (heartbeat, election) = (&timers.heartbeat, &timers.election);
    let (beat, patience) = (time(heartbeat.ms), time(election.ms));
    if election.ms < heartbeat.ms.saturating_mul(5) || election.ms > LONGEST_ELECTION_MS {
        let what = format!(
            "etcd doesn't start with an election-timeout of {patience} and a heartbeat-interval of {beat}"
        );
        findings.fatal(place(election), what, "an election takes ten heartbeats, and 50 s at most");
    } else if election.ms < heartbeat.ms.saturating_mul(10) {
        let what = format!(
            "an election-timeout of {patience} is fewer than ten heartbeats of {beat}: a few that are late cost an election"
        );
        findings.risk(place(election), what, "make it ten heartbeats");
    }
    for name in ["heartbeat-interval", "election-timeout"] {
        let with = hosts.iter().filter(|host| host.runs(Program::Etcd));
        let told: BTreeSet<Option<&str>> = with.map(|host| host.value(Program::Etcd, name)).collect();
        if told.len() > 1 {
            let what = format!(
                "members of etcd have different values for {name}: the impatient ones depose the others"
            );
            findings.risk(place(election), what, "set it alike on all members");
        }
    }
    let (grace, renewal) = (&timers.grace, timers.kubelet.ms);
    if grace.ms <= renewal {
        let what = format!(
            "kubelets renew their Leases every {}, and {} later their nodes are NotReady: healthy ones too",
            time(renewal),
            time(grace.ms)
        );
        findings.fatal(place(grace), what, "make the grace at least four renewals");
    } else if grace.ms < renewal.saturating_mul(3) {
        let what = format!(
            "a node is NotReady {} after a renewal, and there is one every {}: two that are late are enough",
            time(grace.ms),
            time(renewal)
        );
        findings.risk(
            place(grace),
            what,
            "make the grace at least four renewals, by a shorter nodeLeaseDurationSeconds",
        );
    }
    let (lease, deadline, retry) = (&timers.lease, &timers.renew_deadline, &timers.retry);
    if lease.ms <= deadline.ms || deadline.ms.saturating_mul(10) <= retry.ms.saturating_mul(12) {
        let what = "kube-controller-manager doesn't start with these times: the lease must be longer than the renew deadline, and that longer \
                    than 1.2 retry periods";
        findings.fatal(place(lease), what, "15 s, 10 s and 2 s are the defaults");
    }
    let clock = |name: &str| story.clocks.iter().find(|clock| clock.name == name).map(|clock| clock.span);
    if let Some(api) = clock(API).filter(|api| api.max_ms.saturating_add(renewal) >= grace.ms) {
        let what = format!(
            "the API may be away for {}, with a grace of {}: then every node is NotReady at once, and no pod is moved, the lost ones neither",
            time(api.max_ms),
            time(grace.ms)
        );
        findings.risk(place(grace), what, "bring the API back sooner, or make the grace longer");
    }
    if let Some(steady) =
        clock(API_STEADY).filter(|api| api.typical_ms != NEVER && api.typical_ms > deadline.ms)
    {
        let what = format!(
            "requests fail for {}, and a controller-manager or scheduler that can't renew its lease for {} ends and is started again",
            time(steady.typical_ms),
            time(deadline.ms)
        );
        findings.add(Level::Note, place(deadline), what, "let them ask the API server on their own host");
    }
}
