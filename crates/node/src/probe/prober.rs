//! The probes of one running container: asks, and tells what it finds.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::sync::watch;

use super::schedule::{History, Schedule};
use super::{Check, Target};
use crate::clock::Clock;
use crate::pod::ProbeKind;

/// A postStart hook has no limit of its own upstream; one that takes longer than this has failed.
const POST_START: Duration = Duration::from_secs(600);

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Finding {
    /// Its verdict is another now.
    Verdict(ProbeKind, bool),
    /// An attempt went well, but.
    Warning(ProbeKind, String),
    /// A regular attempt failed.
    Failure(ProbeKind, String),
    /// The postStart hook failed.
    PostStartFailed(String),
}

/// What is known of a container that a former agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    /// Whether it had come up.
    pub started: bool,
    /// Whether it could serve.
    pub ready: bool,
}

/// Runs a container's postStart hook (not of one with a `past`, which had it run), then probes it until dropped: first its startup probe until that passes,
/// then the others. Once `ending` is true, its pod ends: whether it is well or has come up is nobody's question any more.
pub(crate) async fn probe_container(
    target: Target,
    clock: Clock,
    past: Option<Past>,
    ending: watch::Receiver<bool>,
    tell: impl Fn(Finding),
) {
    let spec = &target.container;
    let hook = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let Some(hook) = hook.filter(|_| past.is_none())
        && let Err(why) = Check::of_hook(hook).run(&target, POST_START).await
    {
        return tell(Finding::PostStartFailed(why));
    }
    let start = clock.now().elapsed;
    if let Some(probe) = &spec.startup_probe
        && !past.is_some_and(|past| past.started)
        && !until(&ending, follow(probe, ProbeKind::Startup, None, &target, start, clock, &tell)).await
    {
        return;
    }
    let other = |probe: &Option<Probe>, kind| {
        let (probe, target, tell) = (probe.clone(), &target, &tell);
        async move {
            if let Some(probe) = &probe {
                follow(probe, kind, past, target, start, clock, tell).await;
            }
        }
    };
    tokio::join!(
        other(&spec.readiness_probe, ProbeKind::Readiness),
        until(&ending, async {
            other(&spec.liveness_probe, ProbeKind::Liveness).await;
            true
        })
    );
}

/// What the work answers; false if the pod's end comes first.
async fn until(ending: &watch::Receiver<bool>, work: impl Future<Output = bool>) -> bool {
    let mut ending = ending.clone();
    let ends = async {
        if ending.wait_for(|ending| *ending).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        answer = work => answer,
        () = ends => false,
    }
}

/// Follows one probe. A startup probe ends with its first verdict, which is answered.
async fn follow(
    probe: &Probe,
    kind: ProbeKind,
    past: Option<Past>,
    target: &Target,
    start: Duration,
    clock: Clock,
    tell: &impl Fn(Finding),
) -> bool {
    let (mut schedule, check) = (Schedule::of(probe), Check::of_probe(probe));
    let mut history = History::default();
    if let Some(past) = past {
        // Its delay is behind it; what it was it stays until attempts say otherwise.
        schedule.initial_delay = Duration::ZERO;
        if past.ready || kind == ProbeKind::Liveness {
            history = History::healthy();
        }
    }
    let mut elapsed = Duration::ZERO;
    loop {
        let attempt = history.next(&schedule, elapsed);
        tokio::time::sleep_until(clock.instant(start + attempt.at)).await;
        let answer = check.run(target, schedule.timeout).await;
        elapsed = clock.now().elapsed.saturating_sub(start).max(attempt.at);
        let verdict = history.observe(&schedule, answer.is_ok(), attempt.counts);
        match answer {
            Err(why) if attempt.counts => tell(Finding::Failure(kind, why)),
            Ok(Some(warning)) => tell(Finding::Warning(kind, warning)),
            Err(_) | Ok(None) => {}
        }
        if let Some(healthy) = verdict {
            tell(Finding::Verdict(kind, healthy));
            if kind == ProbeKind::Startup {
                return healthy;
            }
        }
    }
}
