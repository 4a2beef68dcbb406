//! Events about pods: told when there is time, counted instead of repeated, and dropped before they hold
//! anything up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Object;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use objects::{Subject, Write, Writer};
use serde_json::json;
use tokio::sync::mpsc;

use crate::clock::{Clock, Now, rfc3339};
use crate::pod::{all_containers, uid};

/// How many events may wait to be written.
const WAITING: usize = 256;
/// How many kinds of event are counted at once.
const KNOWN: usize = 1024;
/// A write of an event waits this long, so that what matters goes first.
const PAUSE: Duration = Duration::from_millis(500);
/// An event that goes on is written no more often than this.
const REPEAT: Duration = Duration::from_secs(10);

/// Something that happened to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Happening {
    namespace: String,
    name: String,
    uid: String,
    field: String,
    warning: bool,
    reason: &'static str,
    message: String,
}

/// What is known of one kind of happening.
#[derive(Debug, Clone)]
struct Count {
    event: String,
    count: u32,
    written: Option<(u32, Duration)>,
    first: Timestamp,
    last: Timestamp,
}

/// The counts, without I/O.
#[derive(Debug, Default)]
struct Ledger {
    counts: HashMap<Happening, Count>,
    named: u64,
}

impl Ledger {
    fn happened(&mut self, happening: Happening, now: Now) {
        if self.counts.len() >= KNOWN {
            self.counts.retain(|_, count| count.written.is_none_or(|(told, _)| told < count.count));
            if self.counts.len() >= KNOWN {
                return;
            }
        }
        self.named += 1;
        let event = format!("{}.{:x}", happening.name, now.wall.as_nanosecond() + i128::from(self.named));
        let fresh = Count { event, count: 0, written: None, first: now.wall, last: now.wall };
        let count = self.counts.entry(happening).or_insert(fresh);
        count.count += 1;
        count.last = now.wall;
    }

    /// The happenings whose event is due to be written, and marks them written.
    fn due(&mut self, now: Now) -> Vec<(Happening, Count)> {
        let mut due = Vec::new();
        for (happening, count) in &mut self.counts {
            let wanted = match count.written {
                None => true,
                Some((told, at)) => told < count.count && now.elapsed >= at + REPEAT,
            };
            if wanted {
                due.push((happening.clone(), count.clone()));
                count.written = Some((count.count, now.elapsed));
            }
        }
        due.sort_by_key(|(_, count)| (count.last, count.event.clone()));
        due
    }

    /// When the next one will be due, if any.
    fn next(&self) -> Option<Duration> {
        let late = self.counts.values().filter_map(|count| match count.written {
            None => Some(Duration::ZERO),
            Some((told, at)) => (told < count.count).then_some(at + REPEAT),
        });
        late.min()
    }
}

fn write(happening: &Happening, count: &Count, host: &str) -> Option<Write> {
    if count.written.is_some() {
        let subject = Subject {
            api_version: "v1".into(),
            kind: "Event".into(),
            namespace: happening.namespace.clone(),
            name: count.event.clone(),
        };
        let patch = json!({"count": count.count, "lastTimestamp": rfc3339(count.last)});
        return Some(Write::Merge { subject, subresource: "", patch });
    }
    let mut involved = json!({
        "kind": "Pod", "namespace": happening.namespace, "name": happening.name,
        "uid": happening.uid, "apiVersion": "v1",
    });
    if !happening.field.is_empty() {
        involved["fieldPath"] = happening.field.as_str().into();
    }
    let event = json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {"name": count.event, "namespace": happening.namespace},
        "involvedObject": involved,
        "reason": happening.reason,
        "message": happening.message,
        "source": {"component": "kubelet", "host": host},
        "firstTimestamp": rfc3339(count.first),
        "lastTimestamp": rfc3339(count.last),
        "count": count.count,
        "type": if happening.warning { "Warning" } else { "Normal" },
        "reportingComponent": "kubelet",
        "reportingInstance": host,
    });
    Object::from_value(event).map(Write::Create)
}

/// Where events are told.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    waiting: mpsc::Sender<Happening>,
}

impl Recorder {
    /// A recorder and the work that writes its events.
    pub(crate) fn new(
        host: String,
        writer: Arc<dyn Writer>,
        clock: Clock,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (waiting, happenings) = mpsc::channel(WAITING);
        (Recorder { waiting }, record(host, writer, clock, happenings))
    }

    /// Tells of something that happened to a pod, or to a container of it. Never waits.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let field = container.map(|name| {
            let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
            let list = if init.clone().any(|c| c.name == name) { "initContainers" } else { "containers" };
            debug_assert!(all_containers(pod).any(|c| c.name == name));
            format!("spec.{list}{{{name}}}")
        });
        let mut message = message;
        message.truncate(message.floor_char_boundary(1024));
        let happening = Happening {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: uid(pod).to_owned(),
            field: field.unwrap_or_default(),
            warning,
            reason,
            message,
        };
        // Full: this one is lost, and pods go on.
        let _ = self.waiting.try_send(happening);
    }
}

async fn record(
    host: String,
    writer: Arc<dyn Writer>,
    clock: Clock,
    mut happenings: mpsc::Receiver<Happening>,
) {
    let user = format!("system:node:{host}");
    let mut ledger = Ledger::default();
    loop {
        let next = ledger.next();
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            happening = happenings.recv() => match happening {
                Some(happening) => ledger.happened(happening, clock.now()),
                None => return,
            },
            () = wait => {}
        }
        tokio::time::sleep(PAUSE).await;
        while let Ok(happening) = happenings.try_recv() {
            ledger.happened(happening, clock.now());
        }
        for (happening, count) in ledger.due(clock.now()) {
            let Some(write) = write(&happening, &count, &host) else { continue };
            if let Err(error) = writer.write(&user, write).await {
                tracing::debug!(%error, event = count.event, "an event was not written");
                // Forgotten: when it happens again it is told anew.
                ledger.counts.remove(&happening);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_counted() {
        let at = |s: u64| Now { elapsed: Duration::from_secs(s), wall: Timestamp::UNIX_EPOCH };
        let happening = Happening {
            namespace: "d".into(),
            name: "p".into(),
            uid: "u".into(),
            field: String::new(),
            warning: true,
            reason: "BackOff",
            message: "m".into(),
        };
        let mut ledger = Ledger::default();
        ledger.happened(happening.clone(), at(0));
        let first = ledger.due(at(0));
        assert!(matches!(write(&happening, &first[0].1, "n1"), Some(Write::Create(_))));
        assert_eq!(ledger.next(), None);
        ledger.happened(happening.clone(), at(1));
        ledger.happened(happening.clone(), at(2));
        assert!(ledger.due(at(3)).is_empty(), "not yet again");
        assert_eq!(ledger.next(), Some(Duration::from_secs(10)));
        let again = ledger.due(at(10));
        assert_eq!((again.len(), again[0].1.count), (1, 3));
        assert_eq!(again[0].1.event, first[0].1.event);
        assert!(matches!(write(&happening, &again[0].1, "n1"), Some(Write::Merge { .. })));
        for n in 0..2 * KNOWN {
            ledger.happened(Happening { message: n.to_string(), ..happening.clone() }, at(20));
        }
        assert!(ledger.counts.len() <= KNOWN);
    }
}
