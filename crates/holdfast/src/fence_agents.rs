//! Switches hosts off by their fence agents: on the leader, while a majority follows it, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::FenceAction;
use fencing::{Agent, Book, Seen};
use k8s_openapi::api::core::v1::{Node, Pod};
use membership::lease::Epoch;
use objects::{Fencing, Occurrence, Reader, Recorder, Reporter, STOPS_WITH_LEASE, Writer};
use store::{State, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::info_span;

/// As whom Events are written: with the controllers'.
const USER: &str = "system:kube-controller-manager";
/// How often silent hosts are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The pause before an agent that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a majority may take to say that this host leads.
const ANSWER: Duration = Duration::from_secs(5);

/// The hosts that agents have switched off, each with the epoch of its lease that is over by that.
pub type Off = Arc<BTreeMap<String, Epoch>>;

/// What is known of the other hosts.
#[derive(Clone)]
pub struct Silence {
    /// Which are silent, and when each was last heard.
    pub silent: watch::Receiver<BTreeMap<String, Instant>>,
    /// Which a majority misses.
    pub missed: watch::Receiver<BTreeSet<String>>,
}

/// The agents of other hosts.
#[derive(Clone)]
pub struct FenceAgents {
    agents: Arc<BTreeMap<String, config::FenceAgent>>,
    silent_for: Duration,
    silence: Silence,
    store: Arc<dyn Store>,
    recorder: Recorder,
    runs: Runs,
}

/// How often which host's agent ended how.
#[derive(Debug, Clone, Default)]
pub struct Runs(Arc<Mutex<BTreeMap<(String, &'static str), u64>>>);

impl Runs {
    fn count(&self, host: &str, outcome: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((host.to_owned(), outcome)).or_default() += 1;
    }

    /// For `/metrics`.
    pub fn write(&self, out: &mut String) {
        figures::family(
            out,
            "holdfast_fence_agent_runs_total",
            "counter",
            "How often this host, as the leader, had a host's fence agent switch it off, and how that ended",
        );
        for ((host, outcome), count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut labels = String::new();
            // A string takes everything.
            let _ = write!(labels, r#"host="{host}",outcome="{outcome}""#);
            figures::sample(out, "holdfast_fence_agent_runs_total", &labels, count);
        }
    }
}

/// An agent's end.
struct Ended {
    host: String,
    epoch: Epoch,
    outcome: Result<(), String>,
}

impl FenceAgents {
    /// Those of a configuration but for this host's own.
    pub fn new(
        config: &config::HostConfig,
        silence: Silence,
        store: Arc<dyn Store>,
        writer: Arc<dyn Writer>,
        runs: Runs,
    ) -> Self {
        let others = config.fencing.agents.iter().filter(|(host, _)| **host != config.name);
        let agents = others.map(|(host, agent)| (host.clone(), agent.clone())).collect();
        let from = Reporter { component: "fencing".into(), host: Some(config.name.clone()) };
        FenceAgents {
            agents: Arc::new(agents),
            silent_for: config.fencing.silent_for,
            silence,
            store,
            recorder: Recorder::start(writer, USER.into(), from),
            runs,
        }
    }

    /// Does that until the heartbeats end, and shows who is off.
    pub async fn run(self, off: watch::Sender<Off>) {
        if self.agents.is_empty() {
            return;
        }
        let mut silent = self.silence.silent.clone();
        let (tell, mut ended) = mpsc::channel(16);
        let (mut book, mut pods) = (Book::default(), Reader::default());
        loop {
            let last_heard = silent.borrow_and_update().clone();
            for (host, agent) in self.agents.iter() {
                let seen = self.see(host, last_heard.get(host).copied(), &mut pods);
                if let Some(epoch) = book.look(host, seen, self.silent_for) {
                    let job = self.clone().switch_off(host.clone(), agent.clone(), epoch, tell.clone());
                    tasks::spawn(info_span!("fence agent", %host), job);
                }
            }
            let is_quiet = !self.agents.keys().any(|host| last_heard.contains_key(host));
            if is_quiet {
                pods = Reader::default();
            }
            let now_off = Arc::new(book.off());
            off.send_if_modified(|known| {
                let is_new = *known != now_off;
                *known = now_off;
                is_new
            });
            tokio::select! {
                changed = silent.changed() => if changed.is_err() { return },
                Some(end) = ended.recv() => self.note(&mut book, end),
                () = sleep(LOOK), if !is_quiet => {}
            }
        }
    }

    /// What is known of a host now. Who doesn't lead sees nobody's silence.
    #[allow(clippy::disallowed_methods)] // The driver: here the book gets its time.
    fn see(&self, host: &str, last_heard: Option<Instant>, pods: &mut Reader<Pod>) -> Seen {
        let Some(last_heard) = last_heard.filter(|_| self.store.leadership().borrow().is_me) else {
            return Seen::default();
        };
        let silent_for = Instant::now().saturating_duration_since(last_heard);
        let is_missed = self.silence.missed.borrow().contains(host);
        let mut seen = Seen { silent_for: Some(silent_for), is_missed, ..Seen::default() };
        if silent_for >= self.silent_for && is_missed {
            let state = self.store.snapshot();
            let node = Reader::<Node>::get(&state, "", host);
            let said = node.map(|node| Fencing::of(node.metadata.annotations.as_ref())).unwrap_or_default();
            seen.epoch = said.epoch.filter(|_| said.grade.is_some());
            seen.is_fenced = said.is_fenced();
            seen.has_single = seen.epoch.is_some() && !seen.is_fenced && has_single(host, &state, pods);
        }
        seen
    }

    /// Has a host's agent switch it off, and on again.
    async fn switch_off(
        self,
        host: String,
        said: config::FenceAgent,
        epoch: Epoch,
        tell: mpsc::Sender<Ended>,
    ) {
        let about = format!("Node {host} isn't heard: {} is to switch it off", said.program.display());
        self.record(&host, false, "FencingStarted", about);
        let agent = Agent {
            program: said.program.clone(),
            parameters: said.parameters,
            secrets: said.secrets_file,
            timeout: said.timeout,
        };
        let outcome = self.off(&host, &agent, said.tries).await;
        let is_off = outcome.is_ok();
        // Who would hear it is gone with the host.
        let _ = tell.send(Ended { host: host.clone(), epoch, outcome }).await;
        if is_off
            && said.action == FenceAction::Reboot
            && let Err(problem) = agent.on().await
        {
            let about = format!("Node {host} stays off: {problem}; switch it on by hand");
            self.record(&host, true, "SwitchOnFailed", about);
        }
    }

    async fn off(&self, host: &str, agent: &Agent, tries: u32) -> Result<(), String> {
        let mut why = String::new();
        for turn in 0..tries {
            if turn > 0 {
                sleep(PAUSE).await;
            }
            self.still_may(host).await?;
            match agent.off().await {
                Ok(()) => return Ok(()),
                Err(problem) => why = problem.to_string(),
            }
        }
        Err(why)
    }

    /// Makes sure that a majority follows this host right now, which one that was cut off can't know of itself, and that the host still isn't heard.
    async fn still_may(&self, host: &str) -> Result<(), String> {
        let answer = timeout(ANSWER, self.store.read()).await;
        if !matches!(answer, Ok(Ok(_))) || !self.store.leadership().borrow().is_me {
            return Err("no majority follows this host any more".into());
        }
        let is_silent = self.silence.silent.borrow().contains_key(host);
        let is_missed = self.silence.missed.borrow().contains(host);
        match is_silent && is_missed {
            true => Ok(()),
            false => Err("it was heard again".into()),
        }
    }

    /// Takes in how an agent ended.
    fn note(&self, book: &mut Book, end: Ended) {
        let Ended { host, epoch, outcome } = end;
        let is_off = book.ended(&host, epoch, outcome.is_ok());
        self.runs.count(&host, if is_off { "off" } else { "failed" });
        let (reason, about) = match outcome {
            Ok(()) if is_off => ("NodeSwitchedOff", format!("Node {host} is off, as its fence agent says")),
            Ok(()) => (
                "FencingFailed",
                format!(
                    "The fence agent of node {host} says that it is off, and it was heard: does it switch another machine?"
                ),
            ),
            Err(why) => {
                ("FencingFailed", format!("Node {host} wasn't switched off: {why}; its lease decides"))
            }
        };
        match is_off {
            true => tracing::warn!(%host, epoch, "{about}"),
            false => tracing::error!(%host, epoch, "{about}"),
        }
        self.record(&host, !is_off, reason, about);
    }

    fn record(&self, host: &str, is_warning: bool, reason: &'static str, about: String) {
        if let Some(node) = Reader::<Node>::get(&self.store.snapshot(), "", host) {
            self.recorder.record(Occurrence::of(&node, is_warning, reason, about));
        }
    }
}

/// Whether a pod is on that host that must not run twice, as the host has said.
fn has_single(host: &str, state: &State, pods: &mut Reader<Pod>) -> bool {
    pods.list(state).iter().any(|pod| {
        let is_there = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(host));
        let status = pod.status.as_ref();
        let is_over =
            matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        is_there && !is_over && conditions.any(|said| said.type_ == STOPS_WITH_LEASE && said.status == "True")
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use futures::future::BoxFuture;
    use machinery::{Object, Status};
    use objects::{FENCING, LEASE_EPOCH, Write};
    use serde_json::json;
    use store::{Memory, Txn};

    use super::*;

    /// Long enough for any machine; nothing waits for it unless something is wrong.
    const SOON: Duration = Duration::from_secs(20);

    /// Nobody reads Events here.
    struct Unread;

    impl Writer for Unread {
        fn write<'a>(&'a self, _: &'a str, _: Write) -> BoxFuture<'a, Result<Object, Status>> {
            Box::pin(std::future::ready(Ok(Object(serde_json::Map::new()))))
        }
    }

    /// A cluster whose host n2 has a pod that must not run twice, and an agent that switches it by a file.
    struct Cluster {
        folder: tempfile::TempDir,
        agents: FenceAgents,
        silent: watch::Sender<BTreeMap<String, Instant>>,
        missed: watch::Sender<BTreeSet<String>>,
    }

    impl Cluster {
        async fn new(script: &str, stops: &str) -> Cluster {
            let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(Memory::default()));
            let node = json!({"kind": "Node", "apiVersion": "v1",
                "metadata": {"name": "n2", "annotations": {FENCING: "lease,agent", LEASE_EPOCH: "7"}}});
            let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "db-0", "namespace": "d"},
                "spec": {"nodeName": "n2", "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": STOPS_WITH_LEASE, "status": stops}]}});
            store.txn(Txn::put(objects::key("", "nodes", "", "n2"), node.to_string())).await.unwrap();
            store.txn(Txn::put(objects::key("", "pods", "d", "db-0"), pod.to_string())).await.unwrap();
            let program = folder.path().join("fence_file");
            // By another process: one that this process forks meanwhile would have it open for writing, and then it can't be executed.
            let mut write = Command::new("sh");
            write.args(["-c", r#"echo "$SCRIPT" > "$FILE" && chmod 755 "$FILE""#]);
            write.env("SCRIPT", format!("#!/bin/sh\n{script}")).env("FILE", &program);
            assert!(write.status().unwrap().success());
            let (silent, silent_seen) = watch::channel(BTreeMap::new());
            let (missed, missed_seen) = watch::channel(BTreeSet::new());
            let file = folder.path().join("power").display().to_string();
            let agent = config::FenceAgent {
                program,
                parameters: BTreeMap::from([("file".to_owned(), file)]),
                secrets_file: None,
                action: FenceAction::Off,
                timeout: SOON,
                tries: 2,
            };
            let agents = FenceAgents {
                agents: Arc::new(BTreeMap::from([("n2".to_owned(), agent)])),
                silent_for: Duration::ZERO,
                silence: Silence { silent: silent_seen, missed: missed_seen },
                store,
                recorder: Recorder::start(Arc::new(Unread), USER.into(), Reporter::default()),
                runs: Runs::default(),
            };
            Cluster { folder, agents, silent, missed }
        }

        /// The agents at work.
        fn run(&self) -> watch::Receiver<Off> {
            let (tell_off, off) = watch::channel(Off::default());
            tokio::spawn(self.agents.clone().run(tell_off));
            off
        }

        /// No member hears n2 any more.
        #[allow(clippy::disallowed_methods)] // Some instant to count from.
        fn silence(&self) {
            self.missed.send_replace(BTreeSet::from(["n2".to_owned()]));
            self.silent.send_replace(BTreeMap::from([("n2".to_owned(), Instant::now())]));
        }

        fn power(&self) -> String {
            std::fs::read_to_string(self.folder.path().join("power")).unwrap_or_default()
        }

        fn metrics(&self) -> String {
            let mut out = String::new();
            self.agents.runs.write(&mut out);
            out
        }

        async fn until(&self, holds: impl Fn(&Self) -> bool) {
            let looks = async {
                while !holds(self) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, looks).await.expect("in time");
        }
    }

    /// An agent that writes down what it was asked to do, and reports it when asked.
    const GOOD: &str = r#"
        while IFS='=' read -r name value; do case $name in action) action=$value;; file) file=$value;; esac; done
        case $action in
            status) [ "$(tail -n 1 "$file")" = off ] && exit 2; exit 0;;
            *) echo "$action" >> "$file";;
        esac"#;

    #[tokio::test]
    async fn a_host_that_is_silent_is_switched_off_and_known_to_be_until_it_is_back() {
        let cluster = Cluster::new(GOOD, "True").await;
        let mut off = cluster.run();
        cluster.silence();
        let known = BTreeMap::from([("n2".to_owned(), 7)]);
        timeout(SOON, off.wait_for(|off| **off == known)).await.expect("in time").unwrap();
        assert_eq!(cluster.power(), "off\n");
        assert!(cluster.metrics().contains(r#"{host="n2",outcome="off"} 1"#), "{}", cluster.metrics());
        cluster.silent.send_replace(BTreeMap::new());
        timeout(SOON, off.wait_for(|off| off.is_empty())).await.expect("it is back").unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_fails_is_tried_twice_and_then_the_lease_decides() {
        let cluster = Cluster::new(&format!("{GOOD}; [ $action = off ] && exit 1"), "True").await;
        let off = cluster.run();
        cluster.silence();
        cluster.until(|cluster| cluster.metrics().contains(r#"outcome="failed"} 1"#)).await;
        assert_eq!(cluster.power(), "off\noff\n");
        assert!(off.borrow().is_empty());
    }

    #[tokio::test]
    async fn what_is_seen_of_a_host_is_what_spares_it() {
        #[allow(clippy::disallowed_methods)] // Some instant to count from.
        let heard = Some(Instant::now());
        let see = |cluster: &Cluster, heard| {
            let seen = cluster.agents.see("n2", heard, &mut Reader::default());
            Seen { silent_for: seen.silent_for.map(|_| SOON), ..seen }
        };
        let cluster = Cluster::new(GOOD, "True").await;
        let silent = Seen { silent_for: Some(SOON), ..Seen::default() };
        assert_eq!(see(&cluster, None), Seen::default());
        assert_eq!(see(&cluster, heard), silent, "a majority hears it");
        cluster.silence();
        let missed = Seen { is_missed: true, epoch: Some(7), has_single: true, ..silent };
        assert_eq!(see(&cluster, heard), missed);
        let cluster = Cluster::new(GOOD, "False").await;
        cluster.silence();
        assert_eq!(see(&cluster, heard), Seen { has_single: false, ..missed });
    }
}
