//! One life of one container: its process from start to end, its log, its probes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{mpsc, watch};
use tracing::info_span;

use super::PodHost;
use super::handler::Handler;
use super::image::complete;
use super::live::Live;
use crate::container::cgroup::Amounts;
use crate::container::last_words;
use crate::images::Image;
use crate::pod::{ContainerEnd, Failure, PrepareError, Resized, Resizing, StartError, container};
use crate::probe::{Check, Finding, Past, Target, probe_container};
use crate::runtime::{Begun, Bundle, Exit, Lost, Program, RunError, Shape, Which};

/// Why a container ended that stopped with its host's lease: in its status, and of the Event about it.
const LEASE_ENDED: &str = "HostLeaseEnded";

/// News for the desk.
#[derive(Debug)]
pub(crate) enum Report {
    /// A pod's folder, volumes and address are there, or not.
    Prepared(String, Result<IpAddr, PrepareError>),
    /// A process was made, or not.
    Started(Which, Result<Started, StartError>),
    /// A process ended.
    Exited(Which, ContainerEnd),
    /// A probe found something.
    Found(Which, Finding),
    /// A preStop hook is over.
    PreStopDone(Which, Result<(), String>),
    /// A resize was tried.
    Resized(String, Resizing, Resized),
    /// A static pod's mirror was made, or not.
    Mirrored(String, Result<(), machinery::Status>),
    /// What is known of a static pod was kept, as far as that could be.
    Kept(String),
    /// A mirror that was not to be there is gone.
    MirrorRemoved(String),
    /// A status was written, or not.
    Written(String, Result<(), machinery::Status>),
    /// A pod must go, for the host's sake, and has so long to end.
    Evicted(String, Failure, Duration),
    /// A pod that ended is cleaned up and, if that was due, confirmed.
    Finished(String),
}

/// A process that was made, or taken over.
#[derive(Debug)]
pub(crate) struct Started {
    pub target: Box<Target>,
    /// Its image by digest, if it has one.
    pub image_id: Option<String>,
    /// When.
    pub since: Timestamp,
    /// Set to true once the whole pod ends.
    pub ending: watch::Sender<bool>,
}

/// Lives one life of a container, from start to end.
pub(crate) async fn live(
    host: Arc<PodHost>,
    pod: Arc<Pod>,
    which: Which,
    address: IpAddr,
    (is_single, whole): (bool, Amounts),
    (reports, ends): (mpsc::UnboundedSender<Report>, watch::Receiver<bool>),
) {
    let made = make(&host, &pod, &which, address, (is_single, whole), ends).await;
    let Some(mut spec) = container(&pod, &which.container).map(|spec| spec.into_owned()) else { return };
    let (begun, image) = match made {
        Ok(made) => made,
        Err(error) => return drop(reports.send(Report::Started(which, Err(error)))),
    };
    if let Some(image) = &image {
        complete(image, &mut spec);
    }
    let (mut started, ends) = begin(&host, &spec, &which, address, begun);
    started.image_id = image.map(|image| image.id.clone());
    let target = started.target.clone();
    // Before it is watched over: reports arrive in order, and the desk passes over the end of a container that it
    // doesn't know to run.
    let _ = reports.send(Report::Started(which, Ok(started)));
    watch_over(host, pod, *target, ends, None, reports).await;
}

/// What the desk keeps of a container that runs, and what tells its prober of the pod's end.
pub(super) fn begin(
    host: &Arc<PodHost>,
    spec: &Container,
    which: &Which,
    address: IpAddr,
    begun: Begun,
) -> (Started, watch::Receiver<bool>) {
    let target =
        Target { container: spec.clone(), address, which: which.clone(), runtime: host.runtime.clone() };
    let (ending, ends) = watch::channel(false);
    (Started { target: Box::new(target), image_id: None, since: begun.since, ending }, ends)
}

/// Watches over a container until it ends.
pub(super) async fn watch_over(
    host: Arc<PodHost>,
    pod: Arc<Pod>,
    target: Target,
    ends: watch::Receiver<bool>,
    past: Option<Past>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let (spec, which) = (target.container.clone(), target.which.clone());
    let listed = host.running.begin(Live {
        which: which.clone(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        reads: spec.stdin == Some(true),
        once: spec.stdin_once == Some(true),
        terminal: spec.tty == Some(true),
    });
    let found = |finding| drop(reports.send(Report::Found(which.clone(), finding)));
    let exit = tokio::select! {
        exit = host.runtime.exit(&which) => exit,
        () = async {
            probe_container(target, host.clock, past, ends, found).await;
            std::future::pending().await
        } => return,
    };
    drop(listed);
    let asked = host.clone();
    let read = tasks::blocking(info_span!("outcome", container = which.container), {
        let which = which.clone();
        move || outcome(&asked, &pod, &spec, &which, exit)
    });
    let outcome = read.await.unwrap_or_default();
    let _ = reports.send(Report::Exited(which, outcome));
}

/// How a container ended, with what it said last.
pub(super) fn outcome(
    host: &PodHost,
    pod: &Pod,
    spec: &Container,
    which: &Which,
    exit: Option<Exit>,
) -> ContainerEnd {
    let Some(Exit { code, signal, at }) = exit else {
        let (code, signal) = (137, libc::SIGKILL);
        if host.runtime.ended_with_lease(&which.uid) {
            let message =
                "this host's lease ended, so that others may run what must not run twice".to_owned();
            let told = format!("Stopped container {}: {message}", which.container);
            host.tell(pod, Some(&which.container), true, LEASE_ENDED, told);
            return ContainerEnd { code, signal, message, reason: Some(LEASE_ENDED), at: None };
        }
        let Lost { reason, message } = host.runtime.lost(&which.uid);
        return ContainerEnd { code, signal, message: message.into(), reason, at: None };
    };
    let fallback = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") && code != 0;
    let file = host.folders.message(&which.uid, &which.container);
    let log = host.folders.logs(pod, &which.container).join(format!("{}.log", which.attempt));
    let message = last_words(&file, fallback.then_some(&*log));
    ContainerEnd { code, signal, message, reason: None, at: Some(at) }
}

/// Waits for what is brought for a container, unless its pod ends meanwhile: a pull may take an hour.
async fn unless_ended<T>(
    mut ends: watch::Receiver<bool>,
    bring: impl Future<Output = Result<T, StartError>>,
) -> Result<T, StartError> {
    let ended = async {
        if ends.wait_for(|ends| *ends).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        brought = bring => brought,
        () = ended => Err(StartError::Ended),
    }
}

/// Makes a container's process, and answers its image if it has one.
async fn make(
    host: &Arc<PodHost>,
    pod: &Arc<Pod>,
    which: &Which,
    address: IpAddr,
    (is_single, whole): (bool, Amounts),
    ends: watch::Receiver<bool>,
) -> Result<(Begun, Option<Arc<Image>>), StartError> {
    let Some(spec) = container(pod, &which.container).map(|spec| spec.into_owned()) else {
        return Err(StartError::Run("the container is not in the pod any more".into()));
    };
    // Its sandbox may have to be made anew.
    let epoch = host.epoch_for(pod, is_single).await.map_err(StartError::Lease)?;
    host.runtime.bind(&which.uid, epoch);
    let run = |error| match error {
        RunError::Config(why) => StartError::Config(why),
        RunError::Lease(why) => StartError::Lease(why),
        RunError::Target(why) => StartError::Create(why),
        RunError::System(_) | RunError::Gone => StartError::Run(error.to_string()),
    };
    let handler = host.handler(pod, &host.store.snapshot()).map_err(StartError::Config)?;
    let (on_host, of_pod) = (host.clone(), pod.clone());
    let span = info_span!("prepare command", container = which.container);
    let (image, prepared) = match handler {
        Handler::Host => {
            let make = move || {
                let command = on_host.command(&of_pod, &spec, address);
                command.map(|command| Program::Process(Box::new(command)))
            };
            (None, tasks::blocking(span, make).await)
        }
        Handler::Oci => {
            let bring = async {
                let image = host.image(pod, &spec).await?;
                Ok::<_, StartError>((image, host.image_volumes(pod, &spec).await?))
            };
            let (image, volumes) = unless_ended(ends, bring).await?;
            let wanted = host.sandbox(pod).map_err(StartError::Config)?;
            // It is there, unless its shim died.
            let shape = Shape::Own(Box::new(wanted.clone()));
            let mut namespaces = host.hold(pod, shape, address).await.map_err(run)?;
            let target = host.target(pod, which).map_err(run)?;
            namespaces.extend(target.as_ref().map(|(_, processes)| processes.clone()));
            let target = target.map(|(target, _)| target);
            let found = image.clone();
            let make = move || {
                let bundle =
                    on_host.bundle(&of_pod, &spec, address, (&*found, &*volumes), (&wanted, namespaces));
                bundle.map(|bundle| Program::Bundle(Bundle { target, ..bundle }))
            };
            (Some(image), tasks::blocking(span, make).await)
        }
        Handler::Foreign => {
            let image = unless_ended(ends, host.image(pod, &spec)).await?;
            let wanted = host.foreign_sandbox(pod).map_err(StartError::Config)?;
            // It is there, unless its own process died.
            host.hold(pod, Shape::Foreign(Box::new(wanted.clone())), address).await.map_err(run)?;
            let found = image.clone();
            let make = move || {
                let container = on_host.foreign_container(&of_pod, &spec, address, &found, wanted);
                container.map(|container| Program::Foreign(Box::new(container)))
            };
            (Some(image), tasks::blocking(span, make).await)
        }
    };
    let mut program = prepared.map_err(|e| StartError::Run(format!("can't prepare: {e}")))??;
    program.set_pod(whole);
    let log = host.folders.logs(pod, &which.container);
    let begun = host.runtime.start(which, program, log).await.map_err(run)?;
    Ok((begun, image))
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
