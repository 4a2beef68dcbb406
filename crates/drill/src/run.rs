//! Runs: come to rest, break a host, measure, mend it, and again.

use crate::ask::{Ask, measure};
use crate::clock::offset_ms;
use crate::drill::Drill;
use crate::fault::Act;
use crate::holders::Holders;
use crate::measure::Measured;
use crate::memory::Memories;
use crate::minority::Minority;
use crate::probe::Series;
use crate::report::{Asks, Dot, Replacement, Report, Run, SeriesReport, Summary, ms};
use crate::safety::{needless, to_be_kept};
use crate::target::Chosen;
use crate::timeline::merge;
use crate::{Error, Options, Site};
use client::Kubeconfig;
use rand::Rng;
use std::io::Write;
use std::time::Duration;

/// Holds a drill: as many runs as the options say, each a fault of one host, measured until the host is back and the cluster at
/// rest. Progress goes to `progress`, a line at a time. Dropping the future ends every probe and every child; the workload then stays.
///
/// # Errors
/// If the fault can't be had at this site, or the first run can't be held. What ends a later one is in the report.
pub async fn run(
    site: &dyn Site,
    kubeconfig: &Kubeconfig,
    options: &Options,
    progress: &mut (dyn Write + Send),
) -> Result<Report, Error> {
    let fault = options.fault;
    site.can(fault).map_err(|why| Error::NoFault { fault: fault.name(), why })?;
    let mut drill = Drill::new(site, kubeconfig, options, progress)?;
    let runs = drill.all_runs().await;
    drill.clean_up().await;
    let (runs, ended_early) = runs?;
    let (target, summary) = (options.target.clone(), Summary::of(&runs));
    let (seed, cluster) = (options.seed, drill.cluster());
    Ok(Report { version: 1, seed, fault, target, cluster, runs, summary, ended_early })
}

impl Drill<'_> {
    /// The runs, and why there are no more of them, where there was to be another one.
    async fn all_runs(&mut self) -> Result<(Vec<Run>, Option<String>), Error> {
        self.set_up().await?;
        let began = self.clock.now();
        let mut runs = Vec::new();
        for number in 1.. {
            let is_due = match self.options.time {
                Some(time) => number == 1 || self.clock.now() < began + time,
                None => number <= self.options.runs,
            };
            if !is_due {
                break;
            }
            self.begin_run(number)?;
            match self.run_once(number).await {
                Ok(run) => runs.push(run),
                Err(error) if runs.is_empty() => return Err(error),
                // What was measured in two hours must not be lost to the last minute.
                Err(error) => return Ok((runs, Some(format!("run {number} could not be held: {error}")))),
            }
            keep_asks_of_the_slowest(&mut runs);
        }
        Ok((runs, None))
    }

    /// One fault, from rest to rest.
    async fn run_once(&mut self, number: usize) -> Result<Run, Error> {
        let fault = self.options.fault;
        let rest = self.come_to_rest().await?;
        let Chosen { host: target, was } = self.choose(number, &rest).await?;
        let roles = crate::wording::roles(&was);
        self.stage.progress.say(&format!("{target} {roles}: {}", fault.announced()))?;

        let (observer, mut probes, mut processes) = self.watch(&target, &rest).await?;
        // The fault must fall anywhere between two heartbeats and two asks, and not where warming up happened to end.
        let jitter = Duration::from_micros(self.random.random_range(0..1_000_000));
        self.wait(self.options.before + jitter).await?;
        let holders = Holders::begin(self.site);
        // As late as can be: the peaks are to be of the takeover alone.
        let memories = Memories::before(self.site).await;

        let cut = self.act(Act::Break, fault, &target).await?;
        self.stage.since = Some(cut);
        self.stage.note(cut, fault.broken(), Some(&target), None)?;

        let minority = self.minority(&target)?;
        let measured = self.measure(cut, &probes, &mut processes, &observer, &target).await?;
        let Measured { replacement, mended, .. } = &measured;
        let new_leader = self.stage.last_winner(cut);
        let outage = |series: &Series| {
            let (asks, until) = series.asks();
            measure(&asks, cut, self.options.quiet, until)
        };
        let clocks = [&probes.api, &probes.service].map(|s| SeriesReport::from(outage(s)));
        let [writes, kubectl_proxy] =
            [&probes.writes, &probes.kubectl_proxy].map(|series| series.as_ref().map(|s| outage(s).into()));
        let dots = |series: &Series| {
            let (asks, _) = series.asks();
            let dot = |ask: &Ask| Dot {
                sent_ms: offset_ms(cut, ask.sent),
                took_ms: ms(ask.done.saturating_sub(ask.sent)),
                ok: ask.ok,
            };
            asks.iter().filter(|ask| ask.done > cut).map(dot).collect()
        };
        let asks = Asks { api: dots(&probes.api), service: dots(&probes.service) };
        let of_survivors: Vec<_> = probes.survivors.iter().map(outage).collect();
        let named = [
            ("API", Some(&probes.api)),
            ("API, writes", probes.writes.as_ref()),
            ("service", Some(&probes.service)),
        ];
        let reasons: Vec<_> = named
            .into_iter()
            .filter_map(|(name, series)| Some((name, series?.reasons().into_iter().next()?)))
            .collect();
        let replaced = replacement.as_ref().map(|(at, _)| *at);
        let mut safety = self.judge(cut, &target, &probes, replaced);
        // Before the host is mended: from then on it may take what it is asked.
        if let Some(minority) = minority {
            let [stale, taken] = match minority.map(Minority::end) {
                Ok((stale, taken)) => [stale, Ok(taken)],
                Err(why) => [Err(why.clone()), Err(why)],
            };
            safety.counts.stale_answers = safety.take("stale_answers", stale);
            safety.counts.minority_writes = safety.take("minority_writes", taken);
        }
        let distribution = self.distribution(cut, &probes, replaced.max(*mended));
        let unsent_asks: u64 = probes.all().map(|series| series.unsent(cut)).sum();
        let stateful = std::mem::take(&mut probes.stateful);
        drop(probes);
        // What was open through the address that moved may lead to the silent host.
        self.client.forget_connections();
        for (name, (reason, count)) in reasons {
            self.stage.progress.say(&format!("  {name}: {count} asks failed with: {reason}"))?;
        }
        if mended.is_none() {
            self.stage.progress.say(&format!("clocks stopped; {target} {}", fault.remedy()))?;
        }
        let rejoin = self.bring_back(&target, cut, &measured, &observer, &mut processes).await?;
        drop(observer);
        // To the end: what was lost may come back beside what took its place.
        if !stateful.is_empty() {
            safety.counts.double_runs = safety.take("double_runs", processes.double_runs(&stateful));
        }
        safety.counts.double_holders = safety.take("double_holders", holders.double(self.clock, cut));
        let kept = to_be_kept(&rest, &target, fault.may_cost_pods());
        safety.counts.needless_replacements = Some(needless(&kept, &self.stage.events, cut));
        let memory = match new_leader {
            Some(leader) => memories.after(self.site, &target, leader).await,
            None => None,
        };
        let replacement = measured.replacement;
        Ok(Run {
            fault,
            was,
            api: clocks[0],
            writes,
            service: clocks[1],
            survivors: worst(&of_survivors),
            kubectl_proxy,
            replacement: Replacement {
                answered_ms: replacement.as_ref().map(|(at, _)| ms(at.saturating_sub(cut))),
                pod: replacement.map(|(_, pod)| pod),
            },
            rejoin,
            elections_won: self.stage.elections_won(cut),
            safety,
            distribution,
            unsent_asks,
            memory,
            asks,
            timeline: merge(&self.stage.events, cut, &self.workload.namespace, &target),
            target,
        })
    }
}

/// Several hosts' series as one: the slowest to recover, and all asks together.
fn worst(all: &[crate::Outage]) -> Option<SeriesReport> {
    let first = all.first()?;
    let whole = all.iter().skip(1).fold(*first, |a, b| crate::Outage {
        outage: a.outage.zip(b.outage).map(|(a, b)| a.max(b)),
        failed: a.failed + b.failed,
        asked: a.asked + b.asked,
        slowest: a.slowest.max(b.slowest),
    });
    Some(whole.into())
}

/// The page draws the single asks of one run, and a drill of many hours must not fill the memory with all others'.
fn keep_asks_of_the_slowest(runs: &mut [Run]) {
    let slowest = runs.iter().map(crate::render::slowness).enumerate().max_by_key(|(_, slowness)| *slowness);
    for (number, run) in runs.iter_mut().enumerate() {
        if slowest.is_some_and(|(slowest, _)| slowest != number) {
            run.asks = Asks::default();
        }
    }
}
