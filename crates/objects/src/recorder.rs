//! Kubernetes Events: what happened to an object, for `kubectl describe`. Written when there is time, counted
//! instead of repeated, told together where they are alike, and dropped before they hold anything up.

mod budget;
mod ledger;
mod similar;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use machinery::Object;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info_span;

use self::ledger::{Count, LONGEST, Ledger};
use crate::{Kind, Meta, TypedRef, Write, Writer};

/// Events wait this long before they are written, so that a burst of real work goes first.
const YIELD: Duration = Duration::from_millis(500);
/// Events that wait; more are dropped: they are for people, and best effort by definition.
const WAITING: usize = 1024;

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// The object.
    pub regarding: ObjectReference,
    /// Whether a person should worry: the type is Warning instead of Normal.
    pub warning: bool,
    /// The reason in one word, such as `SuccessfulCreate`.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
}

impl Occurrence {
    /// Something that happened to `object`.
    pub fn of<T: Kind>(object: &T, warning: bool, reason: &'static str, message: String) -> Self {
        let metadata = object.metadata();
        let regarding = ObjectReference {
            api_version: Some(T::API_VERSION.to_owned()),
            kind: Some(T::KIND.to_owned()),
            namespace: Some(metadata.namespace().to_owned()).filter(|namespace| !namespace.is_empty()),
            name: Some(metadata.name().to_owned()).filter(|name| !name.is_empty()),
            uid: metadata.uid().map(str::to_owned),
            resource_version: metadata.resource_version(),
            field_path: None,
        };
        Occurrence { regarding, warning, reason, message }
    }
}

/// Writes Events in the background. Cloning it is cheap; its task ends with its last clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<(Occurrence, Timestamp)>,
}

impl Recorder {
    /// A recorder that writes as `user` for `from`, and its task.
    pub fn start(writer: Arc<dyn Writer>, user: String, from: Reporter) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tasks::spawn(
            info_span!("write events", component = from.component),
            write_all(writer, user, from, receiver),
        );
        Recorder { sender }
    }

    /// Has an event written soon. Never waits; with too many waiting it is dropped.
    // Events are stamped where they happen; nothing is decided by this time.
    #[allow(clippy::disallowed_methods)]
    pub fn record(&self, mut occurrence: Occurrence) {
        occurrence.message.truncate(occurrence.message.floor_char_boundary(LONGEST));
        let _ = self.sender.try_send((occurrence, Timestamp::now()));
    }
}

/// The component that reports what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporter {
    /// The component, such as `replicaset-controller`.
    pub component: String,
    /// The host that it tells of, if it is the component of one.
    pub host: Option<String>,
}

#[allow(clippy::disallowed_methods)] // A driver: the ledger's clock.
async fn write_all(
    writer: Arc<dyn Writer>,
    user: String,
    from: Reporter,
    mut receiver: mpsc::Receiver<(Occurrence, Timestamp)>,
) {
    let started = Instant::now();
    let mut ledger = Ledger::default();
    loop {
        let next = ledger.next().map(|at| started + at);
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = receiver.recv() => match received {
                Some((occurrence, at)) => ledger.happened(occurrence, at),
                None => return,
            },
            () = wait => {}
        }
        tokio::time::sleep(YIELD).await;
        while let Ok((occurrence, at)) = receiver.try_recv() {
            ledger.happened(occurrence, at);
        }
        for count in ledger.due(started.elapsed()) {
            let Some(write) = write(&count, &from) else { continue };
            if writer.write(&user, write).await.is_err() {
                ledger.not_written(count);
            }
        }
    }
}

fn write(count: &Count, from: &Reporter) -> Option<Write> {
    let Occurrence { regarding, warning, reason, message } = &count.occurrence;
    let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    if count.written.is_some() {
        let subject =
            TypedRef { api_version: "v1".into(), kind: "Event".into(), namespace, name: count.event.clone() };
        let patch = json!({"count": count.count, "message": message, "lastTimestamp": Time(count.last)});
        return Some(Write::Merge { subject, subresource: "", patch });
    }
    let event = Event {
        metadata: ObjectMeta {
            name: Some(count.event.clone()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: regarding.clone(),
        reason: Some((*reason).to_owned()),
        message: Some(message.clone()),
        type_: Some(if *warning { "Warning" } else { "Normal" }.to_owned()),
        source: Some(EventSource { component: Some(from.component.clone()), host: from.host.clone() }),
        reporting_component: Some(from.component.clone()),
        reporting_instance: Some(from.host.clone().unwrap_or_default()),
        count: Some(count.count),
        first_timestamp: Some(Time(count.first)),
        last_timestamp: Some(Time(count.last)),
        ..Event::default()
    };
    serde_json::to_value(&event).ok().and_then(Object::from_value).map(Write::Create)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::{BoxFuture, ready};
    use machinery::Status;
    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Written(Mutex<Vec<Write>>, Notify);

    impl Writer for Written {
        fn write<'a>(&'a self, _: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
            let answer = match &write {
                Write::Create(object) => object.clone(),
                _ => Object(serde_json::Map::new()),
            };
            self.0.lock().unwrap().push(write);
            self.1.notify_one();
            Box::pin(ready(Ok(answer)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_again_is_counted() {
        let written = Arc::new(Written::default());
        let from = Reporter { component: "kubelet".into(), host: Some("n1".into()) };
        let recorder = Recorder::start(written.clone(), "me".into(), from);
        let regarding =
            ObjectReference { name: Some("p".into()), uid: Some("u".into()), ..Default::default() };
        let message = "no".repeat(LONGEST);
        let once = Occurrence { regarding, warning: true, reason: "Failed", message };
        let wait = async |number| {
            while written.0.lock().unwrap().len() < number {
                written.1.notified().await;
            }
        };
        recorder.record(once.clone());
        wait(1).await;
        recorder.record(once.clone());
        recorder.record(once);
        wait(2).await;
        let writes = written.0.lock().unwrap();
        let Write::Create(event) = &writes[0] else { panic!("{:?}", writes[0]) };
        assert_eq!(event.namespace(), "default");
        for (pointer, value) in [
            ("/type", "Warning"),
            ("/source/host", "n1"),
            ("/reportingInstance", "n1"),
            ("/reportingComponent", "kubelet"),
        ] {
            assert_eq!(event.pointer(pointer).unwrap(), value, "{pointer}");
        }
        assert_eq!(event.pointer("/message").unwrap().as_str().unwrap().len(), LONGEST);
        assert!(matches!(&writes[1], Write::Merge { patch, subject, .. }
            if patch["count"] == 3 && subject.name == event.name()));
    }
}
