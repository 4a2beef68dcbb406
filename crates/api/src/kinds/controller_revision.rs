//! `ControllerRevision`.

use machinery::rules::{Column, Rules, age, number};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::workload::{validate_stays, validate_value_not_negative};

pub(crate) struct ControllerRevision;

impl Rules for ControllerRevision {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        if !object.0.get("data").is_some_and(Value::is_object) {
            faults.push(Cause::required("data", "data is mandatory"));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let revision = object.0.get("revision").unwrap_or(&Value::Null);
        validate_value_not_negative(revision, "revision".into(), faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        validate_stays(object, old, "/data", faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Controller"), Column::text("Revision"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let owners = object.meta("ownerReferences").and_then(Value::as_array);
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let controller = controller.map_or_else(|| "<none>".to_owned(), qualified);
        vec![json!(object.name()), controller.into(), number(object, "/revision").into(), age(object, now)]
    }
}

/// `statefulset.apps/web`
fn qualified(owner: &Value) -> String {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let kind = text("kind").to_lowercase();
    match text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text("name")),
        None => format!("{kind}/{}", text("name")),
    }
}
