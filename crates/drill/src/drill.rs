//! What every drill does: fill the cluster, deploy the workload, come to rest, ask all the time, and take all away again.

use crate::clock::Clock;
use crate::fault::{Act, Fault};
use crate::minority::Minority;
use crate::observe::Observer;
use crate::owner::OwnersProxy;
use crate::preload::Preload;
use crate::probe::{Series, fresh, write};
use crate::progress::Progress;
use crate::report::Cluster;
use crate::stage::{Stage, Step};
use crate::stateful::{Identity, Processes};
use crate::steady::{Picture, move_pod};
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
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// When this many requests fail from the beginning, and none succeeds, the answers come from something that doesn't speak HTTP: two seconds.
const MUTE: usize = 40;

/// How long a host whose disk was full takes no new pods: five minutes, the default of `eviction.pressureTransitionPeriod`, and what its agent
/// and the controllers may need to see that they are over.
const PRESSURE: Duration = Duration::from_secs(330);

/// The ConfigMap that is changed again and again.
const WRITTEN: &str = "drill-written";
/// What only a host that is cut off is asked to change.
const OF_MINORITY: &str = "drill-minority";

/// A drill under way.
pub(crate) struct Drill<'a> {
    pub(crate) site: &'a dyn Site,
    kubeconfig: &'a Kubeconfig,
    pub(crate) options: &'a Options,
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) workload: Workload,
    pub(crate) stage: Stage<'a>,
    pub(crate) random: StdRng,
    owners_proxy: Option<OwnersProxy>,
    preload: Preload,
    /// The drill's own, which the workload is in unless it names another.
    namespace: String,
}

/// The series of one run.
pub(crate) struct Probes {
    pub(crate) api: Series,
    pub(crate) service: Series,
    /// Changes of an object, where the fault is of a disk.
    pub(crate) writes: Option<Series>,
    pub(crate) survivors: Vec<Series>,
    pub(crate) kubectl_proxy: Option<Series>,
    /// The identities of the workload's StatefulSet.
    pub(crate) stateful: Vec<Identity>,
    /// Why the identities aren't asked.
    pub(crate) no_stateful: Option<String>,
}

impl Probes {
    /// What is to be answered in the end.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Series> {
        let stateful = self.stateful.iter().map(|identity| &identity.series);
        [&self.api, &self.service]
            .into_iter()
            .chain(&self.writes)
            .chain(&self.survivors)
            .chain(&self.kubectl_proxy)
            .chain(stateful)
    }
}

impl<'a> Drill<'a> {
    pub(crate) fn new(
        site: &'a dyn Site,
        kubeconfig: &'a Kubeconfig,
        options: &'a Options,
        progress: &'a mut (dyn Write + Send),
    ) -> Result<Self, Error> {
        let mut random = StdRng::seed_from_u64(options.seed);
        let letters = b"bcdfghjklmnpqrstvwxz2456789";
        let suffix: String =
            (0..5).map(|_| char::from(letters[random.random_range(0..letters.len())])).collect();
        let namespace = format!("drill-{suffix}");
        let manifest = options.workload.as_deref().unwrap_or(DEFAULT_WORKLOAD);
        let workload = Workload::read(manifest, &namespace)?;
        let client = Client::new(kubeconfig)?.with_timeout(Duration::from_secs(10));
        let clock = Clock::start();
        let stage = Stage::new(clock, Progress::new(progress), &workload.namespace, site.timeline());
        let preload = Preload::of(options.preload, &namespace);
        Ok(Drill {
            site,
            kubeconfig,
            options,
            client,
            clock,
            workload,
            stage,
            random,
            owners_proxy: None,
            preload,
            namespace,
        })
    }
}

impl Drill<'_> {
    /// What the report says of the cluster.
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster {
            nodes: self.site.hosts().len(),
            net: self.site.net().to_owned(),
            runtime: self.workload.runtime.clone(),
            preloaded_pods: self.options.preload,
        }
    }

    /// Fills the cluster and deploys the workload.
    pub(crate) async fn set_up(&mut self) -> Result<(), Error> {
        if self.options.preload > 0 {
            self.stage.progress.say(&self.preload.describe())?;
            let began = self.clock.now();
            self.preload.fill(&self.client, self.clock, self.options.patience).await?;
            let took = (self.clock.now() - began).as_secs_f64();
            self.stage.progress.say(&format!("  preloaded in {took:.1} s"))?;
        }
        self.deploy().await
    }

    /// Begins one of as many runs as the options say.
    pub(crate) fn begin_run(&mut self, number: usize) -> Result<(), Error> {
        match (self.options.time, self.options.runs) {
            (Some(_), _) => self.stage.progress.say(&format!("run {number}"))?,
            (None, 1) => {}
            (None, runs) => self.stage.progress.say(&format!("run {number} of {runs}"))?,
        }
        self.stage.progress.say("waiting until every host and every pod is ready")
    }

    async fn deploy(&mut self) -> Result<(), Error> {
        let Workload { deployment, replicas, stateful, namespace, .. } = &self.workload;
        let noun = if *replicas == 1 { "replica" } else { "replicas" };
        let beside =
            stateful.as_ref().map(|set| format!(" and the StatefulSet {}", set.name)).unwrap_or_default();
        let say = format!("deploying {deployment} ({replicas} {noun}){beside} into {namespace}");
        self.stage.progress.say(&say)?;
        self.make_namespace().await?;
        let discovery = Discovery::ask(&self.client).await?;
        let mut said = Vec::new();
        self.workload.deploy(&self.client, &discovery, |line| said.push(format!("  {line}"))).await?;
        for line in said {
            self.stage.progress.say(&line)?;
        }
        let is_cut_off = self.options.fault == Fault::Partition;
        if self.options.fault.is_of_disk() || is_cut_off {
            self.make_written(WRITTEN).await?;
        }
        if is_cut_off {
            self.make_written(OF_MINORITY).await?;
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

    fn config_maps(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.workload.namespace)
    }

    /// Makes what is changed again and again.
    async fn make_written(&self, name: &str) -> Result<(), Error> {
        let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        match self.client.create(&self.config_maps(), &made).await {
            // It was left by an earlier drill, in a namespace of the user's.
            Err(error) if error.code() == Some(409) => Ok(()),
            made => made.map(drop).map_err(Error::from),
        }
    }

    /// Makes the workload's namespace; a cluster that has only just begun may need a moment for it.
    async fn make_namespace(&mut self) -> Result<(), Error> {
        let name = &self.workload.namespace;
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let is_users = *name != self.namespace;
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

    /// Takes what was made away, unless it shall stay; a cluster that is about to go does not mind when that fails.
    pub(crate) async fn clean_up(&self) {
        if self.options.keep {
            return;
        }
        if self.workload.namespace == self.namespace {
            drop(self.client.delete(&format!("/api/v1/namespaces/{}", self.namespace), &json!({})).await);
        }
        self.preload.remove(&self.client).await;
    }

    /// Waits until the cluster is at rest and every host has its share of the workload.
    pub(crate) async fn come_to_rest(&mut self) -> Result<Picture, Error> {
        let is_of_room = matches!(self.options.fault, Fault::FullDisk { .. });
        let patience = self.options.patience + if is_of_room { PRESSURE } else { Duration::ZERO };
        let until = self.clock.now() + patience;
        let hosts = self.site.hosts();
        let mut moved = 0;
        let mut has_told = false;
        let mut hopeless_since = None;
        loop {
            let unready = match Picture::take(&self.client, &self.workload).await {
                Err(error) => {
                    self.client.forget_connections();
                    vec![error.to_string()]
                }
                Ok(picture) => {
                    let mut unready = picture.unready(&hosts);
                    // With one host after the other full, there would soon be none that takes a pod.
                    let full = if is_of_room { picture.full_disks() } else { Vec::new() };
                    if let (Some(first), false) = (full.first(), has_told) {
                        has_told = true;
                        self.stage.progress.say(&format!("{first}, which takes five minutes"))?;
                    }
                    unready.extend(full);
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
                return Err(Error::Unsteady { after: patience, unready });
            }
            self.wait(LOOK).await?;
        }
    }

    pub(crate) async fn leader(&mut self) -> Result<String, Error> {
        let until = self.clock.now() + self.options.patience;
        loop {
            match self.leader_now().await? {
                Some(host) => return Ok(host),
                None if self.clock.now() > until => {
                    return Err(Error::NoLeader { after: self.options.patience });
                }
                None => self.wait(LOOK).await?,
            }
        }
    }

    /// The host that leads, where somebody does and the site can tell.
    pub(crate) async fn leader_now(&self) -> Result<Option<String>, Error> {
        let failed = |why| Error::Site { what: "asking for".into(), host: "the leader".into(), why };
        self.site.leader().await.map_err(failed)
    }

    /// Breaks a host, or mends it. Returns when that was.
    pub(crate) async fn act(&self, act: Act, fault: Fault, host: &str) -> Result<Moment, Error> {
        let (done, what) = match act {
            Act::Break => (self.site.inject(host, fault).await, format!("{} of", fault.name())),
            Act::Mend => (self.site.heal(host, fault).await, format!("the end of {} for", fault.name())),
        };
        let at = done.map_err(|why| Error::Site { what, host: host.to_owned(), why })?;
        Ok(self.clock.moment(at))
    }

    /// Lets time pass, and hears what comes meanwhile.
    pub(crate) async fn wait(&mut self, time: Duration) -> Result<(), Error> {
        let until = self.clock.now() + time;
        while self.clock.now() < until {
            self.stage.step().await?;
        }
        Ok(())
    }

    /// Watches the cluster and asks it, of which one host is about to be broken. Returns once everything is answered.
    pub(crate) async fn watch(
        &mut self,
        target: &str,
        rest: &Picture,
    ) -> Result<(Observer, Probes, Processes), Error> {
        let (out, seen) = unbounded_channel();
        self.stage.begin(seen);
        let survivors = self.survivors(target)?;
        // Through a surviving host where that is possible: what is seen must not stop with the address that moves.
        let through = survivors.first().unwrap_or(&self.client);
        let observer = Observer::start(self.clock, through, &self.workload, out);
        let mut probes = self.probes(target, rest)?;
        self.warm_up(&observer, &mut probes).await?;
        let stateful = self.workload.stateful.as_ref().ok().filter(|_| self.site.reaches_pods());
        let processes = Processes::of(self.clock, stateful.filter(|_| probes.no_stateful.is_none()), rest)?;
        Ok((observer, probes, processes))
    }

    fn probes(&self, target: &str, rest: &Picture) -> Result<Probes, Error> {
        let path = self.workload.service_path();
        let start = |ask| Series::start(self.clock, self.options.every, ask);
        let mut survivors = Vec::new();
        for client in self.survivors(target)? {
            survivors.push(start(fresh(&client, path.clone())));
        }
        let stateful = self.workload.stateful.as_ref();
        let identities = stateful.map(|stateful| Identity::all(self.clock, &self.client, stateful, rest));
        Ok(Probes {
            no_stateful: stateful.err().map(|why| (*why).to_owned()),
            stateful: identities.unwrap_or_default(),
            api: start(fresh(&self.client, "/api/v1/nodes".into())),
            service: start(fresh(&self.client, path.clone())),
            writes: self
                .options
                .fault
                .is_of_disk()
                .then(|| start(write(&self.client, format!("{}/{WRITTEN}", self.config_maps())))),
            survivors,
            kubectl_proxy: self.owners_proxy.as_ref().map(|proxy| start(proxy.ask(path))),
        })
    }

    /// Begins to ask a host that is cut off from the others, or says why it can't be asked; nothing where none is.
    pub(crate) fn minority(&self, target: &str) -> Result<Option<Result<Minority, String>>, Error> {
        if self.options.fault != Fault::Partition {
            return Ok(None);
        }
        let Some(url) = self.site.api_address(target) else {
            return Ok(Some(Err("the host that was cut off can't be asked itself".to_owned())));
        };
        let alone = Client::new(&self.kubeconfig.with_server(url))?;
        let [read, own] = [WRITTEN, OF_MINORITY].map(|name| format!("{}/{name}", self.config_maps()));
        Ok(Some(Ok(Minority::ask(&self.client, &alone, &read, &own))))
    }

    /// Clients of the surviving hosts' own addresses, where the site gives them.
    fn survivors(&self, target: &str) -> Result<Vec<Client>, Error> {
        let others = self.site.hosts().into_iter().filter(|h| h != target);
        let addresses = others.filter_map(|h| self.site.api_address(&h));
        addresses.map(|url| Ok(Client::new(&self.kubeconfig.with_server(url))?)).collect()
    }

    /// Waits until every series is answered and the observer has its lists: before that, nothing can be measured.
    async fn warm_up(&mut self, observer: &Observer, probes: &mut Probes) -> Result<(), Error> {
        let until = self.clock.now() + self.options.patience;
        let mut synced = 0;
        while synced < observer.kinds || !probes.all().all(|s| s.is_well(3)) {
            if let Step::Synced = self.stage.step().await? {
                synced += 1;
            }
            if probes.stateful.iter().any(|identity| identity.series.is_mute(MUTE)) {
                // A database that speaks its own language is no reason to hold no drill.
                probes.stateful.clear();
                let why = "the StatefulSet's pods don't answer HTTP requests".to_owned();
                self.stage.progress.say(&format!("  {why}"))?;
                probes.no_stateful = Some(why);
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
}
