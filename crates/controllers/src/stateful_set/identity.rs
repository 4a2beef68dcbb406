//! What makes a pod the one of its ordinal: name, host name, labels, claims (`stateful_set_utils.go`).

use objects::Pod;
use serde_json::{Value, json};

use super::{Set, claims};
use crate::history::POD_LABEL;
use crate::kept::StatefulSet;
use crate::pod_writes;

/// The label with a pod's name, by which a Service may mean one pod alone.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label with a pod's ordinal (KEP-4017).
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The two parts of `NAME-ORDINAL`; nothing if it isn't written as an ordinal is.
pub(super) fn parse(name: &str) -> Option<(&str, i32)> {
    let (owner, digits) = name.rsplit_once('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some((owner, ordinal))
}

/// The ordinal of a pod, if it is one of the set by its name.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (owner, ordinal) = parse(pod.metadata.name.as_deref()?)?;
    (Some(owner) == set.metadata.name.as_deref()).then_some(ordinal)
}

/// The name of the pod of an ordinal.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The revision of a pod.
pub(super) fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_deref()?.get(POD_LABEL).map(String::as_str)
}

/// The pod of an ordinal, of a template that is the one of the revision named.
pub(super) fn pod(set: &Set<'_>, template: &Value, revision: &str, ordinal: i32) -> Option<Value> {
    let name = pod_name(set.set, ordinal);
    let mut pod = pod_writes::from_template(set.set, template, "")?;
    let metadata = pod.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("generateName");
    metadata.insert("name".into(), name.as_str().into());
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    labels[NAME_LABEL] = name.as_str().into();
    labels[INDEX_LABEL] = ordinal.to_string().into();
    labels[POD_LABEL] = revision.into();
    let spec = pod.get_mut("spec")?.as_object_mut()?;
    spec.insert("hostname".into(), name.into());
    if let Some(service) = set.spec.service_name.as_deref().filter(|service| !service.is_empty()) {
        spec.insert("subdomain".into(), service.into());
    }
    let volumes = claims::volumes(set, spec.get("volumes"), ordinal);
    if !volumes.is_empty() {
        spec.insert("volumes".into(), volumes.into());
    }
    Some(pod)
}

/// What a pod lacks of what its ordinal makes of it, as a merge patch; nothing if it lacks nothing. Other claims can't be
/// mended: the API refuses that patch, and its refusal becomes the Event.
pub(super) fn lacking(set: &Set<'_>, pod: &Pod, ordinal: i32) -> Option<Value> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let label = pod.metadata.labels.as_deref().and_then(|labels| labels.get(NAME_LABEL));
    let is_named = label.map(String::as_str) == Some(name);
    let has_claims = claims::are_used_by(set, pod, ordinal);
    if is_named && has_claims {
        return None;
    }
    let mut patch = json!({"metadata": {"labels": {(NAME_LABEL): name, (INDEX_LABEL): ordinal.to_string()}}});
    if !has_claims {
        let stored = set.view.json(pod)?;
        patch["spec"] = json!({"volumes": claims::volumes(set, stored.pointer("/spec/volumes"), ordinal)});
    }
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinal_is_written_in_one_way() {
        for (name, parts) in [
            ("web-0", Some(("web", 0))),
            ("a-b-12", Some(("a-b", 12))),
            ("web-01", None),
            ("web-+1", None),
            ("web-", None),
            ("web", None),
            ("web-4294967296", None),
        ] {
            assert_eq!(parse(name), parts, "{name}");
        }
    }
}
