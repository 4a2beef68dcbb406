//! `Event`.

use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object, Resource, time};
use serde_json::{Value, json};

use super::field::segment_fault;
use crate::kinds::resource_of_kind;

pub(crate) struct Event;

impl Rules for Event {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (0, 0)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn in_version(&self, api_version: &str) -> Option<&'static Resource> {
        resource_of_kind(api_version, "Event")
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        segment_fault(name)
    }

    fn looks_at_prefix(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let about = object.pointer("/involvedObject/namespace").and_then(Value::as_str).unwrap_or_default();
        // Events about cluster-scoped objects lie in `default`.
        let expected = if about.is_empty() { "default" } else { about };
        if object.namespace() != expected && !(about.is_empty() && object.namespace() == "kube-system") {
            let why = "does not match event.namespace";
            faults.push(Cause::invalid("involvedObject.namespace", &json!(about), why));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("involvedObject.kind", "/involvedObject/kind"),
            ("involvedObject.namespace", "/involvedObject/namespace"),
            ("involvedObject.name", "/involvedObject/name"),
            ("involvedObject.uid", "/involvedObject/uid"),
            ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
            ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
            ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
            ("reason", "/reason"),
            ("reportingComponent", "/reportingComponent"),
            ("source", "/source/component"),
            ("type", "/type"),
        ]
    }

    /// Newer clients say in one field who reports.
    fn selectable_otherwise(&self) -> &'static [(&'static str, &'static str)] {
        &[("/source/component", "/reportingComponent")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Last Seen"),
                Column::text("Type"),
                Column::text("Reason"),
                Column::text("Object"),
                Column::wide("Subobject"),
                Column::wide("Source"),
                Column::text("Message"),
                Column::wide("First Seen"),
                Column::wide("Count"),
                Column::wide("Name"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let or_empty = |pointer: &str| text(pointer).unwrap_or_default();
        let first = text("/firstTimestamp").or_else(|| text("/eventTime"));
        let (mut last, mut count) =
            (text("/lastTimestamp").or(first), object.0.get("count").and_then(Value::as_i64));
        if object.0.get("series").is_some_and(Value::is_object) {
            last = text("/series/lastObservedTime");
            count = object.pointer("/series/count").and_then(Value::as_i64);
        }
        let kind = or_empty("/involvedObject/kind").to_lowercase();
        let target = match or_empty("/involvedObject/name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let pair =
            |component: &'static str, instance: &'static str| match (or_empty(component), or_empty(instance))
            {
                (component, "") => component.to_owned(),
                (component, instance) => format!("{component}, {instance}"),
            };
        let source = match pair("/source/component", "/source/host") {
            source if source.is_empty() => pair("/reportingComponent", "/reportingInstance"),
            source => source,
        };
        vec![
            time::age(last, now).into(),
            or_empty("/type").into(),
            or_empty("/reason").into(),
            target.into(),
            or_empty("/involvedObject/fieldPath").into(),
            source.into(),
            or_empty("/message").trim().into(),
            time::age(first, now).into(),
            count.filter(|count| *count != 0).unwrap_or(1).into(),
            object.name().into(),
        ]
    }
}
