//! Carries out what was decided for one pod, and says how it is.

use std::sync::Arc;
use std::time::Duration;

use tasks::SpawnIn;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::info_span;

use super::PodHost;
use super::entry::Entry;
use super::life::{Report, live, pre_stop};
use super::resizing::{attempted, takes};
use super::writing::{finish, write_status};
use crate::clock::Now;
use crate::container::stop_signal;
use crate::pod::{Action, PodRecord, Preparation, Stage, difference, is_ready, status, subject, uid};
use crate::runtime::Which;

/// The same change of a status is not written again sooner than this: what undid it would do so again.
const SAME_AGAIN: Duration = Duration::from_secs(1);

/// Carries out one decision.
pub(super) fn carry_out(
    host: &Arc<PodHost>,
    reports: &mpsc::UnboundedSender<Report>,
    work: &mut JoinSet<()>,
    entry: &mut Entry,
    action: Action,
    now: Now,
) {
    let pod = entry.pod.clone();
    let id = uid(&pod).to_owned();
    let (host, reports) = (host.clone(), reports.clone());
    let is_single = entry.record.is_single;
    match action {
        Action::Prepare => {
            work.spawn_in(info_span!("prepare", pod = subject(&pod)), async move {
                let result = host.prepare(pod, is_single).await;
                let _ = reports.send(Report::Prepared(id, result));
            });
        }
        Action::Start { container, attempt } => {
            let Preparation::Done { address } = entry.record.preparation else { return };
            let (which, whole) = (Which { uid: id, container, attempt }, takes(entry));
            work.spawn_in(
                info_span!("container", pod = subject(&pod), container = which.container),
                live(host, pod, which, address, (is_single, whole), (reports, entry.ends.subscribe())),
            );
        }
        Action::PreStop { container, attempt, limit } => {
            let which = Which { uid: id, container, attempt };
            match entry.processes.get(&which.container) {
                Some(process) => {
                    work.spawn_in(
                        info_span!("preStop", pod = subject(&pod), container = which.container),
                        pre_stop(process.target.clone(), which, limit, reports),
                    );
                }
                None => {
                    let _ = reports.send(Report::PreStopDone(which, Ok(())));
                }
            }
        }
        Action::Signal { container, kill, .. } => {
            if let Some(process) = entry.processes.get(&container) {
                let hooks = process.target.container.lifecycle.as_ref();
                let asked = hooks.and_then(|lifecycle| lifecycle.stop_signal.as_deref());
                let signal = if kill { libc::SIGKILL } else { stop_signal(asked) };
                host.runtime.signal(&process.target.which, signal);
            }
        }
        Action::Resize(resizing) => {
            let allocation = entry.allocated.clone();
            work.spawn_in(info_span!("resize", pod = subject(&pod)), async move {
                let done = attempted(host.resize(&id, &allocation, &resizing)).await;
                let _ = reports.send(Report::Resized(id, resizing, done));
            });
        }
        Action::Finish(then) => {
            let wanted = status(&pod, &entry.stored, &entry.record, host.address, now);
            let last = difference(&entry.stored, &wanted);
            // A static pod waits for no API: its mirror is removed once it is gone.
            let object = entry.mirror.is_none().then(|| id.clone());
            let span = info_span!("finish", pod = subject(&pod));
            work.spawn_in(span, finish(host, pod, object, then, last, reports));
        }
        Action::Event { warning, reason, message, container } => {
            host.tell(&pod, container.as_deref(), warning, reason, message);
        }
    }
}

/// Writes the pod's status if it says something else than it should.
pub(super) fn say(
    host: &Arc<PodHost>,
    reports: &mpsc::UnboundedSender<Report>,
    work: &mut JoinSet<()>,
    entry: &mut Entry,
    now: Now,
) {
    if entry.gone || entry.record.finishing {
        return;
    }
    let wanted = status(&entry.pod, &entry.stored, &entry.record, host.address, now);
    let ready = is_ready(&wanted);
    if ready && !entry.told_ready {
        let subject = subject(&entry.pod);
        tracing::info!(target: "timeline", what = "pod-ready", subject);
    }
    entry.told_ready = ready;
    if !entry.keep_record(host, reports, work, now) {
        return;
    }
    // Nobody hears of a pod that has no mirror.
    let (false, Some(object)) = (entry.writing, entry.uid_in_api().map(str::to_owned)) else { return };
    let starting = |record: &PodRecord| {
        let asked = matches!(record.preparation, Preparation::Asked);
        asked || record.containers.values().any(|c| c.stage == Stage::Starting)
    };
    if now.elapsed < entry.record.hold_status_until && starting(&entry.record) {
        return;
    }
    let Some(patch) = difference(&entry.stored, &wanted) else {
        entry.last_patch = None;
        return;
    };
    let mut wait_until = entry.retry_after;
    if let Some((last, at)) = &entry.last_patch
        && *last == patch
    {
        wait_until = wait_until.max(*at + SAME_AGAIN);
    }
    if now.elapsed < wait_until {
        entry.wake = Some(entry.wake.map_or(wait_until, |wake| wake.min(wait_until)));
        return;
    }
    entry.writing = true;
    entry.last_patch = Some((patch.clone(), now.elapsed));
    work.spawn_in(
        info_span!("write status", pod = subject(&entry.pod)),
        write_status(host.clone(), entry.pod.clone(), object, patch, reports.clone()),
    );
}
