//! What a drill found out.

use crate::{Entry, Fault, Outage, Percentiles, Safety, SafetySummary, Share, Target};
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// The report of a drill. Its JSON is the shape that `--json` writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The version of this shape.
    pub version: u32,
    /// The seed that was used.
    pub seed: u64,
    /// What was done in each run, with what belongs to it, such as `pause_ms`.
    #[serde(flatten)]
    pub fault: Fault,
    /// To whom: `leader`, `vip`, `follower`, `worker`, `each`, or the name of a host.
    pub target: Target,
    /// The cluster.
    pub cluster: Cluster,
    /// Every run.
    pub runs: Vec<Run>,
    /// All of them together.
    pub summary: Summary,
    /// Why there are no more runs, where there was to be another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_early: Option<String>,
}

/// The cluster that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// How many hosts.
    pub nodes: usize,
    /// How they are connected.
    pub net: String,
    /// What ran the workload's pods: their RuntimeClass, or `oci`, which is containers.
    pub runtime: String,
    /// How many pods lay in it beside the workload.
    pub preloaded_pods: usize,
}

impl Cluster {
    /// In words, with the seed of what was done to it.
    pub(crate) fn words(&self, seed: u64) -> String {
        let Cluster { nodes, net, runtime, preloaded_pods } = self;
        let hosts = if *nodes == 1 { "host" } else { "hosts" };
        let preloaded = match preloaded_pods {
            0 => String::new(),
            pods => format!(", {pods} pods preloaded"),
        };
        format!("{nodes} {hosts}, net {net}, runtime {runtime}, seed {seed}{preloaded}")
    }
}

/// One fault of a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// What was done, with what belongs to it.
    #[serde(flatten)]
    pub fault: Fault,
    /// To which host.
    pub target: String,
    /// What the host was: `leader`, `vip`, `worker`.
    pub was: Vec<&'static str>,
    /// The API through the virtual address.
    pub api: SeriesReport,
    /// Changes of an object through the virtual address, where the fault is of a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes: Option<SeriesReport>,
    /// The service through the virtual address.
    pub service: SeriesReport,
    /// The service through every surviving host's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub survivors: Option<SeriesReport>,
    /// The service through `kubectl proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubectl_proxy: Option<SeriesReport>,
    /// The first new pod.
    pub replacement: Replacement,
    /// The host's return.
    pub rejoin: Rejoin,
    /// How many elections were won from the cut to the end of the run, where the hosts tell: one is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elections_won: Option<u64>,
    /// What the fault must not cost.
    #[serde(flatten)]
    pub safety: Safety,
    /// How many of the service's requests each pod answered, through the virtual address and at the surviving hosts' own; empty where the answers don't
    /// say whose they are.
    pub distribution: Vec<Share>,
    /// Requests that were due after the fault and not sent, as this machine was too busy: what they would have met isn't known.
    pub unsent_asks: u64,
    /// What the hosts held in memory, where the site tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryOfRun>,
    /// What happened.
    pub timeline: Vec<Entry>,
    /// The single asks through the virtual address: for the page alone, since they are many.
    #[serde(skip)]
    pub asks: Asks,
}

/// The asks of a run through the virtual address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asks {
    /// Of the API.
    pub api: Vec<Dot>,
    /// Of the service.
    pub service: Vec<Dot>,
}

/// One ask, in milliseconds after the fault began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dot {
    /// When it was sent.
    pub sent_ms: i64,
    /// How long it took until it was answered or given up.
    pub took_ms: u64,
    /// It was answered, and well.
    pub ok: bool,
}

/// One series of asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SeriesReport {
    /// Milliseconds from the cut to the first answer after which nothing failed; 0 when nothing failed before
    /// it either, null when it never came.
    pub outage_ms: Option<u64>,
    /// Asks without a good answer.
    pub failed: usize,
    /// All asks since the cut.
    pub asked: usize,
    /// The longest that a good answer took.
    pub slowest_ms: u64,
}

/// The first pod that was created after the cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// Milliseconds from the cut to its first answer; null when none answered.
    pub answered_ms: Option<u64>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The return of the host, from the end of the fault: from power on, for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rejoin {
    /// Milliseconds until its Node was Ready again.
    pub ready_ms: Option<u64>,
    /// Milliseconds until its store had caught up, where the host tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up_ms: Option<u64>,
    /// When the fault was over, in milliseconds after it began.
    pub power_on_at_ms: i64,
    /// Milliseconds until all was as declared: every host Ready, every pod where it should be, every endpoint there.
    pub as_declared_ms: Option<u64>,
}

/// The resident memory of hosts' own processes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryOfRun {
    /// Of the host that was cut, just before.
    pub leader_before_bytes: u64,
    /// The host that led when the clocks stopped.
    pub new_leader: String,
    /// What it held just before the cut.
    pub new_leader_before_bytes: u64,
    /// The most that it held from the cut to the end of the run.
    pub new_leader_peak_bytes: u64,
}

/// Percentiles of each clock, and of what else is counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Of the API's outage.
    pub api_outage_ms: Percentiles,
    /// Of the outage of changes, where the fault is of a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_outage_ms: Option<Percentiles>,
    /// Of the service's outage.
    pub service_outage_ms: Percentiles,
    /// Of the first answer of a new pod.
    pub replacement_answered_ms: Percentiles,
    /// Of the host's return.
    pub rejoin_ready_ms: Percentiles,
    /// Of the cluster's, to what was declared.
    pub as_declared_ms: Percentiles,
    /// Requests that failed in all runs, in whatever way they were sent.
    pub failed_asks: usize,
    /// Requests of all runs that were due and not sent.
    pub unsent_asks: u64,
    /// What the faults must not cost.
    #[serde(flatten)]
    pub safety: SafetySummary,
    /// Of the elections won, where the hosts tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elections_won: Option<Percentiles>,
    /// Of the most that a new leader held in memory, where the site tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_leader_peak_bytes: Option<Percentiles>,
}

pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from((time.as_micros() + 500) / 1000).unwrap_or(u64::MAX)
}

impl From<Outage> for SeriesReport {
    fn from(outage: Outage) -> Self {
        SeriesReport {
            outage_ms: outage.outage.map(ms),
            failed: outage.failed,
            asked: outage.asked,
            slowest_ms: ms(outage.slowest),
        }
    }
}

impl Summary {
    pub(crate) fn of(runs: &[Run]) -> Self {
        let of =
            |clock: fn(&Run) -> Option<u64>| Percentiles::of(&runs.iter().map(clock).collect::<Vec<_>>());
        // What a site doesn't tell, it tells of no run.
        let told = |all: Percentiles| all.p50.map(|_| all);
        Summary {
            api_outage_ms: of(|r| r.api.outage_ms),
            writes_outage_ms: runs
                .iter()
                .any(|run| run.writes.is_some())
                .then(|| of(|r| r.writes?.outage_ms)),
            service_outage_ms: of(|r| r.service.outage_ms),
            replacement_answered_ms: of(|r| r.replacement.answered_ms),
            rejoin_ready_ms: of(|r| r.rejoin.ready_ms),
            as_declared_ms: of(|r| r.rejoin.as_declared_ms),
            failed_asks: runs.iter().map(Run::failed_asks).sum(),
            unsent_asks: runs.iter().map(|run| run.unsent_asks).sum(),
            safety: SafetySummary::of(runs),
            elections_won: told(of(|r| r.elections_won)),
            new_leader_peak_bytes: told(of(|r| Some(r.memory.as_ref()?.new_leader_peak_bytes))),
        }
    }
}

impl Report {
    /// Everything as JSON, ending with a line end.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes the tables for people.
    pub fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        crate::render::report(self, out)
    }

    /// All of it as one page for a browser.
    pub fn to_html(&self) -> String {
        crate::html::page(self)
    }

    /// Everything came back in every run.
    pub fn is_recovered(&self) -> bool {
        self.runs.iter().all(Run::is_recovered)
    }

    /// Why the drill went wrong, if it did: something stayed away, or what must not happen did.
    pub fn failure(&self) -> Option<String> {
        let away = "the cluster did not recover in every run; the table shows what stayed away";
        let away = (!self.is_recovered()).then(|| away.to_owned());
        let broken = self.runs.iter().enumerate().flat_map(|(number, run)| {
            run.broken().into_iter().map(move |what| format!("run {}: {what}", number + 1))
        });
        let why: Vec<String> = away.into_iter().chain(broken).chain(self.ended_early.clone()).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }
}

impl Run {
    /// Where in the timeline the fault was over; its end, where that never came.
    pub(crate) fn mended_at(&self) -> usize {
        self.timeline.iter().rposition(|e| e.what == self.fault.mended()).unwrap_or(self.timeline.len())
    }

    /// What happened before the fault was over.
    pub(crate) fn before_mended(&self) -> &[Entry] {
        &self.timeline[..self.mended_at()]
    }

    /// Whether a new pod came, or was to come.
    pub(crate) fn has_replacement(&self) -> bool {
        self.replacement.answered_ms.is_some() || self.fault.takes_host_away()
    }

    fn is_recovered(&self) -> bool {
        let clocks =
            [self.api.outage_ms, self.service.outage_ms, self.rejoin.ready_ms, self.rejoin.as_declared_ms];
        let is_replaced = self.replacement.answered_ms.is_some() || !self.has_replacement();
        let is_written = self.writes.is_none_or(|writes| writes.outage_ms.is_some());
        clocks.iter().all(Option::is_some) && is_written && is_replaced && self.safety.is_recovered()
    }

    /// Requests that failed, in whatever way they were sent.
    fn failed_asks(&self) -> usize {
        let (writes, survivors) = (self.writes.as_ref(), self.survivors.as_ref());
        let all = [Some(&self.api), writes, Some(&self.service), survivors, self.kubectl_proxy.as_ref()];
        all.into_iter().flatten().map(|series| series.failed).sum()
    }

    /// What must not happen and did, in words.
    fn broken(&self) -> Vec<String> {
        let failed = self.failed_asks();
        let failed = (failed > 0 && !self.fault.may_cost_requests())
            .then(|| format!("requests that failed though the restart was planned: {failed}"));
        self.safety.broken().into_iter().chain(failed).collect()
    }
}
