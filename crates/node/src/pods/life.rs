//! One life of one container: its process from start to end, its log, its probes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};

use super::Host;
use crate::host::{Command, LogFile, LogProgress, ProcessError, capture, signal_group};
use crate::pod::{StartError, container, uid};
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
    /// A process ended, with its exit code and signal.
    Exited(Which, i32, i32),
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
    let target = Target {
        container: spec.clone(),
        address,
        command: Command { beside: Some(pid), ..command },
        spawner: host.spawner.clone(),
    };
    let path = host.folders.logs(&pod, &which.container).join(format!("{}.log", which.attempt));
    host.logs.begin(path.clone(), log.progress());
    let output = match (process.child.stdout.take(), process.child.stderr.take()) {
        (Some(out), Some(err)) => Some(tokio::spawn(capture(out, err, log))),
        _ => None,
    };
    tell(Report::Started(which.clone(), Ok(Started { pid, target: Box::new(target.clone()) })));

    let found = |finding| tell(Report::Found(which.clone(), finding));
    let status = tokio::select! {
        status = process.child.wait() => status,
        () = async {
            probe_container(target, host.clock, found).await;
            std::future::pending().await
        } => return,
    };
    // With its first process the container is over: whatever that left behind in its group ends too.
    signal_group(pid, true);
    if let Some(mut output) = output {
        let done = tokio::time::timeout(Duration::from_millis(300), &mut output).await;
        if done.is_err() {
            // A process that left the group still holds the output: its lines are not the container's.
            output.abort();
        }
    }
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
    tell(Report::Exited(which.clone(), code, signal));
}

async fn make(
    host: &Arc<Host>,
    pod: &Arc<Pod>,
    which: &Which,
    address: IpAddr,
) -> Result<(Command, crate::host::Process, LogFile), StartError> {
    let failed = |what: &str, why: String| StartError::Run(format!("{what}: {why}"));
    let (on_host, of_pod, name) = (host.clone(), pod.clone(), which.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let Some(spec) = container(&of_pod, &name.container) else {
            return Err(StartError::Run("the container is not in the pod any more".into()));
        };
        let command = on_host.command(&of_pod, spec, address)?;
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
        Some(hook) => Check::of_hook(hook).run(&target, limit).await,
        None => Ok(()),
    };
    let _ = reports.send(Report::PreStopDone(which, result));
}
