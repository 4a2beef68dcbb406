//! Switches hosts off by their fence agents: on the leader, while a majority follows it, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::FenceAction;
use fencing::{Agent, Book, Seen, Step};
use k8s_openapi::api::core::v1::{Node, Pod};
use membership::lease::Epoch;
use objects::{
    Fencing, Occurrence, Reader, Recorder, Reporter, STOPS_WITH_LEASE, SWITCH_ON_EPOCH, TypedRef, Write,
    Writer,
};
use serde_json::json;
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
/// How long a majority may take to say that this host leads, or to take in what it is about to do.
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
    writer: Arc<dyn Writer>,
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
    end: End,
}

enum End {
    /// It was to switch the host off, by which this epoch would be over.
    Off(Epoch, Result<(), String>),
    /// It was to switch it on.
    On,
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
            recorder: Recorder::start(writer.clone(), USER.into(), from),
            writer,
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
                if let Some(step) = book.look(host, seen, self.silent_for) {
                    let job = self.clone().take(step, host.clone(), agent.clone(), tell.clone());
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
            // What is to stay off isn't switched on, also if that was configured later.
            let is_reboot = self.agents.get(host).is_some_and(|agent| agent.action == FenceAction::Reboot);
            seen.left_off = said.switch_on.filter(|_| is_reboot);
            seen.has_single = seen.epoch.is_some() && !seen.is_fenced && has_single(host, &state, pods);
        }
        seen
    }

    /// Has a host's agent do that. What can't be done yet when this host ends, or no longer leads, is for the next leader to do: so it is
    /// written down first.
    async fn take(self, step: Step, host: String, said: config::FenceAgent, tell: mpsc::Sender<Ended>) {
        let program = said.program.display();
        let agent = Agent {
            program: said.program.clone(),
            parameters: said.parameters.clone(),
            secrets: said.secrets_file.clone(),
            timeout: said.timeout,
        };
        match step {
            Step::Off(epoch) => {
                let about = format!("Node {host} isn't heard: {program} is to switch it off");
                self.record(&host, false, "FencingStarted", about);
                let outcome = self.off(&host, &agent, &said, epoch).await;
                let is_off = outcome.is_ok();
                // Who would hear it is gone with the host.
                let _ = tell.send(Ended { host: host.clone(), end: End::Off(epoch, outcome) }).await;
                if is_off && said.action == FenceAction::Reboot {
                    self.on(&host, &agent, said.tries).await;
                }
            }
            Step::On => {
                let about = format!(
                    "Node {host} was switched off, and its leader ended before it was on again: {program} is to switch it on"
                );
                self.record(&host, false, "SwitchOnStarted", about);
                self.on(&host, &agent, said.tries).await;
                let _ = tell.send(Ended { host, end: End::On }).await;
            }
        }
    }

    async fn off(
        &self,
        host: &str,
        agent: &Agent,
        said: &config::FenceAgent,
        epoch: Epoch,
    ) -> Result<(), String> {
        let mut why = String::new();
        for turn in 0..said.tries {
            if turn > 0 {
                sleep(PAUSE).await;
            }
            if said.action == FenceAction::Reboot
                && let Err(problem) = self.write_switch_on(host, Some(epoch)).await
            {
                why = format!("that it is to be switched on again can't be written on its Node: {problem}");
                continue;
            }
            self.still_may(host).await?;
            match agent.off().await {
                Ok(()) => return Ok(()),
                Err(problem) => why = problem.to_string(),
            }
        }
        Err(why)
    }

    /// Has a host's agent switch it on, and writes down that it is.
    async fn on(&self, host: &str, agent: &Agent, tries: u32) {
        let mut why = String::new();
        for turn in 0..tries {
            if turn > 0 {
                sleep(PAUSE).await;
            }
            match agent.on().await {
                Ok(()) => {
                    // At worst the next leader switches on a machine that is on.
                    if let Err(why) = self.write_switch_on(host, None).await {
                        tracing::warn!(%host, "that it is on again can't be written on its Node: {why}");
                    }
                    return;
                }
                Err(problem) => why = problem.to_string(),
            }
        }
        let about = format!("Node {host} stays off: {why}; switch it on by hand");
        self.record(host, true, "SwitchOnFailed", about);
    }

    /// Writes on a host's Node in which epoch its machine is switched off to be switched on again; nothing once that is done.
    async fn write_switch_on(&self, host: &str, epoch: Option<Epoch>) -> Result<(), String> {
        let subject = TypedRef {
            api_version: "v1".into(),
            kind: "Node".into(),
            namespace: String::new(),
            name: host.to_owned(),
        };
        let epoch = epoch.map(|epoch| epoch.to_string());
        let patch = json!({"metadata": {"annotations": {(SWITCH_ON_EPOCH): epoch}}});
        let write = self.writer.write(USER, Write::Merge { subject, subresource: "", patch });
        match timeout(ANSWER, write).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(refused.message),
            Err(_) => Err(format!("that took longer than {ANSWER:?}")),
        }
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
        let Ended { host, end } = end;
        let End::Off(epoch, outcome) = end else {
            book.switched_on(&host);
            return;
        };
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
mod tests;
