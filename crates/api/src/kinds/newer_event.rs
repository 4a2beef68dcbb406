//! `Event` of `events.k8s.io`: the same events as those of the core group, in whose form they are stored, with
//! other names for some fields.

use machinery::name::{qualified_fault, qualified_faults};
use machinery::rules::{Column, Rules, text};
use machinery::{Cause, Faults, Object, Resource};
use serde_json::{Value, json};

use super::event::Event;
use crate::kinds::{resource, resource_of_kind};

pub(crate) struct NewerEvent;

/// Names here, and in the core group.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// How long texts may be, in bytes.
const LONGEST_NAME: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// What of an event stays as it is, under the names that the core group has for it, as often as upstream looks at it.
const KEPT: [(&str, &str); 14] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reason", "reason"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

impl Rules for NewerEvent {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn stored_as(&self) -> Option<&'static Resource> {
        resource("", "v1", "events")
    }

    fn in_version(&self, api_version: &str) -> Option<&'static Resource> {
        resource_of_kind(api_version, "Event")
    }

    fn to_stored(&self, object: &mut Object) {
        object.0.insert("apiVersion".into(), "v1".into());
        for (here, core) in NAMES {
            rename(object, here, core);
        }
        // The core group always has these two.
        for field in ["reportingComponent", "reportingInstance"] {
            object.0.entry(field).or_insert_with(|| "".into());
        }
        for field in ["involvedObject", "source"] {
            object.0.entry(field).or_insert_with(|| json!({}));
        }
    }

    fn to_served(&self, object: &mut Object) {
        object.0.insert("apiVersion".into(), "events.k8s.io/v1".into());
        for (here, core) in NAMES {
            rename(object, core, here);
        }
        for field in ["reportingController", "reportingInstance"] {
            if object.0.get(field).is_some_and(|value| value == "") {
                object.0.remove(field);
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_namespace(object, faults);
        for field in ["reportingController", "reportingInstance", "action", "reason"] {
            let value = text(object, &format!("/{field}"));
            if value.is_empty() {
                faults.push(Cause::required(field, ""));
            }
            let why = if field == "reportingController" { qualified_fault(value) } else { None };
            if let Some(why) = why {
                let times = qualified_faults(value).count();
                (0..times).for_each(|_| faults.push(Cause::invalid(field, &json!(value), why)));
            } else if value.len() > LONGEST_NAME {
                let why = format!("can have at most {LONGEST_NAME} characters");
                faults.push(Cause::invalid(field, &"".into(), &why));
            }
        }
        if text(object, "/note").len() > LONGEST_NOTE {
            let why = format!("can have at most {LONGEST_NOTE} characters");
            faults.push(Cause::invalid("message", &"".into(), &why));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let field = |object: &Object, field: &str| object.0.get(field).unwrap_or(&null).clone();
        if field(object, "series") != field(old, "series") {
            validate_series(&field(object, "series"), faults);
        }
        for (here, core) in KEPT {
            let value = field(object, here);
            if value != field(old, here) {
                faults.push(Cause::invalid(core, &value, "field is immutable"));
            }
        }
    }

    /// What old events don't have, an update doesn't ask for.
    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        if object.0.get("eventTime").is_none_or(Value::is_null) {
            faults.push(Cause::required("eventTime", ""));
        }
        if !matches!(text(object, "/type"), "Normal" | "Warning") {
            let value = object.0.get("type").unwrap_or(&Value::Null);
            faults.push(Cause::invalid("type", value, "has invalid value"));
        }
        for (field, core) in [
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
        ] {
            let value = object.0.get(field).unwrap_or(&Value::Null);
            if !value.is_null() && *value != 0 {
                faults.push(Cause::invalid(core, value, "needs to be unset"));
            }
        }
        if object
            .0
            .get("deprecatedSource")
            .and_then(Value::as_object)
            .is_some_and(|source| !source.is_empty())
        {
            let value = object.0.get("deprecatedSource").unwrap_or(&Value::Null);
            faults.push(Cause::invalid("source", value, "needs to be unset"));
        }
        validate_series(object.0.get("series").unwrap_or(&Value::Null), faults);
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("regarding.kind", "/regarding/kind"),
            ("regarding.namespace", "/regarding/namespace"),
            ("regarding.name", "/regarding/name"),
            ("regarding.uid", "/regarding/uid"),
            ("regarding.apiVersion", "/regarding/apiVersion"),
            ("regarding.resourceVersion", "/regarding/resourceVersion"),
            ("regarding.fieldPath", "/regarding/fieldPath"),
            ("reason", "/reason"),
            ("reportingController", "/reportingController"),
            ("type", "/type"),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        Event.columns()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let mut stored = object.clone();
        self.to_stored(&mut stored);
        Event.cells(&stored, now)
    }
}

/// A series is of more than one, and says when the last one was.
fn validate_series(series: &Value, faults: &mut Faults) {
    if series.is_null() {
        return;
    }
    if series["count"].as_i64().unwrap_or_default() < 2 {
        faults.push(Cause::invalid("series.count", &series["count"], "should be at least 2"));
    }
    if series["lastObservedTime"].is_null() {
        faults.push(Cause::required("series.lastObservedTime", ""));
    }
}

/// Where an event of something that lies in no namespace may lie.
fn validate_namespace(object: &Object, faults: &mut Faults) {
    let about = text(object, "/regarding/namespace");
    if about.is_empty() && !matches!(object.namespace(), "default" | "kube-system") {
        let why = "does not match event.namespace";
        faults.push(Cause::invalid("involvedObject.namespace", &json!(about), why));
    }
}

fn rename(object: &mut Object, from: &str, to: &str) {
    if let Some(value) = object.0.remove(from) {
        object.0.insert(to.to_owned(), value);
    }
}
