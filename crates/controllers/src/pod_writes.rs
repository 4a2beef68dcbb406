//! Making and deleting the pods of an owner, with the Events about it (`RealPodControl` of
//! `pkg/controller/controller_utils.go`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{Kind, Meta, Occurrence, Pod, Write};
use serde_json::{Value, json};

use machinery::Object;

use crate::plan::{Action, Note, delete};

/// The reference by which what a controller makes names the object that it was made for.
pub(crate) fn owner_reference<T: Kind>(owner: &T) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        name: metadata.name().to_owned(),
        uid: metadata.uid().unwrap_or_default().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod of an owner's template as it is stored: fields that the typed structs don't know stay in it.
pub(crate) fn from_template<T: Kind>(owner: &T, template: &Value, generate_name: &str) -> Option<Value> {
    let mut metadata = json!({"generateName": generate_name, "namespace": owner.metadata().namespace()});
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| !v.is_null()) {
            metadata[field] = value.clone();
        }
    }
    metadata["ownerReferences"] = json!([owner_reference(owner)]);
    Some(json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": template.get("spec")?}))
}

/// Makes a pod for its owner.
pub(crate) fn creation<T: Kind>(owner: &T, pod: Object) -> Action {
    let namespace = owner.metadata().namespace();
    let told = Occurrence::of(owner, false, "SuccessfulCreate", "Created pod: {}".to_owned());
    let mut action = Action::from(Write::Create(pod))
        .telling(Note::Timeline { what: "pod-created", subject: format!("{namespace}/{{}}"), pod: None })
        .telling(Note::Event(told));
    action.refused = Some(Occurrence::of(owner, true, "FailedCreate", "Error creating: {}".to_owned()));
    action
}

/// Deletes a pod for its owner.
pub(crate) fn deletion<T: Kind>(owner: &T, pod: &Pod) -> Action {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let told = Occurrence::of(owner, false, "SuccessfulDelete", format!("Deleted pod: {name}"));
    let mut action = Action::from(delete(pod)).telling(Note::Event(told));
    action.refused = Some(Occurrence::of(owner, true, "FailedDelete", "Error deleting: {}".to_owned()));
    action
}
