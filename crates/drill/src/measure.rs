//! The clocks of a run: what is measured from the fault on, when they stop, and how the host comes back.

use crate::ask::{measure, steady_from};
use crate::clock::offset_ms;
use crate::drill::{Drill, LOOK, Probes};
use crate::fault::Act;
use crate::instance::{Share, Signed, shares, spread};
use crate::observe::Observer;
use crate::probe::{Series, TIMEOUT};
use crate::replacement::Replacements;
use crate::report::{Rejoin, ms};
use crate::stage::Step;
use crate::stateful::{Processes, answered};
use crate::steady::Picture;
use crate::timeline::Source;
use crate::{Error, Moment, Safety};
use std::time::Duration;

/// What was seen until the clocks stopped.
#[derive(Default)]
pub(crate) struct Measured {
    /// The first new pod that answered, and when.
    pub(crate) replacement: Option<(Moment, String)>,
    /// When the fault was over, if it ended by itself.
    pub(crate) mended: Option<Moment>,
    /// When all was as declared after that.
    declared: Option<Moment>,
}

impl Drill<'_> {
    /// Lets the clocks run until the fault is over, every series has been quiet and a new pod has answered, or the limit is over. A fault
    /// that lasts until then is still there.
    pub(crate) async fn measure(
        &mut self,
        cut: Moment,
        probes: &Probes,
        processes: &mut Processes,
        observer: &Observer,
        target: &str,
    ) -> Result<Measured, Error> {
        let fault = self.options.fault;
        let mut changes = fault.changes().peekable();
        let mut measured = Measured::default();
        let mut replacements = Replacements::since(cut, self.clock, &self.client);
        let mut answers = vec![
            ("api-answers", None, &probes.api, false),
            ("service-answers", None, &probes.service, false),
        ];
        for identity in probes.stateful.iter().filter(|identity| identity.host == target) {
            let subject = format!("{}/{}", self.workload.namespace, identity.name);
            answers.push(("stateful-answers", Some(subject), &identity.series, false));
        }
        let mut looked = cut;
        loop {
            let now = self.clock.now();
            if let Some((_, act)) = changes.next_if(|(after, _)| now >= cut + *after) {
                let at = self.act(act, fault, target).await?;
                let what = if act == Act::Break { fault.broken() } else { fault.mended() };
                self.stage.note(at, what, Some(target), None)?;
                measured.mended = (act == Act::Mend).then_some(at);
                continue;
            }
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
            if let (None, Some((at, pod))) = (&measured.replacement, &first) {
                let subject = Some(format!("{}/{pod}", self.workload.namespace));
                self.stage.note(*at, "replacement-answers", None, subject)?;
                let quiet = self.options.quiet.as_secs();
                self.stage.progress.say(&format!("the clocks stop when nothing has failed for {quiet} s"))?;
            }
            measured.replacement = first;
            let is_replaced = measured.replacement.is_some() || !fault.takes_host_away();
            let now = self.clock.now();
            if now < looked + LOOK {
                continue;
            }
            // A watch through the address that moved may lead to the silent host and never say so.
            if probes.survivors.is_empty() && !is_replaced && (now - cut).as_secs() > (looked - cut).as_secs()
            {
                observer.begin_anew();
            }
            looked = now;
            let is_last = changes.peek().is_none();
            if let (Some(mended), true) = (measured.mended, is_last) {
                // What looks as declared may be what nobody has looked at since: it counts from when on it stayed so.
                let is_declared = self.is_as_declared().await;
                measured.declared = measured.declared.or(Some(self.clock.now())).filter(|_| is_declared);
                // The end of a fault is news too, that may cost something.
                if now < mended + self.options.quiet {
                    continue;
                }
            }
            let is_over = |series: &Series| {
                let (asks, until) = series.asks();
                steady_from(&asks, cut, self.options.quiet, until).is_some()
            };
            let is_late = now > cut + fault.lasts() + self.options.limit;
            if is_last && (is_late || (is_replaced && probes.all().all(is_over))) {
                return Ok(measured);
            }
        }
    }

    /// Whether all is as declared: every host Ready, every pod where it should be, every endpoint there.
    async fn is_as_declared(&self) -> bool {
        // One that hangs on an address that moved must not hold up the clocks, nor what a fault does next.
        let client = self.client.with_timeout(TIMEOUT);
        let picture = Picture::take(&client, &self.workload).await;
        if picture.is_err() {
            self.client.forget_connections();
        }
        picture.is_ok_and(|picture| picture.unready(&self.site.hosts()).is_empty())
    }

    /// What can be said when the clocks have stopped of what the fault must not cost.
    pub(crate) fn judge(
        &self,
        cut: Moment,
        target: &str,
        probes: &Probes,
        replaced: Option<Moment>,
    ) -> Safety {
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
        let back = self.back(cut, probes, replaced).ok_or("the service never came back".to_owned());
        let spread = back.and_then(|back| spread(&signed(probes), back..now, self.workload.replicas));
        safety.spread = safety.take("spread", spread);
        let none = "the surviving hosts can't be asked themselves".to_owned();
        let failed = |series: &Series| {
            let (asks, until) = series.asks();
            measure(&asks, cut, quiet, until).failed
        };
        let survivors =
            (!probes.survivors.is_empty()).then(|| probes.survivors.iter().map(failed).sum()).ok_or(none);
        safety.counts.failed_on_survivors = safety.take("failed_on_survivors", survivors);
        safety
    }

    /// From when on the service was back, which it isn't before a moment, if one is given; none if it never was.
    fn back(&self, cut: Moment, probes: &Probes, not_before: Option<Moment>) -> Option<Moment> {
        let (asks, until) = probes.service.asks();
        let back = steady_from(&asks, cut, self.options.quiet, until)?;
        Some(back.max(not_before.unwrap_or(back)))
    }

    /// What each pod had of the service's requests. The fault isn't over before a moment, if one is given.
    pub(crate) fn distribution(
        &self,
        cut: Moment,
        probes: &Probes,
        not_before: Option<Moment>,
    ) -> Vec<Share> {
        let back = self.back(cut, probes, not_before).unwrap_or(Moment::MAX);
        shares(&signed(probes), cut, back)
    }

    /// Mends the host, unless it is already, and waits until it is Ready and has caught up, and all is as declared.
    pub(crate) async fn bring_back(
        &mut self,
        target: &str,
        cut: Moment,
        measured: &Measured,
        observer: &Observer,
        processes: &mut Processes,
    ) -> Result<Rejoin, Error> {
        let fault = self.options.fault;
        let on = match measured.mended {
            Some(at) => at,
            None => {
                let at = self.act(Act::Mend, fault, target).await?;
                self.stage.note(at, fault.mended(), Some(target), None)?;
                at
            }
        };
        observer.begin_anew();
        let until = self.clock.now() + self.options.patience;
        let tells = fault.ends_program() && self.stage.events.iter().any(|e| e.source == Source::Inside);
        let (mut ready, mut caught_up, mut declared) = (None, None, measured.declared);
        let mut looked = on;
        while self.clock.now() < until
            && (ready.is_none() || declared.is_none() || (tells && caught_up.is_none()))
        {
            if let Step::Change(_, change) = self.stage.step().await? {
                processes.look(&change)?;
            }
            ready = match fault.takes_host_away() {
                true => self.stage.first("node-ready", target, on),
                false => self.stage.ready_since(target, cut, on),
            };
            caught_up = self.stage.first("store-caught-up", target, on);
            let now = self.clock.now();
            if ready.is_some() && declared.is_none() && now > looked + LOOK {
                looked = now;
                declared = self.is_as_declared().await.then_some(now);
            }
            // Not every host tells that it has caught up: Ready and a while later is enough.
            if declared.is_some() && ready.is_some_and(|at| now > at + Duration::from_secs(2)) {
                break;
            }
        }
        if let Some(at) = declared {
            self.stage.note(at, "as-declared", None, None)?;
        }
        self.stage.since = None;
        Ok(Rejoin {
            ready_ms: ready.map(|at| ms(at - on)),
            caught_up_ms: caught_up.map(|at| ms(at - on)),
            power_on_at_ms: offset_ms(cut, on),
            as_declared_ms: declared.map(|at| ms(at - on)),
        })
    }
}

/// The service's answers that say whose they are.
fn signed(probes: &Probes) -> Vec<Signed> {
    [&probes.service].into_iter().chain(&probes.survivors).flat_map(Series::signed).collect()
}
