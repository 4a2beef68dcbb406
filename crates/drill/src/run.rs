//! The flow of a drill: deploy, come to rest, cut, measure, bring back, and again.

use crate::ask::{measure, steady_from};
use crate::clock::{Clock, offset_ms};
use crate::memory::Memories;
use crate::observe::{KINDS, Observer};
use crate::owner::OwnersProxy;
use crate::preload::Preload;
use crate::probe::{EVERY, Series, fresh};
use crate::progress::Progress;
use crate::replacement::Replacements;
use crate::report::{Cluster, Rejoin, Replacement, Report, Run, Summary, ms};
use crate::stage::{Stage, Step};
use crate::steady::{Picture, move_pod};
use crate::timeline::merge;
use crate::workload::{DEFAULT_WORKLOAD, Workload};
use crate::{Error, Moment, Options, Site};
use client::{Client, Discovery, Kubeconfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;

/// Between two looks at a cluster that is not at rest.
const LOOK: Duration = Duration::from_millis(200);

/// Holds a drill: as many power cuts as the options say, each of the host that leads then, each measured until
/// the host is back and the cluster at rest. Progress goes to `progress`, a line at a time. Dropping the future
/// ends every probe and every child; the workload then stays.
pub async fn run(
    site: &dyn Site,
    kubeconfig: &Kubeconfig,
    options: &Options,
    progress: &mut (dyn Write + Send),
) -> Result<Report, Error> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let suffix: String = (0..5).map(|_| char::from(letters[random.random_range(0..letters.len())])).collect();
    let namespace = format!("drill-{suffix}");
    let manifest = options.workload.as_deref().unwrap_or(DEFAULT_WORKLOAD);
    let workload = Workload::read(manifest, &namespace)?;
    let client = Client::new(kubeconfig)?.with_timeout(Duration::from_secs(10));
    let clock = Clock::start();
    let stage = Stage::new(clock, Progress::new(progress), &workload.namespace, site.timeline());
    let mut drill =
        Drill { site, kubeconfig, options, client, clock, workload, stage, random, owners_proxy: None };

    let preload = Preload::of(options.preload, &namespace);
    let runs = drill.all_runs(&namespace, &preload).await;
    if !options.keep {
        drill.remove(&namespace).await;
        preload.remove(&drill.client).await;
    }
    let runs = runs?;
    let cluster =
        Cluster { nodes: site.hosts().len(), net: site.net().to_owned(), preloaded_pods: options.preload };
    let summary = Summary::of(&runs);
    Ok(Report { version: 1, seed: options.seed, cluster, runs, summary })
}

struct Drill<'a> {
    site: &'a dyn Site,
    kubeconfig: &'a Kubeconfig,
    options: &'a Options,
    client: Client,
    clock: Clock,
    workload: Workload,
    stage: Stage<'a>,
    random: StdRng,
    owners_proxy: Option<OwnersProxy>,
}

/// The series of one run.
struct Probes {
    api: Series,
    service: Series,
    survivors: Vec<Series>,
    kubectl_proxy: Option<Series>,
}

impl Probes {
    fn all(&self) -> impl Iterator<Item = &Series> {
        [&self.api, &self.service].into_iter().chain(&self.survivors).chain(&self.kubectl_proxy)
    }
}

impl Drill<'_> {
    async fn all_runs(&mut self, namespace: &str, preload: &Preload) -> Result<Vec<Run>, Error> {
        if self.options.preload > 0 {
            self.stage.progress.say(&preload.describe())?;
            let began = self.clock.now();
            preload.fill(&self.client, self.clock, self.options.patience).await?;
            let took = (self.clock.now() - began).as_secs_f64();
            self.stage.progress.say(&format!("  preloaded in {took:.1} s"))?;
        }
        self.deploy(namespace).await?;
        let mut runs = Vec::new();
        for number in 1..=self.options.runs {
            if self.options.runs > 1 {
                self.stage.progress.say(&format!("run {number} of {}", self.options.runs))?;
            }
            runs.push(self.cut_once().await?);
        }
        Ok(runs)
    }

    async fn deploy(&mut self, namespace: &str) -> Result<(), Error> {
        let Workload { deployment, replicas, .. } = &self.workload;
        let noun = if *replicas == 1 { "replica" } else { "replicas" };
        let say = format!("deploying {deployment} ({replicas} {noun}) into {}", self.workload.namespace);
        self.stage.progress.say(&say)?;
        self.make_namespace(namespace).await?;
        let discovery = Discovery::ask(&self.client).await?;
        let mut said = Vec::new();
        self.workload.deploy(&self.client, &discovery, |line| said.push(format!("  {line}"))).await?;
        for line in said {
            self.stage.progress.say(&line)?;
        }
        if let (Some(file), true) = (&self.options.kubeconfig_file, self.options.workload.is_some()) {
            self.owners_proxy = OwnersProxy::start(file).await;
            if self.owners_proxy.is_none() {
                self.stage
                    .progress
                    .say("  no kubectl here: the service is not asked through `kubectl proxy`")?;
            }
        }
        Ok(())
    }

    /// Makes the workload's namespace; a cluster that has only just begun may need a moment for it.
    async fn make_namespace(&mut self, drills: &str) -> Result<(), Error> {
        let name = &self.workload.namespace;
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let is_users = name != drills;
        let until = self.clock.now() + self.options.patience;
        loop {
            let error = match self.client.create("/api/v1/namespaces", &made).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            match error.code() {
                // The user's own namespace may be there already; the drill's own name is its alone.
                Some(409) if is_users => return Ok(()),
                Some(400..500) => return Err(error.into()),
                _ if self.clock.now() > until => return Err(error.into()),
                _ => self.wait(LOOK).await?,
            }
        }
    }

    /// Takes the workload away; a cluster that is about to go does not mind when that fails.
    async fn remove(&self, namespace: &str) {
        if self.workload.namespace == namespace {
            drop(self.client.delete(&format!("/api/v1/namespaces/{namespace}"), &json!({})).await);
        }
    }

    /// Waits until the cluster is at rest and every host has its share of the workload.
    async fn come_to_rest(&mut self) -> Result<Picture, Error> {
        let until = self.clock.now() + self.options.patience;
        let hosts = self.site.hosts();
        let mut moved = 0;
        let mut hopeless_since = None;
        loop {
            let unready = match Picture::take(&self.client, &self.workload).await {
                Err(error) => {
                    self.client.forget_connections();
                    vec![error.to_string()]
                }
                Ok(picture) => {
                    let unready = picture.unready(&hosts);
                    let hopeless = picture.hopeless();
                    let since = *hopeless_since.get_or_insert(self.clock.now());
                    if hopeless.is_empty() {
                        hopeless_since = None;
                    } else if self.clock.now() > since + self.options.hope {
                        return Err(Error::Hopeless(hopeless));
                    }
                    let misplaced = picture.misplaced(&hosts).filter(|_| unready.is_empty() && moved < 4);
                    match misplaced {
                        Some(pod) => {
                            moved += 1;
                            move_pod(&self.client, pod).await?;
                            vec!["the pods are not spread over the hosts".into()]
                        }
                        None if unready.is_empty() => return Ok(picture),
                        None => unready,
                    }
                }
            };
            if self.clock.now() > until {
                return Err(Error::Unsteady { after: self.options.patience, unready });
            }
            self.wait(LOOK).await?;
        }
    }

    async fn leader(&mut self) -> Result<String, Error> {
        let until = self.clock.now() + self.options.patience;
        loop {
            let site = self.site;
            let leads = site.leader().await.map_err(|why| Error::Site {
                what: "asking for",
                host: "the leader".into(),
                why,
            })?;
            match leads {
                Some(host) => return Ok(host),
                None if self.clock.now() > until => {
                    return Err(Error::NoLeader { after: self.options.patience });
                }
                None => self.wait(LOOK).await?,
            }
        }
    }

    /// Lets time pass, and hears what comes meanwhile.
    async fn wait(&mut self, time: Duration) -> Result<(), Error> {
        let until = self.clock.now() + time;
        while self.clock.now() < until {
            self.stage.step().await?;
        }
        Ok(())
    }

    fn probes(&self, target: &str) -> Result<Probes, Error> {
        let path = self.workload.service_path();
        let start = |ask| Series::start(self.clock, EVERY, ask);
        let mut survivors = Vec::new();
        for client in self.survivors(target)? {
            survivors.push(start(fresh(&client, path.clone())));
        }
        Ok(Probes {
            api: start(fresh(&self.client, "/api/v1/nodes".into())),
            service: start(fresh(&self.client, path.clone())),
            survivors,
            kubectl_proxy: self.owners_proxy.as_ref().map(|proxy| start(proxy.ask(path))),
        })
    }

    /// Clients of the surviving hosts' own addresses, where the site gives them.
    fn survivors(&self, target: &str) -> Result<Vec<Client>, Error> {
        let others = self.site.hosts().into_iter().filter(|h| h != target);
        let addresses = others.filter_map(|h| self.site.api_address(&h));
        addresses.map(|url| Ok(Client::new(&self.kubeconfig.with_server(url))?)).collect()
    }

    /// One power cut, from rest to rest.
    async fn cut_once(&mut self) -> Result<Run, Error> {
        self.stage.progress.say("waiting until every host and every pod is ready")?;
        let rest = self.come_to_rest().await?;
        let target = self.leader().await?;
        let mut was = vec!["leader", "vip"];
        if rest.serving().contains_key(&target) {
            was.push("worker");
        }
        self.stage.progress.say(&format!("the power of {target} ({}) will be cut", was.join(", ")))?;

        let (out, seen) = unbounded_channel();
        self.stage.begin(seen);
        let survivors = self.survivors(&target)?;
        // Through a surviving host where that is possible: what is seen must not stop with the address that moves.
        let through = survivors.first().unwrap_or(&self.client);
        let observer = Observer::start(self.clock, through, &self.workload, out);
        let probes = self.probes(&target)?;
        self.warm_up(&probes).await?;
        // The cut must fall anywhere between two heartbeats and two asks, and not where warming up happened to end.
        let jitter = Duration::from_micros(self.random.random_range(0..1_000_000));
        self.wait(jitter).await?;
        // As late as can be: the peaks are to be of the takeover alone.
        let memories = Memories::before(self.site).await;

        let cut = self.site.cut(&target).await;
        let cut =
            cut.map_err(|why| Error::Site { what: "cutting the power of", host: target.clone(), why })?;
        let cut = self.clock.moment(cut);
        self.stage.since = Some(cut);
        self.stage.note(cut, "power-off", Some(&target), None)?;

        let replacement = self.measure(cut, &probes, &observer, survivors.is_empty()).await?;
        let new_leader = self.stage.last_winner(cut);
        let outage = |series: &Series| {
            let (asks, until) = series.asks();
            measure(&asks, cut, self.options.quiet, until)
        };
        let clocks = [&probes.api, &probes.service].map(|s| crate::report::SeriesReport::from(outage(s)));
        let kubectl_proxy = probes.kubectl_proxy.as_ref().map(|s| outage(s).into());
        let of_survivors: Vec<_> = probes.survivors.iter().map(outage).collect();
        let reasons: Vec<_> = [("API", &probes.api), ("service", &probes.service)]
            .iter()
            .filter_map(|(name, series)| Some((*name, series.reasons().into_iter().next()?)))
            .collect();
        drop(probes);
        // What was open through the address that moved may lead to the silent host.
        self.client.forget_connections();
        for (name, (reason, count)) in reasons {
            self.stage.progress.say(&format!("  {name}: {count} asks failed with: {reason}"))?;
        }
        let rejoin = self.bring_back(&target, cut, &observer).await?;
        drop(observer);
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
            memory,
            timeline: merge(&self.stage.events, cut, &self.workload.namespace, &target),
            target,
        })
    }

    /// Waits until every series is answered and the observer has its lists: before that, nothing can be measured.
    async fn warm_up(&mut self, probes: &Probes) -> Result<(), Error> {
        let until = self.clock.now() + self.options.patience;
        let mut synced = 0;
        while synced < KINDS || !probes.all().all(|s| s.is_well(3)) {
            if let Step::Synced = self.stage.step().await? {
                synced += 1;
            }
            if self.clock.now() > until {
                let mut unready = Vec::new();
                for (name, series) in [("the API", &probes.api), ("the service", &probes.service)] {
                    if !series.is_well(3) {
                        let why = series.reasons().into_iter().next().map(|(r, _)| r).unwrap_or_default();
                        unready.push(format!("{name} does not answer every ask ({why})"));
                    }
                }
                if unready.is_empty() {
                    unready.push("a surviving host's API, `kubectl proxy` or a watch does not answer".into());
                }
                return Err(Error::Unsteady { after: self.options.patience, unready });
            }
        }
        Ok(())
    }

    /// Lets the clocks run until every series has been quiet and a new pod has answered, or the limit is over.
    async fn measure(
        &mut self,
        cut: Moment,
        probes: &Probes,
        observer: &Observer,
        through_vip: bool,
    ) -> Result<Option<(Moment, String)>, Error> {
        let mut replacements = Replacements::since(cut, self.clock, &self.client);
        let mut answers = [("api-answers", &probes.api, false), ("service-answers", &probes.service, false)];
        let mut replaced = false;
        let mut looked = cut;
        loop {
            if let Step::Change(at, change) = self.stage.step().await? {
                replacements.look(at, &change, &self.workload);
                continue;
            }
            for (what, series, told) in &mut answers {
                if !*told && let Some(at) = series.first_answer(cut) {
                    *told = true;
                    self.stage.note(at, what, None, None)?;
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
            if through_vip && !replaced && (now - cut).as_secs() > (looked - cut).as_secs() {
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

    /// Gives the host its power back and waits until it is Ready and has caught up.
    async fn bring_back(&mut self, target: &str, cut: Moment, observer: &Observer) -> Result<Rejoin, Error> {
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
            self.stage.step().await?;
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
