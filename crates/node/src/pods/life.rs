//! One life of one container: its process from start to end, its log, its probes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{mpsc, watch};

use super::Host;
use super::running::{Input, Live};
use crate::host::{
    Command, LogFile, LogProgress, Process, ProcessError, Streams, Tail, capture, end_session, last_words,
    outputs, signal_group,
};
use crate::pod::{Outcome, StartError, container, uid};
use crate::probe::{Check, Finding, Target, probe_container};

/// The logs that are being written, by the file's path: who follows one waits here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<HashMap<PathBuf, watch::Receiver<LogProgress>>>>);

impl Logs {
    /// How far a log is, if it is being written.
    pub(crate) fn progress(&self, path: &PathBuf) -> Option<watch::Receiver<LogProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn begin(&self, path: PathBuf, progress: watch::Receiver<LogProgress>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, progress);
    }

    fn end(&self, path: &PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
}

/// A container in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Which {
    pub uid: String,
    pub container: String,
    pub attempt: u32,
}

/// News for the desk.
#[derive(Debug)]
pub(crate) enum Report {
    /// A pod's folder, volumes and address are there, or not.
    Prepared(String, Result<IpAddr, (String, String)>),
    /// A process was made, or not.
    Started(Which, Result<Started, StartError>),
    /// A process ended.
    Exited(Which, Outcome),
    /// A probe found something.
    Found(Which, Finding),
    /// A preStop hook is over.
    PreStopDone(Which, Result<(), String>),
    /// A status was written, or not.
    Written(String, Result<(), api::Status>),
    /// A pod that ended is cleaned up and, if that was due, confirmed.
    Finished(String),
}

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Started {
    pub pid: i32,
    pub target: Box<Target>,
    /// Set to true once the whole pod ends.
    pub ending: watch::Sender<bool>,
}

/// Lives one life of a container, from start to end.
pub(crate) async fn live(
    host: Arc<Host>,
    pod: Arc<Pod>,
    which: Which,
    address: IpAddr,
    reports: mpsc::UnboundedSender<Report>,
) {
    let tell = |report| {
        let _ = reports.send(report);
    };
    let made = make(&host, &pod, &which, address).await;
    let (command, mut process, log) = match made {
        Ok(made) => made,
        Err(error) => return tell(Report::Started(which, Err(error))),
    };
    let Some(spec) = container(&pod, &which.container) else { return };
    let pid = process.pid;
    let beside = Command { beside: Some(pid), streams: Streams::Outputs, ..command };
    let target = Target {
        container: spec.clone().into_owned(),
        address,
        command: beside.clone(),
        spawner: host.spawner.clone(),
    };
    let path = host.folders.logs(&pod, &which.container).join(format!("{}.log", which.attempt));
    host.logs.begin(path.clone(), log.progress());
    let input = input(&mut process, &spec);
    let (ended, over) = watch::channel(false);
    let listed = Live::new(beside, input, process.terminal.clone());
    let listed = host.running.begin(&which.uid, &which.container, listed);
    let output = tokio::spawn(capture_all(&mut process, log, Tail::new(over), listed.live().clone()));
    let (ending, ends) = watch::channel(false);
    tell(Report::Started(which.clone(), Ok(Started { pid, target: Box::new(target.clone()), ending })));

    let found = |finding| tell(Report::Found(which.clone(), finding));
    let status = tokio::select! {
        status = process.child.wait() => status,
        () = async {
            probe_container(target, host.clock, ends, found).await;
            std::future::pending().await
        } => return,
    };
    // With its first process the container is over: whatever that left behind in its group ends too, and the jobs
    // of a shell on its terminal.
    signal_group(pid, libc::SIGKILL);
    if process.terminal.is_some() {
        end_session(pid).await;
    }
    listed.end().await;
    ended.send_replace(true);
    let _ = output.await;
    drop(listed);
    host.logs.end(&path);
    let (code, signal) = match status {
        Ok(status) => {
            let signal = status.signal().unwrap_or(0);
            (status.code().unwrap_or(128 + signal), signal)
        }
        Err(error) => {
            tracing::error!(uid = uid(&pod), %error, "a container's process can't be waited for");
            (255, 0)
        }
    };
    let fallback = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") && code != 0;
    let file = host.folders.message(&which.uid, &which.container);
    let read = tokio::task::spawn_blocking(move || last_words(&file, fallback.then_some(&*path)));
    let message = read.await.unwrap_or_default();
    tell(Report::Exited(which.clone(), Outcome { code, signal, message }));
}

/// Writes all that a process prints to its log, and passes it on to those who watch.
fn capture_all(
    process: &mut Process,
    log: LogFile,
    tail: Tail,
    live: Arc<Live>,
) -> impl Future<Output = ()> + use<> {
    let (stdout, stderr) = outputs(process);
    let seen = move |source, bytes: &[u8]| {
        let (live, piece) = (live.clone(), live.output.piece(bytes));
        async move { live.output.pass(source, piece).await }
    };
    capture(stdout, stderr, log, tail, seen)
}

/// What a container reads, as its spec has it.
fn input(process: &mut Process, spec: &Container) -> Input {
    let pipe = process.child.stdin.take().map(|pipe| Box::pin(pipe) as _);
    let terminal = process.terminal.clone().filter(|_| spec.stdin == Some(true));
    let writer = pipe.or_else(|| Some(Box::pin(terminal?) as _));
    Input::new(writer, spec.stdin_once == Some(true))
}

async fn make(
    host: &Arc<Host>,
    pod: &Arc<Pod>,
    which: &Which,
    address: IpAddr,
) -> Result<(Command, Process, LogFile), StartError> {
    let failed = |what: &str, why: String| StartError::Run(format!("{what}: {why}"));
    let (on_host, of_pod, name) = (host.clone(), pod.clone(), which.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let Some(spec) = container(&of_pod, &name.container) else {
            return Err(StartError::Run("the container is not in the pod any more".into()));
        };
        let command = on_host.command(&of_pod, &spec, address)?;
        let log = LogFile::open(&on_host.folders.logs(&of_pod, &name.container), name.attempt);
        Ok((command, log.map_err(|e| failed("can't make the log", e.to_string()))?))
    });
    let (command, log) = prepared.await.map_err(|e| failed("can't prepare", e.to_string()))??;
    let process = host.spawner.spawn(command.clone()).await;
    let process = process.map_err(|error| match error {
        ProcessError::NoCommand | ProcessError::Nul(_) => StartError::Config(error.to_string()),
        ProcessError::System { .. } | ProcessError::Closed => StartError::Run(error.to_string()),
    })?;
    Ok((command, process, log))
}

/// Runs a container's preStop hook.
pub(crate) async fn pre_stop(
    target: Box<Target>,
    which: Which,
    limit: Duration,
    reports: mpsc::UnboundedSender<Report>,
) {
    let hook = target.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let result = match hook {
        Some(hook) => Check::of_hook(hook).run(&target, limit).await.map(drop),
        None => Ok(()),
    };
    let _ = reports.send(Report::PreStopDone(which, result));
}
