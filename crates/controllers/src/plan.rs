//! What a reconciliation decides: changes as data, what to tell once they happened, when to look again.

use std::time::Duration;

use machinery::Object;
use objects::{Delete, Kind, Meta, Occurrence, Question, TypedRef, Write};
use serde_json::{Map, Value};

use crate::notes::Notes;

/// The longest wait for the next look: what is further away is looked at then, and waited for again. Tolerations and deadlines come
/// from users who write a pod or a Job, and no clock goes as far as they may say.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a reconciliation decides. Its actions don't depend on each other and are carried out together;
/// what depends on them is decided by the next reconciliation, which they bring about.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The changes to make.
    pub actions: Vec<Action>,
    /// What to tell whether anything changes or not.
    pub told: Vec<Occurrence>,
    /// What is asked of the API: the key is reconciled again once there are answers.
    pub ask: Vec<Question>,
    /// What the key is to remember while this member leads; nothing: what it did before.
    pub notes: Option<Notes>,
    /// When to reconcile again even if nothing changes until then.
    pub again_in: Option<Duration>,
    /// For how long not to reconcile again whatever changes: that is then looked at together.
    pub pause: Duration,
}

/// One change and what to tell about it.
#[derive(Debug, PartialEq)]
pub struct Action {
    /// The change.
    pub write: Write,
    /// What to tell once it happened.
    pub done: Vec<Note>,
    /// What to tell if it was refused.
    pub refused: Option<Occurrence>,
    /// What to write if it was refused; in its texts, `{}` stands for the reason. Of several actions of a plan that
    /// are refused, the first one's is written.
    pub otherwise: Option<Write>,
}

/// Something to tell. In its texts, `{}` stands for the name of the object that was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A line of the timeline.
    Timeline {
        /// What happened.
        what: &'static str,
        /// To whom: a host, `namespace/pod` or `namespace/service`.
        subject: String,
        /// The pod that it is about, where that is not the subject.
        pod: Option<String>,
    },
    /// A Kubernetes Event.
    Event(Occurrence),
}

impl Plan {
    /// Adds a change that needs no report.
    pub fn write(&mut self, write: Write) {
        self.actions.push(write.into());
    }

    /// Asks to be reconciled again after `wait`, or earlier if that was asked for before, or if it is very long.
    pub fn again(&mut self, wait: Duration) {
        let wait = wait.min(LONGEST_WAIT);
        self.again_in = Some(self.again_in.map_or(wait, |other| other.min(wait)));
    }
}

impl From<Write> for Action {
    fn from(write: Write) -> Self {
        Action { write, done: Vec::new(), refused: None, otherwise: None }
    }
}

impl Action {
    /// The same change, telling `note` once it happened.
    pub fn telling(mut self, note: Note) -> Self {
        self.done.push(note);
        self
    }

    /// The same change, with what to write if it is refused.
    pub fn or_else(mut self, write: Write) -> Self {
        self.otherwise = Some(write);
        self
    }
}

/// A write for when another was refused, with the reason in its place.
pub fn with_reason(mut write: Write, reason: &str) -> Write {
    if let Write::Merge { patch, .. } = &mut write {
        fill(patch, reason);
    }
    write
}

fn fill(value: &mut Value, reason: &str) {
    match value {
        Value::String(text) if text.contains("{}") => *text = text.replace("{}", reason),
        Value::Array(list) => list.iter_mut().for_each(|value| fill(value, reason)),
        Value::Object(map) => map.values_mut().for_each(|value| fill(value, reason)),
        _ => {}
    }
}

/// A merge into an object or one of its subresources.
pub(crate) fn merge<T: Kind>(object: &T, subresource: &'static str, patch: Value) -> Write {
    Write::Merge { subject: TypedRef::of(object), subresource, patch }
}

/// A merge that holds only for the version of the object that was looked at.
pub(crate) fn merge_this<T: Kind>(object: &T, subresource: &'static str, mut patch: Value) -> Write {
    if let Some(version) = object.metadata().resource_version() {
        patch["metadata"]["resourceVersion"] = version.into();
    }
    merge(object, subresource, patch)
}

/// The deletion of this very object, and of no later one of its name.
pub(crate) fn delete<T: Kind>(object: &T) -> Write {
    let options = Delete { uid: object.metadata().uid().map(str::to_owned), ..Delete::default() };
    Write::Delete { subject: TypedRef::of(object), options }
}

/// The creation of a typed object.
pub(crate) fn create<T: Kind + serde::Serialize>(object: &T) -> Option<Write> {
    serde_json::to_value(object).ok().and_then(Object::from_value).map(Write::Create)
}

/// The merge patch that makes `current` equal `wanted`, or nothing if it does already. A field that is
/// `null` in `wanted` shall be absent.
pub(crate) fn difference(current: Option<&Value>, wanted: &Map<String, Value>) -> Option<Value> {
    let mut patch = Map::new();
    for (field, value) in wanted {
        let is = current.and_then(|current| current.get(field)).unwrap_or(&Value::Null);
        if is != value {
            patch.insert(field.clone(), value.clone());
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_wait_is_longer_than_a_clock_goes() {
        let mut plan = Plan::default();
        plan.again(Duration::from_secs(u64::MAX));
        assert_eq!(plan.again_in, Some(LONGEST_WAIT));
        plan.again(Duration::from_secs(1));
        assert_eq!(plan.again_in, Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_difference_is_what_has_to_be_written() {
        let wanted = |value: Value| value.as_object().cloned().unwrap();
        let current = json!({"replicas": 3, "old": 1});
        assert_eq!(difference(Some(&current), &wanted(json!({"replicas": 3, "none": null}))), None);
        assert_eq!(
            difference(Some(&current), &wanted(json!({"replicas": 4, "old": null}))),
            Some(json!({"replicas": 4, "old": null}))
        );
        assert_eq!(difference(None, &wanted(json!({"replicas": 0}))), Some(json!({"replicas": 0})));
    }
}
