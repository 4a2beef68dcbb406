//! What a drill found out.

use crate::{Entry, Outage, Percentiles, Safety, SafetySummary};
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
    /// The cluster.
    pub cluster: Cluster,
    /// Every power cut.
    pub runs: Vec<Run>,
    /// All of them together.
    pub summary: Summary,
}

/// The cluster that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// How many hosts.
    pub nodes: usize,
    /// How they are connected.
    pub net: String,
    /// How many pods lay in it beside the workload.
    pub preloaded_pods: usize,
}

/// One power cut.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// What was done: `power-off`.
    pub fault: &'static str,
    /// To which host.
    pub target: String,
    /// What the host was: `leader`, `vip`, `worker`.
    pub was: Vec<&'static str>,
    /// The API through the virtual address.
    pub api: SeriesReport,
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

/// One ask, in milliseconds after the cut.
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

/// The return of the host, from power on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rejoin {
    /// Milliseconds until its Node was Ready again.
    pub ready_ms: Option<u64>,
    /// Milliseconds until its store had caught up, where the host tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up_ms: Option<u64>,
    /// When it got its power back, in milliseconds after the cut.
    pub power_on_at_ms: i64,
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
    /// Of the service's outage.
    pub service_outage_ms: Percentiles,
    /// Of the first answer of a new pod.
    pub replacement_answered_ms: Percentiles,
    /// Of the host's return.
    pub rejoin_ready_ms: Percentiles,
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
            service_outage_ms: of(|r| r.service.outage_ms),
            replacement_answered_ms: of(|r| r.replacement.answered_ms),
            rejoin_ready_ms: of(|r| r.rejoin.ready_ms),
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
        let back = |r: &Run| {
            let clocks = [r.api.outage_ms, r.service.outage_ms, r.replacement.answered_ms, r.rejoin.ready_ms];
            clocks.iter().all(Option::is_some) && r.safety.is_recovered()
        };
        self.runs.iter().all(back)
    }

    /// Why the drill went wrong, if it did: something stayed away, or what must not happen did.
    pub fn failure(&self) -> Option<String> {
        let away = "the cluster did not recover in every run; the table shows what stayed away";
        let away = (!self.is_recovered()).then(|| away.to_owned());
        let broken = self.runs.iter().enumerate().flat_map(|(number, run)| {
            run.safety.broken().into_iter().map(move |what| format!("run {}: {what}", number + 1))
        });
        let why: Vec<String> = away.into_iter().chain(broken).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }
}
