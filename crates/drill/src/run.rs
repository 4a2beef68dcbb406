//! Power cuts: come to rest, cut, measure, bring back, and again.

use crate::ask::{Ask, measure, steady_from};
use crate::clock::offset_ms;
use crate::drill::{Drill, LOOK, Probes};
use crate::holders::Holders;
use crate::instance::{Signed, spread};
use crate::memory::Memories;
use crate::observe::Observer;
use crate::probe::Series;
use crate::replacement::Replacements;
use crate::report::{Asks, Dot, Rejoin, Replacement, Report, Run, Summary, ms};
use crate::safety::{needless, to_be_kept};
use crate::stage::Step;
use crate::stateful::{Processes, answered};
use crate::timeline::merge;
use crate::{Error, Moment, Options, Safety, Site};
use client::Kubeconfig;
use rand::Rng;
use std::io::Write;
use std::time::Duration;

/// Holds a drill: as many power cuts as the options say, each of the host that leads then, each measured until
/// the host is back and the cluster at rest. Progress goes to `progress`, a line at a time. Dropping the future
/// ends every probe and every child; the workload then stays.
pub async fn run(
    site: &dyn Site,
    kubeconfig: &Kubeconfig,
    options: &Options,
    progress: &mut (dyn Write + Send),
) -> Result<Report, Error> {
    let mut drill = Drill::new(site, kubeconfig, options, progress)?;
    let runs = drill.all_runs().await;
    drill.clean_up().await;
    let runs = runs?;
    let summary = Summary::of(&runs);
    Ok(Report { version: 1, seed: options.seed, cluster: drill.cluster(), runs, summary })
}

impl Drill<'_> {
    async fn all_runs(&mut self) -> Result<Vec<Run>, Error> {
        self.set_up().await?;
        let mut runs = Vec::new();
        for number in 1..=self.options.runs {
            self.begin_run(number)?;
            runs.push(self.cut_once().await?);
        }
        Ok(runs)
    }

    /// One power cut, from rest to rest.
    async fn cut_once(&mut self) -> Result<Run, Error> {
        let rest = self.come_to_rest().await?;
        let target = self.leader().await?;
        let mut was = vec!["leader", "vip"];
        if rest.serving().contains_key(&target) {
            was.push("worker");
        }
        let roles = crate::wording::roles(&was);
        self.stage.progress.say(&format!("{target} {roles}: its power will be cut"))?;

        let (observer, mut probes, mut processes) = self.watch(&target, &rest).await?;
        // The cut must fall anywhere between two heartbeats and two asks, and not where warming up happened to end.
        let jitter = Duration::from_micros(self.random.random_range(0..1_000_000));
        self.wait(jitter).await?;
        let holders = Holders::begin(self.site);
        // As late as can be: the peaks are to be of the takeover alone.
        let memories = Memories::before(self.site).await;

        let cut = self.site.cut(&target).await;
        let cut =
            cut.map_err(|why| Error::Site { what: "cutting the power of", host: target.clone(), why })?;
        let cut = self.clock.moment(cut);
        self.stage.since = Some(cut);
        self.stage.note(cut, "power-off", Some(&target), None)?;

        let replacement = self.measure(cut, &probes, &mut processes, &observer, &target).await?;
        let new_leader = self.stage.last_winner(cut);
        let outage = |series: &Series| {
            let (asks, until) = series.asks();
            measure(&asks, cut, self.options.quiet, until)
        };
        let clocks = [&probes.api, &probes.service].map(|s| crate::report::SeriesReport::from(outage(s)));
        let kubectl_proxy = probes.kubectl_proxy.as_ref().map(|s| outage(s).into());
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
        let reasons: Vec<_> = [("API", &probes.api), ("service", &probes.service)]
            .iter()
            .filter_map(|(name, series)| Some((*name, series.reasons().into_iter().next()?)))
            .collect();
        let mut safety = self.judge(cut, &target, &probes, replacement.as_ref().map(|(at, _)| *at));
        let stateful = std::mem::take(&mut probes.stateful);
        drop(probes);
        // What was open through the address that moved may lead to the silent host.
        self.client.forget_connections();
        for (name, (reason, count)) in reasons {
            self.stage.progress.say(&format!("  {name}: {count} asks failed with: {reason}"))?;
        }
        let rejoin = self.bring_back(&target, cut, &observer, &mut processes).await?;
        drop(observer);
        // To the end: what was lost may come back beside what took its place.
        if !stateful.is_empty() {
            safety.double_runs = safety.take("double_runs", processes.double_runs(&stateful));
        }
        safety.double_holders = safety.take("double_holders", holders.double(self.clock, cut));
        let kept = to_be_kept(&rest, &target, true);
        safety.needless_replacements = Some(needless(&kept, &self.stage.events, cut));
        let memory = match new_leader {
            Some(leader) => memories.after(self.site, &target, leader).await,
            None => None,
        };
        Ok(Run {
            fault: "power-off",
            was,
            api: clocks[0],
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
            memory,
            asks,
            timeline: merge(&self.stage.events, cut, &self.workload.namespace, &target),
            target,
        })
    }

    /// Lets the clocks run until every series has been quiet and a new pod has answered, or the limit is over.
    async fn measure(
        &mut self,
        cut: Moment,
        probes: &Probes,
        processes: &mut Processes,
        observer: &Observer,
        target: &str,
    ) -> Result<Option<(Moment, String)>, Error> {
        let mut replacements = Replacements::since(cut, self.clock, &self.client);
        let mut answers = vec![
            ("api-answers", None, &probes.api, false),
            ("service-answers", None, &probes.service, false),
        ];
        for identity in probes.stateful.iter().filter(|identity| identity.host == target) {
            let subject = format!("{}/{}", self.workload.namespace, identity.name);
            answers.push(("stateful-answers", Some(subject), &identity.series, false));
        }
        let mut replaced = false;
        let mut looked = cut;
        loop {
            if let Step::Change(at, change) = self.stage.step().await? {
                replacements.look(at, &change, &self.workload);
                processes.look(&change)?;
                continue;
            }
            for (what, subject, series, told) in &mut answers {
                if !*told && let Some(at) = series.first_answer(cut) {
                    *told = true;
                    self.stage.note(at, what, None, subject.take())?;
                }
            }
            let first = replacements.answered();
            if let (false, Some((at, pod))) = (replaced, &first) {
                replaced = true;
                let subject = Some(format!("{}/{pod}", self.workload.namespace));
                self.stage.note(*at, "replacement-answers", None, subject)?;
                let quiet = self.options.quiet.as_secs();
                self.stage.progress.say(&format!("the clocks stop when nothing has failed for {quiet} s"))?;
            }
            let now = self.clock.now();
            if now < looked + LOOK {
                continue;
            }
            // A watch through the address that moved may lead to the silent host and never say so.
            if probes.survivors.is_empty() && !replaced && (now - cut).as_secs() > (looked - cut).as_secs() {
                observer.begin_anew();
            }
            looked = now;
            let is_over = |series: &Series| {
                let (asks, until) = series.asks();
                steady_from(&asks, cut, self.options.quiet, until).is_some()
            };
            if now > cut + self.options.limit || (replaced && probes.all().all(is_over)) {
                return Ok(first);
            }
        }
    }

    /// What can be said when the clocks have stopped of what the fault must not cost.
    fn judge(&self, cut: Moment, target: &str, probes: &Probes, replaced: Option<Moment>) -> Safety {
        let (quiet, now) = (self.options.quiet, self.clock.now());
        let mut safety = Safety::default();
        let away = |series: &Series| {
            let (asks, until) = series.asks();
            measure(&asks, cut, quiet, until).outage
        };
        let stateful = match &probes.no_stateful {
            Some(why) => Err(why.clone()),
            None => answered(&probes.stateful, target, away),
        };
        if let Some(why) = &probes.no_stateful {
            safety.unseen.insert("double_runs", why.clone());
        }
        if let Some((took, pod)) = safety.take("stateful_answered_ms", stateful).flatten() {
            (safety.stateful_answered_ms, safety.stateful_pod) = (Some(ms(took)), Some(pod.to_owned()));
        }
        let fenced = self.stage.first("node-fenced", target, cut).ok_or("nobody fenced the host".to_owned());
        safety.fenced_ms = safety.take("fenced_ms", fenced.map(|at| ms(at - cut)));
        let (asks, until) = probes.service.asks();
        let back = steady_from(&asks, cut, quiet, until).ok_or("the service never came back".to_owned());
        let answers: Vec<Signed> =
            [&probes.service].into_iter().chain(&probes.survivors).flat_map(Series::signed).collect();
        let since = back.map(|back| back.max(replaced.unwrap_or(back)));
        let spread = since.and_then(|since| spread(&answers, since..now, self.workload.replicas));
        safety.spread = safety.take("spread", spread);
        let none = "the surviving hosts can't be asked themselves".to_owned();
        let failed = |series: &Series| {
            let (asks, until) = series.asks();
            measure(&asks, cut, quiet, until).failed
        };
        let survivors =
            (!probes.survivors.is_empty()).then(|| probes.survivors.iter().map(failed).sum()).ok_or(none);
        safety.failed_on_survivors = safety.take("failed_on_survivors", survivors);
        safety
    }

    /// Gives the host its power back and waits until it is Ready and has caught up.
    async fn bring_back(
        &mut self,
        target: &str,
        cut: Moment,
        observer: &Observer,
        processes: &mut Processes,
    ) -> Result<Rejoin, Error> {
        let failed = |what| move |why| Error::Site { what, host: target.to_owned(), why };
        self.stage.progress.say(&format!("clocks stopped; {target} gets its power back"))?;
        self.site.bury(target).await.map_err(failed("burying"))?;
        let on = self.site.power_on(target).await.map_err(failed("powering on"))?;
        let on = self.clock.moment(on);
        self.stage.note(on, "power-on", Some(target), None)?;
        observer.begin_anew();
        let until = on + self.options.patience;
        let told_before = self.stage.events.iter().any(|e| e.source == crate::timeline::Source::Inside);
        let mut ready = None;
        let mut caught_up = None;
        while self.clock.now() < until && (ready.is_none() || (told_before && caught_up.is_none())) {
            if let Step::Change(_, change) = self.stage.step().await? {
                processes.look(&change)?;
            }
            ready = self.stage.first("node-ready", target, on);
            caught_up = self.stage.first("store-caught-up", target, on);
            // Not every host tells that it has caught up: Ready and a while later is enough.
            if ready.is_some_and(|at| self.clock.now() > at + Duration::from_secs(2)) {
                break;
            }
        }
        self.stage.since = None;
        Ok(Rejoin {
            ready_ms: ready.map(|at| ms(at - on)),
            caught_up_ms: caught_up.map(|at| ms(at - on)),
            power_on_at_ms: offset_ms(cut, on),
        })
    }
}

/// Several hosts' series as one: the slowest to recover, and all asks together.
fn worst(all: &[crate::Outage]) -> Option<crate::report::SeriesReport> {
    let first = all.first()?;
    let whole = all.iter().skip(1).fold(*first, |a, b| crate::Outage {
        outage: a.outage.zip(b.outage).map(|(a, b)| a.max(b)),
        failed: a.failed + b.failed,
        asked: a.asked + b.asked,
        slowest: a.slowest.max(b.slowest),
    });
    Some(whole.into())
}
