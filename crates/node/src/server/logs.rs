//! A container's log over HTTP, as the kubelet's `/containerLogs` has it.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::mpsc;
use tracing::{debug_span, info_span};

use super::{Body, plain};
use crate::container::{LogCursor, LogOptions, LogProgress, since_cut};
use crate::pod::{container, uid};
use crate::pods::PodHost;

/// What a query asks of a log.
#[derive(Debug, Default)]
struct Asked {
    follow: bool,
    previous: bool,
    options: LogOptions,
}

fn asked(query: &str, now: Timestamp) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || value.parse::<u64>().map_err(|_| format!("{name} must be a number, not {value:?}"));
        let yes = || match &*value {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{name} must be true or false, not {value:?}")),
        };
        match &*name {
            "follow" => asked.follow = yes()?,
            "previous" => asked.previous = yes()?,
            "timestamps" => asked.options.timestamps = yes()?,
            "tailLines" => asked.options.tail = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
            "limitBytes" => asked.options.limit = Some(number()?),
            "sinceSeconds" => {
                let ago = SignedDuration::from_secs(i64::try_from(number()?).unwrap_or(i64::MAX));
                asked.options.since = now.checked_sub(ago).ok().map(since_cut);
            }
            "sinceTime" => {
                let time = value.parse().map_err(|_| format!("sinceTime is no RFC 3339 time: {value:?}"))?;
                asked.options.since = Some(since_cut(time));
            }
            _ => {}
        }
    }
    Ok(asked)
}

/// Answers with the log of one container; an error is the caller's to mend.
pub(super) fn logs(
    host: &Arc<PodHost>,
    namespace: &str,
    pod_name: &str,
    name: &str,
    query: &str,
) -> Result<Response<Body>, String> {
    let asked = asked(query, host.clock.now().wall)?;
    let Some(pod) = host.pod_here(namespace, pod_name) else {
        let why = format!("pod \"{namespace}/{pod_name}\" is not on this host");
        return Ok(plain(StatusCode::NOT_FOUND, why));
    };
    if container(&pod, name).is_none() {
        return Err(format!("container {name} is not valid for pod {pod_name}"));
    }
    let folder = host.folders.logs(&pod, name);
    let mut attempts: Vec<u32> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    attempts.sort_unstable();
    let told = told(&pod, name);
    let waiting = told.and_then(|told| told.state.as_ref()?.waiting.as_ref());
    let attempt = if asked.previous {
        let Some(attempt) = told.and_then(|told| previous(told, &attempts)) else {
            let why = format!("previous terminated container {name:?} in pod {pod_name:?} not found");
            return Err(why);
        };
        Some(attempt)
    } else {
        attempts.last().copied()
    };
    let Some(attempt) = attempt else {
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("ContainerCreating");
        return Err(format!("container {name:?} in pod {pod_name:?} is waiting to start: {reason}"));
    };
    let live = host.running.get(uid(&pod), name);
    let live = live.filter(|live| asked.follow && live.which.attempt == attempt);
    let progress = live.map(|live| host.runtime.log(&live.which));
    let cursor = LogCursor::open(&folder, attempt, asked.options).map_err(|e| e.to_string())?;
    let (send, lines) = mpsc::channel::<Bytes>(4);
    tasks::spawn(info_span!("log", container = name), stream(cursor, progress, send));
    let frames = futures::stream::unfold(lines, |mut lines| async move {
        let bytes = lines.recv().await?;
        Some((bytes, lines))
    });
    let frames = frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut response = plain(StatusCode::OK, "");
    *response.body_mut() = BodyExt::boxed(StreamBody::new(frames));
    Ok(response)
}

/// What the pod's status says of a container.
fn told<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|told| told.name == name)
}

/// The life before the one that runs or is to come, as the container's status names it. The status lags behind the files: a
/// life that it knows nothing of may have its log already, and the one that it names may have lost its own to a later life.
fn previous(told: &ContainerStatus, attempts: &[u32]) -> Option<u32> {
    let last = told.last_state.as_ref()?.terminated.as_ref()?;
    let named = last.container_id.as_deref().and_then(|id| id.rsplit('/').next()?.parse::<u32>().ok());
    match named {
        Some(named) => attempts.iter().copied().find(|attempt| *attempt >= named),
        // A former agent may have left no number behind.
        None => attempts.iter().rev().nth(1).copied(),
    }
}

/// Sends a log's lines, and those to come for as long as it is written and somebody listens.
async fn stream(
    mut cursor: LogCursor,
    mut progress: Option<tokio::sync::watch::Receiver<LogProgress>>,
    send: mpsc::Sender<Bytes>,
) {
    loop {
        // Asked before the file is read: if nothing more comes now, what is read below is all of it.
        let ended = progress.as_mut().is_none_or(|progress| progress.borrow_and_update().ended);
        loop {
            let read = tasks::blocking(debug_span!("read a log"), move || {
                let next = cursor.next();
                (next, cursor)
            });
            let Ok((next, returned)) = read.await else { return };
            cursor = returned;
            match next {
                Ok(Some(text)) => {
                    if !text.is_empty() && send.send(text.into()).await.is_err() {
                        return;
                    }
                    if cursor.is_full() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a container's log can't be read");
                    return;
                }
            }
        }
        let Some(progress) = progress.as_mut().filter(|_| !ended) else { return };
        tokio::select! {
            // An end is a change too: one more round for what came last.
            _ = progress.changed() => {}
            () = send.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_life_before_is_the_one_that_the_status_names() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let told = |status: serde_json::Value| -> ContainerStatus {
            let mut whole =
                json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 1});
            whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
            serde_json::from_value(whole).unwrap()
        };
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let between = told(json!({"state": waiting, "lastState": ended("host://uid/c/0")}));
        assert_eq!(previous(&between, &[0]), Some(0));
        assert_eq!(previous(&between, &[0, 1]), Some(0), "the next one's log is made before its status is");
        assert_eq!(previous(&between, &[1, 2]), Some(1), "two lives later");
        assert_eq!(previous(&between, &[]), None);
        let running = told(json!({"state": {"running": {}}, "lastState": ended("host://uid/c/3")}));
        assert_eq!(previous(&running, &[3, 4]), Some(3));
        let unnumbered = told(json!({"state": {"running": {}}, "lastState": ended("host://uid/c")}));
        assert_eq!(previous(&unnumbered, &[3, 4]), Some(3));
        assert_eq!(previous(&told(json!({"state": {"running": {}}})), &[0]), None, "its first life");
    }
}
