//! Kubernetes Events: what happened to an object, for `kubectl describe`. Written aside, never in the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Object, Status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{Kind, Subject, Write, Writer};

/// Events wait this long before they are written, so that a burst of real work goes first.
const YIELD: Duration = Duration::from_millis(500);
/// Events that wait; more are dropped: they are for people, and best effort by definition.
const WAITING: usize = 1024;
/// Series remembered, to count a repetition instead of writing it again.
const REMEMBERED: usize = 1024;

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
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: None,
        };
        Occurrence { regarding, warning, reason, message }
    }

    /// What makes two occurrences the same one happening again.
    fn series(&self) -> (String, &'static str, String) {
        (self.regarding.uid.clone().unwrap_or_default(), self.reason, self.message.clone())
    }
}

/// Writes Events in the background. Cloning it is cheap; its task ends with its last clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<(Occurrence, Timestamp)>,
}

impl Recorder {
    /// A recorder that writes as `user` for `component` (such as `replicaset-controller`), and its task.
    pub fn start(writer: Arc<dyn Writer>, user: String, component: String) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_all(writer, user, component, receiver));
        Recorder { sender }
    }

    /// Has an event written soon. Never waits; with too many waiting it is dropped.
    // Events are stamped where they happen; nothing is decided by this time.
    #[allow(clippy::disallowed_methods)]
    pub fn record(&self, occurrence: Occurrence) {
        let _ = self.sender.try_send((occurrence, Timestamp::now()));
    }
}

async fn write_all(
    writer: Arc<dyn Writer>,
    user: String,
    component: String,
    mut receiver: mpsc::Receiver<(Occurrence, Timestamp)>,
) {
    let mut known: HashMap<(String, &'static str, String), (String, i32)> = HashMap::new();
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, WAITING).await > 0 {
        tokio::time::sleep(YIELD).await;
        for (occurrence, at) in batch.drain(..) {
            let series = occurrence.series();
            if let Some((name, count)) = known.get_mut(&series) {
                *count += 1;
                if writer.write(&user, again(&occurrence, name, *count, at)).await.is_ok() {
                    continue;
                }
            }
            if known.len() >= REMEMBERED {
                known.clear();
            }
            if let Ok(event) = create(&writer, &user, &component, &occurrence, at).await {
                known.insert(series, (event.name().to_owned(), 1));
            }
        }
    }
}

fn namespace(occurrence: &Occurrence) -> String {
    let namespace = occurrence.regarding.namespace.clone().unwrap_or_default();
    if namespace.is_empty() { "default".to_owned() } else { namespace }
}

async fn create(
    writer: &Arc<dyn Writer>,
    user: &str,
    component: &str,
    occurrence: &Occurrence,
    at: Timestamp,
) -> Result<Object, Status> {
    let name = occurrence.regarding.name.as_deref().unwrap_or_default();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", at.as_nanosecond())),
            namespace: Some(namespace(occurrence)),
            ..ObjectMeta::default()
        },
        involved_object: occurrence.regarding.clone(),
        reason: Some(occurrence.reason.to_owned()),
        message: Some(occurrence.message.clone()),
        type_: Some(if occurrence.warning { "Warning" } else { "Normal" }.to_owned()),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(String::new()),
        count: Some(1),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        ..Event::default()
    };
    let object = serde_json::to_value(&event).ok().and_then(Object::from_value);
    match object {
        Some(object) => writer.write(user, Write::Create(object)).await,
        None => Err(Status::internal("an event could not be written as JSON")),
    }
}

fn again(occurrence: &Occurrence, name: &str, count: i32, at: Timestamp) -> Write {
    Write::Merge {
        subject: Subject {
            api_version: "v1".into(),
            kind: "Event".into(),
            namespace: namespace(occurrence),
            name: name.into(),
        },
        subresource: "",
        patch: json!({"count": count, "lastTimestamp": Time(at)}),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::{BoxFuture, ready};
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
        let recorder = Recorder::start(written.clone(), "me".into(), "test".into());
        let regarding =
            ObjectReference { name: Some("p".into()), uid: Some("u".into()), ..Default::default() };
        let once = Occurrence { regarding, warning: true, reason: "Failed", message: "no".into() };
        recorder.record(once.clone());
        recorder.record(once);
        while written.0.lock().unwrap().len() < 2 {
            written.1.notified().await;
        }
        let writes = written.0.lock().unwrap();
        assert!(matches!(&writes[0], Write::Create(event)
            if event.namespace() == "default" && event.pointer("/type").unwrap() == "Warning"));
        assert!(matches!(&writes[1], Write::Merge { patch, .. } if patch["count"] == 2));
    }
}
