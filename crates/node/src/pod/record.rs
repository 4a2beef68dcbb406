//! What the agent remembers of one pod, and how news of its processes and probes change that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use membership::lease::Epoch;

use super::back_off;
use super::error::{LEASE_AWAITED, NoImage, PrepareError, StartError};
use super::resize::Resize;
use crate::clock::Now;

/// Everything known of one pod beside its object.
#[derive(Debug, Clone)]
pub(crate) struct PodRecord {
    /// When the agent first saw it (`status.startTime`).
    pub start_time: Timestamp,
    /// How far its folder, volumes and address are.
    pub preparation: Preparation,
    /// Its containers by name, init containers too.
    pub containers: BTreeMap<String, ContainerRecord>,
    /// Set once it must end.
    pub ending: Option<Ending>,
    /// Why this host won't run it, if it won't.
    pub refused: Option<String>,
    /// Why it failed as a whole, if it did: once its processes are dead its phase says so.
    pub failed: Option<Failure>,
    /// By when it must be dead at the latest, whatever else says how long it has: it was evicted.
    pub hurry: Option<Duration>,
    /// Until when a status that only says "being created" is not worth a write.
    pub hold_status_until: Duration,
    /// Whether all of it is being ended: it is over, failed or must go.
    pub stopping: bool,
    /// Whether its last steps were asked for.
    pub finishing: bool,
    /// Whether it stops with its host's lease, or is about to.
    pub is_single: bool,
    /// The epoch of that lease that it is said to stop with from now on.
    pub stops_with: Option<Epoch>,
    /// Whether it runs without one, as what an older program started does: it must not say otherwise.
    pub goes_on: bool,
    /// Whether it does so though it must not run twice: then it says that.
    pub lacks_lease: bool,
    /// How far its resize is, if it is at one.
    pub resize: Resize,
}

/// Why a pod failed, beyond what its containers did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In the API's word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Whether it goes for the host's sake: then who counts its failures is to pass over this one (KEP-3329).
    pub is_disruption: bool,
}

/// How far a pod's folder, volumes and address are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Preparation {
    /// Nothing was done.
    #[default]
    None,
    /// Under way.
    Asked,
    /// All there.
    Done {
        /// The pod's address.
        address: IpAddr,
    },
    /// Something was missing.
    Failed {
        /// What.
        error: PrepareError,
        /// When to try again.
        retry: Duration,
    },
}

/// Why and by when a pod must end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// When its processes are killed at the latest.
    pub deadline: Duration,
    /// What to do once all is dead.
    pub then: Then,
}

/// What follows a pod's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Its object's removal is confirmed.
    Confirm,
    /// Nothing: its object is gone already.
    Forget,
    /// Nothing: the agent stops and the object stays.
    Stay,
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerRecord {
    /// Where in its life it is.
    pub stage: Stage,
    /// How often it was started again (`restartCount`); also the number of the current attempt.
    pub restarts: u32,
    /// How its last life ended.
    pub last: Option<Terminated>,
    /// How long it waits after its next end.
    pub back_off: Duration,
    /// How long it waits for its image, if it is at that.
    pub image_back_off: Duration,
    /// The name of the image that it waits for, if it is at that: its own, or a volume's.
    pub lacks: String,
    /// Its image by digest, once it was there.
    pub image_id: String,
    /// Whether the next start is another attempt than the last.
    pub attempted: bool,
    /// What its life has of the machine, in the words of the spec.
    pub given: ResourceRequirements,
}

impl Default for ContainerRecord {
    fn default() -> Self {
        let stage = Stage::Waiting { reason: String::new(), message: String::new(), retry: Duration::ZERO };
        ContainerRecord {
            stage,
            restarts: 0,
            last: None,
            back_off: Duration::ZERO,
            image_back_off: Duration::ZERO,
            lacks: String::new(),
            image_id: String::new(),
            attempted: false,
            given: ResourceRequirements::default(),
        }
    }
}

/// Where in its life a container is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// Not started; with a reason if something is in the way.
    Waiting {
        /// In the API's word, empty for the usual one.
        reason: String,
        /// For people.
        message: String,
        /// When to try again.
        retry: Duration,
    },
    /// Its process was asked for.
    Starting,
    /// Its process runs.
    Running(Running),
    /// Its process ended.
    Ended {
        /// How.
        exit: Terminated,
        /// When it may start again.
        again: Duration,
        /// Whether it was reported that it waits.
        told: bool,
    },
}

/// A running container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Running {
    /// Since when.
    pub since: Now,
    /// Whether its startup probe passed (or it has none).
    pub started: bool,
    /// Whether it has a readiness probe.
    pub asked_ready: bool,
    /// Whether its readiness probe passes (or it has none).
    pub ready: bool,
    /// Set once it must end.
    pub stop: Option<Stop>,
    /// Whether it ends to be started with other resources.
    pub is_resized: bool,
}

/// The end of one process, step by step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stop {
    /// When it is killed at the latest.
    pub deadline: Duration,
    /// The last step taken.
    pub step: StopStep,
}

/// The steps of a process's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopStep {
    /// Nothing was done.
    None,
    /// Its preStop hook runs.
    PreStop,
    /// Its preStop hook is over.
    PreStopDone,
    /// It was asked to end (SIGTERM).
    Asked,
    /// It was killed (SIGKILL).
    Killed,
}

/// How a life of a container ended, as its status says it (`ContainerStateTerminated`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terminated {
    /// The container's id in that life.
    pub id: String,
    /// Its exit code, 128 and the signal's number for a signal.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// In the API's word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// How a process ended, as its parent saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerEnd {
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// What it said last.
    pub message: String,
    /// Why, in the API's word, if that is known better than from the code.
    pub reason: Option<&'static str>,
    /// When it ended, if that is known better than from the time of the report.
    pub at: Option<Timestamp>,
}

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// Whether the container has come up.
    Startup,
    /// Whether it can serve.
    Readiness,
    /// Whether it is well.
    Liveness,
}

/// How long until a missing ConfigMap and the like is looked for again: it costs one look at a snapshot.
const RETRY: Duration = Duration::from_millis(500);

impl PodRecord {
    /// A pod that was never here.
    pub(crate) fn new(now: Now) -> Self {
        PodRecord {
            start_time: now.wall,
            preparation: Preparation::None,
            containers: BTreeMap::new(),
            ending: None,
            refused: None,
            failed: None,
            hurry: None,
            hold_status_until: now.elapsed + Duration::from_millis(100),
            stopping: false,
            finishing: false,
            is_single: false,
            stops_with: None,
            goes_on: false,
            lacks_lease: false,
            resize: Resize::default(),
        }
    }

    /// The container of that name, if `attempt` is its current life.
    fn current(&mut self, name: &str, attempt: u32) -> Option<&mut ContainerRecord> {
        self.containers.get_mut(name).filter(|c| c.restarts == attempt)
    }

    /// Folder, volumes and address are there, or not.
    pub(crate) fn prepared(&mut self, result: Result<IpAddr, PrepareError>, now: Now) {
        self.preparation = match result {
            Ok(address) => Preparation::Done { address },
            Err(error) => Preparation::Failed { error, retry: now.elapsed + RETRY },
        };
    }

    /// A process was made, or not. `probed` says which probes it has: (startup, readiness).
    pub(crate) fn started(
        &mut self,
        id: &str,
        name: &str,
        attempt: u32,
        result: Result<(bool, bool), StartError>,
        now: Now,
    ) {
        let Some(container) = self.current(name, attempt) else { return };
        match result {
            Ok((startup, readiness)) => {
                container.stage = Stage::Running(Running {
                    since: now,
                    started: !startup,
                    asked_ready: readiness,
                    ready: !startup && !readiness,
                    stop: None,
                    is_resized: false,
                });
            }
            Err(StartError::Config(message)) => {
                container.wait("CreateContainerConfigError", message, now.elapsed + RETRY);
            }
            Err(StartError::Create(message)) => {
                container.wait("CreateContainerError", message, now.elapsed + RETRY);
            }
            Err(StartError::Ended) => container.wait("", String::new(), now.elapsed),
            Err(StartError::Lease(message)) => container.wait(LEASE_AWAITED, message, now.elapsed + RETRY),
            Err(StartError::Image(NoImage { name, reason, message, .. })) => {
                container.lacks = name;
                let (_, next) = back_off::after(container.image_back_off, Duration::ZERO);
                container.image_back_off = next;
                container.wait(reason, message, now.elapsed + next);
            }
            Err(StartError::Run(message)) => {
                let exit = Terminated {
                    id: id.to_owned(),
                    code: 128,
                    signal: 0,
                    reason: "StartError".into(),
                    message,
                    started_at: None,
                    finished_at: Some(now.wall),
                };
                container.end(exit, Duration::ZERO, now);
            }
        }
    }

    /// A container's image is there.
    pub(crate) fn has_image(&mut self, name: &str, attempt: u32, id: String) {
        if let Some(container) = self.current(name, attempt) {
            (container.image_back_off, container.image_id) = (Duration::ZERO, id);
        }
    }

    /// A process ended.
    pub(crate) fn exited(&mut self, id: &str, name: &str, attempt: u32, outcome: ContainerEnd, now: Now) {
        let stopping = self.stopping;
        let Some(container) = self.current(name, attempt) else { return };
        let Stage::Running(running) = &container.stage else { return };
        let (since, is_resized) = (running.since, running.is_resized && !stopping);
        let ContainerEnd { code, signal, message, reason, at } = outcome;
        let exit = Terminated {
            id: id.to_owned(),
            code,
            signal,
            reason: reason.unwrap_or(if code == 0 { "Completed" } else { "Error" }).into(),
            message,
            started_at: Some(since.wall),
            finished_at: Some(at.unwrap_or(now.wall)),
        };
        if is_resized {
            // Whatever its policy says of ends, and at once: it didn't fail.
            container.last = Some(exit);
            let (reason, message) = Default::default();
            container.stage = Stage::Waiting { reason, message, retry: now.elapsed };
            return;
        }
        container.end(exit, now.elapsed.saturating_sub(since.elapsed), now);
    }

    /// A probe's verdict changed. A failed startup or liveness probe ends the process within `grace`.
    pub(crate) fn probed(
        &mut self,
        name: &str,
        attempt: u32,
        kind: ProbeKind,
        healthy: bool,
        grace: Duration,
        now: Now,
    ) {
        let Some(container) = self.current(name, attempt) else { return };
        let Stage::Running(running) = &mut container.stage else { return };
        match (kind, healthy) {
            (ProbeKind::Startup, true) => {
                running.started = true;
                running.ready |= !running.asked_ready;
            }
            (ProbeKind::Readiness, healthy) => running.ready = healthy,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => self.must_restart(name, attempt, grace, now),
        }
    }

    /// Something is wrong with a container: its process must end within `grace`.
    pub(crate) fn must_restart(&mut self, name: &str, attempt: u32, grace: Duration, now: Now) {
        let Some(container) = self.current(name, attempt) else { return };
        if let Stage::Running(running) = &mut container.stage {
            running.stop.get_or_insert(Stop { deadline: now.elapsed + grace, step: StopStep::None });
        }
    }

    /// A preStop hook is over.
    pub(crate) fn pre_stop_done(&mut self, name: &str, attempt: u32) {
        let Some(container) = self.current(name, attempt) else { return };
        if let Stage::Running(Running { stop: Some(stop), .. }) = &mut container.stage {
            stop.step = stop.step.max(StopStep::PreStopDone);
        }
    }

    /// It must be dead within `grace`, unless it must be sooner.
    pub(crate) fn must_hurry(&mut self, grace: Duration, now: Now) {
        self.hurry = Some(self.by(now.elapsed + grace));
    }

    /// A deadline of the pod's, or the earlier one by which it must be dead anyway.
    pub(super) fn by(&self, deadline: Duration) -> Duration {
        self.hurry.map_or(deadline, |hurry| hurry.min(deadline))
    }

    /// Whether nothing of it lives or is being made: only then can what it has be taken away.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.alive() && self.preparation != Preparation::Asked
    }

    /// Whether something of it is being made, as was decided when that was asked for.
    pub(crate) fn is_being_made(&self) -> bool {
        self.preparation == Preparation::Asked || self.containers.values().any(|c| c.stage == Stage::Starting)
    }

    /// Whether any process may be alive.
    pub(crate) fn alive(&self) -> bool {
        self.containers.values().any(|c| matches!(c.stage, Stage::Starting | Stage::Running(_)))
    }
}

impl ContainerRecord {
    /// It isn't made now; that counts for nothing.
    fn wait(&mut self, reason: &str, message: String, retry: Duration) {
        self.attempted = false;
        self.stage = Stage::Waiting { reason: reason.to_owned(), message, retry };
    }

    fn end(&mut self, exit: Terminated, ran: Duration, now: Now) {
        let (wait, next) = back_off::after(self.back_off, ran);
        self.back_off = next;
        self.stage = Stage::Ended { exit, again: now.elapsed + wait, told: false };
    }
}
