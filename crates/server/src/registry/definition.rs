//! What is particular about CustomResourceDefinitions: their objects go before them.

use std::borrow::Cow;

use machinery::{Definition, Object, Resource, Status};
use serde_json::{Value, json};
use store::{Compare, Condition, Revision, State};

use super::Registry;

impl Registry {
    /// A resource as its definition is by now, if it has one: what is written follows the schema that counts.
    pub(super) fn current<'a>(
        &self,
        resource: &'a Resource,
        state: &State,
    ) -> Result<Cow<'a, Resource>, Status> {
        let Some(custom) = resource.custom() else { return Ok(Cow::Borrowed(resource)) };
        let definitions = self.definitions_at(state);
        let known = definitions.get(custom.definition().name());
        if known.is_some_and(|known| known.revision() == custom.definition().revision()) {
            return Ok(Cow::Borrowed(resource));
        }
        let Resource { group, version, plural, .. } = *resource;
        let current = definitions.catalog().resource(group, version, plural).cloned().map(Cow::Owned);
        current.ok_or_else(|| {
            Status::new(404, "NotFound", "the server could not find the requested resource").about("", "", "")
        })
    }
}

/// That the definition of a resource, if it has one, is still what it was when it was read.
pub(super) fn unchanged(resource: &Resource) -> Option<Condition> {
    let definition = resource.custom()?.definition();
    let key = objects::key("apiextensions.k8s.io", "customresourcedefinitions", "", definition.name());
    Some(Condition::ModRevision(key.into(), Compare::Equal, Revision(definition.revision())))
}

/// Whether an object is a CustomResourceDefinition.
pub(super) fn is(object: &Object) -> bool {
    object.kind() == "CustomResourceDefinition" && object.api_version() == "apiextensions.k8s.io/v1"
}

/// Marks a definition as going away once its objects are gone.
pub(super) fn terminate(definition: &mut Object, now: &str) {
    definition.set_meta("deletionTimestamp", now);
    let mut finalizers: Vec<String> = definition.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|finalizer| finalizer == Definition::CLEANUP) {
        finalizers.push(Definition::CLEANUP.to_owned());
    }
    definition.set_meta("finalizers", finalizers);
    let pending = json!({
        "type": "Terminating", "status": "True", "lastTransitionTime": now, "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will be initiated soon",
    });
    let status = definition.0.entry("status").or_insert_with(|| json!({}));
    let conditions = match status {
        Value::Object(status) => status.entry("conditions").or_insert_with(|| json!([])),
        _ => return,
    };
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Value::Array(list) = conditions {
        list.retain(|condition| condition["type"] != "Terminating");
        list.push(pending);
    }
}
